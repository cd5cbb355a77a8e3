//! Which of several nodes is asked: the first by priority that is well. A node that does not give its newest block at once, whose
//! newest block is old, that lags behind another, or that fails too often, is left alone for a while, longer each time.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use crate::node::{Limits, Node, NodeError, Revision, Snippet};

/// Bounds of every call but the question for the newest block: half of the life of a submitter's lease.
pub const LIMITS: Limits =
    Limits { connect: Duration::from_secs(2), call: Duration::from_secs(5), body: 16 * 1024 * 1024 };
/// Time that a node has to give its newest block.
const PROBE: Duration = Duration::from_secs(2);
/// Rest of a node after its first failure in a row; each further one doubles it.
const FIRST_REST: Duration = Duration::from_secs(2);
/// Longest rest: a node that has come back is asked again at most this long after.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Blocks that a node may be behind another: 30 s of blocks that are merely on their way.
const BEHIND: u32 = 3;
/// Age of the newest block from which a node counts as cut off, s: 12 blocks of a public network.
const STALE: u64 = 120;
/// Rounds whose end is remembered of each node.
const REMEMBERED: u32 = 64;
/// Rounds from which the share of those that failed says something.
const TELLING: u32 = 16;

/// A node's newest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its height.
    pub number: u32,
    /// When it was made, s since 1970.
    pub timestamp: u64,
}

/// Something that has a newest block.
pub trait Heads: Sync {
    /// The newest block of its branch.
    fn head(&self) -> impl Future<Output = Result<Head, NodeError>> + Send;
}

impl Heads for Node {
    async fn head(&self) -> Result<Head, NodeError> {
        let best = self.block(Revision::Best).await?.ok_or(NodeError::UnknownBlock)?;
        Ok(Head { number: best.number, timestamp: best.timestamp })
    }
}

/// Why a node is not well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ailment {
    /// It gives an error instead of its newest block.
    #[error(transparent)]
    Failed(#[from] NodeError),
    /// It gives nothing.
    #[error("it takes connections and stays silent")]
    Silent,
    /// It stands still while another goes on.
    #[error("its newest block is {best} while another node has {highest}")]
    Behind {
        /// Its height.
        best: u32,
        /// The highest that a node has.
        highest: u32,
    },
    /// It is cut off from the network.
    #[error("its newest block is {age} s old")]
    Stale {
        /// Age of its newest block, s.
        age: u64,
    },
}

impl From<Ailment> for NodeError {
    fn from(ailment: Ailment) -> Self {
        match ailment {
            Ailment::Failed(error) => error,
            other => Self::Unavailable(Snippet::new(&other.to_string())),
        }
    }
}

/// What a node's newest block says of it, given the highest that any has; none where it is well.
fn ailment(head: Head, highest: u32, now: u64) -> Option<Ailment> {
    if highest > head.number.saturating_add(BEHIND) {
        return Some(Ailment::Behind { best: head.number, highest });
    }
    let age = now.saturating_sub(head.timestamp);
    (age > STALE).then_some(Ailment::Stale { age })
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    rests_until: Option<Instant>,
    /// Failures since a round went well.
    failures: u32,
    /// Its last rounds, the newest in the lowest bit: 1 where it failed.
    rounds: u64,
    /// How many rounds are remembered.
    remembered: u32,
}

impl Standing {
    fn remember(&mut self, failed: bool) {
        self.rounds = self.rounds << 1 | u64::from(failed);
        self.remembered = (self.remembered + 1).min(REMEMBERED);
    }

    /// Whether more than a quarter of its rounds failed.
    fn fails_often(&self) -> bool {
        self.remembered >= TELLING && self.rounds.count_ones() * 4 > self.remembered
    }
}

/// What is known of each node, by its address.
#[derive(Debug, Default)]
pub struct Health(HashMap<String, Standing>);

/// How a node responded: its index, and its height with the time that it took to give it, or why it is not well.
pub type Response = (usize, Result<(u32, Duration), Ailment>);

impl Health {
    /// Asks all nodes that do not rest for their newest block, at once; all are asked where all rest. `urls` name `nodes`, in the
    /// order of priority, and `now` is in seconds since 1970. A node that is not well rests from here on. The responses are in the
    /// order of priority: the first that is well is to be asked.
    pub async fn survey<N: Heads>(&mut self, urls: &[String], nodes: &[N], now: u64) -> Vec<Response> {
        let started = Instant::now();
        let all_rest = self.rest(urls, started).is_some();
        let named = urls.iter().zip(nodes).enumerate();
        let due = named.filter(|(_, (url, _))| all_rest || !self.rests(url, started));
        let heads = join_all(due.map(|(at, (_, node))| async move {
            let asked = Instant::now();
            let head = match timeout(PROBE, node.head()).await {
                Ok(head) => head.map_err(Ailment::from),
                Err(_) => Err(Ailment::Silent),
            };
            (at, head, asked.elapsed())
        }))
        .await;
        let highest = heads.iter().filter_map(|(_, head, _)| Some(head.as_ref().ok()?.number)).max();
        let responses = heads.into_iter().map(|(at, head, took)| {
            let outcome = head.and_then(|head| match ailment(head, highest.unwrap_or(0), now) {
                Some(ailment) => Err(ailment),
                None => Ok((head.number, took)),
            });
            (at, outcome)
        });
        let responses: Vec<Response> = responses.collect();
        for (at, _) in responses.iter().filter(|(_, outcome)| outcome.is_err()) {
            if let Some(url) = urls.get(*at) {
                self.failed(url, Instant::now());
            }
        }
        responses
    }

