//! Pools of later versions, and what a payment says for itself on the chain. The pools of versions 7 to 9 are `LaterRewardsPool.sol`, since
//! no package holds the real ones.

use std::collections::HashMap;

use chain::abi::{ContractEvent, topic};
use chain::deploy::{LaterPool, Operator, SOLO_KEYS, later_pool};
use chain::node::{Criterion, EventFilter, Limits, Revision};
use chain::{Node, Signer};
use schemas::codec;
use schemas::events::{ActivityLogged, Event as _, RewardGranted};
use schemas::ids::Micros;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ends::Scripted;
use super::{World, artifacts, b3tr, contracts, thor, wallet};
/// What the chain has of a reward: its proof, and the round that the passport has counted the action in.
struct Said {
    proof: Value,
    round: Option<u64>,
}

fn node() -> Node {
    Node::new(&thor(), None, Limits::default()).unwrap()
}

impl World {
    /// A world whose pool is of a later version, with two rounds: the first is over.
    pub async fn on_version(version: u32, keys: &[&str]) -> (Self, LaterPool) {
        let mut at = contracts().await;
        let admin = Signer::from_hex(SOLO_KEYS[0]).unwrap();
        let later =
            later_pool(&node(), artifacts().await, &admin, &at, (version, b3tr(100), keys)).await.unwrap();
        at.rewards_pool = later.pool;
        (Self::of(at, &[thor()], true).await, later)
    }

    async fn knows_rounds(&self, later: &LaterPool) {
        sqlx::query(
            "insert into smart_contracts (id, contract_name, contract_address, genesis_id) values ($1, 'XAllocationVoting', $2, $3)",
        )
        .bind(Uuid::now_v7())
        .bind(later.rounds.to_string())
        .bind(self.contracts.genesis_id.to_string())
        .execute(&self.database.pool)
        .await
        .unwrap();
    }

    async fn said(&self) -> HashMap<Uuid, Said> {
        let (node, mut said) = (node(), HashMap::new());
        let criterion = Criterion {
            address: Some(self.contracts.rewards_pool),
            topics: [Some(topic::REWARD_DISTRIBUTED), None, None, None, None],
        };
        for log in node.events(&EventFilter::blocks(0, u32::MAX >> 1, vec![criterion])).await.unwrap() {
            let Some(ContractEvent::RewardDistributed { proof, .. }) = ContractEvent::decode(&log.event)
            else {
                panic!()
            };
            let proof: Value = serde_json::from_str(&proof).unwrap();
            let reward = proof["proof"]["text"].as_str().unwrap()["reward ".len()..].parse().unwrap();
            let receipt = node.receipt(log.meta.tx_id, None).await.unwrap().unwrap();
            let events = &receipt.outputs[log.meta.clause_index as usize].events;
            let round = events.iter().filter_map(ContractEvent::decode).find_map(|event| match event {
                ContractEvent::RegisteredAction { round, .. } => Some(round),
                _ => None,
            });
            said.insert(reward, Said { proof, round });
        }
        said
    }
}

impl World {
    /// The documents that were told, in order, each with its collection.
    pub async fn documents(&self) -> Vec<(String, Value)> {
        let told = "select payload from outbox where topic = 'activity.logs' order by id";
        let payloads: Vec<Vec<u8>> = sqlx::query_scalar(told).fetch_all(&self.database.pool).await.unwrap();
        let decoded = payloads.iter().map(|payload| {
            let (id, datum) = codec::unframe(payload).unwrap();
            let event: ActivityLogged = codec::decode(ActivityLogged::schema(), id, datum).unwrap();
            (event.collection.clone(), serde_json::from_str(&event.document).unwrap())
        });
        decoded.collect()
    }
}

async fn turn(later: &LaterPool) -> u64 {
    let (node, admin) = (node(), Signer::from_hex(SOLO_KEYS[0]).unwrap());
    let operator = Operator::new(&node, &admin).await.unwrap();
    let receipt = operator.send("the next round", vec![later.turn()]).await.unwrap();
    let block = node.block(Revision::Id(receipt.meta.block_id)).await.unwrap().unwrap();
    block.timestamp
}

