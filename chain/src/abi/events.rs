//! Logs as typed events.

use alloy_primitives::B256;
use alloy_sol_types::SolEvent;

use super::interface::{Passport, RewardsPool, Token};
use crate::amount::Wei;
use crate::id::{Address, AppId, Word};
use crate::node::Event;

/// First topics by which logs are found.
pub mod topic {
    use super::{Passport, RewardsPool, SolEvent, Token, Word};

    /// `RewardDistributed` of the pool: one for each reward paid.
    pub const REWARD_DISTRIBUTED: Word = Word(RewardsPool::RewardDistributed::SIGNATURE_HASH.0);
    /// `RewardMetadata` of the pool, versions 6 and later.
    pub const REWARD_METADATA: Word = Word(RewardsPool::RewardMetadata::SIGNATURE_HASH.0);
    /// `RegisterActionFailed` of the pool: the passport did not count an action; the reward was paid all the same.
    pub const REGISTER_ACTION_FAILED: Word = Word(RewardsPool::RegisterActionFailed::SIGNATURE_HASH.0);
    /// `RegisteredAction` of the passport.
    pub const REGISTERED_ACTION: Word = Word(Passport::RegisteredAction::SIGNATURE_HASH.0);
    /// `Transfer` of a token.
    pub const TRANSFER: Word = Word(Token::Transfer::SIGNATURE_HASH.0);
}

/// A log that this library knows. Who emitted it is not looked at: check the log's address against the known contracts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContractEvent {
    /// The pool paid a reward.
    RewardDistributed {
        /// B3TR in wei.
        amount: Wei,
        /// The app whose purse paid.
        app: AppId,
        /// Who was paid.
        receiver: Address,
        /// The proof's JSON; empty for a plain reward.
        proof: String,
        /// Who asked for it.
        distributor: Address,
    },
    /// What was logged of a reward, beside [`ContractEvent::RewardDistributed`].
    RewardMetadata {
        /// B3TR in wei.
        amount: Wei,
        /// The app whose purse paid.
        app: AppId,
        /// Who was paid.
        receiver: Address,
        /// As the distributor gave it.
        metadata: String,
        /// Who asked for it.
        distributor: Address,
    },
    /// The passport counted an action.
    RegisteredAction {
        /// Who acted.
        user: Address,
        /// The passport it counts for.
        passport: Address,
        /// The app.
        app: AppId,
        /// Allocation round, from 1. A number beyond 64 bits, which no round reaches, reads as the largest.
        round: u64,
        /// Points for the action: 100 at low security of the app. As for `round`.
        score: u64,
    },
    /// The passport did not count an action.
    RegisterActionFailed {
        /// Its reason.
        reason: String,
        /// What it returned.
        data: Vec<u8>,
    },
    /// A token moved.
    Transfer {
        /// From; zero when minted.
        from: Address,
        /// To; zero when burnt.
        to: Address,
        /// Wei.
        amount: Wei,
    },
    /// An app's purse was filled.
    NewDeposit {
        /// B3TR in wei.
        amount: Wei,
        /// The app.
        app: AppId,
        /// Who paid in.
        depositor: Address,
    },
    /// An app's team took B3TR out.
    TeamWithdrawal {
        /// B3TR in wei.
        amount: Wei,
        /// The app.
        app: AppId,
        /// Where it went.
        team_wallet: Address,
        /// Who took it.
        withdrawer: Address,
        /// Why.
        reason: String,
    },
    /// An app's rewards were stopped.
    AppPaused {
        /// The app.
        app: AppId,
        /// By whom.
        admin: Address,
    },
    /// An app's rewards go on.
    AppUnpaused {
        /// The app.
        app: AppId,
        /// By whom.
        admin: Address,
    },
    /// B3TR moved between an app's two purses.
    RewardsPoolBalanceUpdated {
        /// The app.
        app: AppId,
        /// Wei moved.
        amount: Wei,
        /// Then in the team's purse.
        available_funds: Wei,
        /// Then in the rewards' purse.
        rewards_pool_balance: Wei,
    },
}

