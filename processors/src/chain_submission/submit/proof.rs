//! The clause that pays a reward, with what it says for it: the verified reading's page, the grams of carbon that the distance saved, and
//! the reward's id, by which the chain itself shows what was paid.

use chain::abi::{Proof, ProofType, RewardCall, RewardKind};
use chain::{Address, Clause, Wei};
use rust_decimal::Decimal;
use schemas::impact::{CARBON, carbon_saved};
use serde_json::json;
use uuid::Uuid;

use crate::chain_submission::ledger::rows::Payout;
use crate::chain_submission::network::Network;

/// The path of the page of a reward, below the base address.
pub const PROOFS: &str = "proofs";

/// How payments are made on this pool.
#[derive(Clone, Debug)]
pub struct Means<'a> {
    /// The network's contracts.
    pub network: &'a Network,
    /// Where the pages of rewards are, without a slash at the end; none in tests that have no gateway.
    pub base: Option<&'a str>,
    /// The function that the pool is called by.
    pub kind: RewardKind,
}

/// What a clause is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action<'a> {
    /// The reward.
    pub reward_id: Uuid,
    /// Wei of B3TR.
    pub amount: Wei,
    /// Kilometres; none where they were not noted.
    pub distance_km: Option<Decimal>,
    /// The vehicle's kind.
    pub vehicle_kind: &'a str,
    /// The round in which the photo was accepted; used by pools that attribute actions to rounds.
    pub round: u64,
}

impl<'a> Action<'a> {
    /// What a payout is for.
    #[must_use]
    pub fn of(payout: &'a Payout, amount: Wei, round: u64) -> Self {
        Self {
            reward_id: payout.reward_id,
            amount,
            distance_km: payout.distance_km,
            vehicle_kind: &payout.stamp.vehicle_kind,
            round,
        }
    }

    fn proof(&self, base: Option<&str>) -> Proof {
        let id = self.reward_id;
        let page = base.map(|base| (ProofType::Link, format!("{base}/{PROOFS}/{id}")));
        let grams = self.distance_km.and_then(|km| carbon_saved(km, self.vehicle_kind));
        let distance = self.distance_km.map(|km| format!(", {} km", km.normalize())).unwrap_or_default();
        Proof {
            // The text is what our own books are held against the chain by.
            evidence: std::iter::once((ProofType::Text, format!("reward {id}"))).chain(page).collect(),
            impacts: grams.map(|grams| (CARBON.to_owned(), grams)).into_iter().collect(),
            description: format!("Verified odometer photo{distance}"),
        }
    }

    fn metadata(&self) -> String {
        match self.distance_km {
            Some(km) => json!({"reward_id": self.reward_id, "distance_km": km.normalize()}).to_string(),
            None => json!({"reward_id": self.reward_id}).to_string(),
        }
    }
}

impl Means<'_> {
    /// The clause: a function of its arguments alone, so that the same reward gives the same bytes.
    #[must_use]
    pub fn clause(&self, action: &Action<'_>, receiver: Address) -> Clause {
        let call = RewardCall { app: self.network.app, amount: action.amount, receiver };
        let (pool, proof) = (self.network.pool, action.proof(self.base));
        match self.kind {
            RewardKind::WithProofAndMetadata => call.with_metadata(pool, &proof, &action.metadata()),
            RewardKind::WithProofAndMetadataForRound => {
                call.for_round(pool, &proof, &action.metadata(), action.round)
            }
            RewardKind::Plain
            | RewardKind::WithProof
            | RewardKind::PlainForRound
            | RewardKind::WithProofForRound => call.with_proof(pool, &proof),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(distance_km: Option<Decimal>) -> Action<'static> {
        Action {
            reward_id: Uuid::from_u128(7),
            amount: Wei::from(1),
            distance_km,
            vehicle_kind: "electric",
            round: 3,
        }
    }

    #[test]
    fn a_payment_names_its_reward_links_its_page_and_says_what_was_saved() {
        let proof = action(Some(Decimal::new(33_300, 2))).proof(Some("https://m.example"));
        let id = Uuid::from_u128(7);
        let evidence = [
            (ProofType::Text, format!("reward {id}")),
            (ProofType::Link, format!("https://m.example/proofs/{id}")),
        ];
        assert_eq!(proof.evidence, evidence);
        assert_eq!(proof.impacts, [("carbon".to_owned(), 26_640)]);
        assert_eq!(proof.description, "Verified odometer photo, 333 km");
        let metadata = action(Some(Decimal::new(33_300, 2))).metadata();
        assert_eq!(metadata, format!(r#"{{"distance_km":"333","reward_id":"{id}"}}"#));
    }

    #[test]
    fn a_grant_from_before_distances_were_noted_is_paid_without_an_impact() {
        let proof = action(None).proof(None);
        assert_eq!((proof.impacts.len(), proof.evidence.len()), (0, 1));
        assert_eq!(proof.description, "Verified odometer photo");
        assert_eq!(action(None).metadata(), format!(r#"{{"reward_id":"{}"}}"#, Uuid::from_u128(7)));
    }
}
