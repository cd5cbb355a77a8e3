//! What is due at a time and caused by no record: named jobs, each at its interval, under a lease in Postgres. Any number of processes may
//! keep the same jobs; each run is one process's.
//!
//! A job may be cut off at any point and run again: it works in transactions of its own, and says what it did by rows of the outbox.

use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::Stream;
use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _, join_all};
use futures::stream::try_unfold;
use schemas::ids::Micros;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::health::Health;
use crate::metrics::MINUTES;
use crate::worker::ErrorReport;

/// Life of a job's lease that is not renewed. The successor of a killed process waits this long.
const LIFE: Duration = Duration::from_secs(15);
/// Between two renewals: two may be lost.
const RENEW: Duration = Duration::from_secs(5);
/// After a run that failed: a dependency that was away may be back, and none is pressed.
const AGAIN: Duration = Duration::from_secs(60);
/// Between two looks at whether a job is due.
const LOOK: Duration = Duration::from_secs(5);
/// Things that are looked for at a time.
pub const PORTION: i64 = 100;
/// Things of a run that are logged one by one where they fail; the others are counted alone.
const LOGGED: u64 = 20;
/// Timers that could not look for this long are not ready: a restart of Postgres takes a few seconds.
const FAILING: Duration = Duration::from_secs(60);

crate::metrics! {
    /// What the timers count of every job.
    pub struct TimerMetrics {
        /// `done`, `failed`, `partly` where some things failed and the others were done; `lost` where another process has taken the lease,
        /// `stopped` where the process ends.
        runs: Counter["timer", "outcome"] = "milestream_timer_runs_total", "Runs of a job that is due at a time, by how they ended";
        acted: Counter["timer"] = "milestream_timer_actions_total", "What those runs did, e.g. reviews whose time had run out";
        seconds: Histogram["timer"] = "milestream_timer_run_seconds", "Time of one run of such a job", MINUTES;
        /// Each is in the log, and is tried again every minute with the rest of the job, which is overdue until none fails.
        failing: Gauge["timer"] = "milestream_timer_failing", "Things that failed in the last run of such a job, e.g. rewards that cannot be cancelled, while the others were done";
        /// Act above an hour: no process gets the job done.
        overdue: Gauge["timer"] = "milestream_timer_overdue_seconds", "Seconds since such a job was due; 0 while it is not";
    }
}

/// Why a run failed; it is in the log alone.
pub type JobError = Box<dyn Error + Send + Sync>;
/// A run.
type Run = BoxFuture<'static, Result<Ran, JobError>>;

/// What a run did. A thing that fails keeps no other from being done: a job goes through all that is due at its time once, by [`portions`],
/// and what failed is tried again by the next run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// What was done.
    pub done: u64,
    /// What failed.
    pub failed: u64,
}

impl Ran {
    /// Counts how a thing of the run ended, and logs it where it failed.
    ///
    /// # Errors
    /// The thing's own where the database does not respond either: then it says nothing of the thing, and the others would fail as well.
    pub async fn count<E: Into<JobError>>(
        &mut self,
        pool: &PgPool,
        what: impl Display,
        outcome: Result<u64, E>,
    ) -> Result<(), JobError> {
        let error = match outcome {
            Ok(done) => {
                self.done += done;
                return Ok(());
            }
            Err(error) => error.into(),
        };
        let what = what.to_string();
        if sqlx::query("select").execute(pool).await.is_err() {
            return Err(error);
        }
        self.fail(what, &*error);
        Ok(())
    }

    /// Counts a thing that failed, and logs it.
    pub fn fail(&mut self, what: impl Display, error: &(dyn Error + Send + Sync)) {
        self.failed += 1;
        if self.failed <= LOGGED {
            tracing::error!(%what, error = %ErrorReport(error), "a job goes on without what failed, and tries it again");
        }
    }
}

impl From<u64> for Ran {
    fn from(done: u64) -> Self {
        Self { done, failed: 0 }
    }
}

/// Goes through things that stay where they are when they fail, each once: `look` finds at most [`PORTION`] of them in the order of their
/// key, behind the last one of the portion before; of the first portion behind none.
pub fn portions<T: Clone, E, F: Future<Output = Result<Vec<T>, E>>>(
    mut look: impl FnMut(Option<T>) -> F,
) -> impl Stream<Item = Result<Vec<T>, E>> + Unpin {
    Box::pin(try_unfold(None, move |behind| {
        look(behind).map_ok(|portion| {
            let last = portion.last().cloned();
            last.map(|last| (portion, Some(last)))
        })
    }))
}

