//! The gateway, put together once from its dependencies: what each handler works with is made here, and handed out to them by type.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::health::Health;
use runtime::journal::Journal;
use runtime::producer::Outbound;
use runtime::timers::Ran;
use schemas::events::{Event as _, UploadReceived};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::activity::ActivityLog;
use crate::auth::admission::Admission;
use crate::auth::keys::{KeySet, TokenSigner};
use crate::auth::rate::Limiter;
use crate::auth::standing::Accounts;
use crate::chain::events::ChainIntake;
use crate::claims::Claims;
use crate::config::{GatewayConfig, Limits};
use crate::export::{Exports, PersonLogs};
use crate::http::places::{Memory, Places};
use crate::http::problem::ApiError;
use crate::http::request::Provide;
use crate::http::shares::Shares;
use crate::live::LiveSettings;
use crate::login::contract::ContractWallets;
use crate::login::development::allowed_on;
use crate::login::look::looks;
use crate::login::plain::plains;
use crate::login::{Network, SignIn, domains};
use crate::me::Account;
use crate::metrics::GatewayMetrics;
use crate::queries::live::Streams;
use crate::reviews::Desk;
use crate::schema_ids::SchemaIds;
use crate::uploads::check::PhotoCheck;
use crate::uploads::origin::Origins;
use crate::uploads::post::Uploads;
use crate::uploads::publish::{Publisher, marks};
use crate::uploads::reserve::Reservations;
use crate::uploads::store::PhotoStore;
use crate::uploads::sweep::Sweeper;

/// What the gateway depends on.
pub struct Dependencies {
    /// Postgres.
    pub pool: PgPool,
    /// Kafka; its delivery timeout should not be above [`crate::config::Timeouts::publish`].
    pub outbound: Arc<dyn Outbound>,
    /// Where photos are kept.
    pub photos: PhotoStore,
    /// The check of a photo's bytes.
    pub check: Arc<dyn PhotoCheck>,
    /// Public keys of tokens.
    pub keys: KeySet,
    /// Signs the tokens of those who sign in; nobody does where it has no key.
    pub signer: TokenSigner,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: GatewayMetrics,
    /// Liveness and readiness.
    pub health: Health,
    /// Registry ids of what the gateway writes.
    pub schemas: SchemaIds,
}

/// The gateway; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) config: Arc<GatewayConfig>,
    pub(crate) health: Health,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) log: Arc<ActivityLog>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) live: Arc<LiveSettings>,
    pool: PgPool,
    admission: Arc<Admission>,
    uploads: Arc<Uploads>,
    claims: Arc<Claims>,
    desk: Arc<Desk>,
    photos: PhotoStore,
    intake: Arc<ChainIntake>,
    sign_in: Arc<SignIn>,
    account: Arc<Account>,
    exports: Arc<Exports>,
    keys: KeySet,
}

impl Gateway {
    /// Puts it together.
    #[must_use]
    pub fn new(config: GatewayConfig, dependencies: Dependencies) -> Self {
        let (limits, timeouts) = (config.limits, config.timeouts);
        let log = Arc::new(activity_log(&config, &dependencies));
        let publisher = Arc::new(publisher(&config, &dependencies, log.clone()));
        let live = Arc::new(LiveSettings::new(dependencies.pool.clone(), config.rates));
        let uploads = Arc::new(uploads(&config, &dependencies, publisher.clone(), live.clone()));
        let intake = Arc::new(chain_intake(&config, &dependencies));
        let admission = Arc::new(admission(&config, &dependencies, live.clone()));
        let sign_in = Arc::new(sign_in(&config, &dependencies, log.clone(), admission.clone()));
        let Dependencies { pool, photos, keys, clock, metrics, health, schemas, .. } = dependencies;
        Self {
            sweeper: Arc::new(Sweeper {
                publisher,
                photos: photos.clone(),
                timeouts,
                metrics: metrics.clone(),
                health: health.clone(),
            }),
            streams: Arc::new(Streams {
                pool: pool.clone(),
                places: Places::new(limits.streams, timeouts.place),
                each: Shares::new(limits.streams_per_user as u64),
                timeouts,
                follow_rewards: config.follow_rewards,
                live: live.clone(),
                stop: CancellationToken::new(),
            }),
            claims: Arc::new(Claims {
                pool: pool.clone(),
                clock: clock.clone(),
                schema_id: schemas.reward_claimed,
            }),
            desk: Arc::new(Desk {
                pool: pool.clone(),
                clock: clock.clone(),
                schema_id: schemas.odometer_read,
                rules: config.reviews,
            }),
            exports: Arc::new(Exports { places: Places::new(limits.exports, timeouts.place), logs: None }),
            account: Arc::new(Account {
                pool: pool.clone(),
                clock: clock.clone(),
                live: live.clone(),
                erasure_grace: config.erasure_grace,
                wallet_cooling: config.wallet_cooling,
            }),
            photos,
            admission,
            live,
            config: Arc::new(config),
            health,
            metrics,
            log,
            pool,
            uploads,
            intake,
            sign_in,
            keys,
        }
    }

    /// The same, whose exports hold log documents too.
    #[must_use]
    pub fn with_logs(mut self, logs: Arc<dyn PersonLogs>) -> Self {
        self.exports = Arc::new(Exports { places: self.exports.places.clone(), logs: Some(logs) });
        self
    }

