//! The nodes of the network: which one is asked, and what is logged of their state.

use std::time::{Duration, Instant};

use chain::node::NodeError;
use schemas::events::ActivityLogged;
use schemas::ids::{EventId, Micros};
use schemas::logs::BlockchainConnectionLog;
use schemas::payouts::network_label;
use url::Url;
use uuid::Uuid;

use crate::documents::Documents;

/// How often a node's unchanged state is logged.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// What is known of each node of a network, in the network's order.
#[derive(Debug, Default)]
pub struct NodeStates(Vec<NodeState>);

#[derive(Debug)]
struct NodeState {
    name: String,
    connected: Option<bool>,
    failures: i64,
    logged: Option<Instant>,
}

impl NodeStates {
    /// States of these nodes, none asked yet.
    #[must_use]
    pub fn new(urls: &[String]) -> Self {
        let state = |url: &String| NodeState { name: shown(url), connected: None, failures: 0, logged: None };
        Self(urls.iter().map(state).collect())
    }

    /// Notes how a probe of a node went; a document where its state has changed, or was not logged for a minute.
    pub fn probed(
        &mut self,
        node: usize,
        genesis_id: &str,
        outcome: Result<Duration, &NodeError>,
        now: Micros,
    ) -> Vec<ActivityLogged> {
        let Some(state) = self.0.get_mut(node) else { return Vec::new() };
        let connected = outcome.is_ok();
        state.failures = if connected { 0 } else { state.failures + 1 };
        let changed = state.connected != Some(connected);
        let due = changed || state.logged.is_none_or(|logged| logged.elapsed() >= HEARTBEAT);
        let status = match (connected, state.connected) {
            (true, _) => "connected",
            (false, Some(true)) => "disconnected",
            (false, _) => "failed",
        };
        state.connected = Some(connected);
        if !due {
            return Vec::new();
        }
        state.logged = Some(Instant::now());
        let mut documents = Documents::about(EventId(Uuid::now_v7()), now);
        documents.add(
            0,
            &BlockchainConnectionLog {
                network_name: network_label(genesis_id).to_owned(),
                connection_type: "rpc".to_owned(),
                connection_status: status.to_owned(),
                response_time: outcome.ok().map(|took| took.as_secs_f64() * 1_000.0),
                error_message: outcome.err().map(NodeError::to_string),
                retry_count: state.failures,
                node: state.name.clone(),
            },
        );
        documents.into_records()
    }
}

/// A node's address without login and query.
fn shown(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return "(malformed)".to_owned() };
    let hidden = url.set_username("").is_ok() && url.set_password(None).is_ok();
    url.set_query(None);
    if hidden { url.to_string() } else { "(hidden)".to_owned() }
}

#[cfg(test)]
mod tests {
    use chain::node::Snippet;

    use super::*;

    #[test]
    fn a_nodes_state_is_logged_when_it_changes_and_not_at_every_look() {
        let mut states = NodeStates::new(&["http://user:hunter2@node.example:8669/?key=hunter2".to_owned()]);
        let up = || Ok(Duration::from_millis(3));
        let down = NodeError::Unavailable(Snippet::new("refused"));
        let mut log = |outcome: Result<Duration, &NodeError>| {
            states
                .probed(0, "0x00", outcome, Micros(0))
                .into_iter()
                .map(|record| record.document)
                .collect::<Vec<_>>()
        };
        let first = log(up());
        assert!(first[0].contains("\"connected\"") && !first[0].contains("hunter2"), "{first:?}");
        assert!(log(up()).is_empty());
        let lost = log(Err(&down));
        assert!(lost[0].contains("disconnected") && lost[0].contains("refused"), "{lost:?}");
        assert!(log(Err(&down)).is_empty());
        assert_eq!(log(up()).len(), 1);
    }
}
