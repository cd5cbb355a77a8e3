//! The client's address behind proxies.

use std::net::IpAddr;

use warp::http::HeaderMap;

use crate::http::request::Peer;

/// The peer, or behind trusted proxies the last address that none of them has.
pub(crate) fn client_address(headers: &HeaderMap, peer: Option<Peer>, trusted: &[IpAddr]) -> IpAddr {
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip().to_canonical());
    if !trusted.contains(&peer) {
        return peer;
    }
    let forwarded: Vec<IpAddr> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|address| address.trim().parse().ok())
        .collect();
    forwarded.into_iter().rev().find(|address| !trusted.contains(address)).unwrap_or(peer)
}
