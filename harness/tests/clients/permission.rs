//! The permission to write is lost while a role is running, and granted again.

use std::collections::BTreeSet;
use std::time::Instant;

use devstack::Part;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use tokio_util::sync::CancellationToken;

use crate::acl::{allow, deny_write};
use crate::relay::{Relay, engine, uploads};
use crate::support::{LIMIT, kafka, own, until};

const FIRST: usize = 20;
const DENIED: u128 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_write_any_more_halts_visibly_and_goes_on_by_itself_once_it_may() {
    let stack = own(&[Part::Kafka, Part::Registry]);
    let stop = CancellationToken::new();
    let engine = engine(&stack, &stop).await;
    let running = engine.clone();
    let role = tokio::spawn(async move { running.run_processor(Relay).await });
    let metrics = &engine.metrics;
    let emitted = metrics.outcomes.with_label_values(&["relay", "emit", "none"]);
    engine.publish(&uploads(FIRST as u128)).await.unwrap();
    until("the first records", LIMIT, || emitted.get() == FIRST as u64 && engine.health.is_ready()).await;
    let halted = || {
        let of = |partition: i32| {
            metrics.halted.with_label_values(&["relay", "uploads.received", &partition.to_string()]).get()
        };
        (0..4).map(of).sum::<i64>()
    };
    deny_write(stack.kafka_brokers(), "uploads.graded");
    engine.publish(&uploads(DENIED)).await.unwrap();
    until("a halted partition", LIMIT, || halted() > 0 && !engine.health.is_ready()).await;
    assert!(!role.is_finished());
    allow(stack.kafka_brokers(), "uploads.graded");
    let allowed = Instant::now();
    until("readiness", LIMIT, || halted() == 0 && engine.health.is_ready()).await;
    eprintln!("ready {:?} after the permission was there again", allowed.elapsed());
    let (brokers, end) = (stack.kafka_brokers().to_owned(), Instant::now() + LIMIT);
    let read = tokio::task::spawn_blocking(move || {
        let mut config = kafka(&brokers, "reader");
        config.set("group.id", "reader").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&["uploads.graded"]).unwrap();
        let mut payloads = BTreeSet::new();
        while payloads.len() < usize::try_from(DENIED).unwrap() && Instant::now() < end {
            let record = consumer.poll(std::time::Duration::from_secs(1)).and_then(Result::ok);
            payloads.extend(record.map(|record| record.payload().unwrap().to_vec()));
        }
        payloads.len()
    });
    assert_eq!(read.await.unwrap(), usize::try_from(DENIED).unwrap(), "records of different events");
    let letters = metrics.exporter.render();
    assert!(!letters.contains(r#"outcome="dead_letter""#), "{letters}");
    stop.cancel();
    role.await.unwrap().unwrap();
}
