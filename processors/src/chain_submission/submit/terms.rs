//! How transactions are made: what may be asked for and what is offered for it.

use chain::Wei;
use chain::tx::MAX_TX_GAS;

use crate::chain_submission::ledger::outbox::Schemas;
use crate::chain_submission::ledger::publish::Publisher;

/// What is offered for gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// At most 1.25 times the next base fee; the suggested tip.
    Low,
    /// At most twice the next base fee, which survives 17 full blocks; twice the tip.
    Medium,
    /// At most four times the next base fee; five times the tip.
    High,
}

impl Strategy {
    /// Reads the configuration's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High].into_iter().find(|strategy| strategy.label() == text)
    }

    /// The word in tables and configuration.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// Most per gas and tip, from the next base fee and the suggested tip; the tip is never above the most.
    pub(super) fn fees(self, base_fee: Wei, tip: Wei) -> Option<(Wei, Wei)> {
        let (quarters, tips) = match self {
            Self::Low => (5, 1),
            Self::Medium => (8, 2),
            Self::High => (16, 5),
        };
        let most = Wei(base_fee.checked_mul(quarters)?.0 >> 2);
        let tip = tip.checked_mul(tips)?;
        let most = most.checked_add(tip)?;
        Some((most, tip))
    }
}

/// How transactions are made.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Blocks after the reference in which a transaction is valid.
    pub expiration: u32,
    /// Gas that a transaction of ours may ask for.
    pub gas_ceiling: u64,
    /// What is offered for gas.
    pub strategy: Strategy,
    /// Wei of B3TR that may be signed for in a day.
    pub daily_ceiling: Wei,
}

impl Terms {
    /// Gas that a transaction may ask for at most while a block holds `block_limit`: by our terms, the network's and the block's.
    #[must_use]
    pub fn most_gas(&self, block_limit: u64) -> u64 {
        self.gas_ceiling.min(MAX_TX_GAS).min(block_limit)
    }

    /// What publishes changes under these terms.
    #[must_use]
    pub fn publisher(&self, schemas: Schemas) -> Publisher {
        Publisher { schemas, gas_ceiling: i64::try_from(self.gas_ceiling).unwrap_or(i64::MAX) }
    }
}
