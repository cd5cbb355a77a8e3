//! Events that are added up, and the numbers that became of them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::{AttemptState, PayoutState, PayoutUpdated, Verdict};
use schemas::ids::{EventId, Micros, natural};
use schemas::reason::Reason;
use sinks::analytics::AnalyticsEvent;
use sinks::postgres::UploadEvent;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use uuid::Uuid;

use crate::payments::{FINAL, PAID_ON_A, PAID_ON_B, Payment, UNDONE};
use crate::stories::{DAY, Story};

/// Microseconds of an hour.
pub const HOUR: i64 = DAY / 24;

/// The event as the analytics sink reads it.
pub fn counted(event: UploadEvent) -> AnalyticsEvent {
    match event {
        UploadEvent::Received(event) => AnalyticsEvent::Received(Box::new(event)),
        UploadEvent::Read(event) => AnalyticsEvent::Read(event),
        UploadEvent::Decided(event) => AnalyticsEvent::Decided(Box::new(event)),
        UploadEvent::Calculated(event) => AnalyticsEvent::Calculated(Box::new(event)),
        UploadEvent::Granted(event) => AnalyticsEvent::Granted(Box::new(event)),
        UploadEvent::Claimed(event) => AnalyticsEvent::Claimed(event),
        UploadEvent::Corrected(event) => AnalyticsEvent::Corrected(event),
        UploadEvent::Abandoned(event) => AnalyticsEvent::Abandoned(event),
        UploadEvent::Paid(event) => AnalyticsEvent::Paid(event),
        other => panic!("not on the topics of the sink: {other:?}"),
    }
}

/// A user's upload, accepted so many microseconds after the start of day n, with what it is cut by.
pub fn story(user: u128, day: i64, after: i64, (kind, level, region): (&str, &str, &str)) -> Story {
    let mut story = Story::new(user, day);
    story.header.accepted_at = Micros(story.header.accepted_at.0 + after);
    story.header.occurred_at = story.header.accepted_at;
    story.stamp.vehicle_kind = kind.into();
    story.stamp.verification_level = level.into();
    story.stamp.region = region.into();
    story
}

/// An upload's events from acceptance to grant.
pub fn decided(
    story: &Story,
    verdict: Verdict,
    reason: Option<Reason>,
    reviewed: bool,
) -> Vec<AnalyticsEvent> {
    let events = story.events(verdict, reason, reviewed).into_iter();
    events
        .filter(|event| !matches!(event, UploadEvent::Graded(_) | UploadEvent::Read(_)))
        .map(counted)
        .collect()
}

/// A step of a transaction that pays two rewards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    PaidOnA,
    Undone,
    PaidOnB,
    Final,
    Reverted,
}

/// The payouts of a transaction that takes steps: one snapshot a clause and step, with revisions from 1. Branch b is three hours
/// and a day later than a; each step is told an hour before the one that went before, so that the earliest is not the first.
pub fn payouts(payment: &Payment, phases: &[Phase]) -> Vec<PayoutUpdated> {
    (1..)
        .zip(phases)
        .flat_map(|(revision, phase)| {
            (0..payment.stories.len()).map(move |clause| payout(payment, clause, revision, *phase))
        })
        .collect()
}

fn payout(payment: &Payment, clause: usize, revision: i64, phase: Phase) -> PayoutUpdated {
    let template = match phase {
        Phase::PaidOnA | Phase::Reverted => PAID_ON_A,
        Phase::Undone => UNDONE,
        Phase::PaidOnB => PAID_ON_B,
        Phase::Final => FINAL,
    };
    let mut event = payment.snapshot(clause, template);
    event.header.event_id = EventId(natural(&format!("{}/{revision}", event.reward_id)));
    event.header.occurred_at = Micros(payment.published_at(0).0 + 100 * HOUR - revision * HOUR);
    event.revision = revision;
    let transaction = event.transaction.as_mut().unwrap();
    transaction.revision = revision;
    if phase == Phase::Reverted {
        (event.state, event.paid_at) = (PayoutState::Quarantined, None);
        (transaction.state, transaction.confirmed_at) = (AttemptState::Reverted, None);
    }
    if let Some(block) = transaction.block.as_mut().filter(|_| matches!(phase, Phase::PaidOnB | Phase::Final))
    {
        block.timestamp = Micros(block.timestamp.0 + DAY + 3 * HOUR);
    }
    event
}

