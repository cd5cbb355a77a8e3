//! What may be wrong around a payment, beside what [`super`] and [`super::signers`] show: each is named, nothing is sent meanwhile, and
//! once it is mended the reward is paid. What is wrong with the payment itself waits for a person.

use chain::deploy::Operator;
use chain::{Clause, Node};

use super::ends::Scripted;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_network_one_that_gives_pages_and_one_that_gives_nothing_are_named_and_nothing_is_sent()
 {
    let scripted = Scripted::new(1).await;
    let world = &scripted.world;
    let reward = world.grant(1, wallet(0x11)).await;
    let moved = "update network_configs set rpc_url = $1";
    world.run(moved, &thor()).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_obstacle("wrong_network").await;
    for page in [(200, "<html>down for maintenance</html>"), (502, "<html>bad gateway</html>"), (200, "")] {
        *scripted.thors[0].page.lock().unwrap() = Some(page);
        world.run(moved, &scripted.thors[0].url).await;
        world.until_obstacle("node_unavailable").await;
        world.run(moved, &thor()).await;
        world.until_obstacle("wrong_network").await;
    }
    assert_eq!(world.state(reward).await, ("ready".to_owned(), None));
    assert_eq!(scripted.chain().posts, 0);
    *scripted.thors[0].page.lock().unwrap() = None;
    world.run(moved, &scripted.thors[0].url).await;
    scripted.until_posted(1).await;
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distributor_without_vtho_is_named_and_pays_once_it_has_some() {
    let scripted = Scripted::new(1).await;
    scripted.chain().energy = false;
    let reward = scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.world.until_obstacle("no_vtho").await;
    assert_eq!(scripted.world.state(reward).await.0, "ready");
    assert_eq!(scripted.chain().posts, 0);
    scripted.chain().energy = true;
    scripted.until_posted(1).await;
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_paused_or_not_endorsed_is_named_and_its_rewards_are_paid_when_it_is_neither() {
    let (world, later) = World::on_version(7, &[]).await;
    let (node, admin) =
        (Node::new(&thor(), None, Limits::default()).unwrap(), Signer::from_hex(SOLO_KEYS[0]).unwrap());
    let operator = Operator::new(&node, &admin).await.unwrap();
    let app = world.contracts.app_id;
    let orders = async |clause: Clause| operator.send("the app's admin", vec![clause]).await.unwrap();
    orders(later.pause(app, true)).await;
    let reward = world.grant(1, wallet(0x71)).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_obstacle("paused").await;
    let named = "update smart_contracts set app_id = $1";
    world.run(named, &format!("0x{}", "0b".repeat(32))).await;
    world.until_obstacle("unknown_app").await;
    orders(later.pause(app, false)).await;
    assert_eq!(world.state(reward).await, ("ready".to_owned(), None));
    assert!(world.paid().await.is_empty());
    world.run(named, &app.to_string()).await;
    world.until_paid(&[reward]).await;
    signing.abort();
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_is_a_contract_is_paid_and_one_that_is_the_pool_or_the_token_waits_for_a_person() {
    let world = World::new().await;
    // A smart account is a contract too: code alone says nothing against a wallet.
    let contract = contracts().await.x2earn_apps;
    let paid = world.grant(1, contract).await;
    let lost = [world.contracts.rewards_pool, world.contracts.b3tr, world.contracts.passport];
    let mut kept = Vec::new();
    for address in lost {
        kept.push(world.grant(1, address).await);
    }
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_paid(&[paid]).await;
    signing.abort();
    for reward in kept {
        let (state, reason) = world.state(reward).await;
        assert_eq!(state, "quarantined");
        assert!(reason.as_deref().unwrap().starts_with("invalid_receiver: "), "{reason:?}");
        assert!(!world.paid().await.contains(&reward));
    }
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_reward_that_cannot_be_cancelled_is_shown_and_holds_up_no_payment() {
    let world = World::new().await;
    let (corrected, paid) = (world.grant(1, wallet(0x11)).await, world.grant(1, wallet(0x12)).await);
    world
        .sql(format!(
            "insert into payout_corrections (reward_id, event_id, corrected_at) values ('{corrected}', '{corrected}', now());
             update payouts set state = 'quarantined', ready_at = null, header = header - 'upload_id' where reward_id = '{corrected}'"
        ))
        .await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_paid(&[paid]).await;
    assert_eq!(world.metrics.corrections_failing.with_label_values(&[]).get(), 1);
    signing.abort();
    world.database.drop().await;
}
