//! The `analytics` sink on PostgreSQL.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use runtime::{Sink as _, SinkError};
use rust_decimal::Decimal;
use schemas::events::{Adjustment, LimitCharge, LimitType, PayoutState, Verdict};
use schemas::ids::Micros;
use schemas::reason::Reason;
use sinks::analytics::metrics::Metric;
use sinks::analytics::{AnalyticsConfig, AnalyticsEvent, AnalyticsSink, AnalyticsStartError};

use crate::analytics_oracle::fold;
use crate::analytics_stories::{
    HOUR, Phase, counted, decided, empty, numbers, payouts, phases, shuffled, story, worlds,
};
use crate::payments::Payment;
use crate::stories::{DAY, Story};
use crate::support::{Schema, envelopes};

async fn sink(schema: &Schema) -> AnalyticsSink {
    AnalyticsConfig::default().build(schema.pool.clone()).await.unwrap()
}

async fn write(sink: &AnalyticsSink, events: impl IntoIterator<Item = AnalyticsEvent>) {
    sink.write(&envelopes(events)).await.unwrap();
}

/// The numbers of a metric by period: `{dimension}[ of a user] = value (samples)`.
async fn values(schema: &Schema, metric: &str, period: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for ((name, dimension, of, start, user), number) in numbers(&schema.pool).await {
        if name == metric && of == period {
            let user = user.map(|user| format!(" of {}", user.as_u128())).unwrap_or_default();
            let value = number.value.map_or("none".to_owned(), |value| value.to_string());
            let start = start.format("%m-%d %H");
            lines.push(format!("{start} {dimension}{user} = {value} ({})", number.samples));
        }
    }
    lines
}

/// Three uploads of 2024-01-02: an electric car's that is verified after a review, a diesel's that is believed, one turned down.
async fn three_uploads() -> (Schema, AnalyticsSink) {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let electric = story(1, 1, 0, ("electric", "basic", "DE"));
    let diesel = story(2, 1, HOUR, ("diesel", "premium", "FR"));
    let petrol = story(3, 1, HOUR, ("petrol", "basic", "DE"));
    write(&sink, decided(&electric, Verdict::Verified, None, true)).await;
    write(&sink, decided(&diesel, Verdict::Verified, None, false)).await;
    write(&sink, decided(&petrol, Verdict::Rejected, Some(Reason::Rollback), false)).await;
    (schema, sink)
}

#[tokio::test]
async fn uploads_are_counted_by_vehicle_level_region_outcome_reason_and_user() {
    let (schema, _) = three_uploads().await;
    let accepted = [
        "01-02 00 {\"region\": \"DE\"} = 2 (2)",
        "01-02 00 {\"region\": \"FR\"} = 1 (1)",
        "01-02 00 {\"user_type\": \"basic\"} = 2 (2)",
        "01-02 00 {\"user_type\": \"premium\"} = 1 (1)",
        "01-02 00 {\"vehicle_kind\": \"diesel\"} = 1 (1)",
        "01-02 00 {\"vehicle_kind\": \"electric\"} = 1 (1)",
        "01-02 00 {\"vehicle_kind\": \"petrol\"} = 1 (1)",
        "01-02 00 {} = 3 (3)",
    ];
    assert_eq!(values(&schema, "uploads_accepted", "day").await, accepted);
    let decided = [
        "01-02 00 {\"outcome\": \"rejected\"} = 1 (1)",
        "01-02 00 {\"outcome\": \"verified\"} = 2 (2)",
        "01-02 00 {\"reason\": \"none\"} = 2 (2)",
        "01-02 00 {\"reason\": \"rollback\"} = 1 (1)",
        "01-02 00 {\"vehicle_kind\": \"diesel\"} = 1 (1)",
        "01-02 00 {\"vehicle_kind\": \"electric\"} = 1 (1)",
        "01-02 00 {\"vehicle_kind\": \"petrol\"} = 1 (1)",
        "01-02 00 {} = 3 (3)",
    ];
    assert_eq!(values(&schema, "uploads_decided", "day").await, decided);
    let verified = ["01-02 00 {} of 1 = 1 (1)", "01-02 00 {} of 2 = 1 (1)"];
    assert_eq!(values(&schema, "uploads_verified", "day").await, verified);
    schema.drop().await;
}

