//! Whom the passport takes for a cheater is not paid, and nothing of it is lost.

use chain::deploy::{Operator, blacklist, report};
use chain::{Clause, Node};
use processors::chain_submission::ledger::publish::Publisher;
use processors::chain_submission::operate::{self, Order};
use serde_json::json;

use super::ends::Scripted;
use super::*;

impl World {
    /// As an operator does it.
    async fn order(&self, reward: Uuid, order: Order) {
        let publisher = Publisher { schemas: schemas(), gas_ceiling: 0 };
        let mut tx = self.database.pool.begin().await.unwrap();
        let now = SystemClock.now().to_utc();
        operate::carry_out(&mut tx, &publisher, reward, (&order, "a person says so"), now).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Waits until a payout that is ready has a reason that begins so.
    async fn until_withheld(&self, reward: Uuid, why: &str) {
        let until = Instant::now() + LIMIT;
        loop {
            let (state, reason) = self.state(reward).await;
            assert_eq!(state, "ready", "{reason:?}");
            if reason.as_deref().is_some_and(|reason| reason.starts_with(why)) {
                return;
            }
            assert!(Instant::now() < until, "{reason:?} instead of {why}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn live(&self) -> Vec<Uuid> {
        sqlx::query_scalar("select reward_id from payout_attempt_rewards")
            .fetch_all(&self.database.pool)
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reward_of_a_listed_receiver_waits_by_name_and_is_paid_once_the_list_has_let_it_go() {
    let scripted = Scripted::new(1).await;
    let world = &scripted.world;
    world.names("VeBetterPassport", world.contracts.passport).await;
    let [listed, reported, once, person, good] = [0x11, 0x12, 0x13, 0x14, 0x15].map(wallet);
    {
        let mut chain = scripted.chain();
        chain.blacklisted.insert(listed);
        chain.whitelisted.insert(person);
        chain.signals = [(reported, 2), (once, 1), (person, 9)].into();
    }
    let cheater = world.grant(1, listed).await;
    let bot = world.grant(1, reported).await;
    for receiver in [once, person, good] {
        world.grant(1, receiver).await;
    }
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_withheld(cheater, "blacklisted: VeBetterPassport lists 0x1111").await;
    world.until_withheld(bot, "signaled: VeBetterPassport takes 0x1212").await;
    scripted.until_posted(1).await;
    let mut receivers = scripted.waiting_receivers();
    receivers.sort();
    assert_eq!(receivers, [once, person, good]);
    assert!(
        !world.live().await.iter().any(|reward| [cheater, bot].contains(reward)),
        "nothing is planned of it"
    );
    let withheld = world.metrics.payout_steps.with_label_values(&["withheld"]).get();
    assert_eq!(withheld, 2);

    // What speaks against somebody is told, with the response of the contract; what speaks for the others is not.
    let documents = world.documents().await;
    let told: Vec<_> = documents
        .iter()
        .filter(|(collection, document)| {
            collection == "contract_interaction_logs" && document["contract_name"] == "VeBetterPassport"
        })
        .map(|(_, document)| {
            let value = &document["return_value"]["decoded"]["value"];
            (document["method_name"].clone(), document["parameters"]["user"].clone(), value.clone())
        })
        .collect();
    let expected = [
        (json!("isBlacklisted"), json!(listed.to_string()), json!(true)),
        (json!("signaledCounter"), json!(reported.to_string()), json!("2")),
    ];
    assert_eq!(told, expected);

    // Asked again at an operator's word, it waits on; once it is off the list it is paid.
    world.order(cheater, Order::Retry).await;
    world.until_withheld(cheater, "blacklisted: ").await;
    scripted.chain().blacklisted.clear();
    world.order(cheater, Order::Retry).await;
    scripted.until_posted(2).await;
    assert!(scripted.waiting_receivers().contains(&listed));
    assert_eq!(world.state(cheater).await, ("in_flight".to_owned(), None));
    world.order(bot, Order::Cancel { settled: false }).await;
    assert_eq!(world.state(bot).await.0, "cancelled");
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passport_that_is_none_stops_payments_by_name_and_without_a_row_of_one_nobody_is_asked() {
    let world = World::new().await;
    let moved = "update smart_contracts set contract_address = $1 where contract_name = 'VeBetterPassport'";
    world.run(moved, &wallet(0x78).to_string()).await;
    let reward = world.grant(1, wallet(0x21)).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_obstacle("no_contract").await;
    // A contract that has no such functions.
    world.run(moved, &contracts().await.b3tr.to_string()).await;
    world.until_obstacle("wrong_contract").await;
    assert_eq!(world.state(reward).await, ("ready".to_owned(), None));
    assert!(world.live().await.is_empty());
    world
        .run("update smart_contracts set is_active = false where contract_name = $1", "VeBetterPassport")
        .await;
    world.until_paid(&[reward]).await;
    signing.abort();
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_passports_list_and_reports_withhold_a_reward_until_they_are_taken_back() {
    let world = World::new().await;
    let node = Node::new(&thor(), None, Limits::default()).unwrap();
    let admin = Signer::from_hex(SOLO_KEYS[0]).unwrap();
    let operator = Operator::new(&node, &admin).await.unwrap();
    let (listed, reported, good) = (wallet(0x61), wallet(0x62), wallet(0x63));
    let passport = world.contracts.passport;
    let says = async |clauses: Vec<Clause>| operator.send("the passport", clauses).await.unwrap();
    says(vec![blacklist(passport, listed, true), report(passport, reported), report(passport, reported)])
        .await;
    let [cheater, bot, paid] =
        [world.grant(1, listed).await, world.grant(1, reported).await, world.grant(1, good).await];
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_paid(&[paid]).await;
    world.until_withheld(cheater, "blacklisted: ").await;
    world.until_withheld(bot, "signaled: ").await;
    assert_eq!(world.live().await, [paid]);
    says(vec![blacklist(passport, listed, false)]).await;
    world.order(cheater, Order::Retry).await;
    world.until_paid(&[cheater]).await;
    signing.abort();
    assert!(!world.paid().await.contains(&bot));
    world.database.drop().await;
}
