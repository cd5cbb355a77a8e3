//! A role is asked to end while Kafka does not respond.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devstack::Part;
use runtime::fence::Guards;
use runtime::metrics::Metrics;
use runtime::registry::{Registry, RegistryConfig};
use runtime::retry::RetryLimit;
use runtime::{Engine, EngineConfig, Envelope, Processor, StageError, SystemClock, Verdict};
use schemas::events::{UploadGraded, UploadReceived};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{LIMIT, kafka, own, until};

const DRAIN: Duration = Duration::from_secs(3);
/// Above the drain budget: the last commit, and the producers' last words.
const REST: Duration = Duration::from_secs(8);

struct Relay;

impl Processor for Relay {
    const NAME: &'static str = "relay";
    type In = UploadReceived;
    type Out = UploadGraded;

    async fn process(&self, event: &Envelope<UploadReceived>) -> Result<Verdict<UploadGraded>, StageError> {
        let UploadReceived { header, stamp } = event.payload.clone();
        Ok(Verdict::Emit(UploadGraded { header, stamp, image: None, quality: None, fault: None }))
    }
}

fn uploads(count: u128) -> Vec<UploadReceived> {
    let example = include_str!("../../../schemas/examples/uploads.received/normal-claim.json");
    let example: serde_json::Value = serde_json::from_str(example).unwrap();
    let event: UploadReceived = serde_json::from_value(example["event"].clone()).unwrap();
    (0..count)
        .map(|n| {
            let mut event = event.clone();
            event.header.event_id.0 = Uuid::from_u128(n);
            event.header.user_id.0 = Uuid::from_u128(n % 10);
            event
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_with_records_in_flight_ends_within_its_budget_while_kafka_is_frozen() {
    let stack = own(&[Part::Kafka, Part::Registry]);
    let (kafka, registry) =
        (kafka(stack.kafka_brokers(), "role"), RegistryConfig::open(stack.schema_registry_url()));
    let layout = runtime::topics::Layout::local("");
    runtime::topics::apply(&kafka, &Registry::new(&registry).unwrap(), &layout).await.unwrap();
    let stop = CancellationToken::new();
    let config = EngineConfig {
        kafka,
        registry,
        prefix: String::new(),
        instance: Some("a".into()),
        session_timeout: DRAIN * 2,
        drain_budget: DRAIN,
        retry_limit: RetryLimit::default(),
        guards: Guards::On,
    };
    let engine = Engine::new(config, Metrics::new().unwrap(), Arc::new(SystemClock), stop.clone()).unwrap();
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