#[tokio::test]
async fn a_users_numbers_are_kept_by_day_week_month_and_year_but_never_by_the_hour() {
    let (schema, sink) = three_uploads().await;
    // Their rewards were cut to nothing; this one is granted whole.
    write(&sink, decided(&Story::new(4, 3), Verdict::Verified, None, false)).await;
    let numbers = numbers(&schema.pool).await;
    let of_users: BTreeSet<(&str, &str)> = numbers
        .keys()
        .filter(|(.., user)| user.is_some())
        .map(|(metric, _, period, ..)| (metric.as_str(), period.as_str()))
        .collect();
    let metrics = ["co2_avoided", "distance", "rewards_granted", "uploads_verified"];
    let periods = ["day", "month", "week", "year"];
    let expected: BTreeSet<_> =
        metrics.into_iter().flat_map(|metric| periods.map(|period| (metric, period))).collect();
    assert_eq!(of_users, expected);
    schema.drop().await;
}

#[tokio::test]
async fn kilometres_and_co2_are_those_of_verified_uploads_times_the_vehicles_factor() {
    let (schema, _) = three_uploads().await;
    // 16.09344 km each, cut to four places where shown.
    let distance = [
        "01-02 00 {\"region\": \"DE\"} = 16.0934 (1)",
        "01-02 00 {\"region\": \"FR\"} = 16.0934 (1)",
        "01-02 00 {\"user_type\": \"basic\"} = 16.0934 (1)",
        "01-02 00 {\"user_type\": \"premium\"} = 16.0934 (1)",
        "01-02 00 {\"vehicle_kind\": \"diesel\"} = 16.0934 (1)",
        "01-02 00 {\"vehicle_kind\": \"electric\"} = 16.0934 (1)",
        "01-02 00 {} = 32.1868 (2)",
        "01-02 00 {} of 1 = 16.0934 (1)",
        "01-02 00 {} of 2 = 16.0934 (1)",
    ];
    assert_eq!(values(&schema, "distance", "day").await, distance);
    // 16.09344 * 172.65 / 1000 = 2.778532416 and 16.09344 * 26.86 / 1000 = 0.4322697984.
    let emitted = [
        "01-02 00 {\"vehicle_kind\": \"diesel\"} = 2.7785 (1)",
        "01-02 00 {\"vehicle_kind\": \"electric\"} = 0.4322 (1)",
        "01-02 00 {} = 3.2108 (2)",
    ];
    assert_eq!(values(&schema, "co2_emitted", "day").await, emitted);
    // 16.09344 * (161.52 - 26.86) / 1000 = 2.1671426304; a diesel avoids nothing and makes no row.
    let avoided = [
        "01-02 00 {\"region\": \"DE\"} = 2.1671 (1)",
        "01-02 00 {\"vehicle_kind\": \"electric\"} = 2.1671 (1)",
        "01-02 00 {} = 2.1671 (1)",
        "01-02 00 {} of 1 = 2.1671 (1)",
    ];
    assert_eq!(values(&schema, "co2_avoided", "day").await, avoided);
    let exact: Vec<String> = sqlx::query_scalar(
        "select exact_value::text from analytics_data where metric_name = 'co2_avoided' and time_period = 'year'
            and user_id is not null",
    )
    .fetch_all(&schema.pool)
    .await
    .unwrap();
    assert_eq!(exact, ["2.167142630400000000"]);
    schema.drop().await;
}

