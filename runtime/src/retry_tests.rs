//! One record that never works, on memory: what is behind it goes on, and it is reported.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use schemas::codec::RecordSchema;
use schemas::events::ActivityLogged;
use schemas::ids::{EventId, Micros};
use schemas::reason::Reason;
use schemas::topic::Topic;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::dead_letter::header;
use crate::pure::PureWorker;
use crate::registry::{RegistryError, SchemaSource};
use crate::retry::RetryLimit;
use crate::sinking::SinkWorker;
use crate::source::{Assignment, RawRecord};
use crate::stage::{Envelope, Processor, Sink, SinkError, StageError, Verdict};
use crate::testing::{MemoryOutbound, MemorySchemas, assignment, record, stage_context};
use crate::worker::{Decoded, Halt};

/// The event that never works.
const BAD: u128 = 3;
/// Good ones behind it: more than were once let past it.
const GOOD: u128 = 600;
const LIMIT: RetryLimit = RetryLimit { after: Duration::from_millis(200) };
/// Nothing here takes this long, unless it never ends.
const NEVER: Duration = Duration::from_secs(60);

fn event(n: u128) -> ActivityLogged {
    ActivityLogged {
        event_id: EventId(Uuid::from_u128(n)),
        collection: "error_logs".into(),
        ordinal: 0,
        occurred_at: Micros(0),
        document: "{}".into(),
    }
}

/// Event `n` at offset `n`, of one of 50 users.
fn of(n: u128) -> RawRecord {
    let mut record = record(&event(n), i64::try_from(n).unwrap()).unwrap();
    record.key = Some(format!("user {}", n % 50).into_bytes());
    record
}

fn number(event: &Envelope<ActivityLogged>) -> u128 {
    event.payload.event_id.0.as_u128()
}

fn refused() -> StageError {
    StageError::new("photo store", std::io::Error::other("access denied"))
}

/// Emits every event but the bad one; with `REPORTS` it has a verdict for that, too.
struct Stage<const REPORTS: bool> {
    is_down: AtomicBool,
    /// Whether its dependencies respond to questions of their own.
    responds: AtomicBool,
    failures: AtomicUsize,
}

impl<const REPORTS: bool> Stage<REPORTS> {
    fn new(is_down: bool) -> Self {
        Self { is_down: is_down.into(), responds: false.into(), failures: 0.into() }
    }
}

impl<const REPORTS: bool> Processor for Stage<REPORTS> {
    const NAME: &'static str = "stage";
    type In = ActivityLogged;
    type Out = ActivityLogged;

    async fn process(&self, event: &Envelope<ActivityLogged>) -> Result<Verdict<ActivityLogged>, StageError> {
        if self.is_down.load(Ordering::SeqCst) || number(event) == BAD {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(refused());
        }
        Ok(Verdict::Emit(event.payload.clone()))
    }

    fn give_up(&self, event: &Envelope<ActivityLogged>, _: &StageError) -> Option<Verdict<ActivityLogged>> {
        let document = "failed".to_owned();
        REPORTS.then(|| Verdict::Emit(ActivityLogged { document, ..event.payload.clone() }))
    }

    async fn dependencies_respond(&self) -> bool {
        self.responds.load(Ordering::SeqCst)
    }
}

fn worker<const REPORTS: bool>(
    outbound: &Arc<MemoryOutbound>,
    limit: RetryLimit,
    is_down: bool,
) -> Arc<PureWorker<Stage<REPORTS>>> {
    let mut context = stage_context("stage", outbound.clone()).unwrap();
    context.retry_limit = limit;
    Arc::new(PureWorker {
        processor: Arc::new(Stage::new(is_down)),
        context,
        output: "out".into(),
        output_schema: MemorySchemas::id_of::<ActivityLogged>(),
        grace: Duration::ZERO,
    })
}

