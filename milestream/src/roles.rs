//! Runs roles until SIGTERM or Ctrl-C: dependencies made once, one named task per role, the end of one ends the process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chain::Observer;
use chain::node::{Limits, Node};
use ingest::config::{DevelopmentWallet, GatewayConfig};
use ingest::metrics::GatewayMetrics;
use ingest::{Dependencies, Gateway, HeaderCheck, LiveError, TokenSigner};
use processors::chain_submission::network;
use processors::pipeline::{Kind, STAGES};
use processors::reward_rules::RuleSource;
use runtime::clock::{Clock, SystemClock};
use runtime::fence::Guards;
use runtime::metrics::Metrics;
use runtime::retry::RetryLimit;
use runtime::settings::SettingError;
use runtime::skips::Skips;
use runtime::{Engine, EngineConfig};
use schemas::events::ActivityLogged;
use secrecy::ExposeSecret as _;
use sinks::analytics::AnalyticsSink;
use sinks::notices::{Deliverer, NoticeMetrics};
use sinks::postgres::{PostgresConfig, PostgresStartError};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::commands::topics;
use crate::config::Config;
use crate::{calls, database, key_files, payments, schema_ids, stores, timers};

/// The sinks by name.
pub const SINKS: [&str; 4] = ["postgres", "mongo", "analytics", "notices"];
/// Longest wait of a client for Kafka's acknowledgement; afterwards 503, and the reserved photo is published later.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest photos that a gateway holds in memory at once, where nothing is set.
const PHOTOS_IN_MEMORY: u64 = 16;
/// Bounds of a call about a wallet that is a contract: somebody waits for it, and the response is a word.
const CONTRACT_LIMITS: Limits =
    Limits { connect: Duration::from_secs(1), call: Duration::from_secs(3), body: 64 * 1024 };
/// Pause between two attempts to start a role whose database does not respond yet.
const START_AGAIN: Duration = Duration::from_secs(2);

/// Which roles this process has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Roles {
    gateway: bool,
    stages: Vec<&'static str>,
    sinks: Vec<&'static str>,
    watcher: bool,
    timers: bool,
}

impl Roles {
    /// The gateway.
    pub fn gateway() -> Self {
        Self { gateway: true, ..Self::default() }
    }

    /// Stages by name.
    ///
    /// # Errors
    /// For a name that is not in the pipeline.
    pub fn stages(names: &[String]) -> Result<Self> {
        let known: Vec<&'static str> = STAGES.iter().map(|row| row.name).collect();
        Ok(Self { stages: pick(&known, names, "stage")?, ..Self::default() })
    }

    /// Sinks by name.
    ///
    /// # Errors
    /// For a name that is none.
    pub fn sinks(names: &[String]) -> Result<Self> {
        Ok(Self { sinks: pick(&SINKS, names, "sink")?, ..Self::default() })
    }

    /// The watcher of the chain.
    pub fn watcher() -> Self {
        Self { watcher: true, ..Self::default() }
    }

    /// What is due at a time.
    pub fn timers() -> Self {
        Self { timers: true, ..Self::default() }
    }

    /// Every role; without a network nothing is paid and no chain is watched.
    pub fn all(pays: bool) -> Self {
        let stages = STAGES.iter().filter(|row| pays || row.kind != Kind::Paying).map(|row| row.name);
        Self { gateway: true, stages: stages.collect(), sinks: SINKS.to_vec(), watcher: pays, timers: true }
    }

    fn pays(&self) -> bool {
        STAGES.iter().any(|row| row.kind == Kind::Paying && self.stages.contains(&row.name))
    }

    /// The components that take work from the start on. A stage that pays may stand by for as long as another one has the signer's lease.
    fn components(&self) -> impl Iterator<Item = &'static str> {
        let pays = |name: &str| STAGES.iter().any(|row| row.kind == Kind::Paying && row.name == name);
        let stages = self.stages.iter().copied().filter(move |name| !pays(name));
        self.gateway.then_some("ingest").into_iter().chain(stages).chain(self.sinks.iter().copied())
    }
}

