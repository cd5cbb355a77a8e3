//! Rewards that nobody claims in time, on a real Postgres: their drivers are told, then they end, once, and of a claim at the same moment
//! one wins.

use std::time::Duration;

use processors::chain_submission::expire::{ClaimTerms, expire};
use runtime::timers::Ran;
use schemas::events::{PayoutUpdated, RewardCancelled, RewardClaimed};
use schemas::ids::natural;

use super::*;
use crate::corrections::{Books, grant};
use crate::payouts::schemas as payout_schemas;
use processors::chain_submission::consume::PayoutInput;
use processors::chain_submission::ledger::publish::Publisher;

const DAY: i64 = 86_400_000_000;
/// Ninety days, of which the driver is told fourteen before the end.
const TERMS: ClaimTerms =
    ClaimTerms { expires_after: Duration::from_secs(90 * 86_400), notice: Duration::from_secs(14 * 86_400) };

/// A reward that its driver has to claim, granted now.
async fn waiting(books: &Books) -> RewardClaimed {
    let mut grant = grant();
    (grant.stamp.auto_claim, grant.header.occurred_at) = (false, NOW);
    books.consume(PayoutInput::Granted(Box::new(grant.clone()))).await;
    RewardClaimed {
        event_id: EventId(natural(&format!("claim/{}", grant.reward_id))),
        occurred_at: NOW,
        reward_id: grant.reward_id,
        user_id: grant.header.user_id,
        wallet_id: grant.stamp.wallet_id.unwrap(),
    }
}

/// So many days after the grant: what was cancelled, and what failed.
async fn run_over(books: &Books, days: i64) -> (u64, u64) {
    let publisher = Publisher { schemas: payout_schemas(), gas_ceiling: 0 };
    let ran = expire(&books.database.pool, &publisher, TERMS, Micros(NOW.0 + days * DAY).to_utc()).await;
    let Ran { done, failed } = ran.unwrap();
    (done, failed)
}

/// The same where nothing fails.
async fn run(books: &Books, days: i64) -> u64 {
    let (done, failed) = run_over(books, days).await;
    assert_eq!(failed, 0);
    done
}

/// What waits to be published, of one type.
async fn published<E: schemas::events::Event>(books: &Books) -> Vec<E> {
    let payloads: Vec<Vec<u8>> =
        sqlx::query_scalar("select payload from outbox where topic = $1 order by id")
            .bind(E::TOPIC.name())
            .fetch_all(&books.database.pool)
            .await
            .unwrap();
    let decoded = payloads.iter().filter_map(|payload| {
        let (id, datum) = codec::unframe(payload).unwrap();
        codec::decode(E::schema(), id, datum).ok()
    });
    decoded.collect()
}

/// Stores a claim as the gateway does: under the lock of the payout. False where that does not wait any more.
async fn claim(books: &Books, claimed: &RewardClaimed) -> bool {
    let mut tx = books.database.pool.begin().await.unwrap();
    let state: String = sqlx::query_scalar("select state from payouts where reward_id = $1 for share")
        .bind(claimed.reward_id.0)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    if state == "cancelled" {
        return false;
    }
    store(&mut tx, claimed).await;
    tx.commit().await.unwrap();
    true
}

async fn store(tx: &mut sqlx::PgConnection, claimed: &RewardClaimed) {
    sqlx::query(
        "with driver as (insert into users (id) values ($2)),
              wallet as (insert into user_wallets (id, user_id, wallet_address, wallet_type, network)
                         values ($3, $2, '0x0000000000000000000000000000000000000001', 'vechain', 'testnet'))
         insert into reward_claims (reward_id, user_id, wallet_id, event_id, claimed_at) values ($1, $2, $3, $4, now())",
    )
    .bind(claimed.reward_id.0)
    .bind(claimed.user_id.0)
    .bind(claimed.wallet_id)
    .bind(claimed.event_id.0)
    .execute(tx)
    .await
    .unwrap();
}

#[tokio::test]
async fn an_unclaimed_reward_is_told_before_its_end_and_cancelled_once_with_its_whole_charge_given_back() {
    let books = Books::new().await;
    let claimed = waiting(&books).await;
    assert_eq!((run(&books, 75).await, books.end().await), (0, ("waiting".to_owned(), 0)));
    assert_eq!(published::<PayoutUpdated>(&books).await.len(), 1, "nothing is told before its time");
    // Two processes run it at once, and once more.
    tokio::join!(run(&books, 76), run(&books, 76));
    assert_eq!(run(&books, 80).await, 0);
    let told: Vec<PayoutUpdated> = published(&books).await;
    let reason = told[1].reason.as_deref().unwrap();
    assert!(told.len() == 2 && reason.starts_with("claim_expires: claim it before 2"), "{told:?}");
    assert_eq!(run(&books, 89).await, 0);
    let (one, other) = tokio::join!(run(&books, 90), run(&books, 90));
    assert_eq!((one + other, run(&books, 91).await), (1, 0));
    assert_eq!(books.end().await, ("cancelled".to_owned(), 1));
    let told: Vec<PayoutUpdated> = published(&books).await;
    let last = told.last().unwrap();
    assert!(last.reason.as_deref().unwrap().starts_with("claim_expired: it was not claimed before 2"));
    let refunds: Vec<RewardCancelled> = published(&books).await;
    assert_eq!((refunds.len(), refunds[0].granted), (1, last.amount), "granted = paid + pending + cancelled");
    assert!(!claim(&books, &claimed).await, "who comes now comes too late");
    // A claim of an old gateway that was on its way pays nothing.
    books.consume(PayoutInput::Claimed(claimed)).await;
    assert_eq!((books.end().await, books.ready().await), (("cancelled".to_owned(), 1), 0));
    books.database.drop().await;
}

