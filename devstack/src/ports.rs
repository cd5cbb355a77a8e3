//! Free ports, and whose they are.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// The first port that is tried: below are those of well-known services.
const FIRST: u16 = 20_000;
/// Ports that are tried one by one before the system chooses.
const TRIES: usize = 64;

/// A port that nobody listens on at the moment. Another process may take it before the part does: a start that finds its
/// port taken is repeated on another one.
///
/// It lies below those that the system gives to outgoing connections, of which a long run makes tens of thousands: one of them would
/// sooner or later have the port of a process that was killed, and its next start would find it taken.
///
/// # Errors
/// When there is none.
pub fn free() -> io::Result<u16> {
    let outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let chosen = candidates(&below(&outgoing), RandomState::new().hash_one(()));
    let found = chosen.take(TRIES).find_map(|port| bind(port).ok());
    Ok(found.map_or_else(|| bind(0), Ok)?.local_addr()?.port())
}

/// The ports below those of outgoing connections, which are given as in `ip_local_port_range` of ip(7): `32768 60999`.
fn below(outgoing: &str) -> Range<u16> {
    let first = outgoing.split_whitespace().next().and_then(|port| port.parse().ok());
    FIRST..first.unwrap_or(FIRST).max(FIRST)
}

/// All ports of the range, from a place that `chance` chooses: two runs that begin at the same time hardly meet.
fn candidates(ports: &Range<u16>, chance: u64) -> impl Iterator<Item = u16> + use<> {
    let (start, count) = (ports.start, u64::from(ports.end - ports.start));
    (0..count)
        .filter_map(move |place| u16::try_from(chance.wrapping_add(place) % count).ok())
        .map(move |place| start + place)
}

/// Whether the process itself listens on the port: a response alone could be that of another program.
pub(crate) fn listens(pid: u32, port: u16) -> bool {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| listening(&fs::read_to_string(table).unwrap_or_default(), port))
        .collect();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| {
        let link = link.to_string_lossy();
        sockets.iter().any(|inode| link == format!("socket:[{inode}]"))
    })
}

/// The inodes of the sockets that listen on the port, from a table as in proc_net_tcp(5): `sl local_address rem_address st
/// tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode`, ports in hexadecimal, state 0A = LISTEN.
fn listening(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[1].ends_with(&suffix) && fields[3] == "0A")
        .map(|fields| fields[9].to_owned())
        .collect()
}

/// Whether a log says that the port was taken: in the words of PostgreSQL, the MongoDB server, Prometheus, Thor and Java
/// (`Address already in use`), or of Quarkus (`Port 8080 seems to be in use by another process`).
pub(crate) fn taken(log: &str) -> bool {
    let log = log.to_lowercase();
    ["address already in use", "seems to be in use by another process"]
        .iter()
        .any(|words| log.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_found_under_its_process_only() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(listens(std::process::id(), port));
        assert!(!listens(1, port));
        drop(socket);
        assert!(!listens(std::process::id(), port));
    }

    #[test]
    fn a_free_port_is_not_one_that_an_outgoing_connection_may_have() {
        assert_eq!(below("32768\t60999\n"), 20_000..32_768);
        // Where outgoing connections have the low ports, or nothing is known of them, the system chooses.
        assert!(below("1024 65535").is_empty() && below("").is_empty());
        assert_eq!(
            candidates(&(20_000..20_004), u64::MAX - 1).collect::<Vec<_>>(),
            [20_002, 20_003, 20_000, 20_001]
        );
        assert_eq!(candidates(&(20_000..20_000), 7).count(), 0);
    }

    #[test]
    fn the_words_of_every_part_for_a_taken_port_are_known() {
        for log in [
            "LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use",
            "secantusd-rs: failed to bind 127.0.0.1:29555: Address already in use (os error 98)",
            "err=\"listen tcp 127.0.0.1:29555: bind: address already in use\"",
            "listen API addr [127.0.0.1:29555]: listen tcp 127.0.0.1:29555: bind: address already in use",
            "KafkaException: Socket server failed to bind to 127.0.0.1:29092: Address already in use.",
            "ERROR (main) Port 29555 seems to be in use by another process. Quarkus may already be running",
        ] {
            assert!(taken(log), "{log}");
        }
        assert!(!taken("ready to accept connections"));
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 x\n\
            1: 0100007F:1538 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1 x\n\
            2: 0100007F:1539 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 x\n";
        assert_eq!(listening(table, 0x1538), ["111"]);
    }
}
