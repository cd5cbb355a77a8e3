//! The rounds of `VeBetterDAO`, so that an action counts in the round in which it was done, however late its reward is claimed.

use std::collections::BTreeMap;

use chain::Node;
use chain::contract::Contract;
use chain::node::Revision::{Best, Number};
use schemas::ids::Micros;

use super::obstacle::Obstacle;
use crate::chain_submission::network::Network;

/// Rounds back that are looked at: a year of weeks. What was done before counts in the oldest of them.
const OLDEST: u64 = 52;

/// When rounds began, by what one network's contract told. A round that has begun begins at no other time, but for the seconds that a
/// fork may move it by.
#[derive(Debug, Default)]
pub struct Rounds {
    began: BTreeMap<u64, u64>,
    current: u64,
}

impl Rounds {
    /// Reads the current round, and of earlier ones those that are needed to know in which round `oldest` lies. Nothing is read where the
    /// network has no contract of rounds.
    ///
    /// # Errors
    /// [`Obstacle`].
    pub async fn read(&mut self, node: &Node, network: &Network, oldest: Micros) -> Result<(), Obstacle> {
        let Some(address) = network.voting else {
            *self = Self::default();
            return Ok(());
        };
        let voting = Contract::new(node, address, Best);
        self.current = voting.current_round().await?;
        let (oldest, last) = (seconds(oldest), self.current.saturating_sub(OLDEST).max(1));
        for round in (last..=self.current).rev() {
            let began = match self.began.get(&round) {
                Some(began) => *began,
                None => {
                    let number = voting.round_begins(round).await?;
                    let block = node.block(Number(number)).await?;
                    let began = block.map_or(0, |block| block.timestamp);
                    self.began.insert(round, began);
                    began
                }
            };
            if began <= oldest {
                break;
            }
        }
        Ok(())
    }

    /// Whether actions can be attributed to rounds: one has begun.
    #[must_use]
    pub fn known(&self) -> bool {
        self.current > 0
    }

    /// The round in which something was done: the newest that had begun, and the oldest that is known for what was done before it.
    #[must_use]
    pub fn of(&self, at: Micros) -> u64 {
        let begun = self.began.range(..=self.current).rev().find(|(_, began)| **began <= seconds(at));
        begun.or_else(|| self.began.first_key_value()).map_or(self.current, |(round, _)| *round)
    }
}

fn seconds(at: Micros) -> u64 {
    u64::try_from(at.0.div_euclid(1_000_000)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_counts_in_the_round_that_had_begun_when_it_was_done() {
        let rounds = Rounds { began: [(3, 300), (4, 400), (5, 500)].into(), current: 5 };
        let of = |seconds: i64| rounds.of(Micros(seconds * 1_000_000));
        assert_eq!((of(300), of(399), of(400), of(10_000)), (3, 3, 4, 5));
        assert_eq!(of(0), 3, "what was done before all that is known counts in the oldest of them");
        assert!(rounds.known() && !Rounds::default().known());
    }
}
