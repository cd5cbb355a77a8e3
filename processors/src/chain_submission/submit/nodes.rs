//! Which node is asked: the first by priority that is well, by [`chain::health`].

use std::time::Duration;

use chain::Node;
use chain::health::{Health, LIMITS};
use chain::node::NodeError;
use runtime::connections::Connections;
use schemas::ids::EventId;
use schemas::payouts::network_label;
use tokio::time::Instant;
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
/// The network as it was loaded and its nodes as they last responded.
pub(super) struct Known {
    network: Network,
    states: Connections,
    read: Instant,
    probed: Option<Probed>,
}

/// How the nodes were when they were asked last.
#[derive(Clone)]
struct Probed {
    at: Instant,
    /// Those that were well, with their heights, by priority; never empty.
    well: Vec<(usize, u32)>,
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
            let network = network.observed(self.observer.as_ref());
            let kept = memory.network.take().filter(|before| before.network.urls == network.urls);
            let label = network_label(&network.genesis.to_string());
            let states = kept.map_or_else(|| Connections::new(label, &network.urls), |known| known.states);
            memory.network = Some(Known { network, states, read: Instant::now(), probed: None });
        }
        let Memory { network: Some(known), nodes, best, chosen, .. } = memory else {
            return Err(runtime::StageError::new("network", "not loaded").into());
        };
        let fresh = known.probed.as_ref().filter(|probed| probed.at.elapsed() < FRESH).cloned();
        let Probed { well, .. } = match fresh {
            Some(probed) => probed,
            None => {
                let well = self.choose(known, nodes).await?;
                known.probed.insert(Probed { at: Instant::now(), well }).clone()
            }
        };
        let (at, height) = well.first().copied().ok_or_else(|| Obstacle::from(NodeError::UnknownBlock))?;
        (*best, *chosen) = (height, known.network.urls.get(at).cloned());
        let node = known.network.nodes.get(at).cloned();
        let node = node.ok_or_else(|| runtime::StageError::new("network", "has no node"))?;
        Ok((&known.network, node, height))
    }

    /// The nodes that were well when they were asked last, behind the one that [`Submitter::node`] gives.
    pub(super) fn witnesses(memory: &Memory) -> Vec<Node> {
        let Some(known) = &memory.network else { return Vec::new() };
        let well = known.probed.iter().flat_map(|probed| probed.well.iter().skip(1));
        well.filter_map(|(at, _)| known.network.nodes.get(*at).cloned()).collect()
    }

    /// Asks the nodes for their newest blocks, and gives those that are well, by priority; at least one.
    async fn choose(&self, known: &mut Known, nodes: &mut Health) -> Result<Vec<(usize, u32)>, RoundError> {
        let clock = self.clock.now();
        let seconds = u64::try_from(clock.0 / 1_000_000).unwrap_or(0);
        let responses = nodes.survey(&known.network.urls, &known.network.nodes, seconds).await;
        let (mut outbox, mut well, mut failure) = (Outbox::default(), Vec::new(), NodeError::UnknownBlock);
        for (at, outcome) in responses {
            let told =
                outcome.as_ref().map(|(_, took)| *took).map_err(|error| error as &dyn std::fmt::Display);
            if let Some(document) = known.states.asked(at, told, clock) {
                let mut documents = Documents::about(EventId(Uuid::now_v7()), clock);
                documents.add(0, &document);
                outbox.documents(self.schemas, &documents.into_records())?;
            }
            match outcome {
                Ok((height, _)) => well.push((at, height)),
                Err(error) => {
                    tracing::warn!(node = at, %error, "the node is left alone for a while");
                    failure = error.into();
                }
            }
        }
        self.publish(outbox).await?;
        if well.is_empty() { Err(Obstacle::from(failure).into()) } else { Ok(well) }
    }
}
