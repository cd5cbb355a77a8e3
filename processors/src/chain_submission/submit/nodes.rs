//! Which node is asked: the first by priority that is well. A node that takes connections and stays silent, whose newest block is old,
//! or that lags behind another, is left alone for a while, longer each time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chain::Node;
use chain::node::{BlockSummary, Limits, NodeError, Revision, Snippet};
use runtime::connections::Connections;
use schemas::ids::EventId;
use schemas::payouts::network_label;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::obstacle::Obstacle;
use super::{Memory, RoundError, Submitter};
use crate::chain_submission::ledger::outbox::Outbox;
use crate::chain_submission::network::Network;
use crate::documents::Documents;

/// How long rows of the network are trusted before they are read again.
const RELOAD: Duration = Duration::from_secs(60);
/// How long the nodes' newest blocks are trusted: within a round they are asked once.
const FRESH: Duration = Duration::from_secs(2);
/// Time that a node has to give its newest block.
const PROBE: Duration = Duration::from_secs(2);
/// Bounds of every other call: half of the lease's life.
pub(super) const LIMITS: Limits =
    Limits { connect: Duration::from_secs(2), call: Duration::from_secs(5), body: 16 * 1024 * 1024 };
/// First and longest rest of a node that failed.
const RESTS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// Blocks that a node may be behind another: 30 s of blocks that are merely on their way.
const BEHIND: u32 = 3;
/// Age of the newest block from which a node counts as cut off: 12 blocks of a public network, s.
const STALE: u64 = 120;

/// Why a node is left alone, until when, and after how many failures in a row.
#[derive(Debug, Default)]
pub(super) struct Rests(HashMap<String, (Instant, u32)>);

impl Rests {
    /// Notes a failure.
    pub(super) fn failed(&mut self, url: &str, now: Instant) {
        let failures = self.0.get(url).map_or(0, |(_, failures)| *failures);
        let rest = RESTS.0.saturating_mul(1 << failures.min(10)).min(RESTS.1);
        self.0.insert(url.to_owned(), (now + rest, failures.saturating_add(1)));
    }

    /// Notes that a whole round went well with it.
    pub(super) fn worked(&mut self, url: &str) {
        self.0.remove(url);
    }

    fn rests(&self, url: &str, now: Instant) -> bool {
        self.0.get(url).is_some_and(|(until, _)| *until > now)
    }
}

/// What a node's newest block says of it, given the highest that any has; none where it is well.
fn ailment(best: &BlockSummary, highest: u32, now: u64) -> Option<String> {
    let age = now.saturating_sub(best.timestamp);
    if highest > best.number.saturating_add(BEHIND) {
        return Some(format!("its newest block is {} while another node has {highest}", best.number));
    }
    (age > STALE).then(|| format!("its newest block is {age} s old"))
}

/// The network as it was loaded and its nodes as they last responded.
pub(super) struct Known {
    network: Network,
    states: Connections,
    read: Instant,
    probed: Option<(Instant, usize, u32)>,
}

