//! Whether a part answers in its own protocol, and not merely listens.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::stack::Part;

/// ApiVersions request, version 0 (Kafka protocol guide): length 10, key 18, version 0, correlation id 1, no client id.
const KAFKA: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// OP_MSG (MongoDB wire protocol): 51 bytes, request id 1, opcode 2013 = 0x07dd, no flags, one body section with the
/// document `{ping: 1, $db: "admin"}`.
const MONGODB: &[u8] = b"\x33\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\
    \x1e\0\0\0\x10ping\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";

/// Startup message, protocol 3.0 (PostgreSQL, "Message Formats"): length, 196608, names and values, an empty name.
const POSTGRES: &[u8] = b"\0\0\0\x2b\0\x03\0\0user\0milestream\0database\0postgres\0\0";

/// Whether the part at the port answers as it should.
pub(crate) fn answers(part: Part, port: u16) -> bool {
    match part {
        // R is AuthenticationOk; while it starts up or recovers, it answers E.
        Part::Postgres => ask(port, POSTGRES).first() == Some(&b'R'),
        Part::Kafka => ask(port, &KAFKA).len() > 4,
        Part::Mongodb => ask(port, MONGODB).len() > 16,
        Part::Registry => http(port, "/apis/ccompat/v7/subjects"),
        Part::Prometheus => http(port, "/-/ready"),
    }
}

fn http(port: u16, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    // HTTP/1.0 200 OK
    ask(port, request.as_bytes()).get(8..12) == Some(b" 200")
}

/// Sends, and gives the first bytes of the answer; none when there is no answer.
fn ask(port: u16, request: &[u8]) -> Vec<u8> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) else {
        return Vec::new();
    };
    let mut answer = vec![0; 64];
    let asked =
        stream.set_read_timeout(Some(Duration::from_secs(2))).and_then(|()| stream.write_all(request));
    match asked.and_then(|()| stream.read(&mut answer)) {
        Ok(length) => answer[..length].to_vec(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_inside_the_requests_are_right() {
        assert_eq!(usize::from(KAFKA[3]) + 4, KAFKA.len());
        assert_eq!(usize::from(MONGODB[0]), MONGODB.len());
        assert_eq!(usize::from(MONGODB[21]), MONGODB[21..].len());
        assert_eq!(usize::from(POSTGRES[3]), POSTGRES.len());
    }
}
