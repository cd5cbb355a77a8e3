//! The engine: consume → process → produce → ledger → commit, with dead letters, retry, metrics and lifecycle.
//!
//! Knows Kafka and the fence in Postgres; knows nothing of odometers. A stage is a [`Processor`] (pure), a [`Decider`]
//! (commits a transaction per batch) or a [`Sink`] (writes a batch somewhere); everything else is here.

pub mod backoff;
pub mod by_key;
pub mod clock;
pub mod connections;
pub mod consumer;
mod consumer_watch;
pub mod dead_letter;
pub mod deciding;
pub mod engine;
pub mod failpoint;
pub mod fence;
pub mod health;
pub mod journal;
mod lanes;
pub mod ledger;
pub mod letters;
pub mod lookup;
pub mod metrics;
pub mod offsets;
pub mod one_time;
pub mod ops;
mod outbound;
pub mod outbox;
mod partition_queue;
pub mod planner;
mod polled;
mod probe;
pub mod producer;
pub mod prune;
pub mod publish;
pub mod pure;
mod pure_by_key;
pub mod refold;
pub mod registry;
pub mod replay;
pub mod retry;
pub mod settings;
pub mod shadow;
pub mod signature;
pub mod sinking;
pub mod skips;
pub mod snapshot;
pub mod source;
pub mod stage;
pub mod stored;
pub mod switches;
pub mod timers;
pub mod topics;
mod watchdog;
pub mod window;
pub mod worker;

#[cfg(test)]
mod by_key_tests;
#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod publish_tests;
#[cfg(test)]
mod retry_tests;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use clock::{Clock, ManualClock, SystemClock};
pub use engine::{Engine, EngineConfig, EngineError};
pub use publish::{Delivered, PublishError};
pub use stage::{
    Decided, Decider, Decision, Envelope, FromRecord, Position, Processor, Sink, SinkError, StageError,
    Verdict,
};
