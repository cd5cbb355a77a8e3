//! The watcher of a chain: follows a node's blocks by id and hands every step to the gateway, adopted and undone blocks alike, in
//! order and without a gap.
//!
//! It remembers nothing across a restart. The gateway keeps how far it has come, in the transaction that takes the steps, so that
//! the acknowledgement and the checkpoint are one: whatever dies between a post and its answer, the next start asks and goes on
//! behind the last step that was taken. A second watcher is harmless: the slower one's steps do not fit any more, and it asks again.

mod gateway;
mod steps;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use chain::follow::{BlockSource, Checkpoint, FollowError, Follower, TRAIL};
use chain::node::{NodeError, Revision};
use chain::{BlockId, Node};
use runtime::clock::Clock;
use runtime::metrics::Metrics;
use schemas::payouts::{ChainBatch, ChainStep, StepOutcome};
use tokio_util::sync::CancellationToken;

pub use gateway::{Gateway, GatewayError, HttpGateway};
pub use steps::{Watched, told};

/// Blocks of one batch: a minute's work for a node to hand out, and far below the gateway's cap on steps.
const BATCH: u32 = 64;
/// Pause after trouble.
const PAUSE: Duration = Duration::from_secs(2);
/// Pause after trouble that only a person ends: a chain that parts before all that is remembered, a refused signature.
const LONG_PAUSE: Duration = Duration::from_secs(15);

/// A source of blocks that also tells what is final.
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
    /// What is told.
    pub watched: Watched,
    /// Pause between two looks at the node.
    pub poll: Duration,
    /// Block that a first start begins after.
    pub start_block: u32,
}

/// A watcher.
pub struct Watcher<G> {
    config: WatcherConfig,
    gateway: G,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// The state behind the last step that the gateway took, and that step.
    position: Option<(Follower, i64)>,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The node.
    #[error("node: {0}")]
    Node(#[from] NodeError),
    /// The chain.
    #[error("chain: {0}")]
    Follow(#[from] FollowError),
    /// The gateway.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The gateway's checkpoint does not read.
    #[error("the gateway's checkpoint does not read: {0}")]
    Checkpoint(#[from] serde_json::Error),
    /// The node has no block to begin after.
    #[error("the node has no block {0} to begin after: set watch.start_block")]
    NoStart(u32),
}

impl WatchError {
    /// Metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Node(_) | Self::Follow(FollowError::Source(_)) => "node",
            Self::Follow(FollowError::Moved) => "moved",
            Self::Follow(_) | Self::NoStart(_) => "chain",
            Self::Gateway(GatewayError::Gap(_)) => "gap",
            Self::Gateway(GatewayError::Unavailable(_)) => "gateway",
            Self::Gateway(_) => "refused",
            Self::Checkpoint(_) => "checkpoint",
        }
    }

    /// Whether another node may answer better.
    fn is_the_nodes(&self) -> bool {
        matches!(self.label(), "node" | "chain")
    }

    fn pause(&self) -> Duration {
        match self.label() {
            "moved" | "gap" => Duration::ZERO,
            "chain" | "refused" | "checkpoint" => LONG_PAUSE,
            _ => PAUSE,
        }
    }
}

impl<G: Gateway> Watcher<G> {
    /// A watcher that has not looked yet.
    #[must_use]
    pub fn new(config: WatcherConfig, gateway: G, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self { config, gateway, clock, metrics, position: None }
    }

    /// Watches until stopped: the first of `nodes` that answers, and the first again a while after it failed.
    pub async fn run<C: Chain>(mut self, nodes: &[C], stop: CancellationToken) {
        let mut node = 0;
        while !stop.is_cancelled() {
            let Some(chain) = nodes.get(node % nodes.len().max(1)) else { return };
            let pause = match self.look(chain).await {
                // More is waiting, most likely: a batch was full.
                Ok(taken) if taken >= BATCH as usize => Duration::ZERO,
                Ok(_) => self.config.poll,
                Err(error) => {
                    self.metrics.retries.with_label_values(&["watch", error.label()]).inc();
                    tracing::warn!(%error, node = node % nodes.len(), "watching waits");
                    if error.is_the_nodes() {
                        node += 1;
                    }
                    error.pause()
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look: what the node has more than was told, told. Returns the number of steps that were taken.
    ///
    /// # Errors
    /// [`WatchError`]; the next look starts from what the gateway has.
    pub async fn look<C: Chain>(&mut self, chain: &C) -> Result<usize, WatchError> {
        if self.position.is_none() {
            self.position = Some(self.resume(chain).await?);
        }
        let Some((follower, seq)) = &mut self.position else { return Ok(0) };
        let batch = follower.poll(chain).await?;
        if batch.steps.is_empty() {
            return Ok(0);
        }
        let finalized = chain.finalized().await?;
        let (genesis, now) = (self.config.genesis.to_string(), self.clock.now());
        let steps: Vec<ChainStep> = (*seq + 1..)
            .zip(batch.steps)
            .map(|(seq, step)| told(step, seq, &genesis, finalized, &self.config.watched, now))
            .collect();
        let checkpoint = Some(serde_json::to_value(&batch.checkpoint)?);
        let (count, last) = (steps.len(), steps.last().map_or(*seq, ChainStep::seq));
        let head = batch.checkpoint.tip().map_or(0, |tip| tip.number());
        // Until the answer is seen, what the gateway has is not known.
        let posted = ChainBatch { genesis_id: genesis, steps, checkpoint };
        let answer = match self.gateway.post(&posted).await {
            Ok(answer) => answer,
            Err(error) => {
                self.position = None;
                return Err(error.into());
            }
        };
        let ours = answer.highest_seq == last
            && answer.results.iter().all(|result| result.outcome == StepOutcome::Accepted);
        if ours {
            follower.commit(batch.checkpoint);
            *seq = last;
        } else {
            // A duplicate: an earlier post was taken though its answer was lost, or another watcher was faster.
            self.position = None;
        }
        self.metrics.chain_block.with_label_values(&["watched"]).set(head.into());
        Ok(count)
    }

    /// Where to go on: behind what the gateway has, or at the start.
    async fn resume<C: Chain>(&self, chain: &C) -> Result<(Follower, i64), WatchError> {
        let question =
            ChainBatch { genesis_id: self.config.genesis.to_string(), steps: Vec::new(), checkpoint: None };
        let answer = self.gateway.post(&question).await?;
        let checkpoint = match answer.checkpoint {
            Some(checkpoint) => serde_json::from_value(checkpoint)?,
            None => {
                let number = self.config.start_block;
                let start = chain.id_at(Revision::Number(number)).await?;
                Checkpoint::after(start.ok_or(WatchError::NoStart(number))?)
            }
        };
        tracing::info!(seq = answer.highest_seq, "watching from here");
        Ok((Follower::with_bounds(checkpoint, TRAIL, BATCH), answer.highest_seq))
    }
}
