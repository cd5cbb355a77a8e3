//! What a role records of itself: `error_logs`, `system_performance_logs` of its calls, and `integration_logs` of those to services
//! outside. The documents go to Kafka without being waited for: a log never holds work up, and one that is lost is only said in the
//! process' own log.

mod budget;
mod calls;
mod outside;
mod panics;
mod resources;

pub use outside::{Integration, Outside};

use std::sync::Arc;
use std::time::Duration;

use schemas::codec;
use schemas::events::{ActivityLogged, Event as _};
use schemas::ids::{EventId, Micros};
use schemas::logs::{ErrorLog, IntegrationLog, LogDocument, SystemPerformanceLog};
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::oneshot;
use uuid::Uuid;

use self::budget::{Budget, Granted};
use self::calls::Calls;
use self::outside::Outsides;
use self::resources::Resources;
use crate::clock::Clock;
use crate::outbound::{Ack, Message, Outbound};

/// Longest chain of causes in a document (data map: 8 KiB).
const CAUSES_BYTES: usize = 8 * 1024;
/// Faults of a code in a minute (data map's lineage: `error_logs`).
const FAULTS_PER_MINUTE: u32 = 10;

/// Whose part a fault is: `error_logs.error_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Input that can never be processed.
    Validation,
    /// Postgres or MongoDB.
    Database,
    /// Kafka, the photo store, or another service.
    ExternalService,
    /// Our own code or configuration.
    System,
}

impl FaultKind {
    fn label(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Database => "database",
            Self::ExternalService => "external_service",
            Self::System => "system",
        }
    }
}

/// How much an operator has to hurry: `error_logs.severity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A dead letter or a response of 5xx.
    Medium,
    /// A partition stands still, or a thread has panicked.
    High,
}

impl Severity {
    fn label(self) -> &'static str {
        match self {
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Something that somebody must act on.
#[derive(Clone, Copy, Debug)]
pub struct Fault<'a> {
    /// Whose part it is.
    pub kind: FaultKind,
    /// One of a closed set.
    pub code: &'static str,
    /// A sentence of ours, without anything that was sent.
    pub message: &'a str,
    /// The error with its sources.
    pub causes: &'a str,
    /// Whose request or record it was, where that is known.
    pub user: Option<Uuid>,
    /// How much it hurries.
    pub severity: Severity,
}

/// What a call went to: `system_performance_logs.operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A request to the gateway.
    ApiCall,
    /// A transaction, or a batch of writes.
    DatabaseQuery,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::ApiCall => "api_call",
            Self::DatabaseQuery => "database_query",
        }
    }

    /// From here on a call is slow, and always recorded: 500 ms of a request and 100 ms of a database, as the data map's lineage has it.
    fn slow(self) -> Duration {
        match self {
            Self::ApiCall => Duration::from_millis(500),
            Self::DatabaseQuery => Duration::from_millis(100),
        }
    }
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What it went to.
    pub operation: Operation,
    /// The route's template or the statement's name: of a closed set.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// The status of an HTTP response.
    pub status: Option<u16>,
    /// Why it failed; none where it did not.
    pub error: Option<&'a str>,
}

/// Where documents go.
struct Sender {
    outbound: Arc<dyn Outbound>,
    /// With the environment's prefix.
    topic: String,
    /// The registry's of `ActivityLogged`.
    schema_id: u32,
}

/// Writes the documents of one role.
pub struct Journal {
    /// Role, stage or sink.
    module: &'static str,
    clock: Arc<dyn Clock>,
    /// None: nothing is recorded.
    sender: Option<Sender>,
    faults: Budget<&'static str>,
    calls: Calls,
    outsides: Outsides,
    resources: Resources,
}

impl Journal {
    /// A journal of a role. `prefix` stands in front of topics, `schema_id` is the registry's of [`ActivityLogged`].
    #[must_use]
    pub fn new(
        module: &'static str,
        outbound: Arc<dyn Outbound>,
        clock: Arc<dyn Clock>,
        prefix: &str,
        schema_id: u32,
    ) -> Self {
        let topic = format!("{prefix}{}", ActivityLogged::TOPIC.name());
        Self { sender: Some(Sender { outbound, topic, schema_id }), ..Self::silent(module, clock) }
    }

