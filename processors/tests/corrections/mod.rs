//! A correction on a real Postgres: decided once in its place, and its reward kept from being paid whichever comes first.

use processors::chain_submission::consume::{PayoutConsumer, PayoutInput};
use processors::chain_submission::corrected;
use processors::chain_submission::ledger::publish::Publisher;
use processors::chain_submission::ledger::rows;
use processors::chain_submission::metrics::PayoutMetrics;
use processors::chain_submission::submit::lease::{Lease, LeaseError};
use processors::chain_submission::submit::plan::PlanError;
use runtime::Sink as _;
use runtime::timers::Ran;
use schemas::events::{Adjustment, Correction, ReadingCorrected, RewardGranted};
use schemas::ids::RewardId;

use super::*;
use crate::payouts::{example_grant, schemas as payout_schemas};

/// The network that nothing is paid on here.
const GENESIS: &str = "0x00000000851caf3cfdb6e899cf5958bfb1ac3413d346d43539627e6be7ec1b4a";

fn lowered(decided: &UploadDecided, number: i32, mileage: i64) -> ReadingCorrected {
    let correction = Correction {
        number,
        mileage_before: decided.final_mileage.unwrap(),
        mileage: mileage.into(),
        corrected_at: NOW,
    };
    ReadingCorrected::of(decided.clone(), correction)
}

