//! The loop: where to go on, what a node has more, what the gateway took of it.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chain::follow::{BlockSource, Checkpoint, FollowError, Follower, Step, TRAIL};
use chain::node::{ExpandedBlock, NodeError, Revision};
use chain::{BlockId, Node};
use futures::future::join_all;
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use runtime::health::Health;
use runtime::metrics::{Counter, Metrics, MetricsError};
use schemas::payouts::{ChainBatch, ChainStep, StepOutcome};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::batches::batches;
use crate::error::{Remedy, WatchError};
use crate::gateway::Gateway;
use crate::journal::Journal;
use crate::metrics::WatchMetrics;
use crate::nodes::Nodes;
use crate::steps::{Watched, chain_step};

/// Blocks that a look adopts at most.
pub(crate) const BATCH: u32 = 64;
/// Time that a node has to hand out the blocks of a look: almost a second a block. After a failure half as many are asked for, so
/// that a slow node still gets on.
const LOOK: Duration = Duration::from_secs(60);
/// Time that a node in reserve has to give its best block. Nothing is watched meanwhile, once a minute at most.
const PROBE: Duration = Duration::from_secs(5);
/// Pause after an error that only an operator ends.
const LONG_PAUSE: Duration = Duration::from_secs(15);
/// Looks in a row that may find the chain changed under them before the node is held to be at fault.
const MOVES: u32 = 5;
/// How long no other watcher was met until the next one is worth a line again: a quarter of an hour, 90 blocks of a public network.
const ALONE: Duration = Duration::from_secs(15 * 60);
/// This role's name in health and metrics.
const ROLE: &str = "watch";

/// A source of blocks that also knows what is final.
pub trait Chain: BlockSource + Sync {
    /// Height up to which blocks are final.
    fn finalized(&self) -> impl Future<Output = Result<u32, NodeError>> + Send;
}

impl Chain for Node {
    async fn finalized(&self) -> Result<u32, NodeError> {
        Ok(self.block(Revision::Finalized).await?.map_or(0, |block| block.number))
    }
}

/// How to watch.
#[derive(Clone, Debug)]
pub struct WatcherConfig {
    /// The network.
    pub genesis: BlockId,
    /// Which transactions are posted.
    pub watched: Watched,
    /// Pause between two looks at the node; 2 s suit blocks of 10 s.
    pub poll: Duration,
    /// Block that a first start begins after. Where it is not final yet, the start is the newest final block: a start that a fork
    /// could undo would leave no block in common with the chain.
    pub start_block: u32,
}

/// A watcher.
pub struct Watcher<G> {
    config: WatcherConfig,
    gateway: G,
    clock: Arc<dyn Clock>,
    pub(crate) metrics: WatchMetrics,
    /// The engine's, of calls that are repeated.
    pub(crate) retries: Counter<2>,
    health: Option<Health>,
    journal: Option<Journal>,
    /// What the gateway has: the state behind the last step that it took, and that step. None where that must be asked.
    position: Option<(Checkpoint, i64)>,
    /// Blocks that the next look asks for at most.
    batch: u32,
    /// The height of the best block and the time that the node took to give it, as this look found them.
    seen: Option<(u32, Duration)>,
    moves: u32,
    /// When another watcher was last met.
    met: Option<Instant>,
    backoff: Backoff,
}

/// A source that notes its best block and how long it took to give it.
struct Timed<'a, C> {
    chain: &'a C,
    seen: Mutex<Option<(u32, Duration)>>,
}

impl<C: Chain> BlockSource for Timed<'_, C> {
    async fn id_at(&self, revision: Revision) -> Result<Option<BlockId>, NodeError> {
        let started = Instant::now();
        let found = self.chain.id_at(revision).await;
        if let (Revision::Best, Ok(Some(id))) = (revision, &found) {
            let seen = Some((id.number(), started.elapsed()));
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        }
        found
    }

    async fn block(&self, id: BlockId) -> Result<Option<ExpandedBlock>, NodeError> {
        self.chain.block(id).await
    }
}

