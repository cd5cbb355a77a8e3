//! Why a look came to nothing, and what follows from it.

use chain::follow::FollowError;
use chain::health::Ailment;
use chain::node::NodeError;

use crate::gateway::GatewayError;

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The node.
    #[error("node: {0}")]
    Node(#[from] NodeError),
    /// The chain.
    #[error("chain: {0}")]
    Follow(#[from] FollowError),
    /// The node responds, but too slowly to keep up.
    #[error("the node took more than {seconds} s to hand out {blocks} blocks")]
    Slow {
        /// Seconds that it was given.
        seconds: u64,
        /// Blocks that it was asked for.
        blocks: u32,
    },
    /// The node is not well.
    #[error("node: {0}")]
    Ailing(Ailment),
    /// The node has no block to begin after.
    #[error("the node has no block {0} to begin after: set watch.start_block")]
    NoStart(u32),
    /// The gateway.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The gateway has other steps under these numbers: another watcher was faster, or a response to us was lost.
    #[error("the gateway has steps of another post; asking where to go on")]
    Overtaken,
    /// The gateway's checkpoint does not read.
    #[error("the gateway's checkpoint does not read: {0}")]
    Checkpoint(#[from] serde_json::Error),
}

impl From<Ailment> for WatchError {
    fn from(ailment: Ailment) -> Self {
        match ailment {
            Ailment::Failed(error) => Self::Node(error),
            other => Self::Ailing(other),
        }
    }
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Ask another node.
    OtherNode,
    /// Ask another node; if none is better, an operator has to look.
    OtherNodeOrOperator,
    /// The same again, at once or after a growing pause.
    Again,
    /// Another watcher is ahead, and all is well: look again after the usual pause.
    Beside,
    /// An operator has to look; nothing is lost until then.
    Operator,
}

impl WatchError {
    /// Metric label, one of a closed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.sorted().0
    }

    pub(crate) fn remedy(&self) -> Remedy {
        self.sorted().1
    }

    /// The whole mapping.
    fn sorted(&self) -> (&'static str, Remedy) {
        use Remedy::{Again, Beside, Operator, OtherNode, OtherNodeOrOperator};
        match self {
            Self::Node(error) | Self::Follow(FollowError::Source(error)) => match error {
                NodeError::WrongNetwork => ("network", OtherNodeOrOperator),
                _ => ("node", OtherNode),
            },
            Self::Slow { .. } => ("slow", OtherNode),
            Self::Ailing(ailment) => match ailment {
                Ailment::Failed(_) => ("node", OtherNode),
                Ailment::Silent => ("slow", OtherNode),
                Ailment::Behind { .. } => ("behind", OtherNode),
                Ailment::Stale { .. } => ("stale", OtherNode),
            },
            Self::Follow(FollowError::Moved) => ("moved", Again),
            Self::Follow(FollowError::TooDeep { .. }) => ("too_deep", OtherNodeOrOperator),
            Self::Follow(FollowError::Inconsistent(_)) => ("inconsistent", OtherNodeOrOperator),
            Self::NoStart(_) => ("no_start", OtherNodeOrOperator),
            Self::Overtaken | Self::Gateway(GatewayError::Gap(_)) => ("overtaken", Beside),
            Self::Gateway(GatewayError::Unavailable(_)) => ("gateway", Again),
            Self::Gateway(GatewayError::Refused { .. } | GatewayError::Config(_)) => ("refused", Operator),
            Self::Checkpoint(_) => ("checkpoint", Operator),
        }
    }
}
