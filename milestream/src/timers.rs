//! The role `timers`: what is due at a time and caused by no record. A new job is a row of [`jobs`] and its function.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chain::health::{Health as NodeHealth, LIMITS};
use processors::chain_submission::expire;
use processors::chain_submission::ledger::outbox::Schemas;
use processors::chain_submission::ledger::publish::Publisher;
use processors::chain_submission::network::Network;
use processors::chain_submission::reconcile::{self as books, Finding, ReconcileMetrics, Report};
use runtime::Engine;
use runtime::clock::SystemClock;
use runtime::timers::{Job, JobError, Ran, TimerMetrics, Timers};
use schemas::events::{
    AccountChanged, ActivityLogged, OdometerRead, PayoutUpdated, RewardCancelled, UserErased,
};
use schemas::ids::Micros;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::erasure::Eraser;
use crate::{payments, stores};

/// Intervals.
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What the jobs work with.
#[derive(Clone)]
struct Dependencies {
    config: Arc<Config>,
    pool: PgPool,
    /// The registry's id of `OdometerRead`.
    odometer_read: u32,
    /// That of `AccountChanged`.
    account_changed: u32,
    eraser: Eraser,
    publisher: Publisher,
    reconcile: ReconcileMetrics,
}

/// The jobs: name, interval, function.
fn jobs(with: &Dependencies) -> Vec<Job> {
    let mut jobs = vec![
        job("review_time_out", MINUTE, with, review_time_out),
        job("replace_wallets", MINUTE, with, replace_wallets),
        job("erase", HOUR, with, erase),
    ];
    if with.config.claims.terms().is_some() {
        jobs.push(job("expire_claims", HOUR, with, expire_claims));
    }
    // Without a network nothing is paid.
    if !with.config.chain.genesis_id.trim().is_empty() {
        jobs.push(job("reconcile", HOUR, with, reconcile));
    }
    jobs
}

/// A row of the table.
fn job<W>(
    name: &'static str,
    every: Duration,
    with: &Dependencies,
    run: impl Fn(Dependencies, Micros) -> W + Send + Sync + 'static,
) -> Job
where
    W: Future<Output = Result<Ran, JobError>> + Send + 'static,
{
    let with = with.clone();
    Job::new(name, every, move |now| run(with.clone(), now))
}

/// Ends reviews that nobody has decided in time.
async fn review_time_out(with: Dependencies, now: Micros) -> Result<Ran, JobError> {
    let time_out = with.config.reviews.time_out();
    ingest::expire_reviews(&with.pool, with.odometer_read, now, time_out).await
}

/// Tells the drivers of rewards that expire soon, and cancels what nobody has claimed in time.
async fn expire_claims(with: Dependencies, now: Micros) -> Result<Ran, JobError> {
    let Some(terms) = with.config.claims.terms() else { return Ok(Ran::default()) };
    expire::expire(&with.pool, &with.publisher, terms, now.to_utc()).await
}

/// Has those wallets paid to whose cooling time is over.
async fn replace_wallets(with: Dependencies, now: Micros) -> Result<Ran, JobError> {
    ingest::replace_wallets(&with.pool, with.account_changed, now).await
}

/// Takes people out of every store who have asked for it.
async fn erase(with: Dependencies, now: Micros) -> Result<Ran, JobError> {
    with.eraser.run(now).await
}

/// Holds the chain's own logs since the last comparison against the books, and shows and logs each difference.
async fn reconcile(with: Dependencies, now: Micros) -> Result<Ran, JobError> {
    let genesis = payments::genesis(&with.config)?.ok_or("chain.genesis_id is empty")?;
    let network = Network::load(&with.pool, genesis, LIMITS).await?;
    let seconds = now.0.div_euclid(1_000_000);
    let clock = u64::try_from(seconds).unwrap_or(0);
    let surveyed = NodeHealth::default().survey(&network.urls, &network.nodes, clock).await;
    let well = surveyed.iter().find(|(_, outcome)| outcome.is_ok());
    let node = well.and_then(|(at, _)| network.nodes.get(*at)).ok_or("no node of the network is well")?;
    let report = books::reconcile_on(&with.pool, node, &network, now.to_utc()).await?;
    with.reconcile.show(&report, seconds);
    let Report { from, to, payments, .. } = report;
    tracing::info!(from, to, payments, "chain and books were compared");
    for finding in &report.findings {
        let Finding { kind, tx_id, clause, reward_id, detail } = finding;
        tracing::error!(kind = kind.label(), tx_id, clause, ?reward_id, detail, "chain and books differ");
    }
    Ok(Ran::from(report.findings.len() as u64))
}

/// Runs the jobs until stopped.
///
/// # Errors
/// When a schema is not registered.
pub async fn run(config: &Config, engine: &Engine, pool: PgPool, stop: CancellationToken) -> Result<()> {
    let odometer_read = engine.schema_id::<OdometerRead>().await?;
    let publisher = Publisher {
        schemas: Schemas {
            payout_updated: engine.schema_id::<PayoutUpdated>().await?,
            activity_logged: engine.schema_id::<ActivityLogged>().await?,
            reward_cancelled: engine.schema_id::<RewardCancelled>().await?,
        },
        gas_ceiling: 0,
    };
    let eraser = Eraser {
        pool: pool.clone(),
        photos: stores::photos(config)?,
        mongo: stores::logs(config),
        publisher,
        schemas: (engine.schema_id::<UserErased>().await?, odometer_read),
    };
    let with = Dependencies {
        config: Arc::new(config.clone()),
        pool: pool.clone(),
        odometer_read,
        account_changed: engine.schema_id::<AccountChanged>().await?,
        eraser,
        publisher,
        reconcile: ReconcileMetrics::register(&engine.metrics.exporter)?,
    };
    let timers = Timers {
        pool,
        clock: Arc::new(SystemClock),
        metrics: TimerMetrics::register(&engine.metrics.exporter)?,
        owner: format!("{}{}", config.instance().unwrap_or_else(|| "pid-".into()), std::process::id()),
        jobs: jobs(&with),
    };
    timers.run(&engine.health, &stop).await;
    Ok(())
}
