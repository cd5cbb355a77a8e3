//! `chain_submission`: pays granted rewards on VeChain and follows each payment until it is final.
//!
//! Two halves that share nothing but the [ledger]'s tables. [consume] takes grants, claims, corrections and blocks and moves rows by
//! the functions of [`ledger::transition`]; [submit] plans, signs and posts under a lease. What makes a reward paid at most once:
//!
//! 1. A reward is in at most one live transaction: a unique index.
//! 2. A transaction's id is stored before it is signed, its bytes before they are posted, and only stored bytes are posted.
//! 3. Whatever a node responds, the same bytes are posted again until the chain shows them in a block. No other transaction takes
//!    the place of one that was signed, unless two nodes (or the only one) prove it dead or reverted on their final chains.
//! 4. Before anything is planned or signed, the chain's own logs are asked what was paid: a database that lost commits takes it back
//!    into its books. Each signature is made known outside of the database before it is stored.
//! 5. A payment counts as made by the blocks of `chain.events` alone, and an undone block takes that back.

pub mod adjust;
pub mod blocks;
pub mod consume;
pub mod corrected;
pub mod expire;
pub mod ledger;
pub mod metrics;
pub mod network;
pub mod operate;
pub mod payments;
pub mod rebuild;
pub mod reconcile;
pub mod signers;
pub mod submit;

pub use self::submit::obstacle;

use std::sync::Arc;
use std::time::Duration;

use chain::signing::SignerLimits;
use chain::{BlockId, Observer, TransactionSigner};
use runtime::{Clock, Engine, EngineError, snapshot};
use schemas::events::{ActivityLogged, PaymentsAudited, PayoutUpdated, RewardCancelled, SignatureAnnounced};
use schemas::topic::Topic;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use self::consume::PayoutConsumer;
use self::ledger::outbox::Schemas;
use self::metrics::PayoutMetrics;
use self::signers::KeySource;
use self::submit::guard::{GuardTopic, SEND};
use self::submit::obstacle::Obstacle;
use self::submit::policy::Policy;
use self::submit::terms::Terms;
use self::submit::{Settings, Submitter};

/// Pause between two attempts to open the signers.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// What paying needs to know.
#[derive(Clone, Debug)]
pub struct PayoutConfig {
    /// The network that is paid on.
    pub genesis: BlockId,
    /// The distributor's key.
    pub signer: KeySource,
    /// Whose VTHO pays, where it is not the distributor's.
    pub gas_payer: Option<KeySource>,
    /// Bounds of asking a signer that is not in this process.
    pub limits: SignerLimits,
    /// What may be signed.
    pub policy: Policy,
    /// Rewards of one transaction at most.
    pub batch_rewards: usize,
    /// How long a reward waits for company.
    pub batch_wait: Duration,
    /// How transactions are made.
    pub terms: Terms,
    /// Where the pages are that show what was paid for, without a slash at the end.
    pub proofs: Option<String>,
    /// Who this process is, for operators.
    pub owner: String,
}

/// Pays and follows.
pub struct ChainSubmission {
    /// How rewards are paid.
    pub config: PayoutConfig,
    /// The stage's database.
    pub pool: PgPool,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Is told of each request to a node.
    pub observer: Option<Observer>,
}

impl ChainSubmission {
    /// Runs both halves until the engine is stopped.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn run(self, engine: &Engine) -> Result<(), EngineError> {
        let Self { config, pool, clock, observer } = self;
        let metrics = PayoutMetrics::register(&engine.metrics.exporter)?;
        let schemas = Schemas {
            payout_updated: engine.schema_id::<PayoutUpdated>().await?,
            activity_logged: engine.schema_id::<ActivityLogged>().await?,
            reward_cancelled: engine.schema_id::<RewardCancelled>().await?,
        };
        let guard = guard(engine).await?;
        let consumer = PayoutConsumer {
            pool: pool.clone(),
            schemas,
            genesis_id: config.genesis.to_string(),
            gas_ceiling: i64::try_from(config.terms.gas_ceiling).unwrap_or(i64::MAX),
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        // The loop ends with the consumer, whatever ended that.
        let stop = engine.stopping().child_token();
        let submitting = async {
            let Some((signer, gas_payer)) = open(&config, (&metrics, &clock), &stop).await else { return };
            let submitter = Submitter {
                pool: pool.clone(),
                settings: Settings {
                    genesis: config.genesis,
                    batch_rewards: config.batch_rewards,
                    batch_wait: config.batch_wait,
                    terms: config.terms,
                    policy: config.policy.clone(),
                    proofs: config.proofs.clone(),
                    owner: config.owner.clone(),
                },
                signer,
                gas_payer,
                guard: guard.clone(),
                schemas,
                clock: clock.clone(),
                metrics: metrics.clone(),
                observer: observer.clone(),
            };
            submitter.run(stop.clone()).await;
        };
        let consuming = async {
            let consumed = engine.run_sink(consumer).await;
            stop.cancel();
            consumed
        };
        let (consumed, ()) = tokio::join!(consuming, submitting);
        consumed
    }
}

/// Where what must outlive the database is kept.
async fn guard(engine: &Engine) -> Result<GuardTopic, EngineError> {
    let kafka = engine.kafka().clone();
    Ok(GuardTopic {
        outbound: Arc::new(engine.producer("payouts_guard", SEND)?),
        read: Arc::new(move |topic| snapshot::read(&kafka, topic)),
        schemas: engine.schema_source(),
        topic: format!("{}{}", engine.prefix(), Topic::PayoutsGuard.name()),
        signature_announced: engine.schema_id::<SignatureAnnounced>().await?,
        payments_audited: engine.schema_id::<PaymentsAudited>().await?,
    })
}

/// Who signs, and who pays the gas where it is somebody else.
type Signers = (Arc<dyn TransactionSigner>, Option<Arc<dyn TransactionSigner>>);

/// Opens the signers, again and again until they open: payments that were sent are followed meanwhile. None when stopped.
async fn open(
    config: &PayoutConfig,
    (metrics, clock): (&PayoutMetrics, &Arc<dyn Clock>),
    stop: &CancellationToken,
) -> Option<Signers> {
    let mut said: Option<&'static str> = None;
    loop {
        let opened = opened(config, clock).await;
        let label = opened.as_ref().err().map(Obstacle::label);
        if let Some(said) = said.filter(|said| Some(*said) != label) {
            metrics.payout_obstacle.with_label_values(&[said]).set(0);
        }
        said = label;
        match opened {
            Ok(signers) => return Some(signers),
            Err(obstacle) => {
                metrics.payout_obstacle.with_label_values(&[obstacle.label()]).set(1);
                tracing::error!(cause = obstacle.label(), error = %obstacle, "nothing is signed");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(OPEN_AGAIN) => {}
        }
    }
}

async fn opened(config: &PayoutConfig, clock: &Arc<dyn Clock>) -> Result<Signers, Obstacle> {
    let signer = config.signer.open("the signer", config.limits, clock).await?;
    let gas_payer = match &config.gas_payer {
        Some(payer) => Some(payer.open("the gas payer", config.limits, clock).await?),
        None => None,
    };
    tracing::info!(?signer, ?gas_payer, "signers are open");
    Ok((signer, gas_payer))
}