    /// Publishes all reservations older than `grace` that a crash or a silent Kafka left behind, the oldest first. One gateway at a time,
    /// under an advisory lock: none where another is at it. `grace` must not be below the publish timeout, or requests are overtaken.
    ///
    /// # Errors
    /// [`ApiError`] of the first that Kafka does not acknowledge; the rest waits for the next round.
    pub async fn republish_reserved(&self, grace: Duration) -> Result<Option<Ran>, ApiError> {
        self.sweeper.publisher.republish_reserved(grace).await
    }
}

fn admission(config: &GatewayConfig, dependencies: &Dependencies, live: Arc<LiveSettings>) -> Admission {
    Admission {
        pool: dependencies.pool.clone(),
        accounts: Accounts::new(dependencies.pool.clone()),
        keys: dependencies.keys.clone(),
        clock: dependencies.clock.clone(),
        limiter: Limiter::default(),
        live,
        trusted_proxies: config.trusted_proxies.clone(),
    }
}

fn activity_log(config: &GatewayConfig, dependencies: &Dependencies) -> ActivityLog {
    let Dependencies { outbound, clock, schemas, pool, .. } = dependencies;
    let (prefix, schema) = (&config.topic_prefix, schemas.activity_logged);
    let journal = Journal::new("ingest", outbound.clone(), clock.clone(), prefix, schema);
    ActivityLog::new(journal.with_pool(pool.clone()), clock.clone())
}

fn publisher(config: &GatewayConfig, dependencies: &Dependencies, log: Arc<ActivityLog>) -> Publisher {
    Publisher {
        marks: marks(&dependencies.pool, dependencies.clock.clone()),
        pool: dependencies.pool.clone(),
        outbound: dependencies.outbound.clone(),
        clock: dependencies.clock.clone(),
        log,
        topic: format!("{}{}", config.topic_prefix, UploadReceived::TOPIC.name()),
        timeout: config.timeouts.publish,
        failed: AtomicBool::new(false),
    }
}

fn uploads(
    config: &GatewayConfig,
    dependencies: &Dependencies,
    publisher: Arc<Publisher>,
    live: Arc<LiveSettings>,
) -> Uploads {
    let reservations = Reservations::new(
        dependencies.pool.clone(),
        dependencies.clock.clone(),
        dependencies.schemas.upload_received,
        config.rules_version.clone(),
    );
    Uploads {
        photos: dependencies.photos.clone(),
        check: dependencies.check.clone(),
        origins: Origins::new(dependencies.pool.clone(), dependencies.signer.clone()),
        reservations,
        publisher,
        live,
        limits: config.limits,
        memory: Memory::new(config.limits.upload_memory_bytes, config.timeouts.place),
        memory_each: Shares::new(memory_per_user(&config.limits)),
        base_url: config.base_url.clone(),
        vehicles_must_be_registered: config.vehicles_must_be_registered,
    }
}

/// A user's share, and at least the longest photo, or nobody could send one.
fn memory_per_user(limits: &Limits) -> u64 {
    let share = limits.upload_memory_bytes / 100 * limits.upload_memory_percent_per_user;
    share.max(limits.photo_bytes + limits.form_overhead_bytes)
}

fn chain_intake(config: &GatewayConfig, dependencies: &Dependencies) -> ChainIntake {
    ChainIntake {
        pool: dependencies.pool.clone(),
        clock: dependencies.clock.clone(),
        metrics: dependencies.metrics.clone(),
        schemas: dependencies.schemas,
        access: config.chain.clone(),
        limits: config.limits,
        timeouts: config.timeouts,
        signed: Places::new(config.limits.batches, config.timeouts.place),
        unsigned: Places::new(config.limits.batches, config.timeouts.place),
    }
}

fn sign_in(
    config: &GatewayConfig,
    dependencies: &Dependencies,
    log: Arc<ActivityLog>,
    admission: Arc<Admission>,
) -> SignIn {
    let network = config.chain.as_ref().and_then(|chain| Network::of(&chain.genesis_id));
    SignIn {
        pool: dependencies.pool.clone(),
        clock: dependencies.clock.clone(),
        schemas: dependencies.schemas,
        log,
        signer: dependencies.signer.clone(),
        looks: looks(&dependencies.pool),
        plains: plains(&dependencies.pool),
        admission,
        contracts: config.contract_wallets.clone().map(ContractWallets::new),
        domains: domains(&config.base_url, &config.cors_origins),
        development_wallets: allowed_on(network.as_ref(), config.development_wallets.clone()),
        network,
    }
}

macro_rules! provides {
    ($($type:ty: $field:ident;)*) => {
        $(impl Provide<$type> for Gateway {
            fn provide(&self) -> $type {
                self.$field.clone()
            }
        })*
    };
}
provides! {
    PgPool: pool;
    Health: health;
    Arc<GatewayConfig>: config;
    Arc<Admission>: admission;
    Arc<Uploads>: uploads;
    Arc<Streams>: streams;
    Arc<Claims>: claims;
    Arc<Desk>: desk;
    PhotoStore: photos;
    Arc<ChainIntake>: intake;
    Arc<SignIn>: sign_in;
    Arc<Account>: account;
    Arc<Exports>: exports;
    KeySet: keys;
}
