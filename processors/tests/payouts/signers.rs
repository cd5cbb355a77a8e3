//! Signers outside of the process, gas that somebody else pays, and the policy in front of every signer.

use chain::signing::testing::{Mood, SigningServer};
use chain::signing::{AwsCredentials, FeeSponsor, KmsKey, KmsSigner, RemoteSigner, SignerLimits};
use processors::reward_rules::FIRST;

use super::ends::Scripted;
use super::*;

const LIMITS: SignerLimits =
    SignerLimits { connect: Duration::from_secs(2), call: Duration::from_millis(500) };

fn server(account: usize) -> SigningServer {
    SigningServer::start(SOLO_KEYS[account]).unwrap()
}

fn remote(server: &SigningServer) -> Arc<dyn TransactionSigner> {
    Arc::new(RemoteSigner::new(&server.url, server.address, None, LIMITS).unwrap())
}

fn sponsor(server: &SigningServer) -> Arc<dyn TransactionSigner> {
    Arc::new(FeeSponsor::new(&server.url, server.address, LIMITS).unwrap())
}

impl World {
    /// Another reward of the driver of this one.
    async fn grant_again(&self, of: Uuid, amount: i64) -> Uuid {
        let (user, wallet): (Uuid, Uuid) =
            sqlx::query_as("select user_id, wallet_id from payouts where reward_id = $1")
                .bind(of)
                .fetch_one(&self.database.pool)
                .await
                .unwrap();
        let mut event = example_grant();
        event.header.user_id = UserId(user);
        event.header.upload_id = UploadId(Uuid::now_v7());
        event.reward_id = RewardId::of(event.header.upload_id);
        event.stamp.wallet_id = Some(wallet);
        event.granted = amount.into();
        let reward = event.reward_id.0;
        self.consume(PayoutInput::Granted(Box::new(event))).await;
        reward
    }

