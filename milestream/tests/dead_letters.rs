//! `milestream dead-letters`, run as an operator runs it: letters are chosen, redriven not for ever, and given up so that an upload that
//! stands still by one ends as failed, once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod own;

use std::time::{Duration, Instant};

use devstack::Stack;
use harness::deployment::{Deployment, RoleSpec};
use harness::topics;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::registry::{Registry, RegistryConfig};
use runtime::snapshot;
use schemas::codec;
use schemas::events::{Event as _, UploadDecided, UploadReceived, Verdict};
use schemas::reason::Reason;
use schemas::topic::Topic;
use serde_json::Value;
use sqlx::PgPool;
use tokio::runtime::Runtime;

use own::Own;

/// Longest wait for anything: a role starts in two seconds.
const TIMEOUT: Duration = Duration::from_secs(90);
/// 2026-03-01T00:00:00Z, microseconds.
const MARCH: i64 = 1_772_323_200_000_000;

/// Topics, a database and roles of the test's own.
struct World {
    runtime: Runtime,
    stack: Stack,
    deployment: Deployment,
    prefix: String,
    pool: PgPool,
    producer: FutureProducer,
}

impl World {
    fn new() -> Self {
        let Own { runtime, stack, deployment, prefix, pool } = Own::prepare("letters");
        let kafka = kafka(&stack);
        let producer = runtime.block_on(async { kafka.create().unwrap() });
        Self { runtime, stack, deployment, prefix, pool, producer }
    }

    fn run(&self, command: &[&str]) -> String {
        self.deployment.command(&[&["dead-letters"], command].concat()).unwrap()
    }

    fn refused(&self, command: &[&str]) -> String {
        self.deployment.command(&[&["dead-letters"], command].concat()).unwrap_err().to_string()
    }

    /// Writes a letter as the engine does, and returns its place.
    fn letter(&self, payload: &[u8], about: (&str, Topic, &str, i64), redrives: Option<&str>) -> String {
        let (stage, topic, reason, at) = about;
        let (topic, at) = (format!("{}{}", self.prefix, topic.name()), at.to_string());
        let headers = [
            ("dlq.stage", stage),
            ("dlq.reason", reason),
            ("dlq.detail", "because"),
            ("dlq.original_topic", &topic),
            ("dlq.original_partition", "0"),
            ("dlq.original_offset", "7"),
            ("dlq.at_us", &at),
        ];
        let headers = headers.into_iter().chain(redrives.map(|count| ("redrive", count)));
        let headers = headers
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let letters = format!("{}{}", self.prefix, Topic::DeadLetters.name());
        let record = FutureRecord::to(&letters).partition(1).key("driver").payload(payload).headers(headers);
        let delivered = self.runtime.block_on(self.producer.send(record, TIMEOUT)).unwrap();
        format!("1:{}", delivered.offset)
    }

    fn count(&self, topic: Topic) -> usize {
        let name = format!("{}{}", self.prefix, topic.name());
        snapshot::read(&kafka(&self.stack), &name).unwrap().len()
    }

    fn one(&self, sql: &'static str) -> Value {
        self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(&self.pool)).unwrap()
    }
}

fn kafka(stack: &Stack) -> ClientConfig {
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", stack.kafka_brokers());
    kafka
}

fn drop<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["drop", "--because", "the photo is gone"], more].concat()
}

