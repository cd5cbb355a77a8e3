//! The loop: where to go on, what a node has more, what the gateway took of it.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chain::BlockId;
use chain::follow::{Checkpoint, FollowError, Follower, TRAIL};
use chain::health::Health as NodeHealth;
use chain::node::{NodeError, Revision};
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use runtime::health::Health;
use runtime::metrics::{Counter, Metrics, MetricsError};
use schemas::payouts::{ChainBatch, ChainStep, StepOutcome};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::balances;
use crate::batches::batches;
use crate::error::{Remedy, WatchError};
use crate::gateway::Gateway;
use crate::journal::Journal;
use crate::metrics::WatchMetrics;
use crate::retell;
use crate::source::{Chain, Settings, Source, SourceError, Watching};
use crate::steps::chain_step;

/// Blocks that a look adopts at most.
pub(crate) const BATCH: u32 = 64;
/// Time that a node has to hand out the blocks of a look: almost a second a block. After a failure half as many are asked for, so
/// that a slow node still gets on.
const LOOK: Duration = Duration::from_secs(60);
/// Time that a node has to say what is final, beside the one that is looked at.
const WITNESS: Duration = Duration::from_secs(2);
/// Pause after an error that only an operator ends.
const LONG_PAUSE: Duration = Duration::from_secs(15);
/// Looks in a row that may find the chain changed under them before the node is held to be at fault.
const MOVES: u32 = 5;
/// How long no other watcher was met until the next one is worth a line again: a quarter of an hour, 90 blocks of a public network.
const ALONE: Duration = Duration::from_secs(15 * 60);
/// How long what operators have set is trusted before it is read again.
const RELOAD: Duration = Duration::from_secs(15);
/// Pause between two looks at what operators have set while it is not usable.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// This role's name in health and metrics.
const ROLE: &str = "watch";

/// How to watch.
#[derive(Clone, Debug)]
pub struct WatcherConfig {
    /// The network.
    pub genesis: BlockId,
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
    /// Height up to which blocks are final by the word of two nodes, where two are watched.
    agreed: u32,
    /// Blocks that the next look asks for at most.
    batch: u32,
    /// What is known of each node.
    nodes: NodeHealth,
    moves: u32,
    /// When another watcher was last met.
    met: Option<Instant>,
    backoff: Backoff,
}

/// What operators have set, as it was read last.
pub struct Known<C> {
    settings: Settings<C>,
    /// When; none where it is to be read again at once.
    read: Option<Instant>,
}