    /// How long until the first of these nodes has rested; none while one does not rest, or where there are none.
    #[must_use]
    pub fn rest(&self, urls: &[String], now: Instant) -> Option<Duration> {
        let left = |url: &String| {
            let until = self.0.get(url)?.rests_until?;
            (until > now).then(|| until.duration_since(now))
        };
        urls.iter().map(left).collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Notes that a node failed: it rests, longer with each failure in a row, and longest where it fails often.
    pub fn failed(&mut self, url: &str, now: Instant) {
        let standing = self.0.entry(url.to_owned()).or_default();
        standing.remember(true);
        let growing = FIRST_REST.saturating_mul(1 << standing.failures.min(10)).min(LONGEST_REST);
        let rest = if standing.fails_often() { LONGEST_REST } else { growing };
        standing.failures = standing.failures.saturating_add(1);
        standing.rests_until = Some(now + rest);
    }

    /// Notes that a whole round went well with a node: its next failure is the first in a row again.
    pub fn worked(&mut self, url: &str) {
        let standing = self.0.entry(url.to_owned()).or_default();
        standing.remember(false);
        (standing.failures, standing.rests_until) = (0, None);
    }

    fn rests(&self, url: &str, now: Instant) -> bool {
        self.0.get(url).and_then(|standing| standing.rests_until).is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with this newest block; none where it stays silent.
    struct Fixed(Option<Result<Head, NodeError>>);

    impl Heads for Fixed {
        async fn head(&self) -> Result<Head, NodeError> {
            match &self.0 {
                Some(head) => head.clone(),
                None => std::future::pending().await,
            }
        }
    }

    fn head(number: u32, timestamp: u64) -> Head {
        Head { number, timestamp }
    }

    #[test]
    fn a_node_that_lags_or_whose_newest_block_is_old_is_not_well() {
        assert_eq!(ailment(head(100, 1_000), 103, 1_010), None);
        assert_eq!(ailment(head(100, 1_000), 104, 1_010), Some(Ailment::Behind { best: 100, highest: 104 }));
        assert_eq!(ailment(head(100, 1_000), 100, 1_120), None);
        assert_eq!(ailment(head(100, 1_000), 100, 1_121), Some(Ailment::Stale { age: 121 }));
        assert_eq!(ailment(head(100, 2_000), 100, 1_000), None, "a local node's clock may run ahead");
    }

    #[test]
    fn a_node_rests_longer_with_each_failure_in_a_row_and_not_at_all_once_it_worked() {
        let (mut health, now) = (Health::default(), Instant::now());
        let urls = ["a".to_owned()];
        for rest in [2, 4, 8, 16, 30, 30] {
            health.failed("a", now);
            assert_eq!(health.rest(&urls, now), Some(Duration::from_secs(rest)));
            assert_eq!(health.rest(&urls, now + Duration::from_secs(rest)), None);
        }
        assert_eq!(health.rest(&["a".to_owned(), "b".to_owned()], now), None, "the other does not rest");
        health.worked("a");
        assert_eq!(health.rest(&urls, now), None);
    }

    #[test]
    fn a_node_that_fails_more_than_every_fourth_round_rests_longest_although_it_works_in_between() {
        let (mut health, now) = (Health::default(), Instant::now());
        let mut rests = Vec::new();
        for round in 0..24 {
            if round % 3 == 0 {
                health.failed("often", now);
                rests.push(health.rest(&["often".to_owned()], now).unwrap().as_secs());
            } else {
                health.worked("often");
            }
            if round % 5 == 4 {
                health.failed("seldom", now);
                assert_eq!(health.rest(&["seldom".to_owned()], now), Some(FIRST_REST));
            } else {
                health.worked("seldom");
            }
        }
        assert_eq!(rests, [2, 2, 2, 2, 2, 30, 30, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_do_not_rest_are_asked_at_once_and_those_that_are_not_well_rest() {
        let urls = ["silent", "behind", "well", "wrong"].map(str::to_owned);
        let nodes = [
            Fixed(None),
            Fixed(Some(Ok(head(5, 1_000)))),
            Fixed(Some(Ok(head(100, 1_000)))),
            Fixed(Some(Err(NodeError::WrongNetwork))),
        ];
        let (mut health, started) = (Health::default(), Instant::now());
        let responses = health.survey(&urls, &nodes, 1_010).await;
        assert_eq!(started.elapsed(), PROBE, "the silent one is waited for once, beside the others");
        let outcomes: Vec<_> =
            responses.into_iter().map(|(at, outcome)| (at, outcome.map(|(n, _)| n))).collect();
        assert_eq!(
            outcomes,
            [
                (0, Err(Ailment::Silent)),
                (1, Err(Ailment::Behind { best: 5, highest: 100 })),
                (2, Ok(100)),
                (3, Err(Ailment::Failed(NodeError::WrongNetwork))),
            ]
        );
        let again = health.survey(&urls, &nodes, 1_010).await;
        assert_eq!(again.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2]);
        let alone = health.survey(&urls[..2], &nodes[..2], 1_010).await;
        assert_eq!(alone.len(), 2, "where all rest, all are asked");
        assert_eq!(alone[1].1, Ok((5, Duration::ZERO)), "and the highest of them is not behind");
    }
}
