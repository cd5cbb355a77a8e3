//! What the stages and sinks that keep books cost in PostgreSQL, beside nothing but the `insert … select from unnest` of the rows
//! that they keep; and the same on tables that hold many rows already.
//!
//! The bare insert writes the very rows that the stage or sink left, read back from its tables, in as many transactions, into a
//! schema of its own that was filled alike. Rounds of all arms alternate.

pub mod events;
mod fill;
mod kept;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use processors::fraud_check::FraudCheck;
use processors::fraud_check::rules::Rules;
use processors::limit_check::LimitCheck;
use runtime::deciding::{BATCH, DecidingWorker};
use runtime::fence::Guards;
use runtime::sinking;
use runtime::source::RawRecord;
use runtime::testing::{MemoryOutbound, MemorySchemas, assignment, stage_context};
use runtime::{Decider, Envelope, ManualClock, Sink};
use sinks::analytics::AnalyticsSink;
use sinks::postgres::{PostgresConfig, PostgresSink};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool, query};
use uuid::Uuid;

use self::events::Events;
use crate::measure::{cpu_seconds, family_cpu_seconds, median};

/// Rows of the small tables.
const FEW: u64 = 10_000;
/// How much more a record may cost beside many rows than beside few.
const FLAT: f64 = 1.2;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    FraudCheck,
    LimitCheck,
    Postgres,
    Analytics,
}

impl Subject {
    const ALL: [Self; 4] = [Self::FraudCheck, Self::LimitCheck, Self::Postgres, Self::Analytics];

    fn name(self) -> &'static str {
        match self {
            Self::FraudCheck => FraudCheck::NAME,
            Self::LimitCheck => LimitCheck::NAME,
            Self::Postgres => PostgresSink::NAME,
            Self::Analytics => AnalyticsSink::NAME,
        }
    }

    /// The rows that it keeps, parents first, and the order in which they are written bare.
    fn tables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::FraudCheck => &[("vehicle_readings", "ctid"), ("decisions", "ctid")],
            Self::LimitCheck => {
                &[("reward_limits", "ctid"), ("limit_charges", "ctid"), ("decisions", "ctid")]
            }
            Self::Postgres => &[
                ("odometer_uploads", "id"),
                ("mileage_data", "upload_id"),
                ("upload_verifications", "upload_id"),
                ("rewards", "upload_id"),
            ],
            Self::Analytics => &[
                ("analytics_seen", "ctid"),
                ("analytics_entities", "ctid"),
                ("analytics_data", "ctid"),
                ("ai_performance_metrics", "ctid"),
            ],
        }
    }

    /// How many of its tables are written bare before the others: a budget is charged by later batches too.
    fn parents(self) -> usize {
        usize::from(self == Self::LimitCheck)
    }

    fn filled(self) -> &'static [&'static str] {
        match self {
            Self::FraudCheck => &[fill::DECISIONS, fill::VEHICLES],
            Self::LimitCheck => &[fill::DECISIONS, fill::BUDGETS],
            Self::Postgres => &[fill::UPLOADS],
            Self::Analytics => &[fill::NUMBERS],
        }
    }

    /// The most that it may cost in PostgreSQL, in costs of the bare insert: a stage at 0.8 of the insert's rate costs 1.25.
    fn bar(self) -> f64 {
        match self {
            Self::FraudCheck => 1.0 / 0.8,
            Self::LimitCheck => 1.0 / 0.6,
            Self::Postgres => 3.0,
            Self::Analytics => 2.0,
        }
    }
}

/// A database schema with every table.
struct Books {
    pool: PgPool,
    /// The process that all backends are children of.
    server: u32,
}

/// CPU seconds of PostgreSQL and of this process.
#[derive(Clone, Copy)]
struct Cpu {
    postgres: f64,
    process: f64,
}

/// What one arm took, microseconds an upload, by round.
#[derive(Default)]
struct Arm {
    postgres: Vec<f64>,
    process: Vec<f64>,
}

/// Runs the bench and prints it; true when every bar is held.
///
/// # Errors
/// When PostgreSQL does not answer, or is not a process of this machine.
pub fn run(url: &str, (uploads, existing): (u64, u64), rounds: usize) -> Result<bool> {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!(
        "{uploads} uploads a round, {rounds} rounds of each arm, alternating; tables of {FEW} and of {existing} rows; \
         microseconds of CPU an upload"
    );
    threads.block_on(async {
        let mut good = true;
        for subject in Subject::ALL {
            good &= measure(url, subject, (uploads, existing), rounds).await?;
        }
        Ok(good)
    })
}

