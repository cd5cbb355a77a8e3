//! `blockchain_connection_logs`: what each node's state was, when it changes and once per minute.

use std::fmt::Display;
use std::time::Duration;

use schemas::ids::Micros;
use schemas::logs::BlockchainConnectionLog;
use url::Url;

/// Microseconds between two documents on an unchanged state.
const HEARTBEAT: i64 = 60_000_000;

/// What is known of each node of a network, in the network's order.
#[derive(Debug)]
pub struct Connections {
    network: String,
    nodes: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    name: String,
    connected: Option<bool>,
    failures: i64,
    logged: Micros,
}

impl Connections {
    /// The nodes at `urls`, none asked yet; `network` is `vechain_mainnet` or `vechain_testnet`.
    #[must_use]
    pub fn new(network: &str, urls: &[String]) -> Self {
        let state =
            |url: &String| Connection { name: shown(url), connected: None, failures: 0, logged: Micros(0) };
        Self { network: network.to_owned(), nodes: urls.iter().map(state).collect() }
    }

    /// Notes how asking a node went: the time that it took, or why it failed. A document where its state has changed, or was not
    /// logged for a minute.
    pub fn asked(
        &mut self,
        node: usize,
        outcome: Result<Duration, &dyn Display>,
        now: Micros,
    ) -> Option<BlockchainConnectionLog> {
        let state = self.nodes.get_mut(node)?;
        let connected = outcome.is_ok();
        let before = state.connected.replace(connected);
        state.failures = if connected { 0 } else { state.failures.saturating_add(1) };
        if before == Some(connected) && now.0.saturating_sub(state.logged.0) < HEARTBEAT {
            return None;
        }
        state.logged = now;
        let status = match (connected, before) {
            (true, _) => "connected",
            (false, Some(true)) => "disconnected",
            (false, _) => "failed",
        };
        Some(BlockchainConnectionLog {
            network_name: self.network.clone(),
            connection_type: "rpc".to_owned(),
            connection_status: status.to_owned(),
            response_time: outcome.as_ref().ok().map(|took| took.as_secs_f64() * 1_000.0),
            error_message: outcome.err().map(ToString::to_string),
            retry_count: state.failures,
            node: state.name.clone(),
        })
    }
}

/// A node's address without login, query and fragment, where an operator's key may stand.
fn shown(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return "(malformed)".to_owned() };
    let hidden = url.set_username("").is_ok() && url.set_password(None).is_ok();
    url.set_query(None);
    url.set_fragment(None);
    if hidden { url.to_string() } else { "(hidden)".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_state_is_logged_when_it_changes_and_not_at_every_look() {
        let urls = ["http://user:hunter2@node.example:8669/?key=hunter2#hunter2".to_owned()];
        let mut connections = Connections::new("vechain_testnet", &urls);
        let mut log = |outcome: Result<Duration, &dyn Display>| {
            let document = connections.asked(0, outcome, Micros(0));
            document.map(|document| format!("{document:?}"))
        };
        let up = || Ok(Duration::from_millis(3));
        let first = log(up()).unwrap();
        assert!(first.contains("\"connected\"") && !first.contains("hunter2"), "{first}");
        assert!(log(up()).is_none());
        let lost = log(Err(&"refused")).unwrap();
        assert!(lost.contains("disconnected") && lost.contains("refused"), "{lost}");
        assert!(log(Err(&"refused")).is_none());
        assert!(log(up()).is_some());
    }
}