fn sent(outbound: &MemoryOutbound, topic: &str) -> usize {
    outbound.sent().iter().filter(|record| record.topic == topic).count()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < NEVER, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A lane that goes on.
fn lane(records: impl Iterator<Item = RawRecord>) -> (mpsc::Sender<RawRecord>, Assignment) {
    let (sender, receiver) = mpsc::channel(10_000);
    records.for_each(|record| sender.try_send(record).unwrap());
    (sender, Assignment { records: receiver.into(), ..assignment("activity.logs", Vec::new()) })
}

#[tokio::test]
async fn the_good_records_behind_one_that_never_works_are_done_and_it_becomes_a_dead_letter_with_its_cause() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (_sender, mut lane) = lane((0..=BAD + GOOD).map(of));
    let (worker, shared) = (worker::<false>(&outbound, LIMIT, false), lane.lane.clone());
    let running = tokio::spawn(async move { worker.run(&mut lane).await });
    // Those of its own user wait for it, and so does the offset.
    until("all others are done", || {
        sent(&outbound, "out") >= usize::try_from(BAD + GOOD - GOOD / 50).unwrap()
    })
    .await;
    until("it was given up", || shared.frontier() == i64::try_from(BAD + GOOD + 1).unwrap()).await;
    assert_eq!(sent(&outbound, "out"), usize::try_from(BAD + GOOD).unwrap());
    let letters: Vec<_> =
        outbound.sent().into_iter().filter(|record| record.topic == "dead-letters").collect();
    let has = |name: &str, value: &str| {
        letters[0].headers.contains(&(name.to_owned(), Some(value.as_bytes().to_vec())))
    };
    assert_eq!(letters.len(), 1);
    assert!(has(header::OFFSET, "3") && has(header::REASON, "processing_failed"), "{:?}", letters[0].headers);
    assert!(has(header::DETAIL, "photo store: access denied"), "{:?}", letters[0].headers);
    shared.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stage_that_has_a_verdict_for_what_never_works_publishes_that_in_its_users_order() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (_sender, mut lane) = lane((0..=BAD + GOOD).map(of));
    let (worker, shared) = (worker::<true>(&outbound, LIMIT, false), lane.lane.clone());
    let running = tokio::spawn(async move { worker.run(&mut lane).await });
    until("all are done", || shared.frontier() == i64::try_from(BAD + GOOD + 1).unwrap()).await;
    assert_eq!(sent(&outbound, "dead-letters"), 0);
    let of_its_user = outbound.sent().into_iter().filter_map(|record| {
        let (id, datum) = schemas::codec::unframe(record.payload.as_deref().unwrap()).unwrap();
        let event: ActivityLogged =
            schemas::codec::decode(<ActivityLogged as schemas::events::Event>::schema(), id, datum).unwrap();
        let n = event.event_id.0.as_u128();
        (n % 50 == BAD).then_some((n, event.document))
    });
    let of_its_user: Vec<_> = of_its_user.collect();
    assert_eq!(of_its_user[0], (BAD, "failed".to_owned()));
    assert!(of_its_user.is_sorted() && of_its_user.len() == 13, "{of_its_user:?}");
    shared.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn while_a_dependency_is_down_for_all_no_record_is_given_up_however_long_it_takes() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (_sender, mut lane) = lane((BAD + 1..GOOD).map(of));
    let (worker, shared) = (worker::<false>(&outbound, LIMIT, true), lane.lane.clone());
    let (stage, context) = (worker.processor.clone(), worker.context.clone());
    let running = tokio::spawn(async move { worker.run(&mut lane).await });
    let since = Instant::now();
    until("attempts go on beyond the limit", || since.elapsed() > LIMIT.after * 3).await;
    assert_eq!((outbound.sent().len(), shared.frontier()), (0, 0));
    assert!(stage.failures.load(Ordering::SeqCst) > 10);
    stage.is_down.store(false, Ordering::SeqCst);
    until("all are done", || shared.frontier() == i64::try_from(GOOD).unwrap()).await;
    assert_eq!((sent(&outbound, "out"), sent(&outbound, "dead-letters")), (596, 0));
    assert!(context.metrics.exporter.render().contains("milestream_stage_retries_total{cause=\"stage\""));
    shared.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_record_that_fails_with_no_other_in_sight_is_given_up_once_the_dependencies_respond_for_another() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (_sender, mut lane) = lane([of(BAD)].into_iter());
    let (worker, shared) = (worker::<true>(&outbound, LIMIT, false), lane.lane.clone());
    let stage = worker.processor.clone();
    let running = tokio::spawn(async move { worker.run(&mut lane).await });
    let since = Instant::now();
    until("it waits while they do not", || since.elapsed() > LIMIT.after * 3).await;
    assert_eq!((outbound.sent().len(), shared.frontier()), (0, 0));
    stage.responds.store(true, Ordering::SeqCst);
    until("it was given up", || shared.frontier() == i64::try_from(BAD + 1).unwrap()).await;
    assert_eq!((sent(&outbound, "out"), sent(&outbound, "dead-letters")), (1, 0));
    shared.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn two_records_that_fail_together_wait_although_the_dependencies_respond_questions() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (_sender, mut lane) = lane([of(BAD), of(BAD + 1)].into_iter());
    let (worker, shared) = (worker::<true>(&outbound, LIMIT, true), lane.lane.clone());
    worker.processor.responds.store(true, Ordering::SeqCst);
    let running = tokio::spawn(async move { worker.run(&mut lane).await });
    let since = Instant::now();
    until("attempts go on beyond the limit", || since.elapsed() > LIMIT.after * 5).await;
    assert_eq!((outbound.sent().len(), shared.frontier()), (0, 0));
    shared.stop.cancel();
    running.await.unwrap().unwrap();
}