/// Measures one subject on few and on many rows.
async fn measure(
    url: &str,
    subject: Subject,
    (uploads, existing): (u64, u64),
    rounds: usize,
) -> Result<bool> {
    let mut sizes = Vec::new();
    for rows in [FEW, existing] {
        let pair = [Books::new(url, subject, rows).await?, Books::new(url, subject, rows).await?];
        sizes.push((rows, pair, Arm::default(), Arm::default()));
    }
    for round in 0..=rounds {
        for (_, [books, bare], ours, theirs) in &mut sizes {
            let events = Events::new(u64::try_from(round)? * uploads, uploads)?;
            let since = kept::next_transaction(&books.pool).await?;
            books.add_users(&events).await?;
            bare.add_users(&events).await?;
            let (batches, cost) = books.run(subject, &events).await?;
            let mut rows = Vec::new();
            for table in subject.tables() {
                rows.push(kept::read(&books.pool, *table, since, batches).await?);
            }
            let before = bare.cpu()?;
            kept::write(&bare.pool, &rows, subject.parents()).await?;
            let insert = bare.cpu()?.since(before);
            // The first round warms caches and plans up.
            if round > 0 {
                ours.add(cost, uploads);
                theirs.add(insert, uploads);
            }
        }
    }
    let mut good = true;
    let mut costs = Vec::new();
    for (rows, pair, ours, theirs) in &mut sizes {
        let (cost, insert) = (ours.medians(), theirs.medians());
        let ratio = cost.postgres / insert.postgres;
        good &= ratio <= subject.bar();
        println!(
            "{:<12} {rows:>9} rows: postgres {:>6.1}, process {:>6.1}; bare insert {:>6.1} and {:>6.1}; ratio {ratio:.2} = {:.2} of \
             its rate (at most {:.2})",
            subject.name(),
            cost.postgres,
            cost.process,
            insert.postgres,
            insert.process,
            1.0 / ratio,
            subject.bar(),
        );
        costs.push(cost.postgres);
        for books in pair {
            books.remove().await?;
        }
    }
    let growth = costs[1] / costs[0];
    println!("{:<12} beside many rows {growth:.2} of the cost beside few (at most {FLAT})", subject.name());
    Ok(good && growth <= FLAT)
}

impl Cpu {
    fn since(self, before: Self) -> Self {
        Self { postgres: self.postgres - before.postgres, process: self.process - before.process }
    }
}

impl Arm {
    #[allow(clippy::cast_precision_loss, reason = "a count of uploads")]
    fn add(&mut self, cost: Cpu, uploads: u64) {
        let micros = 1_000_000.0 / uploads as f64;
        self.postgres.push(cost.postgres * micros);
        self.process.push(cost.process * micros);
    }

    fn medians(&mut self) -> Cpu {
        Cpu { postgres: median(&mut self.postgres), process: median(&mut self.process) }
    }
}

impl Books {
    /// A schema of its own, filled.
    async fn new(url: &str, subject: Subject, rows: u64) -> Result<Self> {
        let name = format!("books_{}", Uuid::now_v7().simple());
        let options: PgConnectOptions = url.parse()?;
        // One connection: the arms differ in statements, not in how many wait for one another.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(options.options([("search_path", name.as_str())]))
            .await?;
        query(AssertSqlSafe(format!("create schema {name}"))).execute(&pool).await?;
        migrations::MIGRATIONS.run(&pool).await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&pool).await?;
        let server = crate::measure::parent(u32::try_from(backend)?)
            .context("PostgreSQL runs elsewhere: its CPU time cannot be read")?;
        fill::fill(&pool, subject.filled(), rows).await?;
        Ok(Self { pool, server })
    }

    async fn remove(&self) -> Result<()> {
        let name: String = sqlx::query_scalar("select current_schema()").fetch_one(&self.pool).await?;
        query(AssertSqlSafe(format!("drop schema {name} cascade"))).execute(&self.pool).await?;
        Ok(())
    }

    fn cpu(&self) -> Result<Cpu> {
        Ok(Cpu { postgres: family_cpu_seconds(self.server)?, process: cpu_seconds()? })
    }

    /// The accounts of a round, which the gateway has made by then.
    async fn add_users(&self, events: &Events) -> Result<()> {
        query("insert into users (id) select unnest($1::uuid[])")
            .bind(events.users())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Lets the subject write the events; returns how many batches it made of them, and what that cost.
    async fn run(&self, subject: Subject, events: &Events) -> Result<(usize, Cpu)> {
        let from = events.first();
        match subject {
            Subject::FraudCheck => {
                let stage = FraudCheck::new(Rules::current(), Arc::new(ManualClock::default()));
                self.decide(stage, events.records(from, |n| events.read(n))?).await
            }
            Subject::LimitCheck => {
                let stage = LimitCheck::new(Arc::new(ManualClock::default()), Arc::default());
                self.decide(stage, events.records(from, |n| events.calculated(n))?).await
            }
            Subject::Postgres => {
                let sink = PostgresSink::new(self.pool.clone(), PostgresConfig::default());
                self.sink(&sink, &events.of_uploads()).await
            }
            Subject::Analytics => {
                self.sink(&AnalyticsSink::new(self.pool.clone()), &events.of_analytics()).await
            }
        }
    }

    async fn decide<D: Decider>(&self, decider: D, records: Vec<RawRecord>) -> Result<(usize, Cpu)> {
        let (topic, count) = (records.first().context("no uploads")?.position.topic.clone(), records.len());
        let outbound = Arc::new(MemoryOutbound::default());
        let worker = DecidingWorker {
            decider: Arc::new(decider),
            context: stage_context(D::NAME, outbound.clone())?,
            pool: self.pool.clone(),
            output: "books".into(),
            output_schema: MemorySchemas::id_of::<D::Out>(),
            owner: "bench".into(),
            guards: Guards::On,
        };
        let mut lane = assignment(&topic, records);
        let before = self.cpu()?;
        worker.run(&mut lane).await?;
        let cost = self.cpu()?.since(before);
        ensure!(outbound.sent().len() >= count, "{} published less than it was given", D::NAME);
        Ok((count.div_ceil(BATCH), cost))
    }

    async fn sink<S: Sink>(&self, sink: &S, topics: &[Vec<Envelope<S::In>>]) -> Result<(usize, Cpu)> {
        let before = self.cpu()?;
        for batch in topics.iter().flat_map(|events| events.chunks(sinking::BATCH)) {
            sink.write(batch).await?;
        }
        let cost = self.cpu()?.since(before);
        Ok((topics.first().map_or(0, |events| events.len().div_ceil(sinking::BATCH)), cost))
    }
}