#[tokio::test]
async fn a_correction_is_decided_once_and_what_would_have_been_a_rollback_is_verified_after_it() {
    let database = Database::new().await;
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    let photos = [upload(0, 50_310), upload(1, 50_390)];
    let records = (0..).zip(&photos).map(|(offset, event)| record(event, offset).unwrap()).collect();
    worker.run(&mut assignment(TOPIC, records)).await.unwrap();
    let wrong = decided(&outbound.sent())[1].clone();
    let (correction, raised) = (lowered(&wrong, 1, 50_330), lowered(&wrong, 2, 50_391));
    let records = vec![
        record(&correction, 2).unwrap(),
        record(&correction, 3).unwrap(),
        record(&raised, 4).unwrap(),
        record(&upload(2, 50_350), 5).unwrap(),
        record(&upload(3, 50_400), 6).unwrap(),
    ];
    worker.run(&mut assignment(TOPIC, records)).await.unwrap();
    let events = decided(&outbound.sent());
    let seen: Vec<_> = events[2..]
        .iter()
        .map(|event| (event.final_mileage.unwrap(), event.distance_km.unwrap(), event.correction.is_some()))
        .collect();
    let expected = [(50_330, 20, true), (50_350, 0, false), (50_400, 10, false)]
        .map(|(km, paid, corrects)| (Decimal::from(km), Decimal::from(paid), corrects));
    assert_eq!(seen, expected, "and of what was paid up to 50,390 km nothing a second time");
    assert_ne!(events[2].header.event_id, events[1].header.event_id);
    let ends: Vec<(i64, Option<String>, String, Option<String>)> = sqlx::query_as(
        "select record_offset, effect_id, outcome, reason from decisions where record_offset between 2 and 4 order by 1",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let effect = |number: i32| Some(Correction::effect(wrong.header.upload_id, number));
    let drop = |reason: &str| ("drop".to_owned(), Some(reason.to_owned()));
    assert_eq!(ends[0], (2, effect(1), "emit".to_owned(), None));
    assert_eq!((ends[1].1.clone(), (ends[1].2.clone(), ends[1].3.clone())), (None, drop("duplicate_event")));
    assert_eq!(
        (ends[2].1.clone(), (ends[2].2.clone(), ends[2].3.clone())),
        (effect(2), drop("correction_refused"))
    );
    database.drop().await;
}

/// Payouts without a node.
pub struct Books {
    pub database: Database,
    lease: Lease,
    metrics: PayoutMetrics,
}

impl Books {
    pub async fn new() -> Self {
        let database = Database::new().await;
        let lease = Lease::take(&database.pool, "0xsigner", "one").await.unwrap().unwrap();
        // However slow the machine is.
        let held = "update submitter_leases set expires_at = now() + interval '1 day'";
        sqlx::query(held).execute(&database.pool).await.unwrap();
        Self { database, lease, metrics: PayoutMetrics::new().unwrap() }
    }

    pub async fn consume(&self, payload: PayoutInput) {
        let consumer = PayoutConsumer {
            pool: self.database.pool.clone(),
            schemas: payout_schemas(),
            genesis_id: GENESIS.into(),
            gas_ceiling: 15_000_000,
            clock: Arc::new(ManualClock::at(NOW)),
            metrics: self.metrics.clone(),
        };
        let at = support::record(example_grant(), 0);
        let (position, timestamp_ms) = (at.position, at.timestamp_ms);
        let envelope = runtime::Envelope { payload, position, timestamp_ms, redrive: 0, traceparent: None };
        for _ in 0..2 {
            consumer.write(std::slice::from_ref(&envelope)).await.unwrap();
        }
    }

    /// What was cancelled, and what failed.
    async fn cancel_over(&self) -> (u64, u64) {
        let publisher = Publisher { schemas: payout_schemas(), gas_ceiling: 0 };
        let ran = corrected::cancel(&self.database.pool, &self.lease, &publisher, NOW.to_utc()).await;
        let Ran { done, failed } = ran.unwrap();
        (done, failed)
    }

    /// The same where nothing fails.
    pub async fn cancel(&self) -> u64 {
        let (done, failed) = self.cancel_over().await;
        assert_eq!(failed, 0);
        done
    }

    pub async fn ready(&self) -> usize {
        let later = Micros(i64::MAX / 2).to_utc();
        rows::ready(&self.database.pool, GENESIS, later, 10).await.unwrap().len()
    }

    async fn set(&self, state: &'static str) {
        let query = "update payouts set state = $1, ready_at = case when $1 = 'ready' then now() end";
        sqlx::query(query).bind(state).execute(&self.database.pool).await.unwrap();
    }

    /// State of the payout, and records of its refund.
    pub async fn end(&self) -> (String, i64) {
        sqlx::query_as(
            "select (select state from payouts), (select count(*) from outbox where topic = 'rewards.calculated')",
        )
        .fetch_one(&self.database.pool)
        .await
        .unwrap()
    }
}

/// The correction of the reading that a grant rewards.
fn correction_of(grant: &RewardGranted) -> PayoutInput {
    let example =
        examples(Topic::UploadsDecided).into_iter().find(|example| example.name == "edge-corrected").unwrap();
    let mut event: UploadDecided = example.event();
    event.header.upload_id = grant.header.upload_id;
    PayoutInput::Decided(Box::new(event))
}

pub fn grant() -> RewardGranted {
    let mut grant = example_grant();
    grant.reward_id = RewardId::of(grant.header.upload_id);
    grant
}

#[tokio::test]
async fn a_corrected_readings_reward_is_never_planned_and_cancelled_once_also_where_its_grant_comes_later() {
    for correction_first in [false, true] {
        let (books, grant) = (Books::new().await, grant());
        let mut inputs = [PayoutInput::Granted(Box::new(grant.clone())), correction_of(&grant)];
        if correction_first {
            inputs.reverse();
        }
        for input in inputs {
            books.consume(input).await;
        }
        assert_eq!(books.ready().await, 0);
        assert_eq!([books.cancel().await, books.cancel().await], [1, 0]);
        assert_eq!(books.end().await, ("cancelled".to_owned(), 1), "and its refund is on its way");
        books.database.drop().await;
    }
}

#[tokio::test]
async fn what_is_in_a_transaction_is_cancelled_only_where_that_has_paid_nothing() {
    let (books, grant) = (Books::new().await, grant());
    books.consume(PayoutInput::Granted(Box::new(grant.clone()))).await;
    // A decision that corrects nothing is none of its business.
    let PayoutInput::Decided(mut verdict) = correction_of(&grant) else { panic!("a decision") };
    verdict.correction = None;
    books.consume(PayoutInput::Decided(verdict)).await;
    assert_eq!((books.ready().await, books.cancel().await), (1, 0));
    books.consume(correction_of(&grant)).await;
    for state in ["in_flight", "paid"] {
        books.set(state).await;
        assert_eq!((books.cancel().await, books.end().await), (0, (state.to_owned(), 0)));
    }
    // A block that held it was undone, and its transaction is proven dead.
    books.set("ready").await;
    assert_eq!((books.ready().await, books.cancel().await), (0, 1));
    assert_eq!(books.end().await, ("cancelled".to_owned(), 1));
    books.database.drop().await;
}

#[tokio::test]
async fn corrected_rewards_that_cannot_be_cancelled_keep_no_other_waiting_however_many_they_are() {
    let (books, grant) = (Books::new().await, grant());
    for input in [PayoutInput::Granted(Box::new(grant.clone())), correction_of(&grant)] {
        books.consume(input).await;
    }
    let sound = grant.reward_id.0;
    let execute = async |sql: &'static str| {
        let done = sqlx::query(sql).bind(sound).execute(&books.database.pool).await.unwrap();
        done.rows_affected()
    };
    // More than are looked for at a time, in front of the one that is in order; their header is of no release.
    let broken = execute(
        "with broken as (insert into payouts select (jsonb_populate_record(p, jsonb_build_object(
             'reward_id', lpad(to_hex(n), 32, '0')::uuid, 'header', p.header - 'upload_id'))).*
             from payouts p, generate_series(1, 120) n where reward_id = $1 returning reward_id)
         insert into payout_corrections (reward_id, event_id, corrected_at) select reward_id, gen_random_uuid(), now() from broken",
    );
    assert_eq!(broken.await, 120);
    assert_eq!(books.cancel_over().await, (1, 120));
    let state: String = sqlx::query_scalar("select state from payouts where reward_id = $1")
        .bind(sound)
        .fetch_one(&books.database.pool)
        .await
        .unwrap();
    assert_eq!(state, "cancelled");
    assert_eq!(books.cancel_over().await, (0, 120), "each is tried again by each round, once");
    execute(
        "update payouts set header = header || jsonb_build_object('upload_id', gen_random_uuid()) where reward_id <> $1",
    )
    .await;
    assert_eq!(books.cancel_over().await, (120, 0));
    books.database.drop().await;
}

