//! The hourly comparison of chain and books: it begins where the last one ended, and forgets nothing that differs.

use chain::abi::{Proof, ProofType, RewardCall};
use chain::{BlockRef, Fees, SignedTx, UnsignedTx};
use processors::chain_submission::network::Network;
use processors::chain_submission::reconcile::{Kind, Report, reconcile, reconcile_on};

use super::ends::Scripted;
use super::scripted::GENESIS;
use super::*;

impl Scripted {
    async fn network(&self) -> Network {
        Network::load(&self.world.database.pool, GENESIS, Limits::default()).await.unwrap()
    }

    /// What the role timers does each hour.
    async fn hour(&self) -> Report {
        let network = self.network().await;
        let now = SystemClock.now().to_utc();
        reconcile_on(&self.world.database.pool, &network.nodes[0], &network, now).await.unwrap()
    }

    /// What the command does.
    async fn whole(&self) -> Report {
        let network = self.network().await;
        reconcile(&self.world.database.pool, &network.nodes[0], &network, (None, None)).await.unwrap()
    }

    async fn equal_upto(&self) -> Option<i64> {
        sqlx::query_scalar("select equal_upto from payout_reconciliations")
            .fetch_optional(&self.world.database.pool)
            .await
            .unwrap()
    }

    /// Pays a granted reward and lets the books know its block.
    async fn settle(&mut self, receiver: Address) -> Uuid {
        let reward = self.world.grant(1, receiver).await;
        let signing = self.world.submitter(SOLO_KEYS[1], "only");
        self.until_posted(1).await;
        signing.abort();
        self.world.sql("update submitter_leases set expires_at = now()".into()).await;
        self.chain().mine(false);
        self.chain().grow(20);
        self.deliver().await;
        reward
    }

    /// A block with a payment by the distributor's key that the books do not know.
    fn pay_unknown(&self, reward: Uuid) {
        let call = RewardCall { app: self.world.contracts.app_id, amount: b3tr(1), receiver: wallet(0x11) };
        let evidence = vec![(ProofType::Text, format!("reward {reward}"))];
        let proof = Proof { evidence, impacts: Vec::new(), description: "by hand".into() };
        let unsigned = UnsignedTx {
            chain_tag: GENESIS.chain_tag(),
            block_ref: BlockRef(0),
            expiration: 10_000,
            clauses: vec![call.with_proof(self.world.contracts.rewards_pool, &proof)],
            fees: Fees::Legacy { gas_price_coef: 0 },
            gas: 1_000_000,
            depends_on: None,
            nonce: 7,
            delegated: false,
        };
        let tx = SignedTx::sign(unsigned, &Signer::from_hex(SOLO_KEYS[1]).unwrap()).unwrap();
        let mut chain = self.chain();
        chain.pool.insert(tx.id(), tx);
        chain.mine(false);
        chain.grow(1);
    }

    /// All blocks are final.
    fn finish(&self) {
        let mut chain = self.chain();
        chain.finalized = u32::try_from(chain.blocks.len() - 1).unwrap();
        chain.grow(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hour_compares_what_has_become_final_since_the_hour_before_and_a_second_payment_of_an_old_reward_is_found()
 {
    let mut scripted = Scripted::new(1).await;
    let first = scripted.settle(wallet(0x11)).await;
    scripted.chain().finalized = 25;
    scripted.chain().grow(1);
    scripted.deliver().await;
    let report = scripted.hour().await;
    assert_eq!((report.to, report.payments, report.findings.len()), (25, 1, 0));
    assert_eq!(scripted.equal_upto().await, Some(25));

    // Nothing of it is read again; what is not final is left to a later hour.
    scripted.settle(wallet(0x12)).await;
    let report = scripted.hour().await;
    assert_eq!((report.from, report.payments, scripted.equal_upto().await), (26, 0, Some(25)));
    scripted.finish();
    scripted.deliver().await;
    let report = scripted.hour().await;
    assert_eq!((report.from, report.payments, report.findings.len()), (26, 1, 0));
    let equal = scripted.equal_upto().await;
    assert_eq!(equal, Some(i64::from(report.to)));
    assert_eq!(
        (scripted.whole().await.payments, scripted.equal_upto().await),
        (2, equal),
        "the command reads all"
    );

    // A reward from before the checkpoint is paid again: each hour finds it until somebody has said what it is.
    scripted.pay_unknown(first);
    scripted.finish();
    scripted.deliver().await;
    for _ in 0..2 {
        let report = scripted.hour().await;
        let kinds: Vec<Kind> = report.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [Kind::Unknown, Kind::Double]);
        assert_eq!(scripted.equal_upto().await, equal, "it does not rise past what differs");
    }
    let [unknown, _] = &scripted.whole().await.findings[..] else { panic!("the command finds the same") };
    let resolved =
        "insert into payout_incidents (genesis_id, tx_id, what, found_at, resolved_at, resolution, cause)
         values ('{genesis}', '{tx}', 'a test', now(), now(), 'by hand', 'unknown_payment')";
    let resolved = resolved.replace("{genesis}", &GENESIS.to_string()).replace("{tx}", &unknown.tx_id);
    scripted.world.sql(resolved).await;
    let report = scripted.hour().await;
    assert_eq!((report.findings.len(), report.resolved), (0, 1));
    assert!(scripted.equal_upto().await > equal);

    // Of another pool or app nothing was compared.
    let app = format!("0x{}", "0b".repeat(32));
    scripted.world.run("update smart_contracts set app_id = $1", &app).await;
    assert_eq!(scripted.hour().await.from, scripted.whole().await.from);
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_alone_calls_final_does_not_raise_the_checkpoint() {
    let mut scripted = Scripted::new(1).await;
    scripted.settle(wallet(0x11)).await;
    scripted.thors[0].lies.store(true, std::sync::atomic::Ordering::Relaxed);
    let report = scripted.hour().await;
    assert_eq!((report.payments, scripted.equal_upto().await), (1, Some(0)), "the books know no final block");
    scripted.world.database.drop().await;
}
