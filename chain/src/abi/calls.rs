//! Clauses that move B3TR, and reading them back: what a transaction pays is read from its bytes, not from what we remember.

use alloy_sol_types::SolCall;

use super::interface::{RewardsPool, Token};
use super::proof::{Proof, json_escaped};
use super::{account, amount, word};
use crate::amount::Wei;
use crate::id::{Address, AppId};
use crate::tx::Clause;

/// Which function of the pool pays a reward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RewardKind {
    /// `distributeReward`.
    Plain,
    /// `distributeRewardWithProof`.
    WithProof,
    /// `distributeRewardWithProofAndMetadata`, pools of version 6 and later.
    WithProofAndMetadata,
    /// `distributeRewardForRound`, pools of version 8 and later.
    PlainForRound,
    /// `distributeRewardWithProofForRound`, pools of version 8 and later.
    WithProofForRound,
    /// `distributeRewardWithProofAndMetadataForRound`, pools of version 8 and later.
    WithProofAndMetadataForRound,
}

impl RewardKind {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::WithProof,
        Self::WithProofAndMetadata,
        Self::PlainForRound,
        Self::WithProofForRound,
        Self::WithProofAndMetadataForRound,
    ];

    /// The function's name.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Plain => "distributeReward",
            Self::WithProof => "distributeRewardWithProof",
            Self::WithProofAndMetadata => "distributeRewardWithProofAndMetadata",
            Self::PlainForRound => "distributeRewardForRound",
            Self::WithProofForRound => "distributeRewardWithProofForRound",
            Self::WithProofAndMetadataForRound => "distributeRewardWithProofAndMetadataForRound",
        }
    }
}

/// A payment of one reward to one receiver. The contract knows no ids: the same call twice pays twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RewardCall {
    /// The app whose purse pays.
    pub app: AppId,
    /// B3TR in wei.
    pub amount: Wei,
    /// Who is paid.
    pub receiver: Address,
}

impl RewardCall {
    /// `distributeReward`: the cheapest; the event carries an empty proof.
    #[must_use]
    pub fn plain(&self, pool: Address) -> Clause {
        let call = RewardsPool::distributeRewardCall {
            appId: word(self.app),
            amount: amount(self.amount),
            receiver: account(self.receiver),
            proof: String::new(),
        };
        Clause::call(pool, call.abi_encode())
    }

    /// `distributeRewardWithProof`: texts are escaped for the JSON that the contract builds.
    #[must_use]
    pub fn with_proof(&self, pool: Address, proof: &Proof) -> Clause {
        let lists = ProofLists::of(proof);
        let call = RewardsPool::distributeRewardWithProofCall {
            appId: word(self.app),
            amount: amount(self.amount),
            receiver: account(self.receiver),
            proofTypes: lists.types,
            proofValues: lists.values,
            impactCodes: lists.codes,
            impactValues: lists.amounts,
            description: lists.description,
        };
        Clause::call(pool, call.abi_encode())
    }

    /// `distributeRewardWithProofAndMetadata`: `metadata` is emitted as it is given.
    #[must_use]
    pub fn with_metadata(&self, pool: Address, proof: &Proof, metadata: &str) -> Clause {
        let lists = ProofLists::of(proof);
        let call = RewardsPool::distributeRewardWithProofAndMetadataCall {
            appId: word(self.app),
            amount: amount(self.amount),
            receiver: account(self.receiver),
            proofTypes: lists.types,
            proofValues: lists.values,
            impactCodes: lists.codes,
            impactValues: lists.amounts,
            description: lists.description,
            metadata: metadata.to_owned(),
        };
        Clause::call(pool, call.abi_encode())
    }

    /// `distributeRewardWithProofAndMetadataForRound`: the action counts in `round`, from 1 to the current one, and not in the round
    /// in which it is paid.
    #[must_use]
    pub fn for_round(&self, pool: Address, proof: &Proof, metadata: &str, round: u64) -> Clause {
        let lists = ProofLists::of(proof);
        let call = RewardsPool::distributeRewardWithProofAndMetadataForRoundCall {
            appId: word(self.app),
            amount: amount(self.amount),
            receiver: account(self.receiver),
            proofTypes: lists.types,
            proofValues: lists.values,
            impactCodes: lists.codes,
            impactValues: lists.amounts,
            description: lists.description,
            metadata: metadata.to_owned(),
            actionRound: alloy_primitives::U256::from(round),
        };
        Clause::call(pool, call.abi_encode())
    }

