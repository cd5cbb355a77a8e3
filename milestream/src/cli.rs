//! The command line: one subcommand a role, and what operators need.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use uuid::Uuid;

/// Milestream: from a photo of an odometer to a decision that can be trusted with money.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// The configuration file; it may be absent. `milestream config show` prints every key.
    #[arg(long, global = true, env = "MILESTREAM_CONFIG", default_value = "milestream.toml")]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    Ingest,
    /// Run one or more stages: quality_check, odometer_reading, fraud_check, reward_calculation,
    /// limit_check.
    Process {
        /// The stages.
        #[arg(required = true)]
        stages: Vec<String>,
    },
    /// Run one or more sinks: postgres, mongo.
    Sink {
        /// The sinks.
        #[arg(required = true)]
        sinks: Vec<String>,
    },
    /// Run every role in one process, for a laptop.
    All,
    /// Topics and schemas.
    #[command(subcommand)]
    Topics(Topics),
    /// Bring the tables up to date.
    Migrate,
    /// Empty the materialized tables and fill them again from the topics.
    Rebuild,
    /// Records that a role could not process.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Consumer group offsets of deciding stages.
    #[command(subcommand)]
    Offsets(Offsets),
    /// Keys of bearer tokens.
    #[command(subcommand)]
    Keys(Keys),
    /// Print a bearer token, making the account if there is none.
    Token {
        /// The user.
        #[arg(long)]
        user: Uuid,
        /// What the token allows.
        #[arg(long, value_enum, default_value = "driver")]
        role: Role,
        /// Hours until it expires.
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=168))]
        hours: u32,
    },
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Create missing topics and register schemas; refuse an incompatible change or a wrong partition count.
    Apply,
    /// Compare partition counts only.
    Check,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them: place, role, reason, original topic, partition and offset, and the cause in words.
    List {
        /// Only those of this role.
        #[arg(long)]
        stage: Option<String>,
        /// Only those with this reason.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Append the originals to their topics again, once the cause is gone.
    Redrive {
        /// Where the letters are, as the list shows: PARTITION:OFFSET.
        #[arg(required = true, value_parser = place)]
        places: Vec<(i32, i64)>,
    },
}

fn place(text: &str) -> Result<(i32, i64), String> {
    let parsed = text.split_once(':').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is not PARTITION:OFFSET, e.g. 2:17"))
}

/// What to do with offsets.
#[derive(Debug, Subcommand)]
pub enum Offsets {
    /// Set the group's offsets of a stopped deciding stage to what its decisions reach: after a restore of the database,
    /// or when the group's offsets have expired.
    Align {
        /// The stage.
        stage: String,
    },
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a signing key and its key set, unless they exist.
    Generate,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print it, secrets redacted.
    Show,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Sends photos.
    Driver,
    /// Looks at doubtful photos.
    Reviewer,
    /// Operates the system.
    Operator,
}
