//! Another key signs: what the one before it left is brought to its end first.

use super::ends::Scripted;
use super::*;

impl World {
    async fn lapse(&self) {
        self.run("update submitter_leases set expires_at = now() where $1 = ''", "").await;
    }
}

/// Who signed what waits in the pool.
fn origins(scripted: &Scripted) -> Vec<Address> {
    scripted.chain().pool.values().map(|tx| tx.origin()).collect()
}

fn key(account: usize) -> Address {
    Signer::from_hex(SOLO_KEYS[account]).unwrap().address()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_key_signed_is_posted_until_a_block_holds_it_and_only_then_the_new_key_signs() {
    let mut scripted = Scripted::new(1).await;
    let first = scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "before");
    scripted.until_posted(1).await;
    let bytes = *scripted.chain().pool.keys().next().unwrap();
    signing.abort();
    scripted.chain().drop_pool();
    let second = scripted.world.grant(2, wallet(0x12)).await;

    // Its process still holds its lease: the new key waits.
    let signing = scripted.world.submitter(SOLO_KEYS[2], "after");
    scripted.world.until_obstacle("predecessor").await;
    scripted.world.lapse().await;
    scripted.until_posted(1).await;
    assert_eq!(scripted.chain().pool.keys().copied().collect::<Vec<_>>(), [bytes], "the same bytes");
    assert_eq!(scripted.world.state(second).await.0, "ready");

    scripted.chain().mine(false);
    scripted.chain().grow(13);
    scripted.deliver().await;
    scripted.until_state(first, "paid").await;
    scripted.until_posted(1).await;
    assert_eq!(origins(&scripted), [key(2)]);
    assert_eq!(scripted.waiting_receivers(), [wallet(0x12)]);
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_keys_dead_transaction_and_plan_are_given_up_and_the_new_key_pays_what_they_were_for() {
    let scripted = Scripted::new(1).await;
    scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "before");
    scripted.until_posted(1).await;
    scripted.world.grant(1, wallet(0x12)).await;
    scripted.until_posted(2).await;
    signing.abort();
    scripted.chain().drop_pool();
    // A crash between plan and signature, whose announcement is out: it may be anywhere until its window is final.
    scripted
        .world
        .run(
            "update payout_attempts set state = 'planned', raw = null where tx_id = (
                select tx_id from payout_attempts where $1 = '' order by planned_at desc limit 1)",
            "",
        )
        .await;
    scripted.world.lapse().await;
    let signing = scripted.world.submitter(SOLO_KEYS[2], "after");
    scripted.until_posted(1).await;
    assert_eq!(origins(&scripted), [key(1)], "the signed one is posted, the plan is not");
    {
        let mut chain = scripted.chain();
        chain.grow(700);
        chain.drop_pool();
        chain.finalized = 719;
    }
    let until = Instant::now() + LIMIT;
    while origins(&scripted).iter().filter(|origin| **origin == key(2)).count() == 0 {
        assert!(Instant::now() < until, "the new key signs nothing: {:?}", origins(&scripted));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scripted.chain().pool.retain(|_, tx| tx.origin() == key(2));
    while scripted.waiting_receivers().len() < 2 {
        assert!(Instant::now() < until, "{:?}", scripted.waiting_receivers());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ends: Vec<(String, String)> =
        sqlx::query_as("select signer, state from payout_attempts where signer = $1 order by state")
            .bind(key(1).to_string())
            .fetch_all(&scripted.world.database.pool)
            .await
            .unwrap();
    let states: Vec<&str> = ends.iter().map(|(_, state)| state.as_str()).collect();
    assert_eq!(states, ["abandoned", "dead"]);
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_keys_payment_that_lost_commits_forgot_is_taken_back_by_the_new_key() {
    let mut scripted = Scripted::new(1).await;
    let lost = scripted.world.grant(1, wallet(0x11)).await;
    scripted.world.back_up().await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "before");
    scripted.until_posted(1).await;
    signing.abort();
    scripted.chain().mine(false);
    scripted.world.set_back().await;
    let signing = scripted.world.submitter(SOLO_KEYS[2], "after");
    scripted.until_state(lost, "in_flight").await;
    let other = scripted.world.grant(2, wallet(0x12)).await;
    scripted.until_posted(1).await;
    assert_eq!(scripted.waiting_receivers(), [wallet(0x12)], "it is not paid a second time");
    scripted.chain().mine(false);
    scripted.chain().grow(13);
    scripted.deliver().await;
    for reward in [lost, other] {
        scripted.until_state(reward, "paid").await;
    }
    signing.abort();
    scripted.world.database.drop().await;
}