    /// A journal that records nothing: for what runs beside the roles.
    #[must_use]
    pub fn silent(module: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self {
            module,
            clock,
            sender: None,
            faults: Budget::of(FAULTS_PER_MINUTE),
            calls: Calls::default(),
            outsides: Outsides::default(),
            resources: Resources::default(),
        }
    }

    /// The same, whose documents tell of the connections of a pool too.
    #[must_use]
    pub fn with_pool(mut self, pool: PgPool) -> Self {
        self.resources = Resources::of(pool);
        self
    }

    /// Records a fault: ten of a code in a minute, and of the rest how many they were.
    pub fn fault(&self, fault: &Fault<'_>) {
        let message = match self.faults.take(fault.code, self.clock.now()) {
            Granted::No => return,
            Granted::Yes => fault.message.to_owned(),
            Granted::After(left_out) => {
                format!("{} ({left_out} more were left out in the minutes before)", fault.message)
            }
        };
        let mut stack_trace = fault.causes.to_owned();
        stack_trace.truncate(stack_trace.floor_char_boundary(CAUSES_BYTES));
        self.write(&ErrorLog {
            error_type: fault.kind.label().to_owned(),
            error_code: fault.code.to_owned(),
            error_message: message,
            stack_trace,
            user_id: fault.user.map(|user| user.to_string()),
            module: self.module.to_owned(),
            severity: fault.severity.label().to_owned(),
            resolved: false,
            resolution_notes: None,
        });
    }

    /// Records a call where it failed or was slow, and a sample of the others.
    pub fn call(&self, call: &Call<'_>) {
        let now = self.clock.now();
        let Some(sample_rate) = self.calls.sampled(call, now) else { return };
        let mut metadata = json!({ "name": call.name, "sample_rate": sample_rate });
        if let Some(status) = call.status {
            metadata["status"] = status.into();
        }
        self.write(&SystemPerformanceLog {
            module_name: self.module.to_owned(),
            operation: call.operation.label().to_owned(),
            response_time: call.took.as_secs_f64() * 1_000.0,
            success: call.error.is_none(),
            error_message: call.error.map(str::to_owned),
            resource_usage: self.resources.usage(now),
            metadata,
        });
    }

    /// Records a call to a service outside where it failed or was to change something, and a sample of the others.
    pub fn outside(&self, call: Outside<'_>) {
        if !self.outsides.sampled(&call, self.clock.now()) {
            return;
        }
        self.write(&IntegrationLog {
            integration_type: call.kind.label().to_owned(),
            service_name: call.service.into_owned(),
            request_id: Uuid::now_v7().to_string(),
            request_data: call.request,
            response_data: call.response,
            response_time: call.took.as_secs_f64() * 1_000.0,
            success: call.error.is_none(),
            error_details: call.error,
            // Who repeats a call makes a new one.
            retry_count: 0,
        });
    }

    /// Has every panic of this process recorded here from now on. A process has one such journal.
    pub fn tell_of_panics(self: &Arc<Self>) {
        panics::tell(self);
    }

    /// Writes a document of its own, now.
    pub fn write<D: LogDocument>(&self, document: &D) {
        self.log(document, EventId(Uuid::now_v7()), self.clock.now());
    }

    /// Writes the document of an event.
    pub fn log<D: LogDocument>(&self, document: &D, event_id: EventId, at: Micros) {
        let Some(sender) = &self.sender else { return };
        let event = document.activity(event_id, 0, at).map_err(|error| error.to_string());
        if let Err(error) = event.and_then(|event| sender.send(&event)) {
            tracing::warn!(collection = D::COLLECTION.name, error, "a log document is lost");
        }
    }
}

impl Sender {
    fn send(&self, event: &ActivityLogged) -> Result<(), String> {
        let payload = codec::encode(self.schema_id, event).map_err(|error| error.to_string())?;
        let key = event.key();
        let message =
            Message { topic: &self.topic, key: Some(key.as_bytes()), payload: Some(&payload), headers: &[] };
        // Nobody waits for this acknowledgement.
        let ack = Ack::Waiter(oneshot::channel().0);
        self.outbound.send(&message, ack).map_err(|_| "the producer did not take it".to_owned())
    }
}

#[cfg(test)]
mod tests;
