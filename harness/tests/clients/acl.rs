//! Grants and takes permissions of a topic, in Kafka's own protocol: rdkafka has no call for it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

const CREATE: i16 = 30;
const DELETE: i16 = 31;
/// The newest version of both before the compact format.
const VERSION: i16 = 1;
const TOPIC: u8 = 2;
const LITERAL: u8 = 3;
/// Operations.
const ANY: u8 = 1;
const ALL: u8 = 2;
const WRITE: u8 = 4;
/// Permissions; as a filter 1 is any of them.
const DENY: u8 = 2;
const ALLOW: u8 = 3;
/// Whom a listener without authentication takes everybody for.
const EVERYBODY: &str = "User:ANONYMOUS";

/// Lets nobody write to a topic; everything else stays allowed.
pub fn deny_write(broker: &str, topic: &str) {
    let entry = |operation: u8, permission: u8| {
        [&[TOPIC][..], &text(topic), &[LITERAL], &text(EVERYBODY), &text("*"), &[operation, permission]]
            .concat()
    };
    ask(broker, CREATE, &[entry(ALL, ALLOW), entry(WRITE, DENY)]);
}

/// Takes back all that was set for a topic.
pub fn allow(broker: &str, topic: &str) {
    let null = (-1_i16).to_be_bytes();
    let filter = [&[TOPIC][..], &text(topic), &[LITERAL], &null, &null, &[ANY, 1]].concat();
    ask(broker, DELETE, &[filter]);
}

fn text(value: &str) -> Vec<u8> {
    [&i16::try_from(value.len()).unwrap().to_be_bytes()[..], value.as_bytes()].concat()
}

/// A request with entries; panics where the broker refuses one.
fn ask(broker: &str, kind: i16, entries: &[Vec<u8>]) {
    let count = i32::try_from(entries.len()).unwrap().to_be_bytes();
    let head = [&kind.to_be_bytes()[..], &VERSION.to_be_bytes(), &7_i32.to_be_bytes(), &text("acl")].concat();
    let request = [&head[..], &count, &entries.concat()].concat();
    let mut stream = TcpStream::connect(broker).unwrap();
    stream.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    // Correlation id, throttle time and the number of results; of the first its error.
    assert_eq!((&answer[..4], &answer[12..14]), (&7_i32.to_be_bytes()[..], &[0, 0][..]), "{answer:?}");
}
