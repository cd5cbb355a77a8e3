//! Workers that poll the queues of their partitions themselves: what one does not take holds nothing up but its own partition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::consumer;
use runtime::producer::Message;
use runtime::source::{Assignment, RawRecord};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::support::{LIMIT, Reports, config, create_topic, kafka, own_kafka, producer};

/// More than a queue of one partition holds: 3,000 of 1 kB are thrice 1 MiB.
const RECORDS: usize = 3_000;

async fn next_assignment(assignments: &mut UnboundedReceiver<Assignment>) -> Assignment {
    tokio::time::timeout(LIMIT, assignments.recv()).await.expect("an assignment").expect("the consumer lives")
}

async fn next_record(assignment: &mut Assignment) -> RawRecord {
    tokio::time::timeout(LIMIT, assignment.records.recv()).await.expect("a record").expect("the lane is open")
}

/// Publishes [`RECORDS`] under as many keys, and waits until all are on the topic.
async fn fill(base: &rdkafka::ClientConfig, topic: &str) {
    let (outbound, _) = producer(base);
    let payload = [b'x'; 1_000];
    let sends = (0..RECORDS).map(|n| {
        let outbound = outbound.clone();
        async move {
            let key = n.to_string();
            let message =
                Message { topic, key: Some(key.as_bytes()), payload: Some(payload.as_slice()), headers: &[] };
            runtime::producer::send_and_wait(outbound.as_ref(), &message).await.unwrap();
        }
    });
    futures::future::join_all(sends).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_begins_anew_gives_every_record_from_the_committed_offset_on_in_order() {
    let stack = own_kafka();
    let base = kafka(stack.kafka_brokers(), "anew");
    create_topic(&base, "anew", 1);
    fill(&base, "anew").await;
    let stop = CancellationToken::new();
    let (mut assignments, thread) =
        consumer::spawn(config(base, "anew-role", "anew"), stop.clone(), Arc::<Reports>::default()).unwrap();
    // The offsets that one worker after the other is given, each of which finishes only a part of what it took.
    let mut from = 0;
    for taken in [700, 1, 900] {
        let mut assignment = next_assignment(&mut assignments).await;
        assert_eq!(assignment.start, from);
        for offset in from..from + taken {
            assert_eq!(next_record(&mut assignment).await.position.offset, offset);
        }
        from += taken / 2;
        assignment.lane.advance(from);
        assignment.lane.finish(true);
    }
    let mut last = next_assignment(&mut assignments).await;
    assert_eq!((last.start, from), (800, 800));
    for offset in from..i64::try_from(RECORDS).unwrap() {
        assert_eq!(next_record(&mut last).await.position.offset, offset);
    }
    last.lane.finish(false);
    stop.cancel();
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_takes_nothing_keeps_neither_another_partition_nor_the_end_of_its_client_waiting() {
    let stack = own_kafka();
    let base = kafka(stack.kafka_brokers(), "held");
    create_topic(&base, "held", 2);
    fill(&base, "held").await;
    let stop = CancellationToken::new();
    let consumer = config(base.clone(), "held-role", "held");
    let budget = consumer.drain_budget;
    let (mut assignments, thread) =
        consumer::spawn(consumer, stop.clone(), Arc::<Reports>::default()).unwrap();
    let mut held = next_assignment(&mut assignments).await;
    let mut worked = next_assignment(&mut assignments).await;
    // One of the held partition, so that its queue has been filled by the time that the rest of the other has come.
    let first = next_record(&mut held).await;
    let mut count = 1;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(3), worked.records.recv()).await {
        count += 1;
    }
    worked.lane.finish(false);
    let asked = Instant::now();
    stop.cancel();
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap().unwrap();
    let took = asked.elapsed();
    eprintln!("{count} records; ended after {took:?}");
    assert!(took < budget + Duration::from_secs(2), "ended after {took:?}");
    assert_eq!((first.position.offset, held.records.recv().await.is_none()), (0, true));

    // The next member takes its place, and is given all that the one before held on to.
    let (stop, reports) = (CancellationToken::new(), Arc::<Reports>::default());
    let (mut assignments, thread) =
        consumer::spawn(config(base, "held-role", "held"), stop.clone(), reports).unwrap();
    let (mut one, mut other) =
        (next_assignment(&mut assignments).await, next_assignment(&mut assignments).await);
    let again = if one.partition == held.partition { &mut one } else { &mut other };
    for offset in 0..=i64::try_from(RECORDS - count).unwrap() {
        assert_eq!(next_record(again).await.position.offset, offset);
    }
    one.lane.finish(false);
    other.lane.finish(false);
    stop.cancel();
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap().unwrap();
}

type Parts = (Option<Vec<u8>>, Vec<u8>, Vec<(String, Option<Vec<u8>>)>);

/// What the record of a number is made of: with and without a key, of many lengths, with up to three headers.
fn varied(n: usize) -> Parts {
    let key = (!n.is_multiple_of(3)).then(|| format!("key-{n}").into_bytes());
    let payload = vec![b'a' + u8::try_from(n % 26).unwrap(); n * 37 % 9_000 + 1];
    let header = |at: usize| {
        (format!("{at}-of-{}", n % 7), (at + n).is_multiple_of(2).then(|| vec![b'v'; n % 11 + 1]))
    };
    (key, payload, (0..n % 4).map(header).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_in_the_memory_of_those_given_back_have_their_own_key_payload_and_headers_and_no_others() {
    let stack = own_kafka();
    let base = kafka(stack.kafka_brokers(), "memory");
    create_topic(&base, "memory", 1);
    let (outbound, _) = producer(&base);
    for n in 0..400 {
        let (key, payload, headers) = varied(n);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let (key, payload) = (key.as_deref(), Some(payload.as_slice()));
        let message = Message { topic: "memory", key, payload, headers: &headers };
        runtime::producer::send_and_wait(outbound.as_ref(), &message).await.unwrap();
    }
    let stop = CancellationToken::new();
    let (mut assignments, thread) =
        consumer::spawn(config(base, "memory-role", "memory"), stop.clone(), Arc::<Reports>::default())
            .unwrap();
    let mut assignment = next_assignment(&mut assignments).await;
    let (mut records, mut n) = (Vec::new(), 0);
    while n < 400 {
        let taken =
            tokio::time::timeout(LIMIT, assignment.records.recv_many(&mut records, 16)).await.unwrap();
        assert_eq!(taken, records.len());
        for record in &records {
            let found = (record.key.clone(), record.payload.clone().unwrap(), record.headers.clone());
            assert_eq!((record.position.offset, found), (i64::try_from(n).unwrap(), varied(n)));
            n += 1;
        }
        assignment.records.give_back(&mut records);
        assert!(records.is_empty());
    }
    assignment.lane.finish(false);
    stop.cancel();
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap().unwrap();
}
