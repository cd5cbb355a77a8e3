//! What the passport of `VeBetterDAO` says of accounts, so that nobody is paid whom it takes for a cheater.

use alloy_sol_types::SolCall;

use super::{Contract, ContractError};
use crate::abi::{Passport, account};
use crate::id::Address;
use crate::node::{CallOutcome, NodeError, Simulation, Snippet};
use crate::tx::Clause;

/// Calls for each account.
const CALLS: usize = 3;

/// What the passport says of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It is on the list of known cheaters.
    pub blacklisted: bool,
    /// It is on the list of known people, whatever apps report of it.
    pub whitelisted: bool,
    /// How often apps have reported it as a bot.
    pub signals: u64,
}

/// What the passport says of several accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// So many reports make a bot; 0 where none do.
    pub threshold: u64,
    /// Of each account, in the order in which they were asked for.
    pub of: Vec<Standing>,
}

impl Standings {
    /// Whether the passport takes an account of this standing for a bot by what apps have reported.
    #[must_use]
    pub fn is_reported(&self, standing: &Standing) -> bool {
        self.threshold > 0 && standing.signals >= self.threshold && !standing.whitelisted
    }
}

impl Contract<'_> {
    /// Passport: what it says of these accounts, all as of one state and in one question to the node.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn standings(&self, of: &[Address]) -> Result<Standings, ContractError> {
        let threshold = Passport::signalingThresholdCall {}.abi_encode();
        let calls = of.iter().flat_map(|who| {
            let user = account(*who);
            [
                Passport::isBlacklistedCall { user }.abi_encode(),
                Passport::isWhitelistedCall { user }.abi_encode(),
                Passport::signaledCounterCall { user }.abi_encode(),
            ]
        });
        let clauses: Vec<Clause> =
            std::iter::once(threshold).chain(calls).map(|data| Clause::call(self.address, data)).collect();
        let (caller, at) = (Address::default(), self.at);
        let simulation = Simulation { clauses: &clauses, caller, gas_payer: None, gas: None, at };
        let outcomes = self.node.simulate(&simulation).await?;
        let (first, others) = outcomes.split_first().ok_or_else(short)?;
        let threshold = self.said::<Passport::signalingThresholdCall>(first)?.saturating_to();
        let of: Vec<Standing> =
            others.chunks(CALLS).map(|calls| self.standing(calls)).collect::<Result<_, _>>()?;
        Ok(Standings { threshold, of })
    }

    fn standing(&self, calls: &[CallOutcome]) -> Result<Standing, ContractError> {
        let mut next = calls.iter();
        let mut call = || next.next().ok_or_else(short);
        Ok(Standing {
            blacklisted: self.said::<Passport::isBlacklistedCall>(call()?)?,
            whitelisted: self.said::<Passport::isWhitelistedCall>(call()?)?,
            signals: self.said::<Passport::signaledCounterCall>(call()?)?.saturating_to(),
        })
    }
}

/// The node has left calls out that did not fail.
fn short() -> NodeError {
    NodeError::Unexpected(Snippet::new("fewer outcomes than calls"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_reports_as_the_passport_asks_for_make_a_bot_of_whoever_is_not_known_as_a_person() {
        let of = |signals, whitelisted| Standing { signals, whitelisted, blacklisted: false };
        let standings = Standings { threshold: 2, of: Vec::new() };
        assert!(standings.is_reported(&of(2, false)) && standings.is_reported(&of(3, false)));
        assert!(!standings.is_reported(&of(1, false)));
        assert!(!standings.is_reported(&of(9, true)), "a known person");
        assert!(!Standings::default().is_reported(&of(9, false)), "no number of reports makes a bot");
    }
}