impl ContractEvent {
    /// The event that a log carries; `None` for events and shapes that are not known (another contract may use the same first
    /// topic with other indexed arguments).
    #[must_use]
    pub fn decode(log: &Event) -> Option<Self> {
        let first = B256::from(log.topics.first()?.0);
        match first {
            RewardsPool::RewardDistributed::SIGNATURE_HASH => raw(log).map(Self::reward_distributed),
            RewardsPool::RewardMetadata::SIGNATURE_HASH => raw(log).map(Self::reward_metadata),
            Passport::RegisteredAction::SIGNATURE_HASH => raw(log).map(Self::registered_action),
            RewardsPool::RegisterActionFailed::SIGNATURE_HASH => {
                raw(log).map(|e: RewardsPool::RegisterActionFailed| Self::RegisterActionFailed {
                    reason: e.reason,
                    data: e.lowLevelData.to_vec(),
                })
            }
            Token::Transfer::SIGNATURE_HASH => raw(log).map(|e: Token::Transfer| Self::Transfer {
                from: Address(e.from.into()),
                to: Address(e.to.into()),
                amount: Wei(e.value),
            }),
            RewardsPool::NewDeposit::SIGNATURE_HASH => {
                raw(log).map(|e: RewardsPool::NewDeposit| Self::NewDeposit {
                    amount: Wei(e.amount),
                    app: AppId(e.appId.0),
                    depositor: Address(e.depositor.into()),
                })
            }
            RewardsPool::TeamWithdrawal::SIGNATURE_HASH => raw(log).map(Self::team_withdrawal),
            RewardsPool::AppPaused::SIGNATURE_HASH => raw(log).map(|e: RewardsPool::AppPaused| {
                Self::AppPaused { app: AppId(e.appId.0), admin: Address(e.admin.into()) }
            }),
            RewardsPool::AppUnpaused::SIGNATURE_HASH => raw(log).map(|e: RewardsPool::AppUnpaused| {
                Self::AppUnpaused { app: AppId(e.appId.0), admin: Address(e.admin.into()) }
            }),
            RewardsPool::RewardsPoolBalanceUpdated::SIGNATURE_HASH => raw(log).map(Self::balance_updated),
            _ => None,
        }
    }

    /// The event's name, as tables and logs spell it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RewardDistributed { .. } => "RewardDistributed",
            Self::RewardMetadata { .. } => "RewardMetadata",
            Self::RegisteredAction { .. } => "RegisteredAction",
            Self::RegisterActionFailed { .. } => "RegisterActionFailed",
            Self::Transfer { .. } => "Transfer",
            Self::NewDeposit { .. } => "NewDeposit",
            Self::TeamWithdrawal { .. } => "TeamWithdrawal",
            Self::AppPaused { .. } => "AppPaused",
            Self::AppUnpaused { .. } => "AppUnpaused",
            Self::RewardsPoolBalanceUpdated { .. } => "RewardsPoolBalanceUpdated",
        }
    }

    fn reward_distributed(e: RewardsPool::RewardDistributed) -> Self {
        Self::RewardDistributed {
            amount: Wei(e.amount),
            app: AppId(e.appId.0),
            receiver: Address(e.receiver.into()),
            proof: e.proof,
            distributor: Address(e.distributor.into()),
        }
    }

    fn reward_metadata(e: RewardsPool::RewardMetadata) -> Self {
        Self::RewardMetadata {
            amount: Wei(e.amount),
            app: AppId(e.appId.0),
            receiver: Address(e.receiver.into()),
            metadata: e.metadata,
            distributor: Address(e.distributor.into()),
        }
    }

    fn registered_action(e: Passport::RegisteredAction) -> Self {
        Self::RegisteredAction {
            user: Address(e.user.into()),
            passport: Address(e.passport.into()),
            app: AppId(e.appId.0),
            round: e.round.saturating_to(),
            score: e.actionScore.saturating_to(),
        }
    }

    fn team_withdrawal(e: RewardsPool::TeamWithdrawal) -> Self {
        Self::TeamWithdrawal {
            amount: Wei(e.amount),
            app: AppId(e.appId.0),
            team_wallet: Address(e.teamWallet.into()),
            withdrawer: Address(e.withdrawer.into()),
            reason: e.reason,
        }
    }

    fn balance_updated(e: RewardsPool::RewardsPoolBalanceUpdated) -> Self {
        Self::RewardsPoolBalanceUpdated {
            app: AppId(e.appId.0),
            amount: Wei(e.amount),
            available_funds: Wei(e.availableFunds),
            rewards_pool_balance: Wei(e.rewardsPoolBalance),
        }
    }
}

