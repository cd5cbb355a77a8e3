//! Where a webhook may go: to a public address over TLS. Its name is resolved once, and the request goes to exactly the addresses that were
//! looked at: one that leads elsewhere a moment later is not followed, nor is a redirect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// Why a webhook goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreachable {
    /// It is no URL, or none that webhooks go to.
    #[error("it is no https URL with a host")]
    Url,
    /// The name has no address now.
    #[error("its name has no address")]
    Unknown,
    /// One of its addresses is not public.
    #[error("its address is not public")]
    Private,
}

/// A receiver and the addresses that it may be reached at.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) url: Url,
    pub(super) host: String,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Reach {
    /// Looks a receiver up.
    pub(super) async fn of(url: &str, private_too: bool) -> Result<Self, Unreachable> {
        let url = Url::parse(url).map_err(|_| Unreachable::Url)?;
        if url.scheme() != "https" && !(private_too && url.scheme() == "http") {
            return Err(Unreachable::Url);
        }
        let port = url.port_or_known_default().ok_or(Unreachable::Url)?;
        let (host, addresses): (String, Vec<SocketAddr>) = match url.host() {
            Some(Host::Ipv4(v4)) => (v4.to_string(), vec![(v4, port).into()]),
            Some(Host::Ipv6(v6)) => (v6.to_string(), vec![(v6, port).into()]),
            Some(Host::Domain(name)) => {
                let found = tokio::net::lookup_host((name, port)).await.map_err(|_| Unreachable::Unknown)?;
                (name.to_owned(), found.collect())
            }
            None => return Err(Unreachable::Url),
        };
        if addresses.is_empty() {
            return Err(Unreachable::Unknown);
        }
        // All of them: a name with one address of ours among others would be tried at it.
        if !private_too && !addresses.iter().all(|address| is_public(address.ip())) {
            return Err(Unreachable::Private);
        }
        Ok(Self { url, host, addresses })
    }
}

/// Whether an address is one of the internet (IANA's special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !(special || v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_documentation())
}

/// Global unicast (2000::/3) without what leads back to addresses of version 4 or is for documents: 2001::/23 (with Teredo), 2001:db8::/32,
/// 2002::/16 (6to4), 3fff::/20. 64:ff9b::/96 (NAT64) is outside of it.
fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, ..] = v6.segments();
    let special = (a == 0x2001 && (b < 0x0200 || b == 0x0db8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
    (0x2000..0x4000).contains(&a) && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for public in ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "203.0.113.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "ff02::1",
            "::7f00:1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[tokio::test]
    async fn a_url_that_is_not_of_the_internet_is_refused_however_it_is_written() {
        let of = async |url: &str| Reach::of(url, false).await.map(|_| ()).unwrap_err();
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]:9/",
            "https://[::ffff:7f00:1]/",
        ] {
            assert_eq!(of(url).await, Unreachable::Private, "{url}");
        }
        assert_eq!(of("https://localhost/").await, Unreachable::Private);
        for url in ["http://93.184.216.34/", "file:///etc/passwd", "https:///x", "gopher://a/"] {
            assert!(matches!(of(url).await, Unreachable::Url | Unreachable::Unknown), "{url}");
        }
        Reach::of("http://127.0.0.1:1/", true).await.unwrap();
    }
}