/// A registry that fails for the schema of every event; a real one does so where the database behind it has lost a page.
struct FailsForOne {
    responds: AtomicBool,
}

impl SchemaSource for FailsForOne {
    fn schema(&self, _: u32) -> BoxFuture<'_, Result<Arc<RecordSchema>, RegistryError>> {
        Box::pin(async { Err(RegistryError::Unavailable("500 for this id".into())) })
    }

    fn responds(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { self.responds.load(Ordering::SeqCst) })
    }
}

#[tokio::test]
async fn a_schema_id_that_the_registry_never_responds_for_is_the_records_fault_while_it_responds_for_others()
{
    let outbound = Arc::new(MemoryOutbound::default());
    let registry = Arc::new(FailsForOne { responds: false.into() });
    let mut context = stage_context("stage", outbound.clone()).unwrap();
    (context.retry_limit, context.schemas) = (LIMIT, registry.clone());
    let stop = CancellationToken::new();
    let bad = of(BAD);
    let waits = tokio::time::timeout(LIMIT.after * 5, context.decode::<ActivityLogged>(&bad, &stop));
    assert!(waits.await.is_err(), "a registry that responds to nothing is waited for");
    registry.responds.store(true, Ordering::SeqCst);
    let decoded = tokio::time::timeout(NEVER, context.decode::<ActivityLogged>(&bad, &stop)).await;
    let Ok(Ok(Decoded::Bad(reason, detail))) = decoded else { panic!("not decided") };
    assert_eq!(reason, Reason::UnknownSchema);
    assert!(detail.contains("500 for this id"), "{detail}");
}

/// Keeps every event but the bad one, in the order of its first being written.
#[derive(Default)]
struct Kept {
    kept: Mutex<Vec<u128>>,
    is_down: AtomicBool,
    responds: bool,
    waits_for_ever: bool,
}

impl Sink for Kept {
    const NAME: &'static str = "kept";
    const TOPICS: &'static [Topic] = &[Topic::ActivityLogs];
    type In = ActivityLogged;

    async fn write(&self, batch: &[Envelope<ActivityLogged>]) -> Result<(), SinkError> {
        if self.is_down.load(Ordering::SeqCst) || batch.iter().any(|event| number(event) == BAD) {
            return Err(refused().into());
        }
        let mut kept = self.kept.lock().unwrap();
        for event in batch {
            if !kept.contains(&number(event)) {
                kept.push(number(event));
            }
        }
        Ok(())
    }

    fn gives_up(&self, _: &ActivityLogged) -> bool {
        !self.waits_for_ever
    }

    async fn dependencies_respond(&self) -> bool {
        self.responds
    }
}

