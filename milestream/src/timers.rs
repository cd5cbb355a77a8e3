//! The role `timers`: what is due at a time and caused by no record. A new job is a row of [`jobs`] and its function.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use runtime::clock::SystemClock;
use runtime::timers::{Job, TimerMetrics, Timers};
use runtime::{Engine, timers::JobError};
use schemas::events::OdometerRead;
use schemas::ids::Micros;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// An interval.
const MINUTE: Duration = Duration::from_secs(60);

/// What the jobs work with.
#[derive(Clone)]
struct Dependencies {
    config: Arc<Config>,
    pool: PgPool,
    /// The registry's id of `OdometerRead`.
    odometer_read: u32,
}

/// The jobs: name, interval, function.
fn jobs(with: &Dependencies) -> Vec<Job> {
    vec![job("review_time_out", MINUTE, with, review_time_out)]
}

/// A row of the table.
fn job<W>(
    name: &'static str,
    every: Duration,
    with: &Dependencies,
    run: impl Fn(Dependencies, Micros) -> W + Send + Sync + 'static,
) -> Job
where
    W: Future<Output = Result<u64, JobError>> + Send + 'static,
{
    let with = with.clone();
    Job::new(name, every, move |now| run(with.clone(), now))
}

/// Ends reviews that nobody has decided in time.
async fn review_time_out(with: Dependencies, now: Micros) -> Result<u64, JobError> {
    let time_out = with.config.reviews.time_out();
    Ok(ingest::expire_reviews(&with.pool, with.odometer_read, now, time_out).await?)
}

/// Runs the jobs until stopped.
///
/// # Errors
/// When a schema is not registered.
pub async fn run(config: &Config, engine: &Engine, pool: PgPool, stop: CancellationToken) -> Result<()> {
    let odometer_read = engine.schema_id::<OdometerRead>().await?;
    let with = Dependencies { config: Arc::new(config.clone()), pool: pool.clone(), odometer_read };
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
