//! The whole pipeline from bytes to bytes, without a broker and without a database.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use processors::fraud_check::oracle;
use processors::fraud_check::rules::Rules;
use processors::limit_check::oracle as grants;
use processors::pipeline::Dependencies;
use runtime::pure::PureWorker;
use runtime::source::RawRecord;
use runtime::stored::StoredRecord;
use runtime::testing::{MemoryOutbound, MemorySchemas, assignment, raw, record, stage_context};
use runtime::{Envelope, ManualClock, Position, Processor, StageError, Verdict as Outcome};
use schemas::codec;
use schemas::events::{
    ActivityLogged, Event, OdometerRead, RewardCalculated, UploadDecided, UploadGraded, UploadReceived,
    Verdict,
};
use schemas::logs::document_id;
use schemas::reason::Reason;
use schemas::topic::Topic;
use support::{Example, MemoryAnswers, NOW, dependencies, examples, photo, put};

/// What a run published, topic by topic.
struct Run {
    graded: Vec<StoredRecord>,
    read: Vec<StoredRecord>,
}

async fn pure<P: Processor>(processor: P, input: Vec<RawRecord>) -> Vec<StoredRecord> {
    let outbound = Arc::new(MemoryOutbound::default());
    let mut context = stage_context(P::NAME, outbound.clone()).unwrap();
    context.clock = Arc::new(ManualClock::at(NOW));
    let worker = PureWorker {
        processor: Arc::new(processor),
        context,
        output: P::Out::TOPIC.name().into(),
        output_schema: MemorySchemas::id_of::<P::Out>(),
        grace: Duration::ZERO,
    };
    let mut lane = assignment(P::In::TOPIC.name(), input);
    worker.run(&mut lane).await.unwrap();
    outbound.sent()
}

/// The records of a topic as the next stage finds them.
fn onward(sent: &[StoredRecord], topic: Topic) -> Vec<RawRecord> {
    (0..)
        .zip(sent.iter().filter(|record| record.topic == topic.name()))
        .map(|(offset, record)| raw(topic.name(), offset, record.key.clone(), record.payload.clone()))
        .collect()
}

fn decoded<E: Event>(record: &RawRecord) -> E {
    let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
    codec::decode(E::schema(), id, datum).unwrap()
}

async fn run(dependencies: &Dependencies, answers: &MemoryAnswers, input: &[RawRecord]) -> Run {
    let graded = pure(dependencies.quality_check(), input.to_vec()).await;
    let reading = dependencies.odometer_reading_with(answers.clone()).await.unwrap();
    let read = pure(reading, onward(&graded, Topic::UploadsGraded)).await;
    Run { graded, read }
}

/// Every example upload, each delivered twice, with a record in between that no schema fits.
async fn input(store: &InMemory) -> (Vec<Example>, Vec<RawRecord>) {
    let uploads: Vec<_> =
        examples(Topic::UploadsReceived).into_iter().filter(|example| !example.is_malformed()).collect();
    let mut records = Vec::new();
    for example in &uploads {
        let event: UploadReceived = example.event();
        if let Some(name) = example.json["photo"].as_str() {
            put(store, &event.header, photo(name)).await;
        }
        for _ in 0..2 {
            records.push(record(&event, i64::try_from(records.len()).unwrap()).unwrap());
        }
    }
    records.push(raw("uploads.received", i64::try_from(records.len()).unwrap(), None, Some(vec![9])));
    (uploads, records)
}

#[tokio::test]
async fn every_upload_settles_exactly_once_and_a_bad_record_becomes_a_dead_letter() {
    let (dependencies, store) = dependencies();
    let (uploads, records) = input(&store).await;
    let answers = MemoryAnswers::default();
    let run = run(&dependencies, &answers, &records).await;
    let letters = run.graded.iter().filter(|record| record.topic == "dead-letters").count();
    assert_eq!((letters, answers.count()), (1, 4), "one bad record; four photos that can be read");
    let read: Vec<OdometerRead> = onward(&run.read, Topic::UploadsReadings).iter().map(decoded).collect();
    assert_eq!(read.len(), 2 * uploads.len(), "a repeat is passed on under the same id");
    let judgements = oracle::fold(&read, &Rules::current());
    let settled: BTreeMap<_, _> = judgements
        .iter()
        .map(|(upload, judgement)| (*upload, (judgement.verdict, judgement.reason)))
        .collect();
    assert_eq!((judgements.len(), settled.len()), (uploads.len(), uploads.len()));
    for example in &uploads {
        let upload = example.event::<UploadReceived>().header.upload_id;
        let (verdict, reason) = settled[&upload];
        let expected = match example.name.as_str() {
            "edge-no-number" => (Verdict::Rejected, Some("no_odometer")),
            "edge-dark" => (Verdict::Rejected, Some("too_dark")),
            "edge-cut-off" => (Verdict::Rejected, Some("truncated_image")),
            "edge-photo-gone" => (Verdict::Failed, Some("processing_failed")),
            "edge-duplicate" => (Verdict::Rejected, Some("account_standing")),
            // What the reader makes of a synthetic display is the golden test's; here it only has to be decided.
            _ => continue,
        };
        assert_eq!((verdict, reason.map(|reason| reason.label())), expected, "{}", example.name);
    }
}