/// A job.
pub struct Job {
    /// Its name in the table, in metrics and in the log.
    pub name: &'static str,
    /// Its interval. Runs are due at whole multiples of it since 1970: an hourly one on the hour.
    pub every: Duration,
    run: Box<dyn Fn(Micros) -> Run + Send + Sync>,
}

impl Job {
    /// A job that is given the time of its run, and returns what it did.
    pub fn new<W, R>(
        name: &'static str,
        every: Duration,
        run: impl Fn(Micros) -> W + Send + Sync + 'static,
    ) -> Self
    where
        W: Future<Output = Result<R, JobError>> + Send + 'static,
        R: Into<Ran> + 'static,
    {
        Self { name, every, run: Box::new(move |now| run(now).map_ok(Into::into).boxed()) }
    }

    /// When it is due after a run at `now`.
    fn next(&self, now: Micros) -> Micros {
        let every = i64::try_from(self.every.as_micros()).unwrap_or(i64::MAX).max(1);
        Micros(now.0.div_euclid(every).saturating_add(1).saturating_mul(every))
    }
}

/// Jobs, and what they are kept with.
pub struct Timers {
    /// Where the leases are.
    pub pool: PgPool,
    /// What is due, by this clock; the leases lapse by the database's.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: TimerMetrics,
    /// Names this process in the leases.
    pub owner: String,
    /// The jobs.
    pub jobs: Vec<Job>,
}

/// Whether this process may run a job.
struct Lease<'a> {
    pool: &'a PgPool,
    job: &'a str,
    epoch: i64,
}

impl Timers {
    /// Runs each job whenever it is due, side by side, until stopped: a long one keeps no other waiting.
    pub async fn run(&self, health: &Health, stop: &CancellationToken) {
        join_all(self.jobs.iter().map(|job| self.keep(job, health, stop))).await;
    }

