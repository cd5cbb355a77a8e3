//! The worker that takes several records at once, on memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use schemas::codec;
use schemas::events::{ActivityLogged, Event as _};
use schemas::ids::{EventId, Micros};
use schemas::reason::Reason;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::yield_now;
use uuid::Uuid;

use crate::producer::{Ack, Message, NotTaken, Outbound};
use crate::publish::Delivered;
use crate::pure::{PureWorker, UNACKNOWLEDGED};
use crate::pure_by_key::OPEN;
use crate::source::{Assignment, Lane, RawRecord};
use crate::stage::{Envelope, Processor, StageError, Verdict};
use crate::testing::{MemoryOutbound, MemorySchemas, assignment, raw, record, stage_context};
use crate::worker::Halt;

/// In work at once.
const CAP: usize = 3;
/// Nothing in these tests takes this long, unless it never ends.
const NEVER: Duration = Duration::from_secs(30);

/// Emits each event once its gate is open, except those that are refused for now or rejected for good.
#[derive(Default)]
struct Gated {
    started: Mutex<Vec<usize>>,
    gates: Mutex<HashMap<usize, Arc<Semaphore>>>,
    down: Mutex<HashSet<usize>>,
    rejected: HashSet<usize>,
}

impl Gated {
    fn gate(&self, n: usize) -> Arc<Semaphore> {
        self.gates.lock().unwrap().entry(n).or_insert_with(|| Arc::new(Semaphore::new(0))).clone()
    }

    fn open(&self, records: impl IntoIterator<Item = usize>) {
        records.into_iter().for_each(|n| self.gate(n).close());
    }

    fn started(&self) -> Vec<usize> {
        self.started.lock().unwrap().clone()
    }
}

fn number(event: &ActivityLogged) -> usize {
    usize::try_from(event.event_id.0.as_u128()).unwrap()
}

impl Processor for Gated {
    const NAME: &'static str = "gated";
    const IN_FLIGHT: usize = CAP;
    type In = ActivityLogged;
    type Out = ActivityLogged;

    async fn process(&self, event: &Envelope<ActivityLogged>) -> Result<Verdict<ActivityLogged>, StageError> {
        let n = number(&event.payload);
        self.started.lock().unwrap().push(n);
        // A gate is open once its semaphore is closed.
        let _ = self.gate(n).acquire().await;
        if self.down.lock().unwrap().contains(&n) {
            return Err(StageError::new("store", std::io::Error::other("down")));
        }
        if self.rejected.contains(&n) {
            return Ok(Verdict::Reject(Reason::ProcessingFailed));
        }
        Ok(Verdict::EmitWith(event.payload.clone(), vec![event.payload.clone()]))
    }
}

/// Record `n` at offset `n`, of a user.
fn of(user: &str, n: usize) -> RawRecord {
    let event = ActivityLogged {
        event_id: EventId(Uuid::from_u128(n as u128)),
        collection: "error_logs".into(),
        ordinal: 0,
        occurred_at: Micros(0),
        document: "{}".into(),
    };
    let mut record = record(&event, offset(n)).unwrap();
    record.key = (!user.is_empty()).then(|| user.as_bytes().to_vec());
    record
}

fn offset(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}

fn worker<P: Processor>(processor: P, outbound: Arc<dyn Outbound>, grace: Duration) -> Arc<PureWorker<P>> {
    let mut context = stage_context(P::NAME, Arc::default()).unwrap();
    context.outbound = outbound;
    Arc::new(PureWorker {
        processor: Arc::new(processor),
        context,
        output: "out".into(),
        output_schema: MemorySchemas::id_of::<ActivityLogged>(),
        grace,
    })
}

/// A worker that runs on a lane that goes on.
struct Running {
    worker: Arc<PureWorker<Gated>>,
    outbound: Arc<MemoryOutbound>,
    sender: mpsc::Sender<RawRecord>,
    lane: Arc<Lane>,
    task: tokio::task::JoinHandle<Result<(), Halt>>,
}

impl Running {
    fn start(processor: Gated, records: Vec<RawRecord>, grace: Duration) -> Self {
        let outbound = Arc::new(MemoryOutbound::default());
        let worker = worker(processor, outbound.clone(), grace);
        let (sender, receiver) = mpsc::channel(10_000);
        records.into_iter().for_each(|record| sender.try_send(record).unwrap());
        let mut assignment =
            Assignment { records: receiver.into(), ..assignment("activity.logs", Vec::new()) };
        let (lane, running) = (assignment.lane.clone(), worker.clone());
        let task = tokio::spawn(async move { running.run(&mut assignment).await });
        Self { worker, outbound, sender, lane, task }
    }

