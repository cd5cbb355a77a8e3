//! The PROXY protocol, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`): a proxy that passes bytes on without reading HTTP writes
//! before them who has connected to it. Only as many bytes are read as the header has: what follows is the first request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What each header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the longest header of version 1, its end included.
const LONGEST_V1: usize = 107;
/// Bytes after the first sixteen of version 2 at most: 36 of addresses, and what a balancer adds, which is some hundred bytes at AWS and
/// more where it passes a certificate on.
const LONGEST_V2: usize = 4_096;

/// Why a connection does not begin as it must.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadHeader {
    /// It ended, or broke, before the header did.
    #[error("it ends within the PROXY header: {0}")]
    Cut(#[from] std::io::Error),
    /// Neither version.
    #[error("it begins with no PROXY header: is the proxy set to send one?")]
    Missing,
    /// A header that says nothing that can be understood.
    #[error("its PROXY header is malformed: {0}")]
    Malformed(&'static str),
}

/// Reads the header. The address that the proxy was connected from; none where the proxy speaks for itself, or does not know.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, BadHeader> {
    let mut head = [0; SIGNATURE.len()];
    stream.read_exact(&mut head).await?;
    if head == SIGNATURE {
        return version_2(stream).await;
    }
    if !head.starts_with(b"PROXY ") {
        return Err(BadHeader::Missing);
    }
    let mut line = head.to_vec();
    while !line.ends_with(b"\n") {
        if line.len() == LONGEST_V1 {
            return Err(BadHeader::Malformed("a line of more than 107 bytes"));
        }
        line.push(stream.read_u8().await?);
    }
    version_1(&line)
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\r\n`.
fn version_1(line: &[u8]) -> Result<Option<SocketAddr>, BadHeader> {
    let text = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n"));
    let text = text.ok_or(BadHeader::Malformed("a line that is no text with CR and LF at its end"))?;
    let fields: Vec<&str> = text.split(' ').collect();
    let (family, source, target, ports) = match fields[..] {
        // What follows is nothing that may be believed.
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, target, from, to] => {
            (family, source, target, [from, to])
        }
        _ => return Err(BadHeader::Malformed("other fields than a family, two addresses and two ports")),
    };
    let address = |text: &str| -> Option<IpAddr> {
        if family == "TCP4" {
            text.parse::<Ipv4Addr>().ok().map(IpAddr::from)
        } else {
            text.parse::<Ipv6Addr>().ok().map(IpAddr::from)
        }
    };
    let [Some(source), Some(_)] = [source, target].map(address) else {
        return Err(BadHeader::Malformed("an address that is none of its family"));
    };
    let port =
        |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    let [Some(port), Some(_)] = ports.map(port) else {
        return Err(BadHeader::Malformed("a port that is none"));
    };
    Ok(Some(SocketAddr::new(source.to_canonical(), port)))
}

/// What follows the signature.
async fn version_2(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, BadHeader> {
    let command = stream.read_u8().await?;
    let family = stream.read_u8().await?;
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_V2 {
        return Err(BadHeader::Malformed("more than 4,096 bytes"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match command {
        // The proxy itself, such as its health check.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(BadHeader::Malformed("another version or command")),
    }
    let short = BadHeader::Malformed("addresses that are cut short");
    match family {
        // Source, target, and the port of each.
        0x11 => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *rest.first_chunk().ok_or(short)?;
            Ok(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))))
        }
        0x21 => {
            let addresses: &[u8; 36] = rest.first_chunk().ok_or(short)?;
            let (source, ports): (&[u8; 16], _) = (
                addresses.first_chunk().ok_or(BadHeader::Malformed("no source"))?,
                [addresses[32], addresses[33]],
            );
            let source = IpAddr::from(Ipv6Addr::from(*source)).to_canonical();
            Ok(Some(SocketAddr::new(source, u16::from_be_bytes(ports))))
        }
        // Unknown, and sockets of a machine: who is behind them is the proxy.
        0x00 | 0x31 | 0x32 => Ok(None),
        _ => Err(BadHeader::Malformed("another family or transport than TCP over IP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(bytes: &[u8]) -> Result<(Option<String>, Vec<u8>), String> {
        let mut stream = bytes;
        let found = read(&mut stream).await.map_err(|error| error.to_string())?;
        Ok((found.map(|address| address.to_string()), stream.to_vec()))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest, b"GET /"].concat()
    }

    #[tokio::test]
    async fn either_version_names_the_client_and_leaves_the_first_request_unread() {
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0xc3, 0x50, 1, 0xbb]].concat();
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xc3, 0x50, 1, 0xbb];
        let tagged = [&four[..], &[0xea, 0, 3, 1, 2, 3]].concat();
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\r\nGET /".to_vec(), "192.0.2.1:50000"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\nGET /".to_vec(), "[2001:db8::7]:50000"),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 50000 443\r\nGET /".to_vec(), "192.0.2.1:50000"),
            (v2(0x21, 0x11, &four), "192.0.2.1:50000"),
            (v2(0x21, 0x11, &tagged), "192.0.2.1:50000"),
            (v2(0x21, 0x21, &six), "[2001:db8::7]:50000"),
        ] {
            assert_eq!(said(&bytes).await, Ok((Some(client.to_owned()), b"GET /".to_vec())));
        }
    }

    #[tokio::test]
    async fn a_proxy_that_speaks_for_itself_or_does_not_know_names_nobody() {
        for bytes in [
            b"PROXY UNKNOWN\r\nGET /".to_vec(),
            b"PROXY UNKNOWN ffff:f::1 any 6 7\r\nGET /".to_vec(),
            v2(0x20, 0x00, b""),
            v2(0x20, 0x11, &[1; 12]),
            v2(0x21, 0x00, &[1; 9]),
            v2(0x21, 0x31, &[1; 216]),
        ] {
            assert_eq!(said(&bytes).await, Ok((None, b"GET /".to_vec())));
        }
    }

    #[tokio::test]
    async fn what_is_malformed_is_told_by_what_is_wrong_with_it() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let unended = b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\nGET /".to_vec();
        for (bytes, why) in [
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), "no PROXY header"),
            (b"PROXY TCP4 192.0.2.1".to_vec(), "ends within"),
            (SIGNATURE.to_vec(), "ends within"),
            (endless, "more than 107 bytes"),
            (unended, "no text with CR and LF"),
            (b"PROXY TCP5 192.0.2.1 198.51.100.1 50000 443\r\n".to_vec(), "other fields"),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1  50000 443\r\n".to_vec(), "other fields"),
            (b"PROXY TCP4 2001:db8::7 198.51.100.1 50000 443\r\n".to_vec(), "none of its family"),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n".to_vec(), "a port that is none"),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 +5 443\r\n".to_vec(), "a port that is none"),
            (v2(0x11, 0x11, &[1; 12]), "another version or command"),
            (v2(0x22, 0x11, &[1; 12]), "another version or command"),
            (v2(0x21, 0x12, &[1; 12]), "another family or transport"),
            (v2(0x21, 0x11, &[1; 11]), "cut short"),
            (v2(0x21, 0x21, &[1; 35]), "cut short"),
            (v2(0x21, 0x11, &[1; 4_097]), "more than 4,096 bytes"),
        ] {
            let told = said(&bytes).await.unwrap_err();
            assert!(told.contains(why), "{why}: {told}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(begin in 0_usize..4, rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let begins: [&[u8]; 4] = [b"", b"PROXY TCP4 ", &SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"];
            let bytes = [begins[begin], &rest].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(said(&bytes));
        }
    }
}
