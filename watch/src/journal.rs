//! The watcher's `blockchain_connection_logs`.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::SystemClock;
use runtime::connections::Connections;
use runtime::journal;
use runtime::producer::Outbound;
use schemas::ids::{EventId, Micros};
use uuid::Uuid;

/// Writes documents on the nodes of a network.
pub struct Journal {
    documents: journal::Journal,
    network: String,
    nodes: Connections,
}

impl Journal {
    /// A journal on the nodes of a network. `prefix` stands in front of topics, `schema` is the registry's id of `ActivityLogged`,
    /// `network` is `vechain_mainnet` or `vechain_testnet`.
    #[must_use]
    pub fn new(outbound: Arc<dyn Outbound>, prefix: &str, schema: u32, network: &str) -> Self {
        Self {
            documents: journal::Journal::new("watch", outbound, Arc::new(SystemClock), prefix, schema),
            network: network.to_owned(),
            nodes: Connections::new(network, &[]),
        }
    }

    /// From here on the nodes at `urls` are watched, in this order.
    pub(crate) fn watches(&mut self, urls: &[String]) {
        self.nodes = Connections::new(&self.network, urls);
    }

    /// Notes how asking a node went: the time that it took, or why it failed.
    pub(crate) fn asked(&mut self, node: usize, outcome: Result<Duration, &dyn Display>, now: Micros) {
        let Some(document) = self.nodes.asked(node, outcome, now) else { return };
        self.documents.log(&document, EventId(Uuid::now_v7()), now);
    }
}

#[cfg(test)]
mod tests {
    use runtime::testing::{MemoryOutbound, MemorySchemas};
    use schemas::events::ActivityLogged;

    use super::*;

    #[test]
    fn a_node_is_logged_when_its_state_changes_and_once_a_minute_and_without_its_credentials() {
        let outbound = Arc::new(MemoryOutbound::default());
        let urls = ["https://user:hunter2@node.example:8669/thor/?key=hunter2#hunter2".to_owned()];
        let schema = MemorySchemas::id_of::<ActivityLogged>();
        let mut journal = Journal::new(outbound.clone(), "t.", schema, "vechain_testnet");
        journal.watches(&urls);
        let up = || Ok(Duration::from_millis(3));
        let second = |count: i64| Micros(1_700_000_000_000_000 + count * 1_000_000);
        let logged = |outcome: Result<Duration, &dyn Display>, at, journal: &mut Journal| {
            let before = outbound.sent().len();
            journal.asked(0, outcome, at);
            let sent = outbound.sent();
            sent[before..]
                .iter()
                .map(|record| String::from_utf8_lossy(record.payload.as_ref().unwrap()).into())
                .collect()
        };
        let first: Vec<String> = logged(up(), second(0), &mut journal);
        assert!(first[0].contains(r#""connection_status":"connected""#), "{first:?}");
        assert!(
            first[0].contains(r#""response_time":3.0"#) && first[0].contains(r#""retry_count":0"#),
            "{first:?}"
        );
        assert!(first[0].contains(r#""node":"https://node.example:8669/thor/""#), "{first:?}");
        assert!(!first[0].contains("hunter2") && outbound.sent()[0].topic == "t.activity.logs");
        assert!(logged(up(), second(59), &mut journal).is_empty());
        assert_eq!(logged(up(), second(60), &mut journal).len(), 1);
        let lost = logged(Err(&"refused"), second(61), &mut journal);
        assert!(lost[0].contains("disconnected") && lost[0].contains("refused"), "{lost:?}");
        assert!(logged(Err(&"refused"), second(62), &mut journal).is_empty());
        let still = logged(Err(&"refused"), second(121), &mut journal);
        assert!(still[0].contains(r#""failed""#) && still[0].contains(r#""retry_count":3"#), "{still:?}");
        assert_eq!(logged(up(), second(122), &mut journal).len(), 1);
    }
}
