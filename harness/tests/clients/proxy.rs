//! A TCP proxy in front of a broker that can falsify one response: to a request for metadata, as a broker gives it that thaws while it
//! is fenced (topics, and no brokers), or to a record, with an error in place of its offset. The brokers' own address is
//! rewritten, so that clients stay behind the proxy.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Kafka's request type that appends records.
const PRODUCE: i16 = 0;
/// Kafka's request types that name brokers' addresses in their responses.
const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;
/// The first version of responses in the compact format, of both types.
const COMPACT: i16 = 9;

#[derive(Default)]
struct Rules {
    /// The client whose next metadata response is falsified.
    victim: Option<String>,
    /// With the false response every connection ends, as the broker's freeze ends them.
    cuts: bool,
    /// The topic whose next record is answered with an error.
    fails: Option<(String, u16)>,
    falsified: usize,
    connections: Vec<TcpStream>,
}

pub struct Proxy {
    port: u16,
    rules: Arc<Mutex<Rules>>,
}

/// What must be known of a request to falsify its response: type, version, and who asked.
type Asked = Arc<Mutex<HashMap<[u8; 4], (i16, i16, String)>>>;

impl Proxy {
    /// A proxy for the broker at `upstream`, a host and a port.
    pub fn to(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let rules = Arc::<Mutex<Rules>>::default();
        let (shared, upstream) = (rules.clone(), upstream.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&upstream) else { continue };
                let real = upstream.rsplit_once(':').unwrap().1.parse().unwrap();
                pair(client, server, (real, port), &shared);
            }
        });
        Self { port, rules }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The next metadata response to this client names topics and no brokers.
    pub fn falsify_once(&self, client: &str) {
        self.rules.lock().unwrap().victim = Some(client.to_owned());
    }

    /// The same, and all present connections end right behind it.
    pub fn falsify_once_and_cut(&self, client: &str) {
        self.rules.lock().unwrap().cuts = true;
        self.falsify_once(client);
    }

    /// The next answer to a record of this topic is an error, although the broker has taken it.
    pub fn fail_produce_once(&self, topic: &str, error: u16) {
        self.rules.lock().unwrap().fails = Some((topic.to_owned(), error));
    }

    pub fn falsified(&self) -> usize {
        self.rules.lock().unwrap().falsified
    }
}

fn pair(client: TcpStream, server: TcpStream, ports: (u16, u16), rules: &Arc<Mutex<Rules>>) {
    let asked = Asked::default();
    let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (questions, rules) = (asked.clone(), rules.clone());
    rules.lock().unwrap().connections.push(client.try_clone().unwrap());
    std::thread::spawn(move || {
        frames(from_client, server, |frame| {
            let name = usize::from(u16::from_be_bytes([frame[8], frame[9]]));
            let who = String::from_utf8_lossy(frame.get(10..10 + name).unwrap_or_default()).into_owned();
            let kind = i16::from_be_bytes([frame[0], frame[1]]);
            let version = i16::from_be_bytes([frame[2], frame[3]]);
            let id = [frame[4], frame[5], frame[6], frame[7]];
            questions.lock().unwrap().insert(id, (kind, version, who));
        });
    });
    std::thread::spawn(move || {
        frames(from_server, client, |frame| {
            let id = [frame[0], frame[1], frame[2], frame[3]];
            let Some((kind, version, who)) = asked.lock().unwrap().remove(&id) else { return };
            if kind == METADATA || kind == FIND_COORDINATOR {
                rewrite_port(frame, ports);
            }
            let mut rules = rules.lock().unwrap();
            if kind == METADATA && version >= COMPACT && rules.victim.as_deref() == Some(who.as_str()) {
                remove_brokers(frame);
                (rules.victim, rules.falsified) = (None, rules.falsified + 1);
                if rules.cuts {
                    cut_behind(std::mem::take(&mut rules.connections));
                }
            }
            if kind == PRODUCE && version >= COMPACT {
                let fails = rules.fails.clone();
                if fails.is_some_and(|(topic, error)| fail_first(frame, &topic, error)) {
                    (rules.fails, rules.falsified) = (None, rules.falsified + 1);
                }
            }
        });
    });
}

/// Ends connections once the response that is on its way has arrived.
fn cut_behind(connections: Vec<TcpStream>) {
    std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_millis(200));
        connections.iter().for_each(|connection| drop(connection.shutdown(Shutdown::Both)));
    });
}

/// Passes length-prefixed frames on, each changed by `change`.
fn frames(mut from: TcpStream, mut to: TcpStream, mut change: impl FnMut(&mut Vec<u8>)) {
    let mut length = [0; 4];
    while from.read_exact(&mut length).is_ok() {
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        if from.read_exact(&mut frame).is_err() {
            break;
        }
        change(&mut frame);
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        if to.write_all(&length).is_err() || to.write_all(&frame).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// The broker's address is its host, then four bytes of port, in every version of the protocol.
fn rewrite_port(frame: &mut [u8], (real, own): (u16, u16)) {
    for host in ["127.0.0.1", "localhost"] {
        let pattern = [host.as_bytes(), &u32::from(real).to_be_bytes()].concat();
        let mut at = 0;
        while let Some(found) = frame[at..].windows(pattern.len()).position(|window| window == pattern) {
            let end = at + found + pattern.len();
            frame[end - 4..end].copy_from_slice(&u32::from(own).to_be_bytes());
            at = end;
        }
    }
}

/// Correlation id, tagged fields, throttle time, then the brokers: node, host, port, rack, tagged fields each.
fn remove_brokers(frame: &mut Vec<u8>) {
    let start = 4 + 1 + 4;
    let (count, mut at) = varint(frame, start);
    for _ in 1..count {
        at += 4;
        let (host, after) = varint(frame, at);
        at = after + host - 1 + 4;
        let (rack, after) = varint(frame, at);
        at = after + rack.saturating_sub(1);
        let (tags, after) = varint(frame, at);
        assert_eq!(tags, 0, "a broker with tagged fields");
        at = after;
    }
    frame.splice(start..at, [1]);
}

/// Correlation id, tagged fields, then the topics: of the first its name and partitions; of the first of these its number and error. False
/// where the first topic is another.
fn fail_first(frame: &mut [u8], topic: &str, error: u16) -> bool {
    let (_, at) = varint(frame, 4 + 1);
    let (name, at) = varint(frame, at);
    let end = at + name - 1;
    if frame.get(at..end) != Some(topic.as_bytes()) {
        return false;
    }
    let (_, at) = varint(frame, end);
    frame[at + 4..at + 6].copy_from_slice(&error.to_be_bytes());
    true
}

fn varint(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[at];
        value |= usize::from(byte & 0x7F) << shift;
        (at, shift) = (at + 1, shift + 7);
        if byte < 0x80 {
            return (value, at);
        }
    }
}