#[tokio::test]
async fn a_lost_lease_ends_the_cancelling_of_corrected_rewards() {
    let (books, grant) = (Books::new().await, grant());
    for input in [PayoutInput::Granted(Box::new(grant.clone())), correction_of(&grant)] {
        books.consume(input).await;
    }
    books.lease.release(&books.database.pool).await.unwrap();
    let publisher = Publisher { schemas: payout_schemas(), gas_ceiling: 0 };
    let ended = corrected::cancel(&books.database.pool, &books.lease, &publisher, NOW.to_utc()).await;
    assert!(matches!(ended, Err(PlanError::Lease(LeaseError::Lost))), "{ended:?}");
    assert_eq!(books.end().await.1, 0);
    books.database.drop().await;
}

#[tokio::test]
async fn a_correction_whose_reward_is_paid_for_good_or_cancelled_otherwise_is_looked_at_no_more() {
    for (state, settled) in [("paid", false), ("final", true), ("cancelled", true), ("in_flight", false)] {
        let (books, grant) = (Books::new().await, grant());
        for input in [PayoutInput::Granted(Box::new(grant.clone())), correction_of(&grant)] {
            books.consume(input).await;
        }
        books.set(state).await;
        assert_eq!((books.cancel().await, books.end().await), (0, (state.to_owned(), 0)));
        let (cancelled, found): (bool, bool) =
            sqlx::query_as("select cancelled_at is not null, settled_at is not null from payout_corrections")
                .fetch_one(&books.database.pool)
                .await
                .unwrap();
        assert_eq!((cancelled, found), (false, settled), "{state}");
        books.database.drop().await;
    }
}

#[tokio::test]
async fn an_adjustment_that_comes_when_a_transaction_pays_its_reward_already_is_counted_once_as_late() {
    let (books, grant) = (Books::new().await, grant());
    books.consume(PayoutInput::Granted(Box::new(grant.clone()))).await;
    books.set("paid").await;
    let mut answer = grant.clone();
    answer.granted = grant.granted + Decimal::ONE;
    answer.adjustment = Some(Adjustment {
        number: 1,
        promotion: "march".to_owned(),
        calculated_before: grant.granted,
        granted_before: grant.granted,
        granted: answer.granted,
        detail: None,
        adjusted_at: NOW,
    });
    let counted = || {
        let count = |end: &str| books.metrics.adjustments.with_label_values(&[end]).get();
        ["lowered", "raised", "refused", "late"].map(count)
    };
    // Delivered twice, and twice more.
    for _ in 0..2 {
        books.consume(PayoutInput::Granted(Box::new(answer.clone()))).await;
        assert_eq!(counted(), [0, 0, 0, 1]);
    }
    answer.adjustment.as_mut().unwrap().number = 2;
    books.set("ready").await;
    books.consume(PayoutInput::Granted(Box::new(answer))).await;
    assert_eq!(counted(), [0, 1, 0, 1]);
    books.database.drop().await;
}
