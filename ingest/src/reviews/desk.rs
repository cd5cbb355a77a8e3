//! What the routes of reviews work with.

use std::sync::Arc;

use runtime::clock::Clock;
use sqlx::PgPool;

use crate::config::ReviewRules;

/// Made once by the gateway.
pub(crate) struct Desk {
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    /// The registry's id of `OdometerRead`.
    pub(crate) schema_id: u32,
    pub(crate) rules: ReviewRules,
}