#[tokio::test]
async fn shares_are_of_an_uploads_first_verdict() {
    let (schema, _) = three_uploads().await;
    // Of three one was shown to a person, one believed by the machine, one turned down by it.
    assert_eq!(values(&schema, "manual_review", "day").await, ["01-02 00 {} = 0.3333 (3)"]);
    assert_eq!(values(&schema, "auto_accept", "day").await, ["01-02 00 {} = 0.3333 (3)"]);
    let hours = ["01-02 00 {} = 1 (1)", "01-02 01 {} = 0 (2)"];
    assert_eq!(values(&schema, "manual_review", "hour").await, hours);
    schema.drop().await;
}

#[tokio::test]
async fn a_mean_of_which_every_sample_was_taken_back_has_no_value() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let story = story(1, 1, HOUR - 4_000_000, ("petrol", "basic", "DE"));
    // Reviewed a second before the full hour, verified on it; told in the other order.
    write(&sink, [counted(story.decided(Verdict::Verified, None))]).await;
    assert_eq!(values(&schema, "auto_accept", "hour").await, ["01-02 01 {} = 1 (1)"]);
    write(&sink, [counted(story.decided(Verdict::Review, Some(Reason::LowConfidence)))]).await;
    let hours = ["01-02 00 {} = 0 (1)", "01-02 01 {} = none (0)"];
    assert_eq!(values(&schema, "auto_accept", "hour").await, hours);
    schema.drop().await;
}

#[tokio::test]
async fn rewards_are_counted_at_the_acceptance_and_what_is_cut_by_the_tightest_budget() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    // Accepted in the last second of the day; everything else happens on the next.
    let story = story(1, 1, DAY - 1_000_000, ("hybrid", "verified", "DE"));
    let AnalyticsEvent::Granted(mut granted) = counted(story.granted(Some(Decimal::new(1, 1)))) else {
        panic!("a grant");
    };
    let charge = |limit_type, current: i64| LimitCharge {
        limit_type,
        limit_amount: 100.into(),
        current_amount: current.into(),
        ..granted.charges[0].clone()
    };
    // Of two with equal room the shorter.
    granted.charges =
        vec![charge(LimitType::Daily, 90), charge(LimitType::Weekly, 100), charge(LimitType::Monthly, 100)];
    write(&sink, [counted(story.calculated()), AnalyticsEvent::Granted(granted)]).await;
    let calculated = ["01-02 23 {\"vehicle_kind\": \"hybrid\"} = 0.1689 (1)", "01-02 23 {} = 0.1689 (1)"];
    assert_eq!(values(&schema, "rewards_calculated", "hour").await, calculated);
    let granted = [
        "01-02 00 {\"region\": \"DE\"} = 0.1 (1)",
        "01-02 00 {\"user_type\": \"verified\"} = 0.1 (1)",
        "01-02 00 {\"vehicle_kind\": \"hybrid\"} = 0.1 (1)",
        "01-02 00 {} = 0.1 (1)",
        "01-02 00 {} of 1 = 0.1 (1)",
    ];
    assert_eq!(values(&schema, "rewards_granted", "day").await, granted);
    let cut = ["01-02 00 {\"limit_type\": \"weekly\"} = 0.0689 (1)", "01-02 00 {} = 0.0689 (1)"];
    assert_eq!(values(&schema, "rewards_cut", "day").await, cut);
    schema.drop().await;
}

