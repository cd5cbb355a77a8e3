//! Which node is asked: the first by priority that is well, by [`chain::health`].

use std::time::{Duration, Instant};

use chain::Node;
use chain::health::{Health, LIMITS};
use chain::node::NodeError;
use runtime::connections::Connections;
use schemas::ids::EventId;
use schemas::payouts::network_label;
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
        let Memory { network: Some(known), nodes, best, chosen, .. } = memory else {
            return Err(runtime::StageError::new("network", "not loaded").into());
        };
        let fresh = known.probed.filter(|(at, ..)| at.elapsed() < FRESH);
        let (at, height) = match fresh {
            Some((_, at, height)) => (at, height),
            None => {
                let (at, height) = self.choose(known, nodes).await?;
                known.probed = Some((Instant::now(), at, height));
                (at, height)
            }
        };
        (*best, *chosen) = (height, known.network.urls.get(at).cloned());
        let node = known.network.nodes.get(at).cloned();
        let node = node.ok_or_else(|| runtime::StageError::new("network", "has no node"))?;
        Ok((&known.network, node, height))
    }

    /// Asks the nodes for their newest blocks, and takes the first by priority that is well.
    async fn choose(&self, known: &mut Known, nodes: &mut Health) -> Result<(usize, u32), RoundError> {
        let clock = self.clock.now();
        let seconds = u64::try_from(clock.0 / 1_000_000).unwrap_or(0);
        let responses = nodes.survey(&known.network.urls, &known.network.nodes, seconds).await;
        let (mut outbox, mut chosen, mut failure) = (Outbox::default(), None, NodeError::UnknownBlock);
        for (at, outcome) in responses {
            let told =
                outcome.as_ref().map(|(_, took)| *took).map_err(|error| error as &dyn std::fmt::Display);
            if let Some(document) = known.states.asked(at, told, clock) {
                let mut documents = Documents::about(EventId(Uuid::now_v7()), clock);
                documents.add(0, &document);
                outbox.documents(self.schemas, &documents.into_records())?;
            }
            match outcome {
                Ok((height, _)) => chosen = chosen.or(Some((at, height))),
                Err(error) => {
                    tracing::warn!(node = at, %error, "the node is left alone for a while");
                    failure = error.into();
                }
            }
        }
        self.publish(outbox).await?;
        chosen.ok_or_else(|| Obstacle::from(failure).into())
    }
}
