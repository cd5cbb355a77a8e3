//! A role is asked to end while Kafka does not respond, and one whose consumer cannot go on ends with its process.

use std::process::Command;
use std::time::{Duration, Instant};

use devstack::Part;
use harness::Deployment;
use harness::deployment::{DeploymentConfig, make_folder, sibling_binary};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::relay::{DRAIN, Relay, engine, uploads};
use crate::support::{LIMIT, kafka, own, until};

/// Above the drain budget: the last commit, and the producers' last words.
const REST: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_with_records_in_flight_ends_within_its_budget_while_kafka_is_frozen() {
    let stack = own(&[Part::Kafka, Part::Registry]);
    let stop = CancellationToken::new();
    let engine = engine(&stack, &stop).await;
    let running = engine.clone();
    let role = tokio::spawn(async move { running.run_processor(Relay).await });
    let emitted = engine.metrics.outcomes.with_label_values(&["relay", "emit", "none"]);
    engine.publish(&uploads(20)).await.unwrap();
    until("the first records", LIMIT, || emitted.get() == 20).await;
    // Published while the role is running, so that some are in flight when the broker freezes.
    let publisher = engine.clone();
    tokio::spawn(async move { publisher.publish(&uploads(5_000)).await });
    until("the load", LIMIT, || emitted.get() > 100).await;
    let pid = stack.pid(Part::Kafka).unwrap().to_string();
    assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    let asked = Instant::now();
    stop.cancel();
    let ended = tokio::time::timeout(DRAIN + REST, role).await;
    engine.flush();
    let took = asked.elapsed();
    assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
    ended.unwrap_or_else(|_| panic!("still running after {took:?}")).unwrap().unwrap();
    eprintln!("ended after {took:?}");
}

#[test]
fn a_process_whose_consumer_cannot_go_on_ends_with_an_error_that_says_why_and_what_to_do() {
    let stack = own(&[Part::Kafka, Part::Registry, Part::Postgres]);
    let config = DeploymentConfig {
        program: sibling_binary("milestream").unwrap(),
        folder: make_folder(&stack.folder().join("ends")).unwrap(),
        logs: stack.logs().join("ends"),
        settings: vec![("MILESTREAM_OPS__LISTEN".into(), "127.0.0.1:0".into())],
    };
    let deployment = Deployment::prepare(&stack, config).unwrap();
    // The topic is younger than the group's offset, as after it was deleted and made again.
    let consumer: BaseConsumer =
        kafka(stack.kafka_brokers(), "before").set("group.id", "reward_calculation").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("uploads.decided", 0, Offset::Offset(1_000)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
    drop(consumer);
    let started = Instant::now();
    let error = deployment.command(&["process", "reward_calculation"]).unwrap_err().to_string();
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    let says = "group reward_calculation: the committed offset is out of range";
    assert!(error.contains(says) && error.contains("reset the group on purpose"), "{error}");
}
