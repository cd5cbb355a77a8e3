//! What operators have set: which nodes are asked, and which transactions are posted.

use chain::contract::token_balances;
use chain::follow::BlockSource;
use chain::health::Heads;
use chain::node::{NodeError, Revision};
use chain::{Address, BlockId, Node, Wei};

use crate::steps::Watched;

/// A source of blocks that also knows its newest block's age and what is final.
pub trait Chain: BlockSource + Heads {
    /// Height up to which blocks are final.
    fn finalized(&self) -> impl Future<Output = Result<u32, NodeError>> + Send;

    /// What accounts hold of a token after a block, in their order, as far as the contract says it. A chain that does not know says
    /// nothing.
    fn token_balances(
        &self,
        _token: Address,
        _of: &[Address],
        _at: BlockId,
    ) -> impl Future<Output = Result<Vec<Wei>, NodeError>> + Send {
        async { Ok(Vec::new()) }
    }
}

impl Chain for Node {
    async fn finalized(&self) -> Result<u32, NodeError> {
        Ok(self.block(Revision::Finalized).await?.map_or(0, |block| block.number))
    }

    async fn token_balances(
        &self,
        token: Address,
        of: &[Address],
        at: BlockId,
    ) -> Result<Vec<Wei>, NodeError> {
        token_balances(self, token, of, Revision::Id(at)).await
    }
}

/// An operator's order to tell blocks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// Which order it is; a later one is higher.
    pub order: i64,
    /// Height of the block after which all that were told are told again.
    pub to: u32,
}

/// What is told of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watching {
    /// Which transactions are posted.
    pub watched: Watched,
    /// B3TR, whose receivers' balances are told; none where no operator has named it.
    pub token: Option<Address>,
    /// The newest order to tell blocks again.
    pub rewind: Option<Rewind>,
}

/// What is watched, and through which nodes.
#[derive(Clone, Debug)]
pub struct Settings<C> {
    /// What is told.
    pub watching: Watching,
    /// Addresses of the nodes, the preferred one first.
    pub urls: Vec<String>,
    /// Clients of them, in the same order.
    pub nodes: Vec<C>,
}

/// Why what operators have set is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It could not be read: what was read before goes on to count.
    #[error("{0}")]
    Later(String),
    /// It cannot be used as it is: an operator has to look.
    #[error("{0}")]
    Operator(String),
}

/// Where it is read, again and again while the watcher runs.
pub trait Source: Send + Sync {
    /// A client of a node.
    type Chain: Chain;

    /// What counts now.
    fn load(&self) -> impl Future<Output = Result<Settings<Self::Chain>, SourceError>> + Send;
}