#[test]
fn letters_are_chosen_redriven_three_times_at_most_and_given_up_with_a_verdict_for_their_upload() {
    let mut world = World::new();
    let text = include_str!("../../schemas/examples/uploads.received/edge-dark.json");
    let mut example: Value = serde_json::from_str(text).unwrap();
    let event: UploadReceived = serde_json::from_value(example["event"].take()).unwrap();
    let registry = Registry::new(&RegistryConfig::open(world.stack.schema_registry_url())).unwrap();
    let schema_id = world.runtime.block_on(registry.id_of::<UploadReceived>(&world.prefix)).unwrap();
    let payload = codec::encode(schema_id, &event).unwrap();

    let received = Topic::UploadsReceived;
    let upload = world.letter(&payload, ("quality_check", received, "processing_failed", MARCH), None);
    let garbage = world.letter(b"garbage", ("quality_check", received, "bad_framing", MARCH + 1), None);
    let row = world.letter(&payload, ("postgres", received, "bad_row", MARCH + 2), Some("3"));
    let places = |listed: &str| -> Vec<String> {
        listed.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let listed = |filters: &[&str]| places(&world.run(&[&["list"], filters].concat()));
    assert_eq!(listed(&[]), [&*upload, &*garbage, &*row]);
    assert_eq!(listed(&["--stage", "quality_check", "--reason", "bad_framing"]), [&*garbage]);
    assert_eq!(listed(&["--topic", "uploads.graded"]), Vec::<String>::new());
    let window = ["--from", "2026-03-01T00:00:00.000001Z", "--to", "2026-03-01T00:00:00.000002Z"];
    assert_eq!(listed(&window), [&*garbage]);
    let shown: Value = serde_json::from_str(&world.run(&["show", &upload])).unwrap();
    assert_eq!(shown["fields"]["header"]["upload_id"], event.header.upload_id.to_string(), "{shown}");

    // Nothing is done that was not asked for, and what has come back three times is mended first.
    assert!(world.refused(&["redrive"]).contains("name places, filters or --all"));
    assert!(world.refused(&["redrive", "1:99"]).contains("there is no dead letter at 1:99"));
    let tried = world.run(&["redrive", "--stage", "quality_check", "--dry-run"]);
    assert_eq!(tried.matches("would append").count(), 2, "{tried}");
    assert!(world.refused(&["redrive", "--reason", "bad_row"]).contains("1 were refused"));
    assert_eq!(world.count(received), 0);
    let redriven = world.run(&["redrive", "--reason", "bad_row", "--force", "--rate", "1000"]);
    assert_eq!(redriven, format!("{row} appended to {}uploads.received", world.prefix));
    assert_eq!(world.count(received), 1);
    assert_eq!(world.run(&["redrive", "--reason", "bad_row", "--force"]), "", "it was redriven already");
    assert_eq!(listed(&[]), [&*upload, &*garbage]);
    let all = world.run(&["list", "--all", "--reason", "bad_row"]);
    assert!(all.ends_with("[redriven]"), "{all}");

    // Whose upload a letter was is told where it can be told.
    let refused = world.refused(&drop(&["--reason", "bad_framing"]));
    assert!(refused.contains("1 letters were refused"), "{refused}");
    let tried = world.run(&drop(&[&upload, "--dry-run"]));
    assert!(
        tried.contains(&format!("would drop (upload {} ends as failed)", event.header.upload_id)),
        "{tried}"
    );
    assert_eq!(world.one("select to_jsonb(count(*)) from outbox"), 0);
    world.run(&drop(&[&upload]));
    world.run(&drop(&["--reason", "bad_framing", "--undecodable"]));
    assert!(world.refused(&drop(&[&upload])).contains("redriven or dropped before"));
    assert_eq!(listed(&[]), Vec::<String>::new());
    assert_eq!(world.one("select to_jsonb(count(*)) from outbox"), 1);
    let audited = "select to_jsonb(count(*)) from system_audit_logs where action like 'letters.%'";
    assert_eq!(world.one(audited), 3);

    // The relay publishes what the command has written, and fraud_check alone decides it.
    for role in [RoleSpec::timers(), RoleSpec::stage("fraud_check", "a")] {
        world.deployment.start(role).unwrap();
    }
    world.deployment.wait_ready().unwrap();
    let until = Instant::now() + TIMEOUT;
    let decided = loop {
        let decided = topics::read_all::<UploadDecided>(&kafka(&world.stack), &world.prefix).unwrap();
        if !decided.is_empty() {
            break decided.into_iter().map(|one| one.event).collect::<Vec<_>>();
        }
        assert!(Instant::now() < until, "no verdict within {TIMEOUT:?}");
        std::thread::park_timeout(Duration::from_millis(200));
    };
    assert_eq!((decided.len(), UploadDecided::TOPIC), (1, Topic::UploadsDecided));
    assert_eq!((decided[0].verdict, decided[0].reason), (Verdict::Failed, Some(Reason::Abandoned)));
    assert_eq!(decided[0].header.upload_id, event.header.upload_id);
    assert!(decided[0].detail.as_ref().unwrap().contains("an operator has given it up"));
    world.deployment.stop();
    world.stack.stop();
}