    fn stage(&self) -> &Gated {
        &self.worker.processor
    }

    /// Lets the worker run until a condition holds.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let reached = async {
            while !condition(self) {
                yield_now().await;
            }
        };
        let seen = || (self.stage().started(), published(&self.outbound, "out"), self.lane.frontier());
        tokio::time::timeout(NEVER, reached).await.unwrap_or_else(|_| panic!("{what}: {:?}", seen()));
    }

    /// Lets the worker run until nothing more happens: it is the only other task.
    async fn settled(&self) {
        for _ in 0..1_000 {
            yield_now().await;
        }
    }

    async fn ended(self) -> Result<(), Halt> {
        tokio::time::timeout(NEVER, self.task).await.unwrap().unwrap()
    }
}

fn published(outbound: &MemoryOutbound, topic: &str) -> Vec<usize> {
    let sent = outbound.sent().into_iter().filter(|record| record.topic == topic);
    sent.map(|record| decoded(record.payload.as_deref().unwrap())).collect()
}

fn decoded(payload: &[u8]) -> usize {
    let (id, datum) = codec::unframe(payload).unwrap();
    number(&codec::decode(ActivityLogged::schema(), id, datum).unwrap())
}

#[tokio::test]
async fn different_keys_are_in_work_at_once_one_key_in_order_and_the_frontier_waits_for_the_oldest() {
    let records = vec![of("a", 0), of("a", 1), of("b", 2), of("c", 3), of("d", 4), of("", 5), of("", 6)];
    let run = Running::start(Gated::default(), records, Duration::ZERO);
    run.settled().await;
    assert_eq!(run.stage().started(), [0, 2, 3]);
    run.stage().open([3]);
    run.settled().await;
    assert_eq!(run.stage().started(), [0, 2, 3, 4]);
    run.stage().open([2, 4]);
    run.settled().await;
    assert_eq!(run.stage().started(), [0, 2, 3, 4, 5, 6]);
    run.stage().open([6, 5]);
    run.settled().await;
    assert_eq!((run.stage().started().len(), run.lane.frontier()), (6, 0));
    run.stage().open([0]);
    run.settled().await;
    assert_eq!((run.stage().started().last(), run.lane.frontier()), (Some(&1), 1));
    run.stage().open([1]);
    run.until("all are done", |run| run.lane.frontier() == 7).await;
    let order = published(&run.outbound, "out");
    assert_eq!(order[..3], [3, 2, 4]);
    assert_eq!(order[5..], [0, 1]);
    assert_eq!(published(&run.outbound, "activity.logs"), order);
}

#[tokio::test]
async fn a_record_that_is_tried_again_holds_up_its_own_key_and_no_other() {
    let stage = Gated { down: Mutex::new(HashSet::from([0])), ..Gated::default() };
    stage.open(0..5);
    let records = vec![of("a", 0), of("a", 1), of("b", 2), of("c", 3), of("b", 4)];
    let run = Running::start(stage, records, Duration::ZERO);
    run.until("it was tried again", |run| run.stage().started().iter().filter(|n| **n == 0).count() > 2)
        .await;
    assert_eq!(published(&run.outbound, "out"), [2, 3, 4]);
    assert_eq!(run.lane.frontier(), 0);
    run.stage().down.lock().unwrap().clear();
    run.until("all are done", |run| run.lane.frontier() == 5).await;
    assert_eq!(published(&run.outbound, "out")[3..], [0, 1]);
}