    async fn keep(&self, job: &Job, health: &Health, stop: &CancellationToken) {
        let mut failing_since: Option<Instant> = None;
        health.ready(job.name);
        while !stop.is_cancelled() {
            match self.look(job, stop).await {
                Ok(_) => {
                    failing_since = None;
                    health.ready(job.name);
                }
                Err(error) => {
                    tracing::warn!(job = job.name, error = %error, "a job's lease cannot be looked at");
                    if failing_since.get_or_insert_with(Instant::now).elapsed() >= FAILING {
                        health.unready(job.name);
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Runs each job that is due and that no other process runs, one after the other, and returns the names of those that were run.
    ///
    /// # Errors
    /// Postgres', of the leases.
    pub async fn round(&self) -> sqlx::Result<Vec<&'static str>> {
        let (stop, mut ran) = (CancellationToken::new(), Vec::new());
        for job in &self.jobs {
            if self.look(job, &stop).await? {
                ran.push(job.name);
            }
        }
        Ok(ran)
    }

    /// Runs a job if it is due and free; whether it was run.
    async fn look(&self, job: &Job, stop: &CancellationToken) -> sqlx::Result<bool> {
        let now = self.clock.now();
        let due_at = self.due(job, now).await?;
        let tell_overdue = || {
            let overdue = self.clock.now().to_utc().signed_duration_since(due_at).num_seconds().max(0);
            self.metrics.overdue.with_label_values(&[job.name]).set(overdue);
        };
        tell_overdue();
        if due_at > now.to_utc() {
            // It moves on where nothing has failed, in whichever process.
            self.metrics.failing.with_label_values(&[job.name]).set(0);
            return Ok(false);
        }
        let Some(lease) = self.take(job, now).await? else { return Ok(false) };
        let started = Instant::now();
        let outcome = tokio::select! {
            outcome = (job.run)(now) => outcome.map(Some),
            // A run that stands still, as on a connection whose server has vanished, is overdue as well.
            () = lease.lost(tell_overdue) => Ok(None),
            () = stop.cancelled() => {
                self.metrics.runs.with_label_values(&[job.name, "stopped"]).inc();
                lease.end(None, Duration::ZERO).await?;
                return Ok(true);
            }
        };
        self.metrics.seconds.with_label_values(&[job.name]).observe(started.elapsed().as_secs_f64());
        let label = match outcome {
            Ok(Some(Ran { done, failed })) => {
                self.metrics.acted.with_label_values(&[job.name]).inc_by(done);
                self.metrics
                    .failing
                    .with_label_values(&[job.name])
                    .set(failed.try_into().unwrap_or(i64::MAX));
                if done > 0 {
                    tracing::info!(job = job.name, count = done, "a job was due");
                }
                if failed > 0 {
                    tracing::error!(job = job.name, failed, "a job was not done whole, and is tried again");
                    lease.end(None, AGAIN).await?;
                    "partly"
                } else {
                    self.metrics.overdue.with_label_values(&[job.name]).set(0);
                    lease.end(Some(job.next(now)), Duration::ZERO).await?;
                    "done"
                }
            }
            Ok(None) => "lost",
            Err(error) => {
                tracing::error!(job = job.name, error = %ErrorReport(&*error), "a job failed, and is tried again");
                lease.end(None, AGAIN).await?;
                "failed"
            }
        };
        self.metrics.runs.with_label_values(&[job.name, label]).inc();
        Ok(true)
    }

    /// When the job is due; one that was never known is due now.
    async fn due(&self, job: &Job, now: Micros) -> sqlx::Result<DateTime<Utc>> {
        let known = sqlx::query_scalar("select due_at from timers where job = $1")
            .bind(job.name)
            .fetch_optional(&self.pool)
            .await?;
        if let Some(due_at) = known {
            return Ok(due_at);
        }
        sqlx::query("insert into timers (job, due_at) values ($1, $2) on conflict (job) do nothing")
            .bind(job.name)
            .bind(now.to_utc())
            .execute(&self.pool)
            .await?;
        Ok(now.to_utc())
    }

    async fn take<'a>(&'a self, job: &'a Job, now: Micros) -> sqlx::Result<Option<Lease<'a>>> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "update timers set owner = $2, epoch = epoch + 1, leased_until = now() + make_interval(secs => $3)
             where job = $1 and due_at <= $4 and leased_until <= now()
             returning epoch",
        )
        .bind(job.name)
        .bind(&self.owner)
        .bind(LIFE.as_secs_f64())
        .bind(now.to_utc())
        .fetch_optional(&self.pool)
        .await?;
        Ok(epoch.map(|epoch| Lease { pool: &self.pool, job: job.name, epoch }))
    }
}

impl Lease<'_> {
    /// Renews it, and returns when it is lost: taken by another, or lapsed while Postgres did not respond. `each` is called each time.
    async fn lost(&self, each: impl Fn()) {
        let mut held = Instant::now();
        while held.elapsed() < LIFE {
            tokio::time::sleep(RENEW).await;
            each();
            match self.extend(LIFE).await {
                Ok(true) => held = Instant::now(),
                Ok(false) => return,
                Err(error) => tracing::warn!(job = self.job, error = %error, "a job's lease is not renewed"),
            }
        }
    }

    /// False where it is another's.
    async fn extend(&self, life: Duration) -> sqlx::Result<bool> {
        let done = sqlx::query(
            "update timers set leased_until = now() + make_interval(secs => $3)
             where job = $1 and epoch = $2 and leased_until > now()",
        )
        .bind(self.job)
        .bind(self.epoch)
        .bind(life.as_secs_f64())
        .execute(self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a run: nobody begins another for `wait`, nor before `next` where the run ended well. One whose lease is another's changes
    /// nothing.
    async fn end(&self, next: Option<Micros>, wait: Duration) -> sqlx::Result<()> {
        sqlx::query(
            "update timers set due_at = coalesce($3, due_at), leased_until = now() + make_interval(secs => $4)
             where job = $1 and epoch = $2",
        )
        .bind(self.job)
        .bind(self.epoch)
        .bind(next.map(Micros::to_utc))
        .bind(wait.as_secs_f64())
        .execute(self.pool)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn each_portion_is_looked_for_behind_the_last_of_the_one_before_and_ends_where_none_is_left() {
        let found = portions(|behind: Option<u32>| async move {
            let first = behind.map_or(0, |last| last + 1);
            Ok::<Vec<_>, ()>((first..7).take(3).collect())
        });
        assert_eq!(found.try_collect::<Vec<_>>().await.unwrap(), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    }

    #[test]
    fn a_job_is_due_at_whole_multiples_of_its_interval() {
        let job = Job::new("hourly", Duration::from_secs(3600), |_| async { Ok(0_u64) });
        let hour = 3_600_000_000;
        for (now, next) in [(0, hour), (1, hour), (hour - 1, hour), (hour, 2 * hour), (-1, 0)] {
            assert_eq!(job.next(Micros(now)), Micros(next), "{now}");
        }
    }
}