#[tokio::test]
async fn an_adjusted_reward_moves_the_numbers_of_its_acceptance_by_the_difference_once() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let story = story(1, 1, DAY - 1_000_000, ("hybrid", "verified", "DE"));
    let AnalyticsEvent::Granted(granted) = counted(story.granted(Some(Decimal::new(1, 1)))) else {
        panic!("a grant");
    };
    let adjusted = |number: i32, (before, amount): (i64, i64)| {
        let mut event = granted.clone();
        (event.calculated, event.granted) = (Decimal::new(amount, 1), Decimal::new(amount, 1));
        event.adjustment = Some(Adjustment {
            number,
            promotion: "march".to_owned(),
            calculated_before: if number == 1 { granted.calculated } else { Decimal::new(before, 1) },
            granted_before: Decimal::new(before, 1),
            granted: event.granted,
            detail: None,
            adjusted_at: Micros(7),
        });
        AnalyticsEvent::Granted(event)
    };
    let events = [
        adjusted(2, (5, 2)),
        counted(story.calculated()),
        adjusted(1, (1, 5)),
        AnalyticsEvent::Granted(granted.clone()),
    ];
    for event in events.iter().chain(&events) {
        write(&sink, [event.clone()]).await;
    }
    let total = |metric: &'static str| {
        let schema = &schema;
        async move { values(schema, metric, "day").await.into_iter().find(|row| row.contains(" {} = ")) }
    };
    assert_eq!(total("rewards_granted").await.as_deref(), Some("01-02 00 {} = 0.2 (1)"));
    assert_eq!(total("rewards_calculated").await.as_deref(), Some("01-02 00 {} = 0.2 (1)"));
    assert_eq!(total("rewards_cut").await.as_deref(), Some("01-02 00 {} = 0 (0)"));
    schema.drop().await;
}

fn paid(events: Vec<schemas::events::PayoutUpdated>) -> Vec<AnalyticsEvent> {
    events.into_iter().map(|event| AnalyticsEvent::Paid(Box::new(event))).collect()
}

fn two_rewards() -> Payment {
    Payment::of([Story::new(1, 1), Story::new(2, 1)])
}

#[tokio::test]
async fn payments_count_at_the_blocks_time_and_a_transactions_fee_once() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let events = paid(payouts(&two_rewards(), &[Phase::PaidOnB, Phase::Final]));
    write(&sink, events.clone()).await;
    // Block b: 2024-01-02 03:16:40. 2 * 0.168945 B3TR, 0.640531500000000123 VTHO.
    let rewards = ["01-02 03 {\"network\": \"vechain_testnet\"} = 0.3378 (2)", "01-02 03 {} = 0.3378 (2)"];
    assert_eq!(values(&schema, "rewards_paid", "hour").await, rewards);
    let fee = ["01-02 03 {\"network\": \"vechain_testnet\"} = 0.6405 (1)", "01-02 03 {} = 0.6405 (1)"];
    assert_eq!(values(&schema, "payout_fee", "hour").await, fee);
    let mean = ["01-02 03 {\"network\": \"vechain_testnet\"} = 0.3202 (2)", "01-02 03 {} = 0.3202 (2)"];
    assert_eq!(values(&schema, "fee_per_reward", "hour").await, mean);
    let exact: String = sqlx::query_scalar(
        "select exact_value::text from analytics_data where metric_name = 'payout_fee' and time_period = 'day'
            and dimension = '{}'",
    )
    .fetch_one(&schema.pool)
    .await
    .unwrap();
    assert_eq!(exact, "0.640531500000000123");
    assert_eq!(numbers(&schema.pool).await, fold(&events));
    schema.drop().await;
}

#[tokio::test]
async fn an_undone_block_takes_its_payments_and_fee_back_and_another_brings_them_again() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let payment = two_rewards();
    let [first, undone, again]: [Vec<_>; 3] = [0..2, 2..4, 4..6]
        .map(|part| payouts(&payment, &[Phase::PaidOnA, Phase::Undone, Phase::PaidOnB])[part].to_vec());
    let total = async |metric: &str| -> Vec<String> {
        let lines = values(&schema, metric, "day").await;
        lines.into_iter().filter(|line| line.contains("{} =")).collect()
    };
    write(&sink, paid(first.clone())).await;
    assert_eq!(total("rewards_paid").await, ["01-01 00 {} = 0.3378 (2)"]);
    write(&sink, paid(undone)).await;
    assert_eq!(total("rewards_paid").await, ["01-01 00 {} = 0 (0)"]);
    assert_eq!(total("payout_fee").await, ["01-01 00 {} = 0 (0)"]);
    assert_eq!(total("fee_per_reward").await, ["01-01 00 {} = none (0)"]);
    // What was undone is told again.
    write(&sink, paid(first)).await;
    assert_eq!(total("rewards_paid").await, ["01-01 00 {} = 0 (0)"]);
    write(&sink, paid(again)).await;
    assert_eq!(total("rewards_paid").await, ["01-01 00 {} = 0 (0)", "01-02 00 {} = 0.3378 (2)"]);
    assert_eq!(total("payout_fee").await, ["01-01 00 {} = 0 (0)", "01-02 00 {} = 0.6405 (1)"]);
    schema.drop().await;
}

