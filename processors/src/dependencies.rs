//! What the stages of one process share, and how each stage is made of it: the wiring behind the table of [`pipeline`](crate::pipeline).
//! A stage knows nothing of this module; its constructor names what it needs.

use std::sync::Arc;

use chain::Observer;
use object_store::ObjectStore;
use providers::vault::Keys;
use reading::{Reader, ReaderError};
use runtime::{Clock, Engine, EngineError};
use sqlx::PgPool;
use tokio::sync::OnceCell;

use crate::chain_submission::{ChainSubmission, PayoutConfig};
use crate::fraud_check::FraudCheck;
use crate::fraud_check::rules::Rules;
use crate::limit_check::LimitCheck;
use crate::models::{self, AnnounceError};
use crate::odometer_reading::{Answers, OdometerReading, PostgresAnswers};
use crate::photos::{PhotoContext, Photos};
use crate::quality_check::QualityCheck;
use crate::reward_calculation::RewardCalculation;
use crate::reward_rules::RuleSource;
use crate::workers::Workers;

/// Why a stage could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No row of the table has this name.
    #[error("there is no stage {0}: see `processors::pipeline::STAGES`")]
    UnknownStage(String),
    /// The embedded models do not load.
    #[error("the reader")]
    Reader(#[from] ReaderError),
    /// Paying is not configured.
    #[error(
        "chain.genesis_id is empty: name the network to pay on, or run the stages without chain_submission"
    )]
    NoNetwork,
    /// The engine ended before it was asked to.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<AnnounceError> for RunError {
    fn from(error: AnnounceError) -> Self {
        match error {
            AnnounceError::Reader(error) => Self::Reader(error),
            AnnounceError::Engine(error) => Self::Engine(error),
        }
    }
}

/// What every stage of this process shares.
#[derive(Clone)]
pub struct Dependencies {
    /// The stages' database.
    pub pool: PgPool,
    /// Stamps what is made.
    pub clock: Arc<dyn Clock>,
    photos: Photos,
    workers: Workers,
    payouts: Option<PayoutConfig>,
    observer: Option<Observer>,
    service_keys: Keys,
    compares_photos: bool,
    rules: Arc<RuleSource>,
    reader: Arc<OnceCell<Arc<Reader>>>,
}

impl Dependencies {
    /// On this database, photo store and clock.
    #[must_use]
    pub fn new(pool: PgPool, store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Self {
        Self {
            pool,
            clock,
            photos: Photos::new(store),
            workers: Workers::default(),
            payouts: None,
            observer: None,
            service_keys: Keys::default(),
            compares_photos: true,
            rules: Arc::default(),
            reader: Arc::default(),
        }
    }

    /// The same with what paying needs; without it `chain_submission` does not start.
    #[must_use]
    pub fn with_payouts(self, payouts: PayoutConfig) -> Self {
        Self { payouts: Some(payouts), ..self }
    }

    /// The same, whose requests to nodes are told of.
    #[must_use]
    pub fn observing_nodes(self, observer: Observer) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// The same with the keys that open those of reading services; without them the services are left out.
    #[must_use]
    pub fn with_service_keys(self, service_keys: Keys) -> Self {
        Self { service_keys, ..self }
    }

    /// The same, whose photos are compared with those of other vehicles or are not.
    #[must_use]
    pub fn comparing_photos(self, compares_photos: bool) -> Self {
        Self { compares_photos, ..self }
    }

    /// The same by the rules of rewards of this source; without it by the first ones alone.
    #[must_use]
    pub fn with_rules(self, rules: RuleSource) -> Self {
        Self { rules: Arc::new(rules), ..self }
    }

    /// `quality_check`.
    #[must_use]
    pub fn quality_check(&self) -> QualityCheck {
        QualityCheck::new(self.photo_context())
    }

    /// `odometer_reading`, which keeps its answers in Postgres.
    ///
    /// # Errors
    /// [`ReaderError`] when the embedded models do not load.
    pub async fn odometer_reading(&self) -> Result<OdometerReading<PostgresAnswers>, ReaderError> {
        self.odometer_reading_with(PostgresAnswers::new(self.pool.clone())).await
    }

    /// `odometer_reading`, which keeps its answers in `answers`.
    ///
    /// # Errors
    /// [`ReaderError`] when the embedded models do not load.
    pub async fn odometer_reading_with<A: Answers>(
        &self,
        answers: A,
    ) -> Result<OdometerReading<A>, ReaderError> {
        let reader = self.reader().await?;
        let stage = OdometerReading::new(self.photo_context(), reader, self.service_keys.clone(), answers);
        Ok(stage.comparing(self.compares_photos))
    }

    /// Publishes which models read photos: what `odometer_reading` does before its first record.
    ///
    /// # Errors
    /// [`AnnounceError`].
    pub async fn announce_models(&self, engine: &Engine) -> Result<(), AnnounceError> {
        models::announce(engine, &self.pool, self.clock.as_ref()).await
    }

    /// `fraud_check`.
    #[must_use]
    pub fn fraud_check(&self) -> FraudCheck {
        FraudCheck::new(Rules::current(), self.clock.clone())
    }

    /// `reward_calculation`.
    #[must_use]
    pub fn reward_calculation(&self) -> RewardCalculation {
        RewardCalculation::new(self.clock.clone(), self.rules.clone())
    }

    /// `limit_check`.
    #[must_use]
    pub fn limit_check(&self) -> LimitCheck {
        LimitCheck::new(self.clock.clone(), self.rules.clone())
    }

    /// `chain_submission`.
    ///
    /// # Errors
    /// [`RunError::NoNetwork`] where paying is not configured.
    pub fn chain_submission(&self) -> Result<ChainSubmission, RunError> {
        let config = self.payouts.clone().ok_or(RunError::NoNetwork)?;
        let observer = self.observer.clone();
        Ok(ChainSubmission { config, pool: self.pool.clone(), clock: self.clock.clone(), observer })
    }

    fn photo_context(&self) -> PhotoContext {
        PhotoContext {
            photos: self.photos.clone(),
            workers: self.workers.clone(),
            clock: self.clock.clone(),
            rules_version: Rules::current().version,
        }
    }

    /// The embedded reader, loaded when a stage first asks for it: a process that reads nothing does not pay for it.
    async fn reader(&self) -> Result<Arc<Reader>, ReaderError> {
        // At start, before any record: loading may hold this thread for its fraction of a second.
        self.reader.get_or_try_init(|| async { Reader::embedded().map(Arc::new) }).await.cloned()
    }
}
