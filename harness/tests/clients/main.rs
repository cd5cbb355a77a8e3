//! Kafka clients whose broker is killed, frozen, or responds falsely: they come back by themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod acl;
mod faults;
mod gateway;
mod lifecycle;
mod partitions;
mod permission;
mod proxy;
mod relay;
mod support;

use std::time::Duration;

use proxy::Proxy;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use runtime::consumer::ConsumerError;
use support::{LIMIT, Role, create_topic, kafka, own_kafka, producer, publish, until};

/// False responses until one of them freezes the client; on this librdkafka every second does.
const RESPONSES: usize = 8;
/// Longer than a metadata refresh (30 s), in which the false response comes.
const REFRESHED: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_heard_of_topics_and_no_brokers_is_built_anew_and_consumes_on() {
    let stack = own_kafka();
    let (direct, proxy) = (kafka(stack.kafka_brokers(), "direct"), Proxy::to(stack.kafka_brokers()));
    create_topic(&direct, "frozen", 2);
    let role = Role::start(kafka(&proxy.address(), "victim"), "frozen-role", "frozen");
    let (outbound, _) = producer(&direct);
    publish(&outbound, "frozen", "before").await;
    until("the first record", LIMIT, || role.count() == 1).await;
    proxy.falsify_once_and_cut("victim");
    until("the false response", REFRESHED, || proxy.falsified() == 1).await;
    for n in 0..10 {
        publish(&outbound, "frozen", &n.to_string()).await;
    }
    until("the records behind the false response", LIMIT, || role.count() == 11).await;
    eprintln!("consumer rebuilt: {:?}", role.reports.rebuilt());
    assert!(!role.has_ended());
    until("no lag, as the broker sees it", LIMIT, || {
        let lag = role.reports.lag.lock().unwrap();
        lag.len() == 2 && lag.values().all(|lag| *lag == 0)
    })
    .await;
    role.end().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_heard_of_topics_and_no_brokers_is_built_anew_and_publishes_on() {
    let stack = own_kafka();
    let (direct, proxy) = (kafka(stack.kafka_brokers(), "direct"), Proxy::to(stack.kafka_brokers()));
    let (outbound, reports) = producer(&kafka(&proxy.address(), "victim"));
    // Not every such response freezes the client for good: it depends on what its timers are about.
    for n in 0..RESPONSES {
        proxy.falsify_once("victim");
        // A topic that the client does not know yet makes it ask.
        let topic = format!("topic-{n}");
        create_topic(&direct, &topic, 1);
        publish(&outbound, &topic, "a record").await;
        publish(&outbound, "topic-0", "another").await;
        if !reports.rebuilt().is_empty() {
            break;
        }
    }
    eprintln!("{} false responses, producer rebuilt: {:?}", proxy.falsified(), reports.rebuilt());
    assert!(proxy.falsified() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_whose_name_another_took_for_a_moment_joins_again_and_goes_on() {
    let stack = own_kafka();
    let direct = kafka(stack.kafka_brokers(), "direct");
    create_topic(&direct, "fenced", 1);
    let role = Role::start(direct.clone(), "fenced-role", "fenced");
    let (outbound, _) = producer(&direct);
    publish(&outbound, "fenced", "before").await;
    until("the first record", LIMIT, || role.count() == 1).await;
    let mut rival = direct.clone();
    rival.set("group.id", "fenced-role").set("group.instance.id", "fenced-role-a");
    rival.set("partition.assignment.strategy", "cooperative-sticky").set("session.timeout.ms", "6000");
    let rival: BaseConsumer = rival.create().unwrap();
    rival.subscribe(&["fenced"]).unwrap();
    until("the fence", LIMIT, || {
        let _ = rival.poll(Duration::from_millis(100));
        role.reports.rebuilt().contains(&"fenced") || role.has_ended()
    })
    .await;
    assert!(!role.has_ended(), "the role ended: {:?}", role.end());
    drop(rival);
    publish(&outbound, "fenced", "after").await;
    until("the record behind the fence", LIMIT, || role.count() == 2).await;
    role.end().unwrap();
}

/// Five minutes in production; a rejoin takes half a second to thirty.
const RIVAL_AFTER: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_members_with_one_name_one_ends_with_words_that_say_so_and_the_other_goes_on() {
    let stack = own_kafka();
    let direct = kafka(stack.kafka_brokers(), "direct");
    create_topic(&direct, "rivals", 1);
    let one = Role::start_for(direct.clone(), "rivals-role", "rivals", RIVAL_AFTER);
    let other = Role::start_for(direct.clone(), "rivals-role", "rivals", RIVAL_AFTER);
    until("the end of one", LIMIT, || one.has_ended() || other.has_ended()).await;
    let (ended, lives) = if one.has_ended() { (one, other) } else { (other, one) };
    let error = ended.end().unwrap_err();
    assert!(
        matches!(&error, ConsumerError::Rival { instance, .. } if instance == "rivals-role-a"),
        "{error}"
    );
    assert!(error.to_string().contains("Give every process an engine.instance of its own"), "{error}");
    let (outbound, _) = producer(&direct);
    publish(&outbound, "rivals", "after").await;
    until("the record of the one that lives", LIMIT, || lives.count() == 1).await;
    lives.end().unwrap();
}
