//! What is on the wire, and nothing else: topics, typed events with their Avro schemas, ids, the closed set of
//! reasons, and the documents of the log collections. Knows no Kafka client, no database and no clock.

mod abandoned;
mod accounts;
mod activity;
mod attempts;
pub mod cipher;
pub mod codec;
mod corrections;
pub mod events;
mod guard;
mod header;
pub mod ids;
pub mod impact;
pub mod logs;
mod models;
pub mod payouts;
pub mod reason;
mod rewards;
pub mod sealed;
mod shared;
pub mod show;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod topic;
mod uploads;
