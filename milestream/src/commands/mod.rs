//! The command line. One file per command: its arguments, its help and its `run`. A new command is its file, and here a
//! `mod` line, a variant and a line of [`Command::run`]; `docs/commands.md` is generated from what clap knows.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::roles::{self, Roles};

mod abandon;
mod api_keys;
mod config;
mod contracts;
mod dead_letters;
mod findings;
mod flags;
mod group;
mod keys;
mod limits;
pub mod migrate;
mod networks;
mod offsets;
mod payouts;
mod process;
mod prune;
mod read;
mod rebuild;
mod reconcile;
mod records;
mod replay;
mod restore;
mod rules;
mod service;
mod sessions;

mod sink;
mod token;
pub mod topics;
mod uploads;
mod users;
mod wallet;
mod watch;

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
    /// Run one or more stages.
    Process(process::Process),
    /// Run one or more sinks.
    Sink(sink::Sink),
    /// Run the watcher of the chain, or have it tell blocks again.
    Watch(watch::Watch),
    /// Run what is due at a time: reviews that nobody has decided in time, and the hourly comparison of chain and books.
    Timers,
    /// Run every role in one process, for a laptop.
    All,
    /// Bring the tables up to date.
    Migrate,
    /// Topics and schemas.
    #[command(subcommand)]
    Topics(topics::Topics),
    /// Records of a topic: look at one, or skip one that halts a partition.
    #[command(subcommand)]
    Records(records::Records),
    /// Offsets of the consumer groups of stages and sinks.
    #[command(subcommand)]
    Offsets(offsets::Offsets),
    /// Records that a role could not process.
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Empty the materialized tables and fill them again from the topics.
    Rebuild,
    /// Restore what the database alone holds, from topics and chain, after it was lost.
    #[command(subcommand)]
    Restore(restore::Restore),
    Replay(Box<replay::Replay>),
    /// Take away what is old and what no promise rests on. Safe beside running roles; run it daily.
    Prune(prune::Prune),
    /// Keys: the one that signs bearer tokens, and the distributor's.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Print a bearer token, making the account if there is none.
    Token(token::Token),
    /// Reading services.
    #[command(subcommand)]
    Service(service::Service),
    /// Nodes of networks.
    #[command(subcommand)]
    Networks(networks::Networks),
    /// Contracts of networks.
    #[command(subcommand)]
    Contracts(contracts::Contracts),
    /// Rules of rewards: tariff, bonuses and budgets, in versions.
    #[command(subcommand)]
    Rules(rules::Rules),
    /// Uploads: lower a reading that was verified and is wrong.
    #[command(subcommand)]
    Uploads(uploads::Uploads),
    /// Payouts: look at them, and give those a way out that wait for a person.
    #[command(subcommand)]
    Payouts(payouts::Payouts),
    /// Compare the chain's own logs with the payouts, as far as the chain is final: missing, double, unknown, and of another amount or
    /// receiver. Prints each difference and a summary as JSON, and fails where there is one.
    Reconcile(reconcile::Reconcile),
    /// Accounts: look at them, lock and unlock them, and say what their tokens allow.
    #[command(subcommand)]
    Users(users::Users),
    /// Sessions: where somebody is signed in, and the end of it.
    #[command(subcommand)]
    Sessions(sessions::Sessions),
    /// Limits of requests and photos, which running gateways take up within seconds.
    #[command(subcommand)]
    Limits(limits::Limits),
    /// Flags and maintenance, which running roles take up within seconds.
    #[command(subcommand)]
    Flags(flags::Flags),
    /// Errors that somebody has to act on: `error_logs`.
    #[command(subcommand)]
    Errors(findings::Findings),
    /// What those who watch over security should see: `security_events`.
    #[command(subcommand)]
    SecurityEvents(findings::Findings),
    /// Wallets of users.
    #[command(subcommand)]
    Wallet(wallet::Wallet),
    /// Read odometers in photos, without any server.
    Read(read::ReadArgs),
    /// The configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// Whatever the command refuses, as one sentence for the operator.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Ingest => roles::run(config, Roles::gateway()).await,
            Self::Process(process) => process.run(config).await,
            Self::Sink(sink) => sink.run(config).await,
            Self::Watch(watch) => watch.run(config).await,
            Self::Timers => roles::run(config, Roles::timers()).await,
            Self::All => roles::run(config, Roles::all(!config.chain.genesis_id.is_empty())).await,
            Self::Migrate => migrate::run(config).await,
            Self::Topics(topics) => topics.run(config).await,
            Self::Records(records) => records.run(config).await,
            Self::Offsets(offsets) => offsets.run(config).await,
            Self::DeadLetters(letters) => letters.run(config).await,
            Self::Rebuild => rebuild::run(config).await,
            Self::Restore(restore) => restore.run(config).await,
            Self::Replay(replay) => replay.run(config).await,
            Self::Prune(prune) => prune.run(config).await,
            Self::Keys(keys) => keys.run(config).await,
            Self::Token(token) => token.run(config).await,
            Self::Service(service) => service.run(config).await,
            Self::Networks(networks) => networks.run(config).await,
            Self::Contracts(contracts) => contracts.run(config).await,
            Self::Rules(rules) => rules.run(config).await,
            Self::Uploads(uploads) => uploads.run(config).await,
            Self::Payouts(payouts) => payouts.run(config).await,
            Self::Reconcile(reconcile) => reconcile.run(config).await,
            Self::Users(users) => users.run(config).await,
            Self::Sessions(sessions) => sessions.run(config).await,
            Self::Limits(limits) => limits.run(config).await,
            Self::Flags(flags) => flags.run(config).await,
            Self::Errors(findings) => findings.run(config, findings::ERRORS).await,
            Self::SecurityEvents(findings) => findings.run(config, findings::SECURITY_EVENTS).await,
            Self::Wallet(wallet) => wallet.run(config).await,
            Self::Read(photos) => read::run(photos),
            Self::Config(command) => command.run(config),
        }
    }
}