fn raw<E: SolEvent>(log: &Event) -> Option<E> {
    let topics = log.topics.iter().map(|topic| B256::from(topic.0));
    E::decode_raw_log_validate(topics, &log.data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log_of(event: &impl SolEvent) -> Event {
        let data = event.encode_log_data();
        let topics = data.topics().iter().map(|topic| Word(topic.0)).collect();
        Event { address: Address([7; 20]), topics, data: data.data.to_vec() }
    }

    #[test]
    fn first_topics_are_those_of_the_deployed_contracts() {
        let cases = [
            (topic::REWARD_DISTRIBUTED, "4811710b0c25cc7e05baf214b3a939cf893f1cbff4d0b219e680f069a4f204a2"),
            (topic::REWARD_METADATA, "c56b89dcf339c479f6e2af79e456c592b86e3014b888582db81d00ff7c51c1c6"),
            (
                topic::REGISTER_ACTION_FAILED,
                "60d31a41349f4f78a019d64d088a78b27da96d17d6b2de5bac97516e9c0df128",
            ),
            (topic::REGISTERED_ACTION, "51ea9b7b791d42c8517fa7a13074dced51d4cc9afa4bdf03ea0371a0244f1331"),
            (topic::TRANSFER, "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"),
            (
                Word(RewardsPool::AppPaused::SIGNATURE_HASH.0),
                "acca5e415b8aed07cbd321de9d16effb4a77548130d6e3f218adb63b40d53f48",
            ),
            (
                Word(RewardsPool::AppUnpaused::SIGNATURE_HASH.0),
                "23a8a3a8a84537d60bdd2345bf190d189d31179dbbb1c6aefe29166ad8f6579a",
            ),
            (
                Word(RewardsPool::NewDeposit::SIGNATURE_HASH.0),
                "b129470ed4a80566812579bd667bb40c9cc246b5470797f9291f8a27cd3d1630",
            ),
            (
                Word(RewardsPool::TeamWithdrawal::SIGNATURE_HASH.0),
                "d9ffa9a1a748d0d5a7264f97f319a08a8d4925854093354e05965ff93e46d804",
            ),
            (
                Word(RewardsPool::RewardsPoolBalanceUpdated::SIGNATURE_HASH.0),
                "7edf7f16b6ec1a7be78507b450fd1504bc48e72ff18e5b620a6f0fd24717f49d",
            ),
        ];
        for (topic, expected) in cases {
            assert_eq!(hex::encode(topic.0), expected);
        }
    }

    #[test]
    fn a_log_with_a_topic_too_few_or_cut_data_is_not_known() {
        let event = Token::Transfer {
            from: [1; 20].into(),
            to: [2; 20].into(),
            value: alloy_primitives::U256::from(5),
        };
        let log = log_of(&event);
        let expected =
            ContractEvent::Transfer { from: Address([1; 20]), to: Address([2; 20]), amount: Wei::from(5) };
        assert_eq!(ContractEvent::decode(&log), Some(expected));
        // An NFT's Transfer has the same first topic and three indexed arguments.
        let nft =
            Event { topics: [log.topics.clone(), vec![Word([0; 32])]].concat(), data: vec![], ..log.clone() };
        assert_eq!(ContractEvent::decode(&nft), None);
        assert_eq!(ContractEvent::decode(&Event { topics: vec![], ..log.clone() }), None);
        assert_eq!(ContractEvent::decode(&Event { data: log.data[..31].to_vec(), ..log.clone() }), None);
        assert_eq!(ContractEvent::decode(&Event { topics: vec![Word([3; 32])], ..log }), None);
    }

    proptest! {
        #[test]
        fn a_reward_reads_back_from_its_log(limbs: [u64; 4], app: [u8; 32], receiver: [u8; 20], by: [u8; 20], text: String) {
            let amount = alloy_primitives::U256::from_limbs(limbs);
            let paid = RewardsPool::RewardDistributed {
                amount, appId: app.into(), receiver: receiver.into(), proof: text.clone(), distributor: by.into(),
            };
            prop_assert_eq!(ContractEvent::decode(&log_of(&paid)), Some(ContractEvent::RewardDistributed {
                amount: Wei(amount), app: AppId(app), receiver: Address(receiver), proof: text.clone(), distributor: Address(by),
            }));
            let emitted = RewardsPool::RewardMetadata {
                amount, appId: app.into(), receiver: receiver.into(), metadata: text.clone(), distributor: by.into(),
            };
            prop_assert_eq!(ContractEvent::decode(&log_of(&emitted)), Some(ContractEvent::RewardMetadata {
                amount: Wei(amount), app: AppId(app), receiver: Address(receiver), metadata: text, distributor: Address(by),
            }));
        }

        #[test]
        fn no_log_makes_the_decoder_panic(
            known in 0_usize..5, rest in prop::collection::vec(any::<[u8; 32]>(), 0..4), data in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let first = [topic::REWARD_DISTRIBUTED, topic::REWARD_METADATA, topic::REGISTERED_ACTION, topic::TRANSFER, Word([0; 32])][known];
            let topics = std::iter::once(first).chain(rest.into_iter().map(Word)).collect();
            let _ = ContractEvent::decode(&Event { address: Address([0; 20]), topics, data });
        }
    }
}