impl<G: Gateway> Watcher<G> {
    /// A watcher that has not looked yet.
    ///
    /// # Errors
    /// When its metrics do not register beside those that are there.
    pub fn new(
        config: WatcherConfig,
        gateway: G,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, MetricsError> {
        Ok(Self {
            config,
            gateway,
            clock,
            metrics: WatchMetrics::register(&metrics.exporter)?,
            retries: metrics.retries.clone(),
            health: None,
            journal: None,
            position: None,
            batch: BATCH,
            seen: None,
            moves: 0,
            met: None,
            backoff: Backoff::default(),
        })
    }

    /// Reports readiness as the component `watch`: ready from the first success on, not ready while an operator is needed.
    #[must_use]
    pub fn with_health(mut self, health: Health) -> Self {
        health.unready(ROLE);
        self.health = Some(health);
        self
    }

    /// Writes documents on the state of the nodes.
    #[must_use]
    pub fn with_journal(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Watches until stopped: the first of `nodes` that responds as it should. An error never ends it; it ends by itself only when
    /// there are no nodes. Stopping in the middle of a look is as safe as a crash.
    pub async fn run<C: Chain>(mut self, nodes: &[C], stop: CancellationToken) {
        if nodes.is_empty() {
            tracing::error!("no node to watch");
            return;
        }
        let mut known = Nodes::new(nodes.len());
        while !stop.is_cancelled() {
            let round = async {
                let pause = self.round(nodes, &mut known, &stop).await;
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = round => {}
            }
        }
    }

    /// Asks the nodes that are due, then looks at the preferred one; returns the pause before the next round.
    async fn round<C: Chain>(
        &mut self,
        nodes: &[C],
        known: &mut Nodes,
        stop: &CancellationToken,
    ) -> Duration {
        self.probe(nodes, known).await;
        let Some((at, node)) = known.preferred().and_then(|at| Some((at, nodes.get(at)?))) else {
            return known.rest(Instant::now());
        };
        let mut looked = self.look(node).await;
        let mut more = false;
        if let Some((best, took)) = self.seen.take() {
            more = self.position.as_ref().and_then(|(at, _)| at.tip()).is_some_and(|tip| tip.number() < best);
            known.responded(at, best, Instant::now());
            if let (Ok(_), Some((best, other))) = (&looked, known.behind(at)) {
                looked = Err(WatchError::Behind { best, other });
            } else if looked.is_ok() {
                self.node_state(at, Ok(took));
            }
        }
        match looked {
            Ok(_) => {
                (self.backoff, self.moves) = (Backoff::default(), 0);
                known.worked(at);
                self.set_ready(true, stop);
                if more { Duration::ZERO } else { self.config.poll }
            }
            Err(error) => self.note_error(&error, at, known, stop),
        }
    }

    /// Notes an error; returns the pause before the next round.
    fn note_error(
        &mut self,
        error: &WatchError,
        at: usize,
        known: &mut Nodes,
        stop: &CancellationToken,
    ) -> Duration {
        self.retries.with_label_values(&[ROLE, error.label()]).inc();
        if matches!(error, WatchError::Follow(FollowError::Moved)) {
            self.moves += 1;
        }
        let remedy = if self.moves >= MOVES { Remedy::OtherNode } else { error.remedy() };
        match remedy {
            Remedy::OtherNode | Remedy::OtherNodeOrOperator => {
                self.moves = 0;
                self.node_state(at, Err(error));
                known.failed(at, Instant::now());
                let stuck = remedy == Remedy::OtherNodeOrOperator && known.preferred().is_none();
                if stuck {
                    tracing::error!(%error, node = at, "nothing is watched until an operator looks");
                    self.set_ready(false, stop);
                } else {
                    tracing::warn!(%error, node = at, "the node is left alone for a while");
                }
                Duration::ZERO
            }
            Remedy::Again => {
                tracing::warn!(%error, "watching waits");
                self.backoff.next_wait()
            }
            Remedy::Beside => {
                self.meet(error);
                self.config.poll
            }
            Remedy::Operator => {
                tracing::error!(%error, "nothing is posted until an operator looks");
                self.set_ready(false, stop);
                LONG_PAUSE
            }
        }
    }

    /// Another watcher posted first. Two that run side by side meet at every other block: that is counted each time, and logged once.
    fn meet(&mut self, error: &WatchError) {
        let now = Instant::now();
        let before = self.met.replace(now);
        if before.is_none_or(|before| now.duration_since(before) >= ALONE) {
            tracing::info!(%error, "another watcher is ahead; this one takes over when it stops");
        }
    }

    /// Asks nodes that have rested or wait in reserve for their best block, all at once.
    async fn probe<C: Chain>(&mut self, nodes: &[C], known: &mut Nodes) {
        let due = known.due(Instant::now()).into_iter();
        let due: Vec<(usize, &C)> = due.filter_map(|at| Some((at, nodes.get(at)?))).collect();
        let responses = join_all(due.into_iter().map(|(at, node)| async move {
            let started = Instant::now();
            let response = match timeout(PROBE, node.id_at(Revision::Best)).await {
                Ok(Ok(Some(id))) => Ok((id.number(), started.elapsed())),
                Ok(Ok(None)) => Err("it has no best block".to_owned()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no response within {} s", PROBE.as_secs())),
            };
            (at, response)
        }));
        let responses = responses.await;
        let now = Instant::now();
        for (at, response) in &responses {
            match response {
                Ok((best, _)) => known.responded(*at, *best, now),
                Err(_) => known.failed(*at, now),
            }
        }
        for (at, response) in responses {
            match response {
                // It is looked at next, which shows more: its chain may be another one.
                Ok(_) if known.preferred() == Some(at) => {}
                Ok((_, took)) => self.node_state(at, Ok(took)),
                Err(error) => {
                    tracing::warn!(error, node = at, "the node does not respond");
                    self.node_state(at, Err(&error));
                }
            }
        }
    }

    fn node_state(&mut self, at: usize, outcome: Result<Duration, &dyn Display>) {
        self.metrics.node_up.with_label_values(&[&at.to_string()]).set(outcome.is_ok().into());
        let now = self.clock.now();
        if let Some(journal) = &mut self.journal {
            journal.asked(at, outcome, now);
        }
    }

    /// Never ready again once a shutdown has begun.
    fn set_ready(&self, ready: bool, stop: &CancellationToken) {
        match &self.health {
            Some(health) if ready && !stop.is_cancelled() => health.ready(ROLE),
            Some(health) if !ready => health.unready(ROLE),
            _ => {}
        }
    }

    /// One look: what the node has more than was posted is posted. Returns the number of steps that were taken; after an error
    /// the next look starts from what the gateway has.
    pub(crate) async fn look<C: Chain>(&mut self, chain: &C) -> Result<usize, WatchError> {
        let (checkpoint, seq) = match self.position.take() {
            Some(position) => position,
            None => self.resume(chain).await?,
        };
        let follower = Follower::with_bounds(checkpoint.clone(), TRAIL, self.batch);
        // Reading changes nothing: what the gateway has is known until something is posted.
        self.position = Some((checkpoint, seq));
        let source = Timed { chain, seen: Mutex::default() };
        let polled = timeout(LOOK, follower.poll(&source)).await;
        self.seen = source.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Ok(polled) = polled else {
            let blocks = self.batch;
            self.batch = (blocks / 2).max(1);
            return Err(WatchError::Slow { seconds: LOOK.as_secs(), blocks });
        };
        let steps = polled?.steps;
        let finalized = chain.finalized().await?;
        self.metrics.chain_block.with_label_values(&["watched_finalized"]).set(finalized.into());
        if !steps.is_empty() {
            self.position = None;
            self.position = Some(self.post_all(follower, seq, &steps, finalized).await?);
        }
        self.batch = self.batch.saturating_mul(2).min(BATCH);
        Ok(steps.len())
    }

    /// Posts steps, in batches; returns what the gateway has then.
    async fn post_all(
        &self,
        mut follower: Follower,
        seq: i64,
        steps: &[Step],
        finalized: u32,
    ) -> Result<(Checkpoint, i64), WatchError> {
        let (genesis, now) = (self.config.genesis.to_string(), self.clock.now());
        let numbered = (seq + 1..).zip(steps);
        let chain_steps: Vec<ChainStep> = numbered
            .map(|(seq, step)| chain_step(step, seq, (&genesis, finalized), &self.config.watched, now))
            .collect();
        let mut last = seq;
        for range in batches(&chain_steps)? {
            let checkpoint = follower.checkpoint_after(&steps[range.clone()]);
            let posted = &chain_steps[range];
            let batch = ChainBatch {
                genesis_id: genesis.clone(),
                steps: posted.to_vec(),
                checkpoint: Some(serde_json::to_value(&checkpoint)?),
            };
            let response = self.gateway.post(&batch).await?;
            last = posted.last().map_or(last, ChainStep::seq);
            let all = response.results.len() == posted.len()
                && response.results.iter().all(|result| result.outcome == StepOutcome::Accepted);
            if !all || response.highest_seq != last {
                return Err(WatchError::Overtaken);
            }
            follower.commit(checkpoint);
            self.metrics.taken(posted, follower.checkpoint());
        }
        Ok((follower.checkpoint().clone(), last))
    }

    /// Where to go on: behind what the gateway has, or at the start.
    async fn resume<C: Chain>(&self, chain: &C) -> Result<(Checkpoint, i64), WatchError> {
        let question =
            ChainBatch { genesis_id: self.config.genesis.to_string(), steps: Vec::new(), checkpoint: None };
        let response = self.gateway.post(&question).await?;
        let checkpoint = match response.checkpoint {
            Some(checkpoint) => serde_json::from_value(checkpoint)?,
            None => self.start(chain).await?,
        };
        // Beside another watcher this is asked after each of its posts.
        if self.met.is_none() {
            tracing::info!(seq = response.highest_seq, "watching from here");
        }
        Ok((checkpoint, response.highest_seq))
    }

    async fn start<C: Chain>(&self, chain: &C) -> Result<Checkpoint, WatchError> {
        // Later, the checkpoint itself ties us to the network.
        if chain.id_at(Revision::Number(0)).await? != Some(self.config.genesis) {
            return Err(NodeError::WrongNetwork.into());
        }
        let number = self.config.start_block.min(chain.finalized().await?);
        let start = chain.id_at(Revision::Number(number)).await?;
        Ok(Checkpoint::after(start.ok_or(WatchError::NoStart(number))?))
    }
}
