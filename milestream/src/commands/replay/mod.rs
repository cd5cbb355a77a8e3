//! `milestream replay`: a stretch of time decided again beside live traffic, and what would differ. Nothing that is live is written.

use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use processors::replay::spec::{Name, Steps};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use crate::config::Config;

mod promote;
mod run;
mod show;

/// Decide a stretch of time again, beside live traffic: what was accepted in it comes to the stages as it was recorded, on the state that
/// was recorded before it, and what they make of it is written to a schema and topics of its own. Prints what differs from what was
/// decided then. One that is interrupted goes on when it is started again with the same arguments.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Replay {
    #[command(subcommand)]
    which: Option<Which>,
    #[command(flatten)]
    asked: Option<Asked>,
}

/// What is asked for.
#[derive(Debug, Args)]
struct Asked {
    /// The first instant of acceptance, such as 2026-03-01T00:00:00Z.
    #[arg(long, value_name = "INSTANT")]
    from: DateTime<Utc>,
    /// The first instant behind the window. It lies in the past.
    #[arg(long, value_name = "INSTANT")]
    to: DateTime<Utc>,
    /// Its name: at most 40 lower-case letters, digits and underscores.
    #[arg(long, value_name = "NAME")]
    into: Name,
    /// A file of rules that holds for the whole window instead of the versions that were in force.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The stages that decide again, with commas between them. What stands before the first is taken as it was recorded.
    #[arg(long, value_name = "LIST", default_value_t)]
    stages: Steps,
    /// Records that are read and decided a second at most. Without it there is no bound.
    #[arg(long, value_name = "RECORDS")]
    rate: Option<NonZeroU32>,
    // Not as `Files`: clap finds no optional arguments that hold others.
    /// Write the report as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as a page, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Asked {
    fn files(&self) -> Files {
        Files { json: self.json.clone(), html: self.html.clone() }
    }
}

/// Where a report goes besides.
#[derive(Debug, Args)]
struct Files {
    /// Write the report as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as a page, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What to do with replays that were begun.
#[derive(Debug, Subcommand)]
enum Which {
    /// List them: window, stages, and what differs.
    List,
    /// Print again what differs.
    Report {
        /// Its name.
        name: Name,
        #[command(flatten)]
        files: Files,
    },
    /// Carry over into the books what can be: a reward for which nothing would be granted any more is cancelled whole, and one of another
    /// amount is lowered or, where the budgets hold the whole difference, raised. What is paid or signed stays, and no verdict is changed:
    /// the report says of each difference what becomes of it. Run again it goes on with what is not promoted yet.
    Promote {
        /// Its name.
        name: Name,
        /// Why, for the audit log.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// Take its schema and topics away.
    Drop {
        /// Its name.
        name: Name,
    },
}

impl Replay {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match (&self.which, &self.asked) {
            (Some(Which::List), _) => show::list(config).await,
            (Some(Which::Report { name, files }), _) => show::report(config, name, files).await,
            (Some(Which::Promote { name, reason }), _) => promote::promote(config, name, reason).await,
            (Some(Which::Drop { name }), _) => show::drop(config, name).await,
            (None, Some(asked)) => run::run(config, asked).await,
            (None, None) => bail!("name a window: --from, --to and --into"),
        }
    }
}

/// Holds a replay's name until it is dropped: two at once under one name would take turns in the same tables.
async fn hold(pool: &PgPool, name: &Name) -> Result<PoolConnection<Postgres>> {
    let mut connection = pool.acquire().await?;
    let held: bool = sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended($1, 0))")
        .bind(name.schema())
        .fetch_one(&mut *connection)
        .await
        .context("the replay's lock")?;
    if !held {
        bail!("replay {name} is running already");
    }
    Ok(connection)
}