#[tokio::test]
async fn a_reward_older_than_the_setting_is_told_first_and_ends_after_the_whole_notice() {
    let books = Books::new().await;
    waiting(&books).await;
    assert_eq!((run(&books, 400).await, run(&books, 413).await), (0, 0));
    assert_eq!(run(&books, 414).await, 1);
    books.database.drop().await;
}

#[tokio::test]
async fn what_is_paid_by_itself_or_was_claimed_never_expires() {
    let books = Books::new().await;
    let mut grant = grant();
    (grant.stamp.auto_claim, grant.stamp.min_claim) = (true, Some(1_000_000.into()));
    grant.header.occurred_at = NOW;
    books.consume(PayoutInput::Granted(Box::new(grant))).await;
    assert_eq!((run(&books, 100).await, run(&books, 200).await), (0, 0));
    assert_eq!(books.end().await.0, "waiting", "it gathers");
    books.database.drop().await;
    let books = Books::new().await;
    let claimed = waiting(&books).await;
    run(&books, 76).await;
    books.consume(PayoutInput::Claimed(claimed)).await;
    assert_eq!((run(&books, 100).await, books.end().await), (0, ("ready".to_owned(), 0)));
    books.database.drop().await;
}

#[tokio::test]
async fn of_a_claim_and_an_end_at_the_same_moment_exactly_one_wins() {
    let (mut claims, mut ends) = (0, 0);
    for round in 0..12 {
        let books = Books::new().await;
        let claimed = waiting(&books).await;
        run(&books, 76).await;
        let (won, ended) = if round % 2 == 0 {
            tokio::join!(claim(&books, &claimed), run(&books, 90))
        } else {
            let (ended, won) = tokio::join!(run(&books, 90), claim(&books, &claimed));
            (won, ended)
        };
        assert_eq!(u64::from(won) + ended, 1, "one of the two");
        (claims, ends) = (claims + u64::from(won), ends + ended);
        if won {
            books.consume(PayoutInput::Claimed(claimed)).await;
        }
        let expected = if won { ("ready".to_owned(), 0) } else { ("cancelled".to_owned(), 1) };
        assert_eq!(books.end().await, expected, "and nobody is told otherwise");
        books.database.drop().await;
    }
    assert_eq!(claims + ends, 12);
}

#[tokio::test]
async fn a_claim_that_is_being_stored_holds_the_end_up_and_wins() {
    let books = Books::new().await;
    let claimed = waiting(&books).await;
    run(&books, 76).await;
    let mut tx = books.database.pool.begin().await.unwrap();
    let lock = "select state from payouts where reward_id = $1 for share";
    sqlx::query(lock).bind(claimed.reward_id.0).execute(&mut *tx).await.unwrap();
    let (ended, ()) = tokio::join!(run(&books, 90), async {
        let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%payouts%for update%'
                and datname = current_database())";
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&books.database.pool).await.unwrap() {
            tokio::task::yield_now().await;
        }
        store(&mut tx, &claimed).await;
        tx.commit().await.unwrap();
    });
    assert_eq!((ended, books.end().await), (0, ("waiting".to_owned(), 0)));
    books.consume(PayoutInput::Claimed(claimed)).await;
    assert_eq!((run(&books, 91).await, books.end().await.0), (0, "ready".to_owned()));
    books.database.drop().await;
}

/// As many as there are rewards whose header is of no release are due before one that is in order: more than are looked for at a time.
const BROKEN: u64 = 120;

#[tokio::test]
async fn rewards_that_can_neither_be_told_nor_ended_keep_no_other_waiting_however_many_they_are() {
    let books = Books::new().await;
    let sound = waiting(&books).await.reward_id.0;
    let execute = async |sql: &'static str| {
        let done = sqlx::query(sql).bind(sound).execute(&books.database.pool).await.unwrap();
        done.rows_affected()
    };
    let broken = execute(
        "insert into payouts select (jsonb_populate_record(p, jsonb_build_object('reward_id', gen_random_uuid(), 'header',
             p.header - 'upload_id' || jsonb_build_object('occurred_at', (p.header->>'occurred_at')::bigint - 1)))).*
         from payouts p, generate_series(1, 120) where reward_id = $1",
    );
    assert_eq!(broken.await, BROKEN);
    assert_eq!(run_over(&books, 76).await, (0, BROKEN));
    let told: Vec<Uuid> = sqlx::query_scalar("select reward_id from claim_expiries")
        .fetch_all(&books.database.pool)
        .await
        .unwrap();
    assert_eq!(told, [sound]);
    // They were told by a release that could, and are due first.
    execute(
        "insert into claim_expiries (reward_id, told_at, expires_at)
         select p.reward_id, e.told_at, e.expires_at - interval '1 day' from payouts p, claim_expiries e where p.reward_id <> $1",
    )
    .await;
    assert_eq!(run_over(&books, 90).await, (1, BROKEN));
    let state = async || -> (String, i64) {
        sqlx::query_as(
            "select (select state from payouts where reward_id = $1), (select count(*) from claim_expiries where ended_at is null)",
        )
        .bind(sound)
        .fetch_one(&books.database.pool)
        .await
        .unwrap()
    };
    assert_eq!(state().await, ("cancelled".to_owned(), 120));
    assert_eq!(run_over(&books, 91).await, (0, BROKEN), "each is tried again by each run, once");
    execute(
        "update payouts set header = header || jsonb_build_object('upload_id', gen_random_uuid()) where reward_id <> $1",
    )
    .await;
    assert_eq!(run_over(&books, 92).await, (BROKEN, 0));
    assert_eq!(state().await.1, 0);
    books.database.drop().await;
}