/// Uploads of three drivers around the turn of a year, with verdicts, reviews and payments.
pub fn worlds() -> impl Strategy<Value = Vec<AnalyticsEvent>> {
    let verdicts = prop_oneof![
        3 => Just((Verdict::Verified, None)),
        1 => Just((Verdict::Rejected, Some(Reason::Rollback))),
        1 => Just((Verdict::Failed, Some(Reason::ProcessingFailed))),
    ];
    let cuts = (
        prop::sample::select(vec!["petrol", "diesel", "electric", "unknown", "a rocket"]),
        prop::sample::select(vec!["basic", "premium", "gold"]),
        prop::sample::select(vec!["DE", "ZZ", "nowhere"]),
    );
    // Days 363 to 367 after a Monday, 2024-01-01: 2024-12-29, a Sunday, to 2025-01-02.
    let upload = (1_u128..4, 0..5 * 24 * 4_i64, cuts, verdicts, any::<bool>(), phases());
    prop::collection::vec(upload, 1..7).prop_map(|uploads| {
        let mut events = Vec::new();
        for (n, (user, quarters, cuts, (verdict, reason), reviewed, phases)) in (363..).zip(uploads) {
            // Each upload has a day of its own for its id; the time is any quarter of an hour of the five days.
            let after = quarters * HOUR / 4 - (n - 363) * DAY;
            let story = story(user, n, after, cuts);
            events.extend(decided(&story, verdict, reason, reviewed));
            if verdict == Verdict::Verified {
                let paid = payouts(&Payment::of([story]), &phases);
                events.extend(paid.into_iter().map(|event| AnalyticsEvent::Paid(Box::new(event))));
            }
        }
        events
    })
}

/// Phases of a transaction in any order that a chain may have.
pub fn phases() -> impl Strategy<Value = Vec<Phase>> {
    let phase = prop::sample::select(vec![
        Phase::PaidOnA,
        Phase::Undone,
        Phase::PaidOnB,
        Phase::Final,
        Phase::Reverted,
    ]);
    prop::collection::vec(phase, 0..7)
}

/// Events in any order, some of them twice, in batches of some size.
pub fn shuffled(
    events: Vec<AnalyticsEvent>,
) -> impl Strategy<Value = (Vec<AnalyticsEvent>, Vec<Vec<AnalyticsEvent>>)> {
    let repeated = prop::sample::subsequence(events.clone(), 0..=events.len());
    (Just(events), repeated, 1_usize..9).prop_flat_map(|(events, repeated, size)| {
        let all = Just([events.clone(), repeated].concat()).prop_shuffle();
        let batches = all.prop_map(move |all| all.chunks(size).map(<[_]>::to_vec).collect());
        (Just(events), batches)
    })
}

/// Which number: metric, dimension, period, start, user.
pub type Key = (String, String, String, DateTime<Utc>, Option<Uuid>);

/// A number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    pub end: DateTime<Utc>,
    pub exact: Decimal,
    pub samples: i64,
    pub value: Option<Decimal>,
    pub created_at: DateTime<Utc>,
}

/// Every number in the table.
pub async fn numbers(pool: &PgPool) -> BTreeMap<Key, Number> {
    let rows =
        sqlx::query("select *, dimension::text as cut, time_period::text as period from analytics_data");
    let rows = rows.fetch_all(pool).await.unwrap();
    let number = |row: &PgRow| {
        let key: Key = (
            row.get("metric_name"),
            row.get("cut"),
            row.get("period"),
            row.get("period_start"),
            row.get("user_id"),
        );
        let value: Option<Decimal> = row.get("metric_value");
        let number = Number {
            end: row.get("period_end"),
            exact: row.get::<Decimal, _>("exact_value").normalize(),
            samples: row.get("sample_count"),
            value: value.map(|value| value.normalize()),
            created_at: row.get("created_at"),
        };
        (key, number)
    };
    rows.iter().map(number).collect()
}

/// Empties the sink's tables.
pub async fn empty(pool: &PgPool) {
    for table in sinks::analytics::tables().emptied {
        sqlx::query(AssertSqlSafe(format!("delete from {}", table.name))).execute(pool).await.unwrap();
    }
}