#[tokio::test]
async fn dead_letters_among_records_in_work_let_the_frontier_pass() {
    let stage = Gated { rejected: HashSet::from([1]), ..Gated::default() };
    stage.open(1..4);
    let records = vec![of("a", 0), of("b", 1), raw("activity.logs", 2, None, Some(vec![9])), of("d", 3)];
    let run = Running::start(stage, records, Duration::ZERO);
    run.until("the others are done", |run| published(&run.outbound, "out") == [3]).await;
    assert_eq!(run.lane.frontier(), 0);
    run.stage().open([0]);
    run.until("all are done", |run| run.lane.frontier() == 4).await;
    let letters = run.outbound.sent().into_iter().filter(|record| record.topic == "dead-letters").count();
    assert_eq!(letters, 2);
    let text = run.worker.context.metrics.exporter.render();
    assert!(text.contains(r#"records_consumed_total{stage="gated",topic="activity.logs"} 4"#), "{text}");
    assert!(text.contains(r#"outcome="emit",reason="none",stage="gated"} 2"#), "{text}");
}

#[tokio::test]
async fn a_stop_starts_nothing_more_lets_what_is_in_work_end_and_gives_up_what_stands_still() {
    let records: Vec<_> = (0..6).map(|n| of(&format!("user {n}"), n)).collect();
    let run = Running::start(Gated::default(), records.clone(), Duration::from_millis(20));
    run.settled().await;
    run.lane.stop.cancel();
    run.settled().await;
    run.stage().open([0, 2]);
    let (outbound, lane, worker) = (run.outbound.clone(), run.lane.clone(), run.worker.clone());
    run.ended().await.unwrap();
    assert_eq!(worker.processor.started(), [0, 1, 2]);
    assert_eq!(published(&outbound, "out"), [0, 2]);
    assert_eq!(lane.frontier(), 1);

    // The next owner repeats what was published behind the frontier, byte for byte, and passes it.
    let next = Gated::default();
    next.open(0..6);
    let run = Running::start(next, records[1..].to_vec(), Duration::ZERO);
    run.until("all are done", |run| run.lane.frontier() == 6).await;
    let again = published(&run.outbound, "out");
    assert_eq!(again.iter().collect::<HashSet<_>>().len(), 5);
    let bytes = |outbound: &MemoryOutbound| {
        let mine = |sent: &crate::stored::StoredRecord| decoded(sent.payload.as_deref().unwrap()) == 2;
        outbound.sent().into_iter().find(mine)
    };
    assert_eq!(bytes(&outbound), bytes(&run.outbound));
}

#[tokio::test]
async fn a_stop_ends_a_record_that_is_tried_again_without_waiting_for_its_dependency() {
    let stage = Gated { down: Mutex::new(HashSet::from([0])), ..Gated::default() };
    stage.open(0..2);
    let run = Running::start(stage, vec![of("a", 0), of("b", 1)], NEVER);
    run.until("the other is done", |run| published(&run.outbound, "out") == [1]).await;
    run.lane.stop.cancel();
    let lane = run.lane.clone();
    run.ended().await.unwrap();
    assert_eq!(lane.frontier(), 0);
}

#[tokio::test]
async fn an_unknown_record_halts_the_partition_below_itself_after_the_others_in_work_have_ended() {
    let mut foreign = of("b", 1);
    foreign.payload.as_mut().unwrap()[4] = 1;
    let records = vec![of("a", 0), foreign, of("c", 2), of("d", 3)];
    let run = Running::start(Gated::default(), records, NEVER);
    run.settled().await;
    run.stage().open([2, 0]);
    let (outbound, lane, worker) = (run.outbound.clone(), run.lane.clone(), run.worker.clone());
    let halt = run.ended().await.unwrap_err();
    assert!(matches!(&halt, Halt::Operator(text) if text.contains("milestream.UploadReceived")), "{halt}");
    assert_eq!(worker.processor.started(), [0, 2]);
    assert_eq!(published(&outbound, "out").iter().collect::<HashSet<_>>(), HashSet::from([&0, &2]));
    assert_eq!(lane.frontier(), 1);
}

#[tokio::test]
async fn a_killed_worker_repeats_what_its_frontier_had_not_passed_and_loses_nothing() {
    let records: Vec<_> = (0..8).map(|n| of(["a", "b", "c"][n % 3], n)).collect();
    let stage = Gated::default();
    stage.open([0, 1, 3, 4, 7]);
    let run = Running::start(stage, records.clone(), Duration::ZERO);
    run.until("all but the third user's are done", |run| published(&run.outbound, "out").len() == 5).await;
    let (before, frontier) = (published(&run.outbound, "out"), run.lane.frontier());
    run.task.abort();
    assert_eq!(frontier, 2);

    let next = Gated::default();
    next.open(0..8);
    let records = records[usize::try_from(frontier).unwrap()..].to_vec();
    let run = Running::start(next, records, Duration::ZERO);
    run.until("all are done", |run| run.lane.frontier() == 8).await;
    let all: HashSet<usize> = before.into_iter().chain(published(&run.outbound, "out")).collect();
    assert_eq!(all, (0..8).collect());
}

#[tokio::test]
async fn what_is_taken_up_is_bounded_while_a_key_stands_still_and_flows_again_afterwards() {
    let stage = Gated::default();
    stage.open(1..5_000);
    let run = Running::start(stage, (0..300).map(|n| of("a", n)).collect(), Duration::ZERO);
    run.until("the lane is no longer emptied", |run| run.sender.capacity() == 10_000 - (300 - OPEN)).await;
    run.settled().await;
    assert_eq!(run.sender.capacity(), 10_000 - (300 - OPEN));
    run.stage().open([0]);
    run.until("all are done", |run| run.lane.frontier() == 300).await;
    assert_eq!(published(&run.outbound, "out"), (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_crash_repeats_no_more_than_is_let_past_a_record_that_stands_still() {
    let stage = Gated::default();
    stage.open(1..3_000);
    let records = (0..3_000).map(|n| of(&format!("user {n}"), n)).collect();
    let run = Running::start(stage, records, Duration::ZERO);
    run.until("the others are done", |run| published(&run.outbound, "out").len() == UNACKNOWLEDGED - 1).await;
    run.settled().await;
    assert_eq!(run.stage().started().len(), UNACKNOWLEDGED);
    run.stage().open([0]);
    run.until("all are done", |run| run.lane.frontier() == 3_000).await;
}

/// Emits after a while that depends on the event.
struct Yielding(Vec<usize>);

impl Processor for Yielding {
    const NAME: &'static str = "yielding";
    const IN_FLIGHT: usize = 4;
    type In = ActivityLogged;
    type Out = ActivityLogged;

    async fn process(&self, event: &Envelope<ActivityLogged>) -> Result<Verdict<ActivityLogged>, StageError> {
        let turns = self.0[number(&event.payload)];
        // Half of them end on another thread, as a photo does.
        if turns.is_multiple_of(2) {
            let _ =
                tokio::task::spawn_blocking(move || (0..turns).for_each(|_| std::thread::yield_now())).await;
        } else {
            for _ in 0..turns {
                yield_now().await;
            }
        }
        Ok(Verdict::Emit(event.payload.clone()))
    }
}

/// Acknowledges on a thread of its own, a few at a time and the youngest first.
struct Late {
    taken: Mutex<Vec<usize>>,
    acknowledge: std::sync::mpsc::Sender<Ack>,
}

impl Late {
    fn new() -> Arc<Self> {
        let (acknowledge, acks) = std::sync::mpsc::channel::<Ack>();
        std::thread::spawn(move || {
            while let Ok(first) = acks.recv() {
                let mut some = vec![first];
                some.extend(acks.try_iter().take(3));
                for ack in some.into_iter().rev() {
                    ack.settle(Ok(Delivered { partition: 0, offset: 0 }));
                }
            }
        });
        Arc::new(Self { taken: Mutex::default(), acknowledge })
    }
}

impl Outbound for Late {
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken> {
        self.taken.lock().unwrap().push(decoded(message.payload.unwrap()));
        let _ = self.acknowledge.send(ack);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn however_work_and_acknowledgements_interleave_the_worker_ends_with_all_published_in_its_keys_order(
        keys in proptest::collection::vec(0usize..5, 1..400),
        turns in proptest::collection::vec(0usize..12, 400),
    ) {
        let records: Vec<_> =
            keys.iter().enumerate().map(|(n, key)| of(["", "a", "b", "c", "d"][*key], n)).collect();
        let outbound = Late::new();
        let worker = worker(Yielding(turns), outbound.clone(), Duration::ZERO);
        let mut lane = assignment("activity.logs", records);
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let ended = threads.block_on(async { tokio::time::timeout(NEVER, worker.run(&mut lane)).await });
        prop_assert!(matches!(ended, Ok(Ok(()))), "a wake-up was lost, or {ended:?}");
        prop_assert_eq!(lane.lane.frontier(), offset(keys.len()));
        let taken = outbound.taken.lock().unwrap().clone();
        prop_assert_eq!(taken.len(), keys.len());
        let mut by_key: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for n in taken {
            by_key.entry(keys[n]).or_default().push(n);
        }
        by_key.remove(&0);
        prop_assert!(by_key.values().all(|records| records.is_sorted()));
    }
}
