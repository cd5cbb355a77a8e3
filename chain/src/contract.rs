//! Reads from the contracts that a payout depends on: is the pool's code there, is it open, is there money, may we pay.

mod passport;

pub use passport::{Standing, Standings};

use std::sync::{Arc, Mutex};

use alloy_sol_types::SolCall;

use crate::abi::{Apps, Passport, Refusal, RewardsPool, Token, Voting, account, word};
use crate::amount::Wei;
use crate::id::{Address, AppId};
use crate::node::{CallOutcome, Node, NodeError, Revision, Simulation};
use crate::tx::Clause;

/// Why a read gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// The node gave no usable response.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// There is no contract at the address: a wrong address, or the right one on another network.
    #[error("no contract at {0}")]
    NoCode(Address),
    /// The contract failed the call, or lacks the function (pools before version 7 lack some).
    #[error("the contract at {address} failed the call {call}: {refusal}")]
    Reverted {
        /// The contract.
        address: Address,
        /// The function's signature.
        call: &'static str,
        /// Its reason, or the EVM's word.
        refusal: Refusal,
    },
    /// The contract responded with something else than the function returns.
    #[error("the contract at {address} gave no response that fits {call}")]
    Response {
        /// The contract.
        address: Address,
        /// The function's signature.
        call: &'static str,
    },
}

/// A read that was made, and what the contract responded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The contract.
    pub address: Address,
    /// The function's name.
    pub method: &'static str,
    /// Gas, without that of a transaction.
    pub gas_used: u64,
    /// The bytes that it returned.
    pub data: Vec<u8>,
}

/// Where reads are noted, in their order.
pub type Notes = Arc<Mutex<Vec<Noted>>>;

/// A contract at an address, read through a node as of one revision.
#[derive(Clone, Debug)]
pub struct Contract<'a> {
    node: &'a Node,
    address: Address,
    at: Revision,
    notes: Option<Notes>,
}

/// What accounts hold of a token, in their order, asked for at once; up to the first of whom the contract says nothing.
///
/// # Errors
/// As [`Node::simulate`].
pub async fn token_balances(
    node: &Node,
    token: Address,
    of: &[Address],
    at: Revision,
) -> Result<Vec<Wei>, NodeError> {
    let call =
        |of: &Address| Clause::call(token, Token::balanceOfCall { account: account(*of) }.abi_encode());
    let clauses: Vec<Clause> = of.iter().map(call).collect();
    let simulation =
        Simulation { clauses: &clauses, caller: Address::default(), gas_payer: None, gas: None, at };
    let outcomes = node.simulate(&simulation).await?;
    let balance = |outcome: &CallOutcome| {
        let returned = Token::balanceOfCall::abi_decode_returns_validate(&outcome.data);
        returned.ok().filter(|_| !outcome.reverted).map(Wei)
    };
    Ok(outcomes.iter().map_while(balance).collect())
}

impl<'a> Contract<'a> {
    /// Reads go to `address` in the state `at`.
    #[must_use]
    pub fn new(node: &'a Node, address: Address, at: Revision) -> Self {
        Self { node, address, at, notes: None }
    }

    /// Notes each read from here on.
    #[must_use]
    pub fn noting(mut self, notes: Notes) -> Self {
        self.notes = Some(notes);
        self
    }

    async fn read<C: SolCall>(&self, call: C) -> Result<C::Return, ContractError> {
        let outcome = self.node.call(self.address, call.abi_encode(), self.at).await?;
        self.said::<C>(&outcome)
    }