#[tokio::test]
async fn a_failed_transaction_costs_its_fee_and_pays_nothing() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    write(&sink, paid(payouts(&two_rewards(), &[Phase::Reverted]))).await;
    assert!(values(&schema, "rewards_paid", "day").await.is_empty());
    let fee = ["01-01 00 {\"network\": \"vechain_testnet\"} = 0.6405 (1)", "01-01 00 {} = 0.6405 (1)"];
    assert_eq!(values(&schema, "payout_fee", "day").await, fee);
    let mean = ["01-01 00 {\"network\": \"vechain_testnet\"} = none (0)", "01-01 00 {} = none (0)"];
    assert_eq!(values(&schema, "fee_per_reward", "day").await, mean);
    schema.drop().await;
}

#[tokio::test]
async fn what_is_no_label_of_a_closed_set_is_counted_as_other() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    write(&sink, [counted(story(1, 1, 0, ("a rocket", "gold", "nowhere")).received())]).await;
    let expected = [
        "01-02 00 {\"region\": \"other\"} = 1 (1)",
        "01-02 00 {\"user_type\": \"other\"} = 1 (1)",
        "01-02 00 {\"vehicle_kind\": \"other\"} = 1 (1)",
        "01-02 00 {} = 1 (1)",
    ];
    assert_eq!(values(&schema, "uploads_accepted", "day").await, expected);
    schema.drop().await;
}

#[tokio::test]
async fn a_claim_is_known_and_counted_nowhere() {
    let schema = Schema::new().await;
    write(&sink(&schema).await, [counted(two_rewards().claimed(0))]).await;
    assert!(numbers(&schema.pool).await.is_empty());
    schema.drop().await;
}

#[tokio::test]
async fn a_value_that_is_missing_negative_or_too_large_is_refused_and_adds_nothing() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let story = Story::new(1, 1);
    let granted = |amount: i64| counted(story.granted(Some(amount.into())));
    let decided = |km: Option<Decimal>| {
        let AnalyticsEvent::Decided(mut event) = counted(story.decided(Verdict::Verified, None)) else {
            panic!("a decision");
        };
        event.distance_km = km;
        AnalyticsEvent::Decided(event)
    };
    let payout = |change: fn(&mut schemas::events::PayoutUpdated)| {
        let mut event = payouts(&two_rewards(), &[Phase::PaidOnA]).remove(0);
        change(&mut event);
        AnalyticsEvent::Paid(Box::new(event))
    };
    let bad = [
        granted(-1),
        decided(None),
        decided(Some(Decimal::NEGATIVE_ONE)),
        decided(Some(Decimal::from(100_000_000_000_u64))),
        decided(Some(Decimal::MAX)),
        payout(|event| event.transaction = None),
        payout(|event| event.amount = Decimal::NEGATIVE_ONE),
        payout(|event| event.transaction.as_mut().unwrap().block = None),
        payout(|event| event.transaction.as_mut().unwrap().fee_wei = Some("-1".into())),
        payout(|event| event.transaction.as_mut().unwrap().fee_wei = None),
        payout(|event| {
            event.transaction.as_mut().unwrap().block.as_mut().unwrap().timestamp = Micros(i64::MAX)
        }),
    ];
    for event in bad {
        let refused = sink.write(&envelopes([counted(story.received()), event.clone()])).await;
        assert!(matches!(refused, Err(SinkError::BadRow(_))), "{event:?} {refused:?}");
    }
    assert!(numbers(&schema.pool).await.is_empty());
    schema.drop().await;
}

