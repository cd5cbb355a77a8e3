//! Kafka refuses what a stage publishes: as too large, in these tests by a publisher on memory that says so.

use std::sync::Arc;
use std::time::Duration;

use schemas::events::ActivityLogged;
use schemas::ids::{EventId, Micros};
use uuid::Uuid;

use crate::dead_letter::{PAYLOAD_MAX, header};
use crate::producer::{Ack, Message, NotTaken, Outbound};
use crate::publish::PublishError;
use crate::pure::PureWorker;
use crate::source::RawRecord;
use crate::stage::{Envelope, Processor, StageError, Verdict};
use crate::testing::{MemoryOutbound, MemorySchemas, assignment, raw, record, stage_context};
use crate::worker::Halt;

/// The event whose result is too large.
const LARGE: u128 = 3;
const LIMIT: usize = 500;

/// Refuses larger records as Kafka does: at once, as librdkafka does, or with the acknowledgement, as a broker does.
#[derive(Default)]
struct Limited {
    taken: MemoryOutbound,
    at_once: bool,
}

impl Outbound for Limited {
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken> {
        if message.topic == "out" && message.payload.is_some_and(|payload| payload.len() > LIMIT) {
            let refused = PublishError::Refused("message size too large".into());
            if self.at_once {
                return Err(NotTaken::Never(refused));
            }
            ack.settle(Err(refused));
            return Ok(());
        }
        self.taken.send(message, ack)
    }
}

struct Grows;

impl Processor for Grows {
    const NAME: &'static str = "grows";
    type In = ActivityLogged;
    type Out = ActivityLogged;

    async fn process(&self, event: &Envelope<ActivityLogged>) -> Result<Verdict<ActivityLogged>, StageError> {
        let is_large = event.payload.event_id.0.as_u128() == LARGE;
        let document = if is_large { "x".repeat(LIMIT) } else { "{}".to_owned() };
        Ok(Verdict::Emit(ActivityLogged { document, ..event.payload.clone() }))
    }
}

fn of(n: u128) -> RawRecord {
    let event = ActivityLogged {
        event_id: EventId(Uuid::from_u128(n)),
        collection: "error_logs".into(),
        ordinal: 0,
        occurred_at: Micros(0),
        document: "{}".into(),
    };
    record(&event, i64::try_from(n).unwrap()).unwrap()
}

#[tokio::test]
async fn a_record_whose_result_is_refused_becomes_a_dead_letter_when_its_partition_begins_anew() {
    for at_once in [true, false] {
        let outbound = Arc::new(Limited { at_once, ..Limited::default() });
        let mut context = stage_context("grows", Arc::default()).unwrap();
        context.outbound = outbound.clone();
        let worker = PureWorker {
            processor: Arc::new(Grows),
            context,
            output: "out".into(),
            output_schema: MemorySchemas::id_of::<ActivityLogged>(),
            grace: Duration::ZERO,
        };
        let mut lane = assignment("activity.logs", (0..6).map(of).collect());
        let halt = worker.run(&mut lane).await.unwrap_err();
        assert!(matches!(halt, Halt::Refused(3)), "{halt}");
        assert_eq!(lane.lane.frontier(), 3);
        let mut lane = assignment("activity.logs", (3..6).map(of).collect());
        worker.run(&mut lane).await.unwrap();
        assert_eq!(lane.lane.frontier(), 6);
        let sent = outbound.taken.sent();
        let letters: Vec<_> = sent.iter().filter(|record| record.topic == "dead-letters").collect();
        assert_eq!(letters.len(), 1);
        let has = |name: &str, value: &str| {
            letters[0].headers.contains(&(name.to_owned(), Some(value.as_bytes().to_vec())))
        };
        assert!(has(header::OFFSET, "3") && has(header::DETAIL, "message size too large"), "{letters:?}");
        assert_eq!(letters[0].payload, of(LARGE).payload);
    }
}

#[tokio::test]
async fn a_dead_letter_that_would_be_too_large_with_its_headers_is_cut_and_says_so() {
    let outbound = Arc::new(MemoryOutbound::default());
    let context = stage_context("grows", outbound.clone()).unwrap();
    let record = raw("activity.logs", 7, None, Some(vec![9; 999_990]));
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let reason = schemas::reason::Reason::BadFraming;
    context.dead_letter(&record, reason, &"d".repeat(10_000), Ack::Waiter(sender)).await.unwrap();
    receiver.await.unwrap().unwrap();
    let letter = outbound.sent().remove(0);
    assert_eq!(letter.payload.unwrap().len(), PAYLOAD_MAX);
    assert!(letter.headers.contains(&(header::CUT_FROM.into(), Some(b"999990".to_vec()))));
    let bytes: usize = letter.headers.iter().map(|(_, value)| value.as_ref().map_or(0, Vec::len)).sum();
    assert!(bytes < 5_000, "{bytes} bytes of headers");
}