    /// Notes what a call of the contract gave, and takes its value from it.
    fn said<C: SolCall>(&self, outcome: &CallOutcome) -> Result<C::Return, ContractError> {
        let (address, signature) = (self.address, C::SIGNATURE);
        if let Some(Ok(mut notes)) = self.notes.as_ref().map(|notes| notes.lock()) {
            let method = signature.split('(').next().unwrap_or(signature);
            notes.push(Noted { address, method, gas_used: outcome.gas_used, data: outcome.data.clone() });
        }
        if let Some(refusal) = outcome.failure() {
            return Err(ContractError::Reverted { address, call: signature, refusal });
        }
        // A call of an address without code succeeds and returns nothing.
        if outcome.data.is_empty() {
            return Err(ContractError::NoCode(address));
        }
        C::abi_decode_returns_validate(&outcome.data)
            .map_err(|_| ContractError::Response { address, call: signature })
    }

    /// B3TR: what an account holds.
    ///
    /// # Errors
    /// Any [`ContractError`], as for all reads.
    pub async fn token_balance(&self, of: Address) -> Result<Wei, ContractError> {
        self.read(Token::balanceOfCall { account: account(of) }).await.map(Wei)
    }

    /// B3TR: how much there is.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn token_supply(&self) -> Result<Wei, ContractError> {
        self.read(Token::totalSupplyCall {}).await.map(Wei)
    }

    /// B3TR: true while no token can move.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn token_paused(&self) -> Result<bool, ContractError> {
        self.read(Token::pausedCall {}).await
    }

    /// Pool: its version, a number as text.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn pool_version(&self) -> Result<String, ContractError> {
        self.read(RewardsPool::versionCall {}).await
    }

    /// Pool: what the app can pay from its purse (before version 7 its only purse).
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn pool_available_funds(&self, app: AppId) -> Result<Wei, ContractError> {
        self.read(RewardsPool::availableFundsCall { appId: word(app) }).await.map(Wei)
    }

    /// Pool, version 7 and later: what is set aside for rewards.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn pool_rewards_balance(&self, app: AppId) -> Result<Wei, ContractError> {
        self.read(RewardsPool::rewardsPoolBalanceCall { appId: word(app) }).await.map(Wei)
    }

    /// Pool, version 7 and later: true when rewards come from the purse of [`Contract::pool_rewards_balance`].
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn pool_rewards_enabled(&self, app: AppId) -> Result<bool, ContractError> {
        self.read(RewardsPool::isRewardsPoolEnabledCall { appId: word(app) }).await
    }

    /// Pool, version 7 and later: true while the app's rewards are stopped.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn pool_paused(&self, app: AppId) -> Result<bool, ContractError> {
        self.read(RewardsPool::isDistributionPausedCall { appId: word(app) }).await
    }

    /// Pool: the keys that an impact may have.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn pool_impact_keys(&self) -> Result<Vec<String>, ContractError> {
        self.read(RewardsPool::getAllowedImpactKeysCall {}).await
    }

    /// Apps: true for an app that was endorsed.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn app_exists(&self, app: AppId) -> Result<bool, ContractError> {
        self.read(Apps::appExistsCall { appId: word(app) }).await
    }

    /// Apps: true when the account may pay the app's rewards.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn is_reward_distributor(&self, app: AppId, who: Address) -> Result<bool, ContractError> {
        self.read(Apps::isRewardDistributorCall { appId: word(app), distributor: account(who) }).await
    }

    /// Passport: true when the account counts as a person. New accounts do not yet, so this gates no first reward.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn is_person(&self, who: Address) -> Result<bool, ContractError> {
        self.read(Passport::isPersonCall { user: account(who) }).await.map(|response| response.person)
    }

    /// Voting: the round that is under way, from 1; 0 before the first.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn current_round(&self) -> Result<u64, ContractError> {
        self.read(Voting::currentRoundIdCall {}).await.map(|round| round.saturating_to())
    }

    /// Voting: number of the block with which a round began; 0 for a round that has not.
    ///
    /// # Errors
    /// Any [`ContractError`].
    pub async fn round_begins(&self, round: u64) -> Result<u32, ContractError> {
        let call = Voting::roundSnapshotCall { roundId: alloy_primitives::U256::from(round) };
        self.read(call).await.map(|block| block.saturating_to())
    }
}
