//! The workers on memory: from bytes to bytes.

use std::sync::Arc;
use std::time::Duration;

use schemas::events::{ActivityLogged, Event as _};
use schemas::ids::{EventId, Micros};
use schemas::reason::Reason;
use uuid::Uuid;

use crate::dead_letter::{DeadLetterLimit, header};
use crate::journal::Journal;
use crate::pure::PureWorker;
use crate::sinking::SinkWorker;
use crate::source::RawRecord;
use crate::stage::{Envelope, Processor, Sink, SinkError, StageError, Verdict};
use crate::testing::{MemoryOutbound, MemorySchemas, assignment, raw, record, recorded, stage_context};
use crate::worker::Halt;

fn log(n: u128) -> ActivityLogged {
    ActivityLogged {
        event_id: EventId(Uuid::from_u128(n)),
        collection: "error_logs".into(),
        ordinal: 0,
        occurred_at: Micros(0),
        document: format!("{{\"n\":{n}}}"),
    }
}

/// Emits even events, drops odd ones, rejects the thirteenth, and fails once on the fourth.
struct Picky(std::sync::atomic::AtomicBool);

impl Processor for Picky {
    const NAME: &'static str = "picky";
    type In = ActivityLogged;
    type Out = ActivityLogged;

    async fn process(&self, event: &Envelope<ActivityLogged>) -> Result<Verdict<ActivityLogged>, StageError> {
        let n = event.payload.event_id.0.as_u128();
        if n == 4 && !self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Err(StageError::new("store", std::io::Error::other("down")));
        }
        Ok(match n {
            13 => Verdict::Reject(Reason::ProcessingFailed),
            n if n % 2 == 0 => Verdict::EmitWith(event.payload.clone(), vec![log(100 + n)]),
            _ => Verdict::Drop(Reason::DuplicateEvent),
        })
    }
}

fn picky(outbound: &Arc<MemoryOutbound>) -> PureWorker<Picky> {
    PureWorker {
        processor: Arc::new(Picky(false.into())),
        context: stage_context("picky", outbound.clone()).unwrap(),
        output: "out".into(),
        output_schema: MemorySchemas::id_of::<ActivityLogged>(),
        grace: Duration::ZERO,
    }
}

fn input(records: Vec<RawRecord>) -> crate::source::Assignment {
    assignment("activity.logs", records)
}

