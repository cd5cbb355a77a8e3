//! Calls to services outside: `integration_logs`. Those that failed or were to change something, and of the others one in a hundred.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemas::ids::Micros;
use serde_json::Value;

use super::budget::{Budget, Granted};

/// One in so many reads of a service is recorded (data map's lineage: `integration_logs`).
const ONE_IN: u32 = 100;
/// Documents of a service in a minute: 50 a second, the lineage's bound of a process and kind.
const PER_MINUTE: u32 = 3_000;

/// A call to a service outside that has ended.
#[derive(Clone, Debug)]
pub struct Outside<'a> {
    /// `integration_logs.integration_type`.
    pub kind: Integration,
    /// The service: of a closed set, without credentials.
    pub service: Cow<'a, str>,
    /// `{method, url, bytes, summary}`, without a query.
    pub request: Value,
    /// `{status, bytes}`; `{}` where there was no response.
    pub response: Value,
    /// How long it took.
    pub took: Duration,
    /// Why it failed; none where it did not.
    pub error: Option<String>,
    /// Whether it was to change something there.
    pub changes: bool,
}

/// What kind of service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integration {
    /// A node of the chain.
    Blockchain,
    /// Any other.
    ExternalApi,
}

impl Integration {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Blockchain => "blockchain",
            Self::ExternalApi => "external_api",
        }
    }
}

/// Counts calls by service.
#[derive(Debug)]
pub(super) struct Outsides {
    /// Reads since the one that was recorded last.
    reads: Mutex<HashMap<String, u32>>,
    noteworthy: Budget<String>,
}

impl Default for Outsides {
    fn default() -> Self {
        Self { reads: Mutex::default(), noteworthy: Budget::of(PER_MINUTE) }
    }
}

impl Outsides {
    /// Whether a call is recorded. The first read of a service is.
    pub(super) fn sampled(&self, call: &Outside<'_>, now: Micros) -> bool {
        if call.changes || call.error.is_some() {
            return self.noteworthy.take(call.service.to_string(), now) != Granted::No;
        }
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(passed) = reads.get_mut(call.service.as_ref()) else {
            reads.insert(call.service.to_string(), 0);
            return true;
        };
        *passed = (*passed + 1) % ONE_IN;
        *passed == 0
    }
}
