//! A stage on a whole engine: it passes uploads on.

use std::sync::Arc;
use std::time::Duration;

use devstack::Stack;
use runtime::fence::Guards;
use runtime::metrics::Metrics;
use runtime::registry::{Registry, RegistryConfig};
use runtime::retry::RetryLimit;
use runtime::{Engine, EngineConfig, Envelope, Processor, StageError, SystemClock, Verdict};
use schemas::events::{UploadGraded, UploadReceived};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::kafka;

pub const DRAIN: Duration = Duration::from_secs(3);

pub struct Relay;

impl Processor for Relay {
    const NAME: &'static str = "relay";
    type In = UploadReceived;
    type Out = UploadGraded;

    async fn process(&self, event: &Envelope<UploadReceived>) -> Result<Verdict<UploadGraded>, StageError> {
        let UploadReceived { header, stamp } = event.payload.clone();
        let (image, quality, fault, pixel_hash) = (None, None, None, None);
        Ok(Verdict::Emit(UploadGraded { header, stamp, image, quality, fault, pixel_hash }))
    }
}

pub fn uploads(count: u128) -> Vec<UploadReceived> {
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

/// An engine on the parts of `stack`, whose topics are there.
pub async fn engine(stack: &Stack, stop: &CancellationToken) -> Engine {
    let (kafka, registry) =
        (kafka(stack.kafka_brokers(), "role"), RegistryConfig::open(stack.schema_registry_url()));
    let layout = runtime::topics::Layout::local("");
    runtime::topics::apply(&kafka, &Registry::new(&registry).unwrap(), &layout).await.unwrap();
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
    Engine::new(config, Metrics::new().unwrap(), Arc::new(SystemClock), stop.clone()).unwrap()
}