impl Submitter {
    /// The network's rows, and the first of its nodes that is well, with its height.
    pub(super) async fn node<'a>(
        &self,
        memory: &'a mut Memory,
    ) -> Result<(&'a Network, Node, u32), RoundError> {
        if memory.network.as_ref().is_none_or(|known| known.read.elapsed() >= RELOAD) {
            let network =
                Network::load(&self.pool, self.settings.genesis, LIMITS).await.map_err(Obstacle::from)?;
            let kept = memory.network.take().filter(|before| before.network.urls == network.urls);
            let label = network_label(&network.genesis.to_string());
            let states = kept.map_or_else(|| Connections::new(label, &network.urls), |known| known.states);
            memory.network = Some(Known { network, states, read: Instant::now(), probed: None });
        }
        let Memory { network: Some(known), rests, best, chosen, .. } = memory else {
            return Err(runtime::StageError::new("network", "not loaded").into());
        };
        let fresh = known.probed.filter(|(at, ..)| at.elapsed() < FRESH);
        let (at, height) = match fresh {
            Some((_, at, height)) => (at, height),
            None => {
                let (at, height) = self.choose(known, rests).await?;
                known.probed = Some((Instant::now(), at, height));
                (at, height)
            }
        };
        (*best, *chosen) = (height, known.network.urls.get(at).cloned());
        let node = known.network.nodes.get(at).cloned();
        let node = node.ok_or_else(|| runtime::StageError::new("network", "has no node"))?;
        Ok((&known.network, node, height))
    }

    /// Asks all nodes that do not rest at once, and takes the first by priority that is well. All are asked where all rest.
    async fn choose(&self, known: &mut Known, rests: &mut Rests) -> Result<(usize, u32), RoundError> {
        let now = Instant::now();
        let urls = known.network.urls.clone();
        let all_rest = urls.iter().all(|url| rests.rests(url, now));
        let mut asked = JoinSet::new();
        for (at, node) in known.network.nodes.iter().cloned().enumerate() {
            if all_rest || !rests.rests(&urls[at], now) {
                asked.spawn(async move {
                    let started = Instant::now();
                    let silent =
                        || NodeError::Unavailable(Snippet::new("it takes connections and stays silent"));
                    let response = timeout(PROBE, node.block(Revision::Best)).await;
                    let response = response.unwrap_or_else(|_| Err(silent()));
                    (at, response.and_then(|block| block.ok_or(NodeError::UnknownBlock)), started.elapsed())
                });
            }
        }
        let mut responses = asked.join_all().await;
        responses.sort_by_key(|(at, ..)| *at);
        let highest = responses.iter().filter_map(|(_, block, _)| Some(block.as_ref().ok()?.number)).max();
        let clock = self.clock.now();
        let seconds = u64::try_from(clock.0 / 1_000_000).unwrap_or(0);
        let (mut outbox, mut chosen, mut failure) = (Outbox::default(), None, NodeError::UnknownBlock);
        for (at, response, took) in responses {
            let outcome = response.and_then(|best| match ailment(&best, highest.unwrap_or(0), seconds) {
                Some(why) => Err(NodeError::Unavailable(Snippet::new(&why))),
                None => Ok(best.number),
            });
            let told = outcome.as_ref().map(|_| took).map_err(|error| error as &dyn std::fmt::Display);
            if let Some(document) = known.states.asked(at, told, clock) {
                let mut documents = Documents::about(EventId(Uuid::now_v7()), clock);
                documents.add(0, &document);
                outbox.documents(self.schemas, &documents.into_records())?;
            }
            match outcome {
                Ok(height) => chosen = chosen.or(Some((at, height))),
                Err(error) => {
                    tracing::warn!(node = at, %error, "the node is left alone for a while");
                    rests.failed(&urls[at], now);
                    failure = error;
                }
            }
        }
        self.publish(outbox).await?;
        chosen.ok_or_else(|| Obstacle::from(failure).into())
    }
}

#[cfg(test)]
mod tests {
    use chain::BlockId;

    use super::*;

    fn best(number: u32, timestamp: u64) -> BlockSummary {
        BlockSummary {
            number,
            id: BlockId([0; 32]),
            parent_id: BlockId([0; 32]),
            timestamp,
            gas_limit: 0,
            gas_used: 0,
            base_fee_per_gas: None,
            is_trunk: true,
            is_finalized: false,
            transactions: Vec::new(),
        }
    }

    #[test]
    fn a_node_that_lags_or_whose_newest_block_is_old_is_not_well() {
        assert_eq!(ailment(&best(100, 1_000), 103, 1_010), None);
        assert!(ailment(&best(100, 1_000), 104, 1_010).unwrap().contains("100 while another node has 104"));
        assert_eq!(ailment(&best(100, 1_000), 100, 1_120), None);
        assert!(ailment(&best(100, 1_000), 100, 1_121).unwrap().contains("121 s old"));
        assert_eq!(ailment(&best(100, 2_000), 100, 1_000), None, "a local node's clock may run ahead");
    }

    #[test]
    fn a_node_rests_longer_with_each_failure_and_not_at_all_once_it_worked() {
        let (mut rests, now) = (Rests::default(), Instant::now());
        let seconds = |count| now + Duration::from_secs(count);
        for rest in [2, 4, 8, 16, 30, 30] {
            rests.failed("a", now);
            assert!(rests.rests("a", seconds(rest - 1)) && !rests.rests("a", seconds(rest)), "{rest}");
        }
        assert!(!rests.rests("b", now));
        rests.worked("a");
        assert!(!rests.rests("a", now));
    }
}