fn pick(known: &[&'static str], names: &[String], what: &str) -> Result<Vec<&'static str>> {
    let pick = |name: &String| {
        let found = known.iter().find(|known| *known == name).copied();
        found.with_context(|| format!("there is no {what} {name:?}: choose one of {}", known.join(", ")))
    };
    names.iter().map(pick).collect()
}

/// Runs the roles until asked to stop.
///
/// # Errors
/// When a role cannot start, or ends by itself.
pub async fn run(config: &Config, roles: Roles) -> Result<()> {
    let stop = CancellationToken::new();
    let engine = engine(config, stop.clone())?;
    let mut tasks = JoinSet::new();
    // Before anybody can ask: a gateway whose relay already runs does not listen yet.
    roles.components().for_each(|name| engine.health.expect(name));
    serve_ops(config, &engine, stop.clone(), &mut tasks).await?;
    // A wrong partition count ends the process.
    patiently("kafka", &stop, topics::is_retryable, || topics::check(config)).await?;
    let pool = database::pool(config)?;
    if let Some(genesis) = payments::genesis(config)?.filter(|_| roles.pays() || roles.watcher) {
        // Another network than that of the payouts ends the process.
        let retryable = |error: &SettingError| matches!(error, SettingError::Database(_));
        patiently("postgres", &stop, retryable, || network::choose(&pool, genesis)).await?;
    }
    let journal = Arc::new(engine.journal("process").await?);
    journal.tell_of_panics();
    let observer = calls::of_nodes(journal);
    if roles.gateway || roles.pays() || roles.timers || roles.sinks.contains(&"notices") {
        // The outbox belongs to those who fill it; several relays take turns.
        let (engine, pool) = (engine.clone(), pool.clone());
        tasks.spawn(async move {
            ("outbox", runtime::outbox::run(&engine, pool, DELIVERY_TIMEOUT).await.map_err(Into::into))
        });
    }
    if roles.gateway {
        let (config, engine, pool, stop) = (config.clone(), engine.clone(), pool.clone(), stop.clone());
        let observer = observer.clone();
        tasks.spawn(async move { ("ingest", run_gateway(&config, &engine, (pool, observer), stop).await) });
    }
    if !roles.stages.is_empty() {
        let photos = stores::photos(config)?.object_store();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut dependencies = processors::dependencies::Dependencies::new(pool.clone(), photos, clock)
            .with_service_keys(config.service_keys())
            .comparing_photos(config.photos.compare)
            .observing_nodes(observer.clone())
            .with_rules(RuleSource::tables(pool.clone()));
        if let Some(payouts) = payments::config(config)? {
            dependencies = dependencies.with_payouts(payouts);
        }
        for stage in roles.stages {
            let (engine, dependencies) = (engine.clone(), dependencies.clone());
            tasks.spawn(async move {
                (stage, processors::pipeline::run(stage, &engine, &dependencies).await.map_err(Into::into))
            });
        }
    }
    for sink in roles.sinks {
        let (config, engine, pool, stop) = (config.clone(), engine.clone(), pool.clone(), stop.clone());
        tasks.spawn(async move { (sink, run_sink(sink, &config, &engine, pool, stop).await) });
    }
    if roles.watcher {
        let (config, engine, pool, stop) = (config.clone(), engine.clone(), pool.clone(), stop.clone());
        tasks
            .spawn(async move { ("watch", payments::watch(&config, &engine, (pool, observer), stop).await) });
    }
    if roles.timers {
        let (config, engine, pool, stop) = (config.clone(), engine.clone(), pool.clone(), stop.clone());
        tasks.spawn(async move { ("timers", timers::run(&config, &engine, pool, stop).await) });
    }
    supervise(engine, stop, tasks).await
}

/// Waits for a signal or for the first task that ends by itself; then everything ends in order.
async fn supervise(
    engine: Engine,
    stop: CancellationToken,
    mut tasks: JoinSet<(&'static str, Result<()>)>,
) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut outcome = Ok(());
    let first = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = tasks.join_next() => ended,
    };
    let asked = first.is_none();
    tracing::info!(asked, "stopping: readiness falls, records in flight are drained");
    engine.health.stop();
    stop.cancel();
    let mut ended = match first {
        Some(ended) => Some(ended),
        None => tasks.join_next().await,
    };
    while let Some(task) = ended {
        match task {
            Ok((role, Err(error))) => {
                tracing::error!(role, error = format!("{error:#}"), "role ended");
                outcome = outcome.and(Err(error.context(role)));
            }
            Ok((role, Ok(()))) => tracing::info!(role, "role ended"),
            Err(error) => outcome = outcome.and(Err(error.into())),
        }
        ended = tasks.join_next().await;
    }
    engine.flush();
    if outcome.is_ok() && !asked {
        bail!("a role ended without being asked to");
    }
    outcome
}

fn engine(config: &Config, stop: CancellationToken) -> Result<Engine> {
    let (session_timeout, drain_budget) = config.group_timing();
    let engine = EngineConfig {
        kafka: config.kafka_client(),
        registry: config.registry_client(),
        prefix: config.kafka.topic_prefix.clone(),
        instance: config.instance(),
        session_timeout,
        drain_budget,
        retry_limit: RetryLimit { after: Duration::from_millis(config.engine.record_retry_limit_ms) },
        guards: if config.engine.guards == "off" { Guards::Off } else { Guards::On },
    };
    let skips = Skips::of(database::pool(config)?);
    Ok(Engine::new(engine, Metrics::new()?, Arc::new(SystemClock), stop)?.with_skips(skips))
}

async fn serve_ops(
    config: &Config,
    engine: &Engine,
    stop: CancellationToken,
    tasks: &mut JoinSet<(&'static str, Result<()>)>,
) -> Result<()> {
    let address = config.ops.listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("ops.listen {address}: choose another port or address"))?;
    let routes = runtime::ops::routes(engine.health.clone(), engine.metrics.exporter.clone());
    tasks.spawn(async move {
        let server = warp::serve(routes).incoming(listener).graceful(async move { stop.cancelled().await });
        server.run().await;
        ("ops", Ok(()))
    });
    Ok(())
}

/// Repeats an action of the start while `what` does not respond yet; any other error ends the process.
async fn patiently<T, E, F>(
    what: &str,
    stop: &CancellationToken,
    is_retryable: impl Fn(&E) -> bool,
    action: impl Fn() -> F,
) -> Result<T>
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
    anyhow::Error: From<E>,
{
    loop {
        match action().await {
            Ok(done) => return Ok(done),
            Err(error) if is_retryable(&error) && !stop.is_cancelled() => {
                tracing::warn!(error = format!("{error:#}"), "waiting for {what}");
                tokio::time::sleep(START_AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn run_gateway(
    config: &Config,
    engine: &Engine,
    (pool, observer): (PgPool, Observer),
    stop: CancellationToken,
) -> Result<()> {
    let section = &config.ingest;
    let (keys, signing_key) = key_files::read(config)?;
    let signer = TokenSigner::new(signing_key);
    let producer = engine.producer("ingest", DELIVERY_TIMEOUT)?;
    let dependencies = Dependencies {
        pool,
        outbound: Arc::new(producer),
        photos: stores::photos(config)?,
        check: Arc::new(HeaderCheck),
        keys: keys.clone(),
        signer: signer.clone(),
        clock: Arc::new(SystemClock),
        metrics: GatewayMetrics::register(&engine.metrics.exporter)?,
        health: engine.health.clone(),
        schemas: schema_ids::awaited(engine).await?,
    };
    let listener = TcpListener::bind(section.listen)
        .await
        .with_context(|| format!("ingest.listen {}: choose another port or address", section.listen))?;
    tracing::info!(listen = %section.listen, "gateway");
    let gateway_config = gateway_config(config, observer)?;
    let is_retryable = |error: &LiveError| matches!(error, LiveError::Database(_));
    patiently("postgres", &stop, is_retryable, || {
        ingest::check_live_settings(&dependencies.pool, gateway_config.rates)
    })
    .await?;
    let gateway = Gateway::new(gateway_config, dependencies).with_logs(stores::exported_logs(config));
    tokio::join!(
        ingest::serve(listener, gateway, stop.clone()),
        key_files::follow(config, &keys, &signer, &stop)
    );
    Ok(())
}

fn gateway_config(config: &Config, observer: Observer) -> Result<GatewayConfig> {
    let section = &config.ingest;
    let mut gateway = GatewayConfig::new(&section.public_url);
    gateway.topic_prefix.clone_from(&config.kafka.topic_prefix);
    processors::fraud_check::rules::Rules::current().version.clone_into(&mut gateway.rules_version);
    gateway.limits.photo_bytes = section.max_photo_bytes;
    gateway.limits.upload_memory_bytes = match section.upload_memory_bytes {
        0 => section.max_photo_bytes.saturating_mul(PHOTOS_IN_MEMORY),
        bytes => bytes,
    };
    gateway.limits.connections = section.max_connections;
    gateway.limits.streams = section.max_streams;
    gateway.limits.streams_per_user = section.max_streams_per_user;
    gateway.trusted_proxies = section.proxies()?;
    gateway.proxy_protocol = section.proxy_protocol;
    gateway.cors_origins.clone_from(&section.cors_origins);
    gateway.vehicles_must_be_registered = config.vehicles.must_be_registered;
    if !section.development_wallets_file.is_empty() {
        gateway.development_wallets = DevelopmentWallet::read(Path::new(&section.development_wallets_file))?;
        tracing::warn!("anybody signs in with a development wallet: never where anything has a value");
    }
    gateway.timeouts.header = Duration::from_millis(section.header_timeout_ms);
    gateway.timeouts.keep_alive = Duration::from_millis(section.keep_alive_timeout_ms);
    gateway.timeouts.body_idle = Duration::from_millis(section.body_idle_timeout_ms);
    gateway.timeouts.body_total = Duration::from_millis(section.body_timeout_ms);
    gateway.reviews = config.reviews.rules();
    gateway.erasure_grace = config.privacy.erasure_grace();
    gateway.wallet_cooling = config.wallets.cooling();
    gateway.chain = payments::access(config)?;
    gateway.contract_wallets = contract_node(config)?.map(|node| node.observed(observer));
    gateway.rates = config.first_rates();
    Ok(gateway)
}

/// The node that is asked about wallets that are contracts; none where none is set.
fn contract_node(config: &Config) -> Result<Option<Node>> {
    let url = config.ingest.node_url.expose_secret();
    if url.is_empty() {
        return Ok(None);
    }
    let genesis = payments::genesis(config)?
        .context("ingest.node_url: chain.genesis_id says of which network it is")?;
    Node::new(url, Some(genesis), CONTRACT_LIMITS).map(Some).context("ingest.node_url")
}

/// The sink that writes down what is to be told, and beside it who tells it.
async fn run_notices(config: &Config, engine: &Engine, pool: PgPool, stop: CancellationToken) -> Result<()> {
    let settings = config.notices_sink();
    let schema = engine.schema_id::<ActivityLogged>().await?;
    let metrics = NoticeMetrics::register(&engine.metrics.exporter)?;
    let deliverer = Deliverer::new((pool.clone(), schema), settings.clone(), Arc::new(SystemClock), metrics)?;
    let beside = stop.child_token();
    let told = async {
        let ended = engine.run_sink(settings.build(pool)).await;
        // What ends the sink ends the role.
        beside.cancel();
        ended
    };
    let (told, ()) = tokio::join!(told, deliverer.run(beside.clone()));
    Ok(told?)
}

async fn run_sink(
    sink: &str,
    config: &Config,
    engine: &Engine,
    pool: PgPool,
    stop: CancellationToken,
) -> Result<()> {
    match sink {
        "postgres" => {
            let is_retryable = |error: &PostgresStartError| matches!(error, PostgresStartError::Postgres(_));
            let build = || PostgresConfig::default().build(pool.clone());
            let sink = patiently("postgres", &stop, is_retryable, build).await?;
            Ok(engine.run_sink(sink).await?)
        }
        "analytics" => {
            let schema = engine.schema_id::<ActivityLogged>().await?;
            Ok(engine.run_sink(AnalyticsSink::new(pool).logging(schema)).await?)
        }
        "notices" => run_notices(config, engine, pool, stop).await,
        _ => {
            let settings = stores::logs(config);
            let sink = patiently("mongodb", &stop, sinks::mongo::is_retryable, || settings.build()).await?;
            Ok(engine.run_sink(sink).await?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_not_ready_before_it_listens_nor_a_stage_before_it_reads() {
        let of = |roles: &Roles| roles.components().collect::<Vec<_>>();
        assert_eq!(of(&Roles::gateway()), ["ingest"]);
        let stages = ["fraud_check".to_owned(), "chain_submission".to_owned()];
        assert_eq!(of(&Roles::stages(&stages).unwrap()), ["fraud_check"]);
        assert_eq!(of(&Roles::timers()), [""; 0]);
    }

    #[test]
    fn an_unknown_role_is_refused_with_the_names_to_choose_from() {
        let error = Roles::stages(&["fraud".to_owned()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no stage \"fraud\": choose one of quality_check, odometer_reading, fraud_check, \
             reward_calculation, limit_check, chain_submission"
        );
        assert!(Roles::sinks(&["postgres".to_owned(), "mongo".to_owned()]).is_ok());
    }
}