fn sink_worker(outbound: &Arc<MemoryOutbound>, sink: Kept) -> SinkWorker<Kept> {
    let mut context = stage_context("kept", outbound.clone()).unwrap();
    context.retry_limit = LIMIT;
    SinkWorker { sink: Arc::new(sink), context }
}

#[tokio::test]
async fn a_sink_finds_the_record_that_never_works_in_its_batch_and_writes_all_others() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (_sender, mut lane) = lane((0..=BAD + GOOD).map(of));
    let (worker, shared) = (sink_worker(&outbound, Kept::default()), lane.lane.clone());
    let sink = worker.sink.clone();
    let running = tokio::spawn(async move { worker.run(&mut lane).await });
    until("all are done", || shared.frontier() == i64::try_from(BAD + GOOD + 1).unwrap()).await;
    let mut kept = sink.kept.lock().unwrap().clone();
    kept.sort_unstable();
    assert!(kept.iter().copied().eq((0..=BAD + GOOD).filter(|n| *n != BAD)));
    let letters: Vec<_> = outbound.sent();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].headers.contains(&(header::REASON.into(), Some(b"processing_failed".to_vec()))));
    shared.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_bad_record_with_nothing_before_it_is_found_by_what_comes_behind_it_later() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (sender, mut lane) = lane([of(BAD)].into_iter());
    let (worker, shared) = (sink_worker(&outbound, Kept::default()), lane.lane.clone());
    let running = tokio::spawn(async move { worker.run(&mut lane).await });
    let since = Instant::now();
    until("it waits alone", || since.elapsed() > LIMIT.after * 2).await;
    assert_eq!((outbound.sent().len(), shared.frontier()), (0, 0));
    (BAD + 1..BAD + 100).for_each(|n| sender.try_send(of(n)).unwrap());
    until("all are done", || shared.frontier() == i64::try_from(BAD + 100).unwrap()).await;
    assert_eq!(outbound.sent().len(), 1);
    shared.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_sink_gives_a_record_up_that_fails_with_no_other_in_sight_once_its_store_responds() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (_sender, mut lane) = lane([of(BAD)].into_iter());
    let sink = Kept { responds: true, ..Kept::default() };
    let (worker, shared) = (sink_worker(&outbound, sink), lane.lane.clone());
    let running = tokio::spawn(async move { worker.run(&mut lane).await });
    until("it was given up", || shared.frontier() == i64::try_from(BAD + 1).unwrap()).await;
    assert_eq!(sent(&outbound, "dead-letters"), 1);
    shared.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_sink_whose_store_is_down_gives_no_record_up() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (_sender, mut lane) = lane((0..50).map(of));
    let sink = Kept { is_down: true.into(), ..Kept::default() };
    let (worker, shared) = (sink_worker(&outbound, sink), lane.lane.clone());
    let sink = worker.sink.clone();
    let running = tokio::spawn(async move { worker.run(&mut lane).await });
    let since = Instant::now();
    until("attempts go on beyond the limit", || since.elapsed() > LIMIT.after * 5).await;
    assert_eq!(outbound.sent().len(), 0);
    sink.is_down.store(false, Ordering::SeqCst);
    until("it was given up when others were written", || shared.frontier() == 50).await;
    assert_eq!(outbound.sent()[0].topic, "dead-letters");
    shared.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_record_that_must_not_be_left_out_halts_its_partition_with_its_offset_and_cause() {
    let outbound = Arc::new(MemoryOutbound::default());
    let (_sender, mut lane) = lane((0..50).map(of));
    let worker = sink_worker(&outbound, Kept { waits_for_ever: true, ..Kept::default() });
    let halt = tokio::time::timeout(NEVER, worker.run(&mut lane)).await.unwrap().unwrap_err();
    assert!(matches!(halt, Halt::Blocked(3, _)), "{halt}");
    assert!(halt.to_string().contains("photo store: access denied"), "{halt}");
    assert!(outbound.sent().is_empty() && !worker.sink.kept.lock().unwrap().contains(&BAD));
    assert!(lane.lane.frontier() <= 3);
}