#[tokio::test]
async fn a_sum_that_its_column_cannot_hold_refuses_the_last_event_alone_and_is_not_clamped() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let calculated = |day| {
        let AnalyticsEvent::Calculated(mut event) = counted(Story::new(1, day).calculated()) else {
            panic!("a calculation");
        };
        event.base = Decimal::from(60_000_000_000_u64);
        event.header.accepted_at = Micros(Story::new(1, 1).header.accepted_at.0);
        AnalyticsEvent::Calculated(event)
    };
    write(&sink, [calculated(1)]).await;
    let before = numbers(&schema.pool).await;
    let refused = sink.write(&envelopes([calculated(2)])).await;
    assert!(matches!(refused, Err(SinkError::BadRow(_))), "{refused:?}");
    assert_eq!(numbers(&schema.pool).await, before);
    // Once there is room again it counts: refusing it has left no trace.
    empty(&schema.pool).await;
    write(&sink, [calculated(2)]).await;
    assert_eq!(values(&schema, "rewards_calculated", "day").await[1], "01-02 00 {} = 60000000000.008 (1)");
    schema.drop().await;
}

#[tokio::test]
async fn the_catalogue_holds_the_metrics_of_this_release_and_a_start_without_one_fails() {
    let schema = Schema::new().await;
    let names: Vec<String> =
        sqlx::query_scalar("select metric_name from metric_catalogue").fetch_all(&schema.pool).await.unwrap();
    let known: BTreeSet<&str> = Metric::ALL.map(Metric::name).into();
    assert_eq!(names.iter().map(String::as_str).collect::<BTreeSet<_>>(), known);
    sqlx::query("delete from metric_catalogue where metric_name = 'distance'")
        .execute(&schema.pool)
        .await
        .unwrap();
    let started = AnalyticsConfig::default().build(schema.pool.clone()).await;
    assert!(matches!(started, Err(AnalyticsStartError::UnknownMetric(name)) if name == "distance"));
    sqlx::query("drop table analytics_seen").execute(&schema.pool).await.unwrap();
    let started = AnalyticsConfig::default().build(schema.pool.clone()).await;
    assert!(matches!(started, Err(AnalyticsStartError::Missing("analytics_seen"))));
    schema.drop().await;
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn any_order_repetition_and_split_written_by_two_at_once_gives_the_sums_over_the_events() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let schema = runtime.block_on(Schema::new());
    let sink = runtime.block_on(sink(&schema));
    runner(48)
        .run(&worlds().prop_flat_map(shuffled), |(events, batches)| {
            let found = runtime.block_on(async {
                empty(&schema.pool).await;
                let writer = |n: usize| {
                    let (sink, batches) = (sink.clone(), batches.clone());
                    tokio::spawn(async move {
                        // Every second batch, and one of the other's: each is refused never, not even for a deadlock.
                        for batch in
                            batches.into_iter().enumerate().filter(|(at, _)| at % 2 == n || at % 5 == 0)
                        {
                            write(&sink, batch.1).await;
                        }
                    })
                };
                let (first, second) = tokio::join!(writer(0), writer(1));
                first.unwrap();
                second.unwrap();
                numbers(&schema.pool).await
            });
            prop_assert_eq!(found, fold(&events));
            Ok(())
        })
        .unwrap();
    runtime.block_on(schema.drop());
}

#[test]
fn payments_undone_and_made_again_count_by_the_highest_revision_that_was_seen() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let schema = runtime.block_on(Schema::new());
    let sink = runtime.block_on(sink(&schema));
    let seen = phases().prop_flat_map(|phases| {
        let events = paid(payouts(&two_rewards(), &phases));
        // Some never come.
        prop::sample::subsequence(events.clone(), 0..=events.len()).prop_flat_map(shuffled)
    });
    runner(64)
        .run(&seen, |(events, batches)| {
            let found = runtime.block_on(async {
                empty(&schema.pool).await;
                for batch in batches {
                    write(&sink, batch).await;
                }
                numbers(&schema.pool).await
            });
            prop_assert_eq!(found, fold(&events));
            Ok(())
        })
        .unwrap();
    runtime.block_on(schema.drop());
}