fn at(seconds: u64) -> Micros {
    Micros(i64::try_from(seconds).unwrap() * 1_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_carries_its_page_and_the_carbon_that_its_distance_saved_and_an_old_grant_is_paid_without()
{
    let world = World::new().await;
    let electric = world.grant_with(1, wallet(0x41), |grant| {
        grant.stamp.vehicle_kind = "electric".into();
        grant.distance_km = Some("333".parse().unwrap());
    });
    let petrol = world.grant_with(1, wallet(0x42), |grant| grant.distance_km = Some("333".parse().unwrap()));
    let old = world.grant_with(1, wallet(0x43), |grant| grant.distance_km = None);
    let (electric, petrol, old) = (electric.await, petrol.await, old.await);
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_paid(&[electric, petrol, old]).await;
    signing.abort();
    let said = world.said().await;
    for (reward, impact) in
        [(electric, json!({"carbon": 26_640})), (petrol, json!({"carbon": 0})), (old, Value::Null)]
    {
        let proof = &said[&reward].proof;
        assert_eq!(proof["proof"]["link"], format!("https://milestream.example/proofs/{reward}"));
        assert_eq!(proof["impact"], impact, "{proof}");
    }
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_version_7_a_reward_is_paid_from_its_purse_and_with_metadata() {
    let (world, later) = World::on_version(7, &[]).await;
    world.knows_rounds(&later).await;
    let reward = world.grant(1, wallet(0x44)).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_paid(&[reward]).await;
    signing.abort();
    let method: String = sqlx::query_scalar("select method from payout_attempts")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(method, "distributeRewardWithProofAndMetadata");
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_version_8_on_a_late_claim_counts_in_the_round_in_which_its_photo_was_accepted() {
    for version in [8, 9] {
        let (world, later) = World::on_version(version, &[]).await;
        let first = turn(&later).await;
        let second = turn(&later).await;
        world.knows_rounds(&later).await;
        let accepted = async |seconds: u64, n: u8| {
            world
                .grant_with(1, wallet(n), |grant: &mut RewardGranted| grant.header.accepted_at = at(seconds))
                .await
        };
        let (before, late, now) =
            (accepted(first - 1, 0x51).await, accepted(first, 0x52).await, accepted(second, 0x53).await);
        let signing = world.submitter(SOLO_KEYS[1], "only");
        world.until_paid(&[before, late, now]).await;
        signing.abort();
        let said = world.said().await;
        let rounds = [before, late, now].map(|reward| said[&reward].round);
        assert_eq!(rounds, [Some(1), Some(1), Some(2)], "version {version}");
        world.database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_version_8_whose_rounds_nobody_has_named_is_paid_by_the_function_without_a_round() {
    let (world, _) = World::on_version(8, &[]).await;
    let reward = world.grant(1, wallet(0x45)).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_paid(&[reward]).await;
    signing.abort();
    assert_eq!(world.state(reward).await.0, "in_flight");
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impact_that_the_pool_does_not_allow_stands_in_the_way_by_its_name_and_nothing_is_struck() {
    let (world, _) = World::on_version(7, &["water"]).await;
    let reward = world.grant(1, wallet(0x46)).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_obstacle("impact_key").await;
    signing.abort();
    assert_eq!(world.state(reward).await, ("ready".to_owned(), None));
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_contracts_and_every_stage_of_a_transaction_is_told_to_the_last_field() {
    let world = World::new().await;
    let reward = world.grant(1, wallet(0x47)).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_paid(&[reward]).await;
    signing.abort();
    let documents = world.documents().await;
    let of = |collection: &str| -> Vec<&Value> {
        documents.iter().filter(|(name, _)| name == collection).map(|(_, document)| document).collect()
    };
    let stages: Vec<&str> = of("transaction_monitoring_logs")
        .iter()
        .map(|log| log["monitoring_stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["planned", "signed", "submitted"]);
    let told = of("transaction_monitoring_logs")[2]["status_updates"].as_array().unwrap().len();
    assert_eq!(told, 3, "the history so far, with the plan");
    let calls = of("contract_interaction_logs");
    let of_kind = |kind: &str| calls.iter().filter(|call| call["call_kind"] == kind).collect::<Vec<_>>();
    let reads: Vec<&str> = of_kind("view").iter().map(|call| call["method_name"].as_str().unwrap()).collect();
    let wanted =
        ["version", "getAllowedImpactKeys", "paused", "appExists", "isRewardDistributor", "availableFunds"];
    assert_eq!(reads, wanted);
    let version = of_kind("view")[0];
    assert_eq!(
        (&version["return_value"]["decoded"]["value"], &version["contract_name"], &version["success"]),
        (&json!("4"), &json!("X2EarnRewardsPool"), &json!(true))
    );
    assert!(
        version["return_value"]["data"].as_str().unwrap().starts_with("0x") && !version["gas_used"].is_null()
    );
    let distributor = of_kind("view")[4];
    assert_eq!(distributor["parameters"]["distributor"], world.contracts.distributor.to_string());
    let simulated = of_kind("simulate")[0];
    assert_eq!(simulated["return_value"], json!({"data": "0x", "decoded": {}}));
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_lags_counts_the_confirmations_of_all_blocks_that_wait_at_once() {
    let mut scripted = Scripted::new(1).await;
    let reward = scripted.world.grant(1, wallet(0x48)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.until_posted(1).await;
    signing.abort();
    let told = "select count(*) from outbox where topic = 'payouts.updated'";
    let told = async |scripted: &Scripted| -> i64 {
        sqlx::query_scalar(told).fetch_one(&scripted.world.database.pool).await.unwrap()
    };
    let before = told(&scripted).await;
    scripted.chain().mine(false);
    scripted.chain().grow(8);
    scripted.deliver_at_once().await;
    assert_eq!(told(&scripted).await - before, 2, "in a block, and its eight confirmations together");
    scripted.chain().grow(8);
    scripted.deliver_at_once().await;
    scripted.until_state(reward, "paid").await;
    assert_eq!(told(&scripted).await - before, 3, "the twelfth confirmation, by whichever block");
    let confirmations: i32 = sqlx::query_scalar("select confirmations from payout_attempts")
        .fetch_one(&scripted.world.database.pool)
        .await
        .unwrap();
    assert_eq!(confirmations, 12);
    scripted.world.database.drop().await;
}
