//! Whether a part responds in its own protocol, and not merely listens.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::part::Part;

/// ApiVersions request, version 0 (Kafka protocol guide): length 10, key 18, version 0, correlation id 1, no client id.
const KAFKA: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// OP_MSG (MongoDB wire protocol): 51 bytes, request id 1, opcode 2013 = 0x07dd, no flags, one section with the
/// document `{ping: 1, $db: "admin"}`.
const MONGODB: &[u8] = b"\x33\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\
    \x1e\0\0\0\x10ping\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";

/// Startup message, protocol 3.0 (PostgreSQL, "Message Formats"): length, 196608, names and values, an empty name.
const POSTGRES: &[u8] = b"\0\0\0\x2b\0\x03\0\0user\0milestream\0database\0postgres\0\0";

/// Longest response that is read whole, in bytes; a block without transactions has 1 kB.
const LONGEST: u64 = 64 * 1024;

/// Whether the part at the port responds as it should.
pub(crate) fn responds(part: Part, port: u16) -> bool {
    match part {
        // R is AuthenticationOk; while it starts up or recovers, it responds with E.
        Part::Postgres => ask(port, POSTGRES).first() == Some(&b'R'),
        Part::Kafka => ask(port, &KAFKA).len() > 4,
        Part::Mongodb => ask(port, MONGODB).len() > 16,
        Part::Registry => http(port, "/apis/ccompat/v7/subjects"),
        Part::Prometheus => http(port, "/-/ready"),
        Part::Thor => http_object(port, "/blocks/best"),
    }
}

fn http(port: u16, path: &str) -> bool {
    is_ok(&ask(port, get(path).as_bytes()))
}

/// Whether the whole response is a JSON object, as far as its ends show.
fn http_object(port: u16, path: &str) -> bool {
    let response = exchange(port, get(path).as_bytes(), |stream| {
        let mut response = Vec::new();
        stream.take(LONGEST).read_to_end(&mut response)?;
        Ok(response)
    });
    is_ok(&response) && has_object(&response)
}

/// HTTP/1.0, so that the response ends with the connection.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")
}

fn is_ok(response: &[u8]) -> bool {
    // HTTP/1.0 200 OK
    response.get(8..12) == Some(b" 200")
}

/// Whether the body, which an empty line parts from the header, is a JSON object.
fn has_object(response: &[u8]) -> bool {
    let line = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = line.and_then(|at| response.get(at + 4..)).unwrap_or_default().trim_ascii();
    body.len() > 1 && body.starts_with(b"{") && body.ends_with(b"}")
}

/// Sends, and gives the first bytes of the response; none when there is no response.
fn ask(port: u16, request: &[u8]) -> Vec<u8> {
    exchange(port, request, |stream| {
        let mut response = vec![0; 64];
        let length = stream.read(&mut response)?;
        response.truncate(length);
        Ok(response)
    })
}

fn exchange(port: u16, request: &[u8], read: impl FnOnce(&mut TcpStream) -> io::Result<Vec<u8>>) -> Vec<u8> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) else {
        return Vec::new();
    };
    let asked =
        stream.set_read_timeout(Some(Duration::from_secs(2))).and_then(|()| stream.write_all(request));
    asked.and_then(|()| read(&mut stream)).unwrap_or_default()
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

    #[test]
    fn only_a_whole_object_is_the_response_of_a_node() {
        let response =
            |body: &str| format!("HTTP/1.0 200 OK\r\nVary: Accept-Encoding\r\n\r\n{body}").into_bytes();
        assert!(has_object(&response("{\"number\":0,\"transactions\":[]}\n")));
        for other in ["", "null\n", "{", "{\"number\":0,", "<html></html>"] {
            assert!(!has_object(&response(other)), "{other}");
        }
        assert!(!has_object(b"HTTP/1.0 200 OK\r\nX: {}"));
        assert!(is_ok(&response("")) && !is_ok(b"HTTP/1.0 503 Service Unavailable\r\n\r\n{}"));
    }
}