    async fn bodies(&self) -> Vec<(String, String, Vec<u8>)> {
        sqlx::query_as(
            "select tx_id, gas_payer, raw from payout_attempts where raw is not null order by tx_id",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reward_is_paid_through_a_signer_outside_while_a_sponsor_pays_the_gas() {
    let world = World::new().await;
    let (signer, payer) = (server(1), server(2));
    let reward = world.grant(1, wallet(0x41)).await;
    signer.be(Mood::Silent);
    let signing = world.submitter_of(remote(&signer), Some(sponsor(&payer)), "only");
    world.until_obstacle("signer_unavailable").await;
    for (mood, label) in [
        (Mood::OtherKey, "signer_wrong"),
        (Mood::HighS, "signer_wrong"),
        (Mood::Says(200, "<html>".into()), "signer_wrong"),
        (Mood::Says(403, String::new()), "signer_refused"),
    ] {
        signer.be(mood);
        world.until_obstacle(label).await;
    }
    assert!(world.paid().await.is_empty(), "nothing was signed");
    assert!(world.bodies().await.is_empty());
    signer.be(Mood::Well);
    world.until_paid(&[reward]).await;
    signing.abort();

    let bodies = world.bodies().await;
    assert_eq!(bodies.len(), 1, "one plan, whoever failed to sign it");
    let signed = chain::SignedTx::decode(&bodies[0].2).unwrap();
    assert_eq!((signed.origin(), signed.gas_payer()), (signer.address, payer.address));
    assert_eq!(bodies[0].1, payer.address.to_string());
    let node = Node::new(&thor(), Some(world.contracts.genesis_id), Limits::default()).unwrap();
    let receipt = node.receipt(signed.id(), None).await.unwrap().unwrap();
    assert_eq!((receipt.gas_payer, receipt.reverted), (payer.address, false), "the distributor paid no gas");
    assert_eq!(world.paid().await, [reward]);
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reward_is_paid_with_a_key_in_kms_and_the_stored_bytes_are_the_ones_that_are_posted() {
    let world = World::new().await;
    let server = server(1);
    let key = KmsKey {
        key_id: "alias/distributor".into(),
        region: "eu-central-1".into(),
        endpoint: Some(server.url.clone()),
    };
    let secret = |text: &str| text.to_owned().into();
    let credentials = AwsCredentials::fixed(secret("AKID"), secret("s"), None);
    let kms = KmsSigner::open(key, credentials, LIMITS, Arc::new(std::time::SystemTime::now)).await.unwrap();
    assert_eq!(kms.address(), server.address);
    // What KMS gives at times, and Thor's pool refuses as it stands.
    server.be(Mood::HighS);
    let rewards = [world.grant(1, wallet(0x42)).await, world.grant(2, wallet(0x43)).await];
    let signing = world.submitter_of(Arc::new(kms), None, "only");
    world.until_paid(&rewards).await;
    signing.abort();
    let node = Node::new(&thor(), Some(world.contracts.genesis_id), Limits::default()).unwrap();
    for (id, payer, raw) in world.bodies().await {
        assert_eq!(payer, server.address.to_string());
        assert_eq!(node.raw_transaction(id.parse().unwrap()).await.unwrap(), Some(raw));
    }
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sponsor_without_vtho_and_one_that_refuses_are_named_and_nothing_is_signed() {
    let world = World::new().await;
    let poor = SigningServer::start(&"44".repeat(32)).unwrap();
    world.grant(1, wallet(0x44)).await;
    let own: Arc<dyn TransactionSigner> = Arc::new(Signer::from_hex(SOLO_KEYS[1]).unwrap());
    let signing = world.submitter_of(own.clone(), Some(sponsor(&poor)), "poor");
    world.until_obstacle("no_vtho").await;
    signing.abort();
    assert!(poor.asked().is_empty());
    let refusing = server(2);
    refusing.be(Mood::Says(403, r#"{"message":"not sponsored"}"#.into()));
    world.run("update submitter_leases set expires_at = now() where $1 = ''", "").await;
    let signing = world.submitter_of(own, Some(sponsor(&refusing)), "refusing");
    world.until_obstacle("signer_refused").await;
    signing.abort();
    assert!(world.bodies().await.is_empty() && world.paid().await.is_empty());
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_a_gas_payer_that_is_gone_is_given_up_and_its_reward_is_paid_all_the_same() {
    let scripted = Scripted::new(1).await;
    let payer = server(2);
    payer.be(Mood::Says(503, String::new()));
    scripted.world.grant(1, wallet(0x11)).await;
    let own: Arc<dyn TransactionSigner> = Arc::new(Signer::from_hex(SOLO_KEYS[1]).unwrap());
    let signing = scripted.world.submitter_of(own, Some(sponsor(&payer)), "with");
    scripted.world.until_obstacle("signer_unavailable").await;
    signing.abort();
    scripted.world.run("update submitter_leases set expires_at = now() where $1 = ''", "").await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "without");
    scripted.until_posted(1).await;
    let posted = scripted.chain().pool.values().next().unwrap().clone();
    assert!(!posted.unsigned().delegated);
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_does_not_permit_is_an_incident_and_is_not_signed() {
    let mut scripted = Scripted::new(1).await;
    // Whoever planned it knew nothing of the list.
    scripted.world.policy.contracts = vec![wallet(0x99)];
    let reward = scripted.world.grant(1, wallet(0x11)).await;
    let server = server(1);
    let signing = scripted.world.submitter_of(remote(&server), None, "only");
    scripted.world.until_obstacle("policy").await;
    scripted.until_state(reward, "ready").await;
    signing.abort();
    assert!(server.asked().is_empty(), "the signer was not even asked");
    assert!(scripted.chain().pool.is_empty());
    let (cause, what): (String, String) = sqlx::query_as("select cause, what from payout_incidents")
        .fetch_one(&scripted.world.database.pool)
        .await
        .unwrap();
    assert_eq!(cause, "policy");
    assert!(what.starts_with(&format!("policy: clause 0 calls {}", wallet(0x90))), "{what}");

    scripted.world.policy.contracts = vec![wallet(0x90)];
    scripted.world.run("update payout_incidents set resolved_at = now() where $1 = ''", "").await;
    scripted.world.run("update submitter_leases set expires_at = now() where $1 = ''", "").await;
    let signing = scripted.world.submitter_of(remote(&server), None, "again");
    scripted.until_posted(1).await;
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn planning_keeps_within_the_ceilings_so_that_nothing_is_refused() {
    let mut scripted = Scripted::new(1).await;
    scripted.world.policy =
        Policy { reward: b3tr(5), receiver: b3tr(7), batch: b3tr(9), ..Policy::unbounded() };
    let above = scripted.world.grant(6, wallet(0x10)).await;
    let first = scripted.world.grant(5, wallet(0x11)).await;
    scripted.world.grant(4, wallet(0x12)).await;
    let later = scripted.world.grant_again(first, 3).await;
    scripted.world.grant(4, wallet(0x13)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.until_state(above, "quarantined").await;
    scripted.until_posted(2).await;
    for posted in scripted.chain().pool.values() {
        let calls = posted.unsigned().clauses.iter();
        let sum = calls.map(|clause| chain::abi::RewardCall::decode(&clause.data).unwrap().1.amount);
        let sum = sum.fold(Wei::ZERO, |sum, amount| sum.checked_add(amount).unwrap());
        assert!(sum <= b3tr(9), "{sum}");
    }
    let until = Instant::now() + LIMIT;
    while scripted.world.state(later).await.1.is_none() {
        assert!(Instant::now() < until, "the third is not put off: {:?}", scripted.world.state(later).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (state, reason) = scripted.world.state(later).await;
    assert_eq!(state, "ready");
    assert!(reason.unwrap().starts_with("receiver_ceiling: "), "it is paid in the next day");
    let mut receivers = scripted.waiting_receivers();
    receivers.sort_unstable_by_key(|receiver| receiver.0);
    assert_eq!(receivers, [wallet(0x11), wallet(0x12), wallet(0x13)]);
    assert_eq!(scripted.world.metrics.payout_obstacle.with_label_values(&["policy"]).get(), 0);
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_drivers_are_paid_stays_within_the_pool_of_the_rules_in_force_and_the_rest_waits() {
    let scripted = Scripted::new(1).await;
    let rules = FIRST.replace("over = ", "pool_weekly = \"9\"\nover = ").replace("\"1\"", "\"2\"");
    // In force since long ago, as only a row of its own can be: the command takes instants ahead.
    scripted
        .world
        .run(
            "insert into reward_rules (version, in_force_from, document, applied_at)
             values ('2', '2020-01-01T00:00:00Z', $1, '2019-12-31T00:00:00Z')",
            &rules,
        )
        .await;
    let above = scripted.world.grant(10, wallet(0x10)).await;
    let first = scripted.world.grant(5, wallet(0x11)).await;
    let rest = scripted.world.grant(6, wallet(0x12)).await;
    let second = scripted.world.grant(4, wallet(0x13)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.until_state(above, "quarantined").await;
    let obstacle = || scripted.world.metrics.payout_obstacle.with_label_values(&["pool"]).get();
    let until = Instant::now() + LIMIT;
    while obstacle() != 1 {
        assert!(Instant::now() < until, "the pool is not reached");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    signing.abort();
    for paid in [first, second] {
        assert!(!["ready", "quarantined"].contains(&scripted.world.state(paid).await.0.as_str()));
    }
    assert_eq!(scripted.world.state(rest).await.0, "ready");
    let mut receivers = scripted.waiting_receivers();
    receivers.sort_unstable_by_key(|receiver| receiver.0);
    assert_eq!(receivers, [wallet(0x11), wallet(0x13)]);
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_gas_costs_more_than_may_be_offered_payments_wait() {
    let world = World::new().await;
    let mut dear = World { policy: Policy { gas_price: Wei::from(1), ..Policy::unbounded() }, ..world };
    let reward = dear.grant(1, wallet(0x45)).await;
    let signing = dear.submitter(SOLO_KEYS[1], "dear");
    dear.until_obstacle("gas_price").await;
    signing.abort();
    assert_eq!(dear.state(reward).await.0, "ready");
    // A little above the lowest price: below twice the base fee, which the strategy would offer.
    dear.policy.gas_price = Wei::from(11_000_000_000_000);
    dear.run("update submitter_leases set expires_at = now() where $1 = ''", "").await;
    let signing = dear.submitter(SOLO_KEYS[1], "fair");
    dear.until_paid(&[reward]).await;
    signing.abort();
    let signed = chain::SignedTx::decode(&dear.bodies().await[0].2).unwrap();
    let chain::Fees::Dynamic { max_fee_per_gas, max_priority_fee_per_gas } = signed.unsigned().fees else {
        panic!("{signed:?}")
    };
    assert_eq!(max_fee_per_gas, Wei::from(11_000_000_000_000));
    assert!(max_priority_fee_per_gas <= max_fee_per_gas);
    dear.database.drop().await;
}