#[tokio::test]
async fn a_second_run_publishes_the_same_bytes_and_reads_no_photo_again() {
    let (dependencies, store) = dependencies();
    let (_, records) = input(&store).await;
    let answers = MemoryAnswers::default();
    let first = run(&dependencies, &answers, &records).await;
    let second = run(&dependencies, &answers, &records).await;
    assert_eq!(answers.count(), 4);
    assert_eq!(in_order(first.graded), in_order(second.graded));
    assert_eq!(in_order(first.read), in_order(second.read));
}

/// What of the order is promised: that of one key on one topic. Photos of different users leave as they are done.
fn in_order(mut records: Vec<StoredRecord>) -> Vec<StoredRecord> {
    records.sort_by(|a, b| (&a.topic, &a.key).cmp(&(&b.topic, &b.key)));
    records
}

#[tokio::test]
async fn a_redelivery_makes_the_same_event_and_document_ids_at_any_time() {
    let (dependencies, store) = dependencies();
    let (_, records) = input(&store).await;
    let graded = pure(dependencies.quality_check(), records).await;
    let events: Vec<UploadGraded> = onward(&graded, Topic::UploadsGraded).iter().map(decoded).collect();
    for pair in events.chunks(2) {
        assert_eq!(pair[0].header.event_id, pair[1].header.event_id);
        assert_eq!(pair[0].header.root.unwrap().offset + 1, pair[1].header.root.unwrap().offset);
    }
    let logs = onward(&graded, Topic::ActivityLogs);
    let ids: std::collections::BTreeSet<_> = logs
        .iter()
        .map(decoded::<schemas::events::ActivityLogged>)
        .map(|log| document_id(log.event_id, &log.collection, log.ordinal))
        .collect();
    assert_eq!(ids.len() * 2, logs.len(), "each document twice, under one id");
}

/// A verified distance, a baseline, a rejection and a photo that is nobody's fault, each delivered twice.
fn decisions() -> Vec<RawRecord> {
    let decided = examples(Topic::UploadsDecided).into_iter().filter(|example| !example.is_malformed());
    let twice = decided.flat_map(|example| [example.event::<UploadDecided>(), example.event()]);
    (0..).zip(twice).map(|(offset, event)| record(&event, offset).unwrap()).collect()
}

#[tokio::test]
async fn each_verified_distance_earns_one_reward_and_every_verified_upload_has_its_document() {
    let (dependencies, _) = dependencies();
    let sent = pure(dependencies.reward_calculation(), decisions()).await;
    let input: Vec<UploadDecided> = decisions().iter().map(decoded).collect();
    // A correction earns nothing: its decision before has.
    let input: Vec<_> = input.into_iter().filter(|event| event.correction.is_none()).collect();
    let verified = input.iter().filter(|event| event.verdict == Verdict::Verified).count();
    let earning = input.iter().filter(|event| event.distance_km.is_some_and(|km| !km.is_zero()));
    let rewards: Vec<RewardCalculated> =
        onward(&sent, Topic::RewardsCalculated).iter().map(decoded).collect();
    assert_eq!((rewards.len(), verified), (earning.count(), 4), "each twice: one distance, one baseline");
    let logs: Vec<ActivityLogged> = onward(&sent, Topic::ActivityLogs).iter().map(decoded).collect();
    assert_eq!(logs.len(), verified);
    assert!(logs.iter().all(|log| log.collection == "reward_calculation_logs"));
    assert_eq!(logs.iter().filter(|log| log.document.contains("\"reward_id\"")).count(), rewards.len());
    // A repeat has the same ids, and is granted once.
    assert_eq!(rewards[0].header.event_id, rewards[1].header.event_id);
    let grants = grants::fold(&rewards);
    assert_eq!(grants.len(), 1);
    assert_eq!(grants[&rewards[0].reward_id].amount, rewards[0].total());
    // And a second run publishes the same bytes.
    assert_eq!(pure(dependencies.reward_calculation(), decisions()).await, sent);
}

#[tokio::test]
async fn an_upload_that_pure_stages_give_up_travels_on_with_a_fault_of_ours_and_is_decided_as_failed() {
    let (dependencies, _) = dependencies();
    let example =
        examples(Topic::UploadsReceived).into_iter().find(|example| !example.is_malformed()).unwrap();
    let received = envelope(example.event::<UploadReceived>());
    let error = StageError::new("photo store", std::io::Error::other("access denied"));
    let Some(Outcome::EmitWith(graded, logs)) = dependencies.quality_check().give_up(&received, &error)
    else {
        panic!("a verdict")
    };
    assert!(!logs.is_empty());
    let stage = dependencies.odometer_reading_with(MemoryAnswers::default()).await.unwrap();
    let found = UploadGraded { fault: None, ..graded.clone() };
    let passed_on = stage.process(&envelope(graded)).await.unwrap();
    let given_up = stage.give_up(&envelope(found), &error).unwrap();
    for outcome in [passed_on, given_up] {
        let Outcome::EmitWith(read, _) = outcome else { panic!("a verdict") };
        let judgements = oracle::fold(&[read], &Rules::current());
        let (_, judgement) = judgements.first().unwrap();
        assert_eq!((judgement.verdict, judgement.reason), (Verdict::Failed, Some(Reason::ProcessingFailed)));
    }
}

fn envelope<E>(payload: E) -> Envelope<E> {
    let position = Position { topic: "topic".into(), partition: 0, offset: 0 };
    Envelope { payload, position, timestamp_ms: 0, redrive: 0, traceparent: None }
}
