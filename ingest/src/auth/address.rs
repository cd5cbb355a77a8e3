//! The client's address behind proxies.
//!
//! Each proxy appends the address that it was connected from, so that the list is believed from its end, and no further than the first
//! address that is no trusted proxy: what stands before it is the client's own word. What is no address (`unknown`, `_hidden`) ends it too.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use warp::http::HeaderMap;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The header in which the proxies name who connected to them. Only the one that they write themselves may be believed: a proxy lets
/// pass what a client wrote into the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`: addresses joined by commas, with a port or without.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239): its `for` parameters.
    Forwarded,
}

/// Proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    networks: Vec<IpNet>,
    by: ForwardedBy,
}

/// Why proxies cannot be as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address and no network: write e.g. \"10.0.0.7\" or \"10.0.0.0/8\"")]
pub struct ProxyError(String);

impl Proxies {
    /// Reads addresses and networks.
    ///
    /// # Errors
    /// [`ProxyError`] with the entry that is neither.
    pub fn parse(entries: &[String], by: ForwardedBy) -> Result<Self, ProxyError> {
        let network = |entry: &String| {
            let address = entry.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
            address.or_else(|_| entry.parse()).map_err(|_| ProxyError(entry.clone()))
        };
        Ok(Self { networks: entries.iter().map(network).collect::<Result<_, _>>()?, by })
    }

    /// Whether an address is that of a proxy that is believed.
    pub(crate) fn trust(&self, address: &IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// The peer, or behind trusted proxies the address that the farthest of them was connected from.
    pub(crate) fn client_address(&self, headers: &HeaderMap, peer: Option<Peer>) -> IpAddr {
        let mut known = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip().to_canonical());
        if !self.trust(&known) {
            return known;
        }
        for entry in self.entries(headers).into_iter().rev() {
            let Some(address) = entry else { break };
            known = address;
            if !self.trust(&known) {
                break;
            }
        }
        known
    }

    /// The entries of every such header in their order; none for what is no address.
    fn entries(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        let name = match self.by {
            ForwardedBy::XForwardedFor => "x-forwarded-for",
            ForwardedBy::Forwarded => "forwarded",
        };
        let mut entries = Vec::new();
        for value in headers.get_all(name) {
            match (value.to_str(), self.by) {
                (Ok(text), ForwardedBy::XForwardedFor) => entries.extend(text.split(',').map(address)),
                (Ok(text), ForwardedBy::Forwarded) => entries.extend(forwarded(text)),
                (Err(_), _) => entries.push(None),
            }
        }
        entries
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    bare.parse().or_else(|_| with_port()).ok().map(|address: IpAddr| address.to_canonical())
}

/// The `for` of each element of `Forwarded`. A comma or a semicolon inside quotes separates nothing; a quote without an end makes the rest
/// of the header one element without an address.
fn forwarded(text: &str) -> Vec<Option<IpAddr>> {
    let mut quoted = false;
    let mut escaped = false;
    let mut outside = |character: char| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        !quoted
    };
    let mut elements = vec![String::new()];
    for character in text.chars() {
        match (outside(character), character) {
            (true, ',') => elements.push(String::new()),
            // So that pairs are told apart below without looking at quotes again.
            (true, ';') => elements.last_mut().into_iter().for_each(|element| element.push('\n')),
            (_, character) => elements.last_mut().into_iter().for_each(|element| element.push(character)),
        }
    }
    let of = |element: &String| {
        let pair = element.split('\n').filter_map(|pair| pair.trim().split_once('='));
        let mut named = pair.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
        let (_, value) = named.next()?;
        let unquoted = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'));
        if named.next().is_some() { None } else { address(unquoted?) }
    };
    elements.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::HeaderValue;

    fn client(by: ForwardedBy, peer: &str, values: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"].map(str::to_owned);
        let proxies = Proxies::parse(&trusted, by).unwrap();
        let name = if by == ForwardedBy::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let peer = Peer(SocketAddr::new(peer.parse().unwrap(), 4711));
        proxies.client_address(&headers, Some(peer)).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        let seen = |peer, values: &[&str]| client(ForwardedBy::XForwardedFor, peer, values);
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"]), "203.0.113.9", "a stranger's header is not read");
        assert_eq!(seen("10.1.2.3", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(seen("::ffff:10.1.2.3", &["198.51.100.1, 192.0.2.7"]), "198.51.100.1");
        assert_eq!(seen("10.1.2.3", &["198.51.100.1:5123"]), "198.51.100.1");
        assert_eq!(seen("fd00::1", &["[2001:db8::9]:443"]), "2001:db8::9");
        assert_eq!(seen("10.1.2.3", &["198.51.100.1", "203.0.113.5, 10.9.9.9"]), "203.0.113.5");
        assert_eq!(seen("10.1.2.3", &["10.4.4.4"]), "10.4.4.4", "a caller inside is the farthest proxy");
        assert_eq!(seen("10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn what_a_client_wrote_before_its_own_address_is_not_believed() {
        let seen = |values: &[&str]| client(ForwardedBy::XForwardedFor, "10.1.2.3", values);
        assert_eq!(seen(&["198.51.100.66, 203.0.113.5"]), "203.0.113.5");
        assert_eq!(seen(&["10.0.0.1, 198.51.100.66", "203.0.113.5"]), "203.0.113.5");
        assert_eq!(seen(&["198.51.100.66, unknown"]), "10.1.2.3", "what is no address ends the list");
        assert_eq!(seen(&["198.51.100.66, _hidden, 192.0.2.7"]), "192.0.2.7");
    }

    #[test]
    fn the_for_parameters_of_rfc_7239_are_read_with_quotes_ports_and_any_case() {
        let seen = |values: &[&str]| client(ForwardedBy::Forwarded, "10.1.2.3", values);
        assert_eq!(seen(&["for=198.51.100.1;proto=https;by=203.0.113.43"]), "198.51.100.1");
        assert_eq!(seen(&["For=\"[2001:db8:cafe::17]:4711\""]), "2001:db8:cafe::17");
        assert_eq!(seen(&["host=\"a,b;c\";for=198.51.100.1, for=10.2.2.2"]), "198.51.100.1");
        assert_eq!(seen(&["for=198.51.100.66, for=unknown"]), "10.1.2.3");
        assert_eq!(seen(&["for=\"198.51.100.66, for=203.0.113.5"]), "10.1.2.3", "a quote without an end");
        assert_eq!(seen(&["for=198.51.100.66, for=1.2.3.4;for=203.0.113.5"]), "10.1.2.3", "two at once");
    }

    #[test]
    fn an_entry_that_is_neither_address_nor_network_is_named() {
        let error = Proxies::parse(&["10.0.0.0/33".to_owned()], ForwardedBy::default()).unwrap_err();
        assert!(error.to_string().starts_with("\"10.0.0.0/33\" is no address"), "{error}");
    }
}