#[tokio::test]
async fn hours_add_up_to_their_day_and_days_to_their_week_month_and_year() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let mut events = Vec::new();
    for (n, kind) in (355_i64..395).zip(["petrol", "diesel", "electric", "lpg"].into_iter().cycle()) {
        let story =
            story(1 + u128::from(n.unsigned_abs() % 3), n, (n * 7 % 24) * HOUR, (kind, "basic", "DE"));
        events.extend(decided(&story, Verdict::Verified, None, n % 4 == 0));
        events.extend(paid(payouts(&Payment::of([story]), &[Phase::PaidOnA, Phase::Undone, Phase::PaidOnB])));
    }
    write(&sink, events).await;
    // Users have no hours; what one period is made of is another's rows that begin in it.
    let unequal: i64 = sqlx::query_scalar(
        "with parts as (
            select * from (values ('hour', 'day'), ('day', 'week'), ('day', 'month'), ('day', 'year')) as p (part, whole)
        ), compared as (
            select w.id, w.exact_value, w.sample_count, sum(d.exact_value) as parts, sum(d.sample_count) as samples
            from parts p
            join analytics_data w on w.time_period::text = p.whole and (p.part <> 'hour' or w.user_id is null)
            left join analytics_data d on d.time_period::text = p.part and d.metric_name = w.metric_name
                and d.dimension_hash = w.dimension_hash and d.user_id is not distinct from w.user_id
                and d.period_start >= w.period_start and d.period_start < w.period_end
            group by p.part, w.id, w.exact_value, w.sample_count
        )
        select count(*) from compared where (exact_value, sample_count) is distinct from (parts, samples)",
    )
    .fetch_one(&schema.pool)
    .await
    .unwrap();
    let rows = numbers(&schema.pool).await.len();
    assert!(rows > 1_000, "{rows}");
    assert_eq!(unequal, 0);
    schema.drop().await;
}

#[tokio::test]
async fn a_row_carries_its_catalogue_hash_bounds_and_derived_id() {
    let schema = Schema::new().await;
    write(&sink(&schema).await, [counted(Story::new(1, 1).received())]).await;
    let row: serde_json::Value = sqlx::query_scalar(
        "select to_jsonb(a) from analytics_data a where time_period = 'week' and dimension = '{\"region\": \"ZZ\"}'",
    )
    .fetch_one(&schema.pool)
    .await
    .unwrap();
    let name = "analytics_data/uploads_accepted/{\"region\":\"ZZ\"}/week/2024-01-01T00:00:00+00:00/";
    let expected = serde_json::json!({
        "id": schemas::ids::natural(name), "metric_type": "user_engagement", "metric_name": "uploads_accepted",
        "metric_value": 1.0, "metric_unit": "uploads", "dimension": { "region": "ZZ" }, "time_period": "week",
        "period_start": "2024-01-01T00:00:00+00:00", "period_end": "2024-01-08T00:00:00+00:00", "user_id": null,
        "created_at": "2024-01-02T00:00:00+00:00", "dimension_hash": row["dimension_hash"], "exact_value": 1.0,
        "sample_count": 1,
    });
    assert_eq!(row, expected);
    let hash = sinks::analytics::metrics::Dimension::Cut("region", "ZZ".into()).hash();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(row["dimension_hash"], format!("\\x{hex}"));
    schema.drop().await;
}

#[tokio::test]
async fn a_payout_that_waits_or_is_cancelled_counts_nothing() {
    let schema = Schema::new().await;
    let payment = two_rewards();
    let events = [payment.ended(0, PayoutState::Cancelled), payment.payout(1, 0)];
    write(&sink(&schema).await, events.map(counted)).await;
    assert!(numbers(&schema.pool).await.is_empty());
    schema.drop().await;
}