    /// The payment that call data makes, and by which function; `None` when it is no payment of a reward.
    #[must_use]
    pub fn decode(data: &[u8]) -> Option<(RewardKind, Self)> {
        macro_rules! payments {
            ($($call:ident => $kind:ident),* $(,)?) => {
                match *data.first_chunk::<4>()? {
                    $(RewardsPool::$call::SELECTOR => {
                        let call = RewardsPool::$call::abi_decode_validate(data).ok()?;
                        (RewardKind::$kind, call.appId, call.amount, call.receiver)
                    })*
                    _ => return None,
                }
            };
        }
        let (kind, app, amount, receiver) = payments! {
            distributeRewardCall => Plain,
            distributeRewardWithProofCall => WithProof,
            distributeRewardWithProofAndMetadataCall => WithProofAndMetadata,
            distributeRewardForRoundCall => PlainForRound,
            distributeRewardWithProofForRoundCall => WithProofForRound,
            distributeRewardWithProofAndMetadataForRoundCall => WithProofAndMetadataForRound,
        };
        Some((kind, Self { app: AppId(app.0), amount: Wei(amount), receiver: Address(receiver.into()) }))
    }
}

struct ProofLists {
    types: Vec<String>,
    values: Vec<String>,
    codes: Vec<String>,
    amounts: Vec<alloy_primitives::U256>,
    description: String,
}

impl ProofLists {
    fn of(proof: &Proof) -> Self {
        Self {
            types: proof.evidence.iter().map(|(kind, _)| kind.as_str().to_owned()).collect(),
            values: proof.evidence.iter().map(|(_, value)| json_escaped(value)).collect(),
            codes: proof.impacts.iter().map(|(code, _)| code.clone()).collect(),
            amounts: proof.impacts.iter().map(|(_, n)| alloy_primitives::U256::from(*n)).collect(),
            description: json_escaped(&proof.description),
        }
    }
}

/// A transfer of B3TR that a clause makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenTransfer {
    /// Who receives.
    pub to: Address,
    /// Wei.
    pub amount: Wei,
}

impl TokenTransfer {
    /// The transfer that call data makes; `None` when it is none.
    #[must_use]
    pub fn decode(data: &[u8]) -> Option<Self> {
        let call = Token::transferCall::abi_decode_validate(data).ok()?;
        Some(Self { to: Address(call.to.into()), amount: Wei(call.value) })
    }
}

/// `transfer` of a token.
#[must_use]
pub fn transfer(token: Address, to: Address, wei: Wei) -> Clause {
    Clause::call(token, Token::transferCall { to: account(to), value: amount(wei) }.abi_encode())
}

/// `approve`: lets `spender` take up to `wei`.
#[must_use]
pub fn approve(token: Address, spender: Address, wei: Wei) -> Clause {
    Clause::call(token, Token::approveCall { spender: account(spender), value: amount(wei) }.abi_encode())
}

