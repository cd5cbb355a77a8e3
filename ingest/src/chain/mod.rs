//! What the watcher of a chain reports: signed batches of steps.

pub(crate) mod batch;
pub(crate) mod events;
