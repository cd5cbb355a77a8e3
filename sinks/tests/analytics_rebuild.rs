//! The rebuild of the aggregates on Kafka, the registry and PostgreSQL.

use runtime::Sink as _;
use schemas::events::Verdict;
use schemas::reason::Reason;
use schemas::topic::Topic;
use serde_json::Value;
use sinks::analytics::{AnalyticsEvent, AnalyticsSink, rebuild};
use sinks::rebuild::TopicCount;

use crate::analytics_oracle::fold;
use crate::analytics_stories::{HOUR, Phase, counted, decided, empty, numbers, payouts, story};
use crate::payments::Payment;
use crate::services::{self, performance, read, tries};
use crate::support::{Schema, envelopes};
use crate::topics::Topics;

async fn publish(topics: &Topics, event: &AnalyticsEvent) {
    match event {
        AnalyticsEvent::Received(event) => topics.event(event.as_ref()).await,
        AnalyticsEvent::Read(event) => topics.event(event.as_ref()).await,
        AnalyticsEvent::Abandoned(event) => topics.event(event.as_ref()).await,
        AnalyticsEvent::Decided(event) => topics.event(event.as_ref()).await,
        AnalyticsEvent::Calculated(event) => topics.event(event.as_ref()).await,
        AnalyticsEvent::Granted(event) => topics.event(event.as_ref()).await,
        AnalyticsEvent::Claimed(event) => topics.event(event).await,
        AnalyticsEvent::Corrected(event) => topics.event(event.as_ref()).await,
        AnalyticsEvent::Cancelled(event) => topics.event(event.as_ref()).await,
        AnalyticsEvent::Paid(event) => topics.event(event.as_ref()).await,
    }
}

async fn rebuilt(topics: &Topics, schema: &Schema) -> Vec<TopicCount> {
    rebuild(&schema.pool, &topics.kafka, &topics.registry, &topics.prefix, &|_| ()).await.unwrap()
}

/// Twenty-four uploads in three days: every third turned down, the others paid, undone and paid again.
fn world() -> Vec<AnalyticsEvent> {
    (1..=24_i64)
        .flat_map(|n| {
            let user = u128::try_from(n % 4 + 1).unwrap();
            let story = story(user, n, n * 3 * HOUR - (n - 1) * 24 * HOUR, ("electric", "basic", "DE"));
            let mut events = vec![read(&story, tries(n))];
            if n % 3 == 0 {
                events.extend(decided(&story, Verdict::Rejected, Some(Reason::Rollback), n % 2 == 0));
                return events;
            }
            events.extend(decided(&story, Verdict::Verified, None, n % 2 == 0));
            let payment = Payment::of([story]);
            events.push(counted(payment.claimed(0)));
            let phases = [Phase::PaidOnA, Phase::Undone, Phase::PaidOnB, Phase::Final];
            events.extend(
                payouts(&payment, &phases).into_iter().map(|event| AnalyticsEvent::Paid(Box::new(event))),
            );
            events
        })
        .collect()
}

async fn rows(schema: &Schema) -> [Value; 2] {
    [schema.rows("analytics_data").await, schema.rows("ai_performance_metrics").await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_of_the_aggregates_leaves_equal_rows_and_counts_a_repeated_record_once() {
    let (schema, topics, events) = (Schema::new().await, Topics::new().await, world());
    let sink = AnalyticsSink::new(schema.pool.clone());
    for event in &events {
        publish(&topics, event).await;
        sink.write(&envelopes([event.clone()])).await.unwrap();
    }
    assert_eq!(numbers(&schema.pool).await, fold(&events));
    assert_eq!(performance(&schema).await, services::fold(&events));
    let live = rows(&schema).await;
    for event in events.iter().step_by(5) {
        publish(&topics, event).await;
    }
    // What must not survive: a lost row, a changed one, a wrong count of what was seen.
    for change in [
        "delete from analytics_data where time_period = 'day'",
        "update ai_performance_metrics set exact_value = 7, metric_value = 7, created_at = now()",
        "delete from ai_performance_metrics where time_period = 'week'",
        "update analytics_data set exact_value = 7, metric_value = 7, created_at = now()",
        "delete from analytics_seen",
        "update analytics_entities set revision = 99",
    ] {
        sqlx::query(change).execute(&schema.pool).await.unwrap();
    }
    let counts = rebuilt(&topics, &schema).await;
    assert_eq!(rows(&schema).await, live);
    let read: Vec<Topic> = counts.iter().map(|count| count.topic).collect();
    assert_eq!(read, AnalyticsSink::TOPICS);
    let total: u64 = counts.iter().map(|count| count.written).sum();
    assert_eq!(total, (events.len() + events.len().div_ceil(5)) as u64);
    assert!(counts.iter().all(|count| count.read == count.written && count.skipped.is_empty()));
    rebuilt(&topics, &schema).await;
    assert_eq!(rows(&schema).await, live);
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_of_the_aggregates_beside_a_live_sink_counts_nothing_twice() {
    let (schema, topics, events) = (Schema::new().await, Topics::new().await, world());
    let sink = AnalyticsSink::new(schema.pool.clone());
    empty(&schema.pool).await;
    let live = async {
        for event in &events {
            publish(&topics, event).await;
            while sink.write(&envelopes([event.clone()])).await.is_err() {}
        }
    };
    tokio::join!(rebuilt(&topics, &schema), live);
    assert_eq!(numbers(&schema.pool).await, fold(&events));
    assert_eq!(performance(&schema).await, services::fold(&events));
    schema.drop().await;
}