/// `deposit` of approved B3TR into an app's purse.
#[must_use]
pub fn deposit(pool: Address, app: AppId, wei: Wei) -> Clause {
    Clause::call(pool, RewardsPool::depositCall { amount: amount(wei), appId: word(app) }.abi_encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::ProofType;
    use crate::hash::keccak256;
    use proptest::prelude::*;

    const POOL: Address = Address([9; 20]);

    fn selector(clause: &Clause) -> String {
        hex::encode(&clause.data[..4])
    }

    fn vector() -> (RewardCall, Proof, &'static str) {
        let call = RewardCall {
            app: "0xa3101ae6b8e198a60289f24e4298461a239a58b1c8acc2255a92325a6b0e1c09".parse().unwrap(),
            amount: Wei::from(500_000_000_000_010_000),
            receiver: "0xabc0000000000000000000000000000000002710".parse().unwrap(),
        };
        let proof = Proof {
            evidence: vec![(
                ProofType::Image,
                "ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi".to_owned(),
            )],
            impacts: vec![("carbon".to_owned(), 1234)],
            description: "Verified odometer photo".to_owned(),
        };
        (call, proof, r#"{"reward_id":"0190f3a8-1c2d-7e3f-8a4b-5c6d7e8f2710","mileage_km":123}"#)
    }

    #[test]
    fn the_call_data_equals_what_ethers_made_and_a_node_accepted() {
        let (call, proof, metadata) = vector();
        let clause = call.with_metadata(POOL, &proof, metadata);
        assert_eq!(clause.data.len(), 996);
        assert_eq!(
            hex::encode(keccak256(&clause.data)),
            "8194640e0683d44c19dc3a8f291051e730889323f077204cd3984ad6525596fd"
        );
        assert_eq!(RewardCall::decode(&clause.data), Some((RewardKind::WithProofAndMetadata, call)));
    }

    #[test]
    fn selectors_are_those_of_the_deployed_pool() {
        let (call, proof, metadata) = vector();
        assert_eq!(selector(&call.plain(POOL)), "f7335f11");
        assert_eq!(selector(&call.with_proof(POOL, &proof)), "7b924532");
        assert_eq!(selector(&call.with_metadata(POOL, &proof, metadata)), "0eb11eb8");
        assert_eq!(selector(&call.for_round(POOL, &proof, metadata, 7)), "2a308afa");
        assert_eq!(hex::encode(RewardsPool::distributeRewardForRoundCall::SELECTOR), "ad0f96b1");
        assert_eq!(hex::encode(RewardsPool::distributeRewardWithProofForRoundCall::SELECTOR), "6b2c1bb8");
        assert_eq!(selector(&deposit(POOL, call.app, call.amount)), "c9630cb0");
        assert_eq!(selector(&transfer(POOL, call.receiver, call.amount)), "a9059cbb");
        assert_eq!(selector(&approve(POOL, call.receiver, call.amount)), "095ea7b3");
        assert_eq!(call.plain(POOL).data.len(), 164);
        assert_eq!(transfer(POOL, call.receiver, call.amount).data.len(), 68);
    }

    #[test]
    fn cut_data_and_foreign_calls_are_no_payment() {
        let (call, proof, _) = vector();
        let data = call.with_proof(POOL, &proof).data;
        for cut in [0, 3, 4, 35, 100, 300] {
            assert_eq!(RewardCall::decode(&data[..cut]), None, "{cut}");
        }
        assert_eq!(RewardCall::decode(&transfer(POOL, call.receiver, call.amount).data), None);
        assert_eq!(TokenTransfer::decode(&data), None);
        // An address word with a bit above the 20 bytes is no address.
        let mut dirty = call.plain(POOL).data;
        dirty[4 + 2 * 32] = 1;
        assert_eq!(RewardCall::decode(&dirty), None);
    }

    proptest! {
        #[test]
        fn every_payment_reads_back_from_its_bytes(
            app: [u8; 32], receiver: [u8; 20], limbs: [u64; 4], value: String, grams: u64, text: String,
        ) {
            let call = RewardCall { app: AppId(app), amount: Wei(alloy_primitives::U256::from_limbs(limbs)), receiver: Address(receiver) };
            let proof = Proof {
                evidence: vec![(ProofType::Text, value)],
                impacts: vec![("carbon".to_owned(), grams)],
                description: text.clone(),
            };
            prop_assert_eq!(RewardCall::decode(&call.plain(POOL).data), Some((RewardKind::Plain, call)));
            prop_assert_eq!(RewardCall::decode(&call.with_proof(POOL, &proof).data), Some((RewardKind::WithProof, call)));
            let metadata = call.with_metadata(POOL, &proof, &text);
            prop_assert_eq!(RewardCall::decode(&metadata.data), Some((RewardKind::WithProofAndMetadata, call)));
            let late = call.for_round(POOL, &proof, &text, grams);
            prop_assert_eq!(RewardCall::decode(&late.data), Some((RewardKind::WithProofAndMetadataForRound, call)));
            let sent = transfer(POOL, call.receiver, call.amount);
            prop_assert_eq!(TokenTransfer::decode(&sent.data), Some(TokenTransfer { to: call.receiver, amount: call.amount }));
        }

        #[test]
        fn no_bytes_make_the_decoders_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = RewardCall::decode(&data);
            let _ = TokenTransfer::decode(&data);
        }
    }
}