/// The nodes beside the one that is looked at.
struct Witnesses<'a, C> {
    others: Vec<&'a C>,
    /// Nodes that must call a block final.
    needed: usize,
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
            agreed: 0,
            batch: BATCH,
            nodes: NodeHealth::default(),
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

    /// Watches until stopped: the first of the nodes that is well. An error never ends it. Stopping in the middle of a look is as
    /// safe as a crash.
    pub async fn run<S: Source>(mut self, source: &S, stop: CancellationToken) {
        let mut known = None;
        while !stop.is_cancelled() {
            let round = async {
                let pause = self.round(source, &mut known, &stop).await;
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = round => {}
            }
        }
    }

    /// Reads again what operators have set, where it is due, and looks at the nodes; returns the pause before the next round. `known`
    /// is what the round before has left, none before the first.
    pub async fn round<S: Source>(
        &mut self,
        source: &S,
        known: &mut Option<Known<S::Chain>>,
        stop: &CancellationToken,
    ) -> Duration {
        let trusted = |known: &Known<_>| known.read.is_some_and(|read| read.elapsed() < RELOAD);
        if !known.as_ref().is_some_and(trusted) {
            match source.load().await {
                Ok(settings) => {
                    self.note_nodes(known.as_ref().map(|known| &known.settings), &settings);
                    *known = Some(Known { settings, read: Some(Instant::now()) });
                }
                Err(error @ SourceError::Later(_)) => {
                    tracing::warn!(%error, "what is set was not read again");
                    if let Some(known) = known {
                        known.read = Some(Instant::now());
                    }
                }
                Err(error @ SourceError::Operator(_)) => {
                    tracing::error!(%error, "nothing is watched until an operator looks");
                    self.set_ready(false, stop);
                    *known = None;
                }
            }
        }
        let Some(known) = known else { return LOOK_AGAIN };
        let pause = self.look_at(&known.settings, stop).await;
        if self.nodes.rest(&known.settings.urls, Instant::now()).is_some() {
            // An operator may have mended a row: the next round reads it.
            known.read = None;
        }
        pause
    }

    /// Shows nodes that are no longer asked as gone, and documents those that are.
    fn note_nodes<C>(&mut self, before: Option<&Settings<C>>, now: &Settings<C>) {
        if before.is_some_and(|before| before.urls == now.urls) {
            return;
        }
        for at in now.urls.len()..before.map_or(0, |before| before.urls.len()) {
            self.metrics.node_up.with_label_values(&[&at.to_string()]).set(0);
        }
        if let Some(journal) = &mut self.journal {
            journal.watches(&now.urls);
        }
    }

    /// Asks the nodes for their newest blocks and looks at the first that is well; where it fails, at the next one at once. Returns
    /// the pause before the next round.
    async fn look_at<C: Chain>(&mut self, settings: &Settings<C>, stop: &CancellationToken) -> Duration {
        let Settings { urls, nodes, .. } = settings;
        if let Some(rest) = self.nodes.rest(urls, Instant::now()) {
            return rest;
        }
        let seconds = u64::try_from(self.clock.now().0.div_euclid(1_000_000)).unwrap_or(0);
        let (mut well, mut stuck) = (Vec::new(), false);
        for (at, outcome) in self.nodes.survey(urls, nodes, seconds).await {
            match outcome {
                Ok((best, took)) => well.push((at, best, took)),
                Err(ailment) => stuck |= self.note_failure(at, &ailment.into()),
            }
        }
        let mut pause = None;
        let others = |asked: usize| {
            well.iter().filter(move |(at, ..)| *at != asked).filter_map(|(at, ..)| nodes.get(*at))
        };
        for &(at, best, took) in &well {
            let (Some(url), Some(node)) = (urls.get(at), nodes.get(at)) else { continue };
            if pause.is_some() {
                // It waits in reserve, and is known to be well.
                self.node_state(at, Ok(took));
                continue;
            }
            let witnesses = Witnesses { others: others(at).collect(), needed: nodes.len().clamp(1, 2) };
            match self.look_beside(node, &witnesses, settings.watching).await {
                Ok(_) => {
                    self.node_state(at, Ok(took));
                    (self.backoff, self.moves) = (Backoff::default(), 0);
                    self.nodes.worked(url);
                    self.set_ready(true, stop);
                    let more = self.position.as_ref().is_some_and(|(checkpoint, _)| {
                        checkpoint.tip().is_some_and(|tip| tip.number() < best)
                            || retell::due(checkpoint, settings.watching.rewind).is_some()
                    });
                    pause = Some(if more { Duration::ZERO } else { self.config.poll });
                }
                Err(error) => match self.remedy(&error) {
                    Remedy::OtherNode | Remedy::OtherNodeOrOperator => {
                        self.moves = 0;
                        stuck |= self.note_failure(at, &error);
                        self.nodes.failed(url, Instant::now());
                    }
                    remedy => pause = Some(self.wait(&error, remedy, stop)),
                },
            }
        }
        if pause.is_none() && stuck {
            tracing::error!("nothing is watched until an operator looks");
            self.set_ready(false, stop);
        }
        pause.or_else(|| self.nodes.rest(urls, Instant::now())).unwrap_or(LOOK_AGAIN)
    }

    /// Notes that a node is left alone for a while; true where an operator has to look if no other is better.
    fn note_failure(&mut self, at: usize, error: &WatchError) -> bool {
        self.retries.with_label_values(&[ROLE, error.label()]).inc();
        tracing::warn!(%error, node = at, "the node is left alone for a while");
        self.node_state(at, Err(error));
        error.remedy() == Remedy::OtherNodeOrOperator
    }

    /// What to do about a look's error. A node under which the chain changes look after look is at fault itself.
    fn remedy(&mut self, error: &WatchError) -> Remedy {
        if matches!(error, WatchError::Follow(FollowError::Moved)) {
            self.moves += 1;
        }
        if self.moves >= MOVES { Remedy::OtherNode } else { error.remedy() }
    }

    /// Notes an error that is no node's; returns the pause before the next round.
    fn wait(&mut self, error: &WatchError, remedy: Remedy, stop: &CancellationToken) -> Duration {
        self.retries.with_label_values(&[ROLE, error.label()]).inc();
        match remedy {
            Remedy::Beside => {
                self.meet(error);
                self.config.poll
            }
            Remedy::Operator => {
                tracing::error!(%error, "nothing is posted until an operator looks");
                self.set_ready(false, stop);
                LONG_PAUSE
            }
            Remedy::Again | Remedy::OtherNode | Remedy::OtherNodeOrOperator => {
                tracing::warn!(%error, "watching waits");
                self.backoff.next_wait()
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
    async fn look_beside<C: Chain>(
        &mut self,
        chain: &C,
        witnesses: &Witnesses<'_, C>,
        watching: Watching,
    ) -> Result<usize, WatchError> {
        let (checkpoint, seq) = match self.position.take() {
            Some(position) => position,
            None => self.resume(chain).await?,
        };
        let mut follower = Follower::with_bounds(checkpoint.clone(), TRAIL, self.batch);
        // Reading changes nothing: what the gateway has is known until something is posted.
        self.position = Some((checkpoint, seq));
        let Ok(polled) = timeout(LOOK, follower.poll(chain)).await else { return Err(self.slow()) };
        let steps = polled?.steps;
        let finalized = self.finalized(chain, witnesses).await?;
        self.metrics.chain_block.with_label_values(&["watched_finalized"]).set(finalized.into());
        if !steps.is_empty() {
            let (genesis, now) = (self.config.genesis.to_string(), self.clock.now());
            let numbered = (seq + 1..).zip(&steps);
            let mut told: Vec<ChainStep> = numbered
                .map(|(seq, step)| chain_step(step, seq, (&genesis, finalized), &watching.watched, now))
                .collect();
            balances::add(chain, &mut told, watching.token).await;
            self.post_all(&told, |range| {
                let checkpoint = follower.checkpoint_after(&steps[range]);
                follower.commit(checkpoint.clone());
                checkpoint
            })
            .await?;
        }
        let retold = self.retell(chain, watching, finalized).await?;
        self.batch = self.batch.saturating_mul(2).min(BATCH);
        Ok(steps.len() + retold)
    }

    /// A look at a node that is the only one.
    #[cfg(test)]
    pub(crate) async fn look<C: Chain>(
        &mut self,
        chain: &C,
        watching: Watching,
    ) -> Result<usize, WatchError> {
        self.look_beside(chain, &Witnesses { others: Vec::new(), needed: 1 }, watching).await
    }

    /// Height up to which blocks are final. Whoever is told it takes a payment for settled: one node of two is not believed, and what
    /// was agreed before counts while the other gives no response.
    async fn finalized<C: Chain>(
        &mut self,
        chain: &C,
        witnesses: &Witnesses<'_, C>,
    ) -> Result<u32, NodeError> {
        let own = chain.finalized().await?;
        if witnesses.needed <= 1 {
            return Ok(own);
        }
        let mut heights = vec![own];
        for witness in &witnesses.others {
            match timeout(WITNESS, witness.finalized()).await {
                Ok(Ok(height)) => heights.push(height),
                Ok(Err(error)) => tracing::warn!(%error, "a node does not say what is final"),
                Err(_) => tracing::warn!("a node does not say what is final in time"),
            }
        }
        heights.sort_unstable_by(|one, other| other.cmp(one));
        let agreed = heights.get(witnesses.needed - 1).copied();
        self.agreed = self.agreed.max(agreed.unwrap_or(0));
        Ok(self.agreed)
    }

    /// Tells blocks again where an operator has ordered it; returns the number of steps that were taken.
    async fn retell<C: Chain>(
        &mut self,
        chain: &C,
        watching: Watching,
        finalized: u32,
    ) -> Result<usize, WatchError> {
        let Some((checkpoint, seq)) = self.position.clone() else { return Ok(0) };
        let Some(due) = retell::due(&checkpoint, watching.rewind) else { return Ok(0) };
        let read = retell::blocks(chain, &checkpoint, due, (self.batch, finalized));
        let Ok(blocks) = timeout(LOOK, read).await else { return Err(self.slow()) };
        let blocks = blocks?;
        let genesis = self.config.genesis.to_string();
        let place = (genesis.as_str(), finalized);
        let mut told = retell::steps(&blocks, &checkpoint, (seq, place), &watching.watched, self.clock.now());
        balances::add(chain, &mut told, watching.token).await;
        self.post_all(&told, |range| retell::told(&checkpoint, due, &blocks[range])).await?;
        Ok(blocks.len())
    }

    /// The node takes too long: half as much is asked for at the next look.
    fn slow(&mut self) -> WatchError {
        let blocks = self.batch;
        self.batch = (blocks / 2).max(1);
        WatchError::Slow { seconds: LOOK.as_secs(), blocks }
    }

    /// Posts steps, in batches, each with the checkpoint that is true `after` it; then the gateway has the last one.
    async fn post_all(
        &mut self,
        steps: &[ChainStep],
        mut after: impl FnMut(Range<usize>) -> Checkpoint,
    ) -> Result<(), WatchError> {
        // What the gateway has is not known until it has responded.
        self.position = None;
        for range in batches(steps)? {
            let posted = &steps[range.clone()];
            let checkpoint = after(range);
            let batch = ChainBatch {
                genesis_id: self.config.genesis.to_string(),
                steps: posted.to_vec(),
                checkpoint: Some(serde_json::to_value(&checkpoint)?),
            };
            let response = self.gateway.post(&batch).await?;
            let last = posted.last().map_or(0, ChainStep::seq);
            let all = response.results.len() == posted.len()
                && response.results.iter().all(|result| result.outcome == StepOutcome::Accepted);
            if !all || response.highest_seq != last {
                self.position = None;
                return Err(WatchError::Overtaken);
            }
            self.metrics.taken(posted, &checkpoint);
            self.position = Some((checkpoint, last));
        }
        Ok(())
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
