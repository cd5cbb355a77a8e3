//! What the stages are made of.

use std::sync::Arc;

use object_store::ObjectStore;
use providers::vault::Keys;
use reading::{Reader, ReaderError};
use runtime::Clock;
use sqlx::PgPool;
use tokio::sync::OnceCell;

use crate::chain_submission::PayoutConfig;
use crate::fraud_check::rules::Rules;
use crate::odometer_reading::PostgresAnswers;
use crate::photos::Photos;
use crate::workers::Workers;

/// The embedded reader's name in `ai_service_configs`.
pub const SERVICE: &str = "Milestream Embedded";

/// What every stage of this process shares.
#[derive(Clone)]
pub struct Parts {
    pub(crate) pool: PgPool,
    pub(crate) photos: Photos,
    pub(crate) workers: Workers,
    pub(crate) rules: Rules,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) payouts: Option<PayoutConfig>,
    pub(crate) service_keys: Keys,
    reader: Arc<OnceCell<Arc<Reader>>>,
}

impl Parts {
    /// Parts on this database, photo store and clock, with the rules of this release.
    #[must_use]
    pub fn new(pool: PgPool, store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Self {
        Self {
            pool,
            photos: Photos::new(store),
            workers: Workers::default(),
            rules: Rules::current(),
            clock,
            payouts: None,
            service_keys: Keys::default(),
            reader: Arc::default(),
        }
    }

    /// The same parts with what paying needs; without it `chain_submission` does not start.
    #[must_use]
    pub fn with_payouts(self, payouts: PayoutConfig) -> Self {
        Self { payouts: Some(payouts), ..self }
    }

    /// The same parts with the keys that open those of reading services; without them the services are left out.
    #[must_use]
    pub fn with_service_keys(self, service_keys: Keys) -> Self {
        Self { service_keys, ..self }
    }

    /// Where answers of the reader are kept.
    #[must_use]
    pub fn answers(&self) -> PostgresAnswers {
        PostgresAnswers::new(self.pool.clone())
    }

    /// The embedded reader, loaded when a stage first asks for it: a process that reads nothing does not pay for it.
    ///
    /// # Errors
    /// [`ReaderError`] when the embedded models do not load.
    pub async fn reader(&self) -> Result<Arc<Reader>, ReaderError> {
        // At start, before any record: loading may hold this thread for its fraction of a second.
        self.reader.get_or_try_init(|| async { Reader::embedded().map(Arc::new) }).await.cloned()
    }
}
