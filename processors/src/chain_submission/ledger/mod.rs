//! What is known of payouts and their transactions: rows, what changes them, and what is published of each change.

pub mod amounts;
pub mod change;
pub mod documents;
pub mod machine;
pub mod outbox;
pub mod publish;
pub mod rows;
pub mod snapshot;
pub mod transition;