#[tokio::test]
async fn every_record_ends_as_emitted_dropped_or_dead_lettered_and_the_offset_passes_all() {
    let outbound = Arc::new(MemoryOutbound::default());
    let worker = picky(&outbound);
    let records = (0..14).map(|n| record(&log(n), i64::try_from(n).unwrap() * 2 + 5).unwrap()).collect();
    let mut lane = input(records);
    worker.run(&mut lane).await.unwrap();
    assert_eq!(lane.lane.frontier(), 13 * 2 + 5 + 1);
    let sent = outbound.sent();
    let on = |topic: &str| sent.iter().filter(|record| record.topic == topic).count();
    assert_eq!((on("out"), on("activity.logs"), on("dead-letters")), (7, 7, 1));
    let text = worker.context.metrics.exporter.render();
    assert!(text.contains(r#"outcome="emit",reason="none",stage="picky"} 7"#), "{text}");
    assert!(text.contains(r#"outcome="drop",reason="duplicate_event",stage="picky"} 6"#), "{text}");
    assert!(text.contains(r#"outcome="dead_letter",reason="processing_failed",stage="picky"} 1"#), "{text}");
    assert!(text.contains(r#"records_consumed_total{stage="picky",topic="activity.logs"} 14"#), "{text}");
}

#[tokio::test]
async fn a_dead_letter_keeps_bytes_key_and_headers_and_says_where_it_came_from() {
    let outbound = Arc::new(MemoryOutbound::default());
    let worker = picky(&outbound);
    let mut bad = raw("activity.logs", 41, Some(b"the key".to_vec()), Some(b"\x07not avro".to_vec()));
    bad.headers = vec![("own".into(), Some(b"1".to_vec())), ("own".into(), None)];
    bad.timestamp_ms = 1_700_000_000_123;
    worker.run(&mut input(vec![bad])).await.unwrap();
    let sent = outbound.sent();
    assert_eq!(sent.len(), 1);
    let letter = &sent[0];
    assert_eq!(letter.topic, "dead-letters");
    assert_eq!(letter.key.as_deref(), Some(&b"the key"[..]));
    assert_eq!(letter.payload.as_deref(), Some(&b"\x07not avro"[..]));
    let expected = [
        ("own", Some("1")),
        ("own", None),
        (header::STAGE, Some("picky")),
        (header::REASON, Some("bad_framing")),
        (header::DETAIL, Some("not Confluent framing: magic byte 7, expected 0")),
        (header::TOPIC, Some("activity.logs")),
        (header::PARTITION, Some("0")),
        (header::OFFSET, Some("41")),
        (header::TIMESTAMP, Some("1700000000123")),
        (header::AT, Some("0")),
        (header::VERSION, Some(env!("CARGO_PKG_VERSION"))),
    ];
    let headers: Vec<_> = letter
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref().map(|v| std::str::from_utf8(v).unwrap())))
        .collect();
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn dead_letters_and_a_halt_are_errors_that_somebody_must_act_on_and_name_whose_record_it_was() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (mut worker, user) = (picky(&outbound), Uuid::from_u128(7));
    let (clock, schema) = (worker.context.clock.clone(), worker.context.activity_schema);
    let journal = Journal::new("picky", outbound.clone(), clock, "", schema);
    worker.context.journal = Arc::new(journal);
    let bad = |topic, key: &str| raw(topic, 0, Some(key.into()), Some(b"\x07".to_vec()));
    worker
        .run(&mut assignment("a.uploads.received", vec![bad("a.uploads.received", &user.to_string())]))
        .await
        .unwrap();
    // The key of a log document is a UUID too, and nobody's.
    worker.run(&mut input(vec![bad("activity.logs", &user.to_string())])).await.unwrap();
    worker.context.ended(&Err(Halt::Operator("4 dead letters in a row".into())));
    worker.context.ended(&Err(Halt::Fenced));
    let documents = recorded(&outbound);
    let told: Vec<_> = documents
        .iter()
        .map(|document| {
            ["error_code", "severity", "user_id", "stack_trace"].map(|field| document[field].as_str())
        })
        .collect();
    let (user, cause) = (user.to_string(), "not Confluent framing: magic byte 7, expected 0");
    let expected = [
        [Some("bad_framing"), Some("medium"), Some(user.as_str()), Some(cause)],
        [Some("bad_framing"), Some("medium"), None, Some(cause)],
        [Some("partition_halted"), Some("high"), None, Some("halted: 4 dead letters in a row")],
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn an_unknown_schema_id_is_dead_lettered_and_an_unknown_record_name_halts_without_moving_on() {
    let outbound = Arc::new(MemoryOutbound::default());
    let worker = picky(&outbound);
    let mut unknown = record(&log(2), 0).unwrap();
    unknown.payload.as_mut().unwrap()[4] = 99;
    let mut foreign = record(&log(2), 1).unwrap();
    foreign.payload.as_mut().unwrap()[4] = 1;
    let mut lane = input(vec![unknown, foreign, record(&log(2), 2).unwrap()]);
    let halt = worker.run(&mut lane).await.unwrap_err();
    assert!(matches!(&halt, Halt::Operator(text) if text.contains("milestream.UploadReceived")), "{halt}");
    assert_eq!(lane.lane.frontier(), 1);
    let sent = outbound.sent();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].headers.contains(&(header::REASON.into(), Some(b"unknown_schema".to_vec()))));
}

#[tokio::test]
async fn a_burst_of_dead_letters_over_the_limit_halts_the_partition() {
    let outbound = Arc::new(MemoryOutbound::default());
    let mut worker = picky(&outbound);
    worker.context.limit = DeadLetterLimit { consecutive: 3, share: 1.0 };
    let records = (0..10).map(|at| raw("activity.logs", at, None, Some(vec![9]))).collect();
    let mut lane = input(records);
    let halt = worker.run(&mut lane).await.unwrap_err();
    assert!(matches!(halt, Halt::Operator(text) if text == "4 dead letters in a row, at offset 3"));
    assert_eq!(lane.lane.frontier(), 3);
}

/// Refuses batches that hold event 3.
#[derive(Default)]
struct Fussy(std::sync::Mutex<Vec<u128>>);

impl Sink for Fussy {
    const NAME: &'static str = "fussy";
    const TOPICS: &'static [schemas::topic::Topic] = &[schemas::topic::Topic::ActivityLogs];
    type In = ActivityLogged;

    async fn write(&self, batch: &[Envelope<ActivityLogged>]) -> Result<(), SinkError> {
        let ids: Vec<u128> = batch.iter().map(|event| event.payload.event_id().0.as_u128()).collect();
        if ids.contains(&3) {
            return Err(SinkError::BadRow("three".into()));
        }
        self.0.lock().unwrap().extend(ids);
        Ok(())
    }
}

#[tokio::test]
async fn a_batch_with_one_bad_row_is_unrolled_and_only_that_row_is_dead_lettered() {
    let outbound = Arc::new(MemoryOutbound::default());
    let sink = Arc::new(Fussy::default());
    let worker =
        SinkWorker { sink: sink.clone(), context: stage_context("fussy", outbound.clone()).unwrap() };
    let mut records: Vec<_> = (0..6).map(|n| record(&log(n), i64::try_from(n).unwrap()).unwrap()).collect();
    records.insert(2, raw("activity.logs", 2, None, None));
    for (at, record) in records.iter_mut().enumerate() {
        record.position.offset = i64::try_from(at).unwrap();
    }
    let mut lane = input(records);
    worker.run(&mut lane).await.unwrap();
    assert_eq!(*sink.0.lock().unwrap(), [0, 1, 2, 4, 5]);
    assert_eq!(lane.lane.frontier(), 7);
    assert_eq!(outbound.sent().len(), 2);
}
