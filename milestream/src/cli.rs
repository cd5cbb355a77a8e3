//! The command line: one subcommand a role, and what operators need.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rust_decimal::Decimal;
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
    /// limit_check, chain_submission.
    Process {
        /// The stages.
        #[arg(required = true)]
        stages: Vec<String>,
    },
    /// Run the watcher of the chain.
    Watch,
    /// Run one or more sinks: postgres, mongo, analytics.
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
    /// Read odometers in photos, without any server.
    Read(crate::read::ReadArgs),
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
    /// Reading services.
    #[command(subcommand)]
    Service(Service),
    /// Nodes of networks.
    #[command(subcommand)]
    Networks(Networks),
    /// Contracts of networks.
    #[command(subcommand)]
    Contracts(Contracts),
    /// Wallets of users.
    #[command(subcommand)]
    Wallet(Wallet),
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// What to do with reading services.
#[derive(Debug, Subcommand)]
pub enum Service {
    /// List services in the order in which they are asked: priority, state, threshold, cost, name, protocol, address, and the id of
    /// the key that seals its key.
    List,
    /// Add a service, or change it; what is not given stays as it is.
    Set(Box<SetService>),
    /// Ask a service no more.
    Disable {
        /// Its name.
        name: String,
    },
    /// Seal every key anew: with a new key put in front of services.keys_file, or with the first of services.keys where they are given
    /// themselves. Running stages take it up within half a minute.
    Rotate,
}

/// A service and what is known of it.
#[derive(Debug, Args)]
pub struct SetService {
    /// Its name, e.g. `Google Vision`; `Milestream Embedded` is the embedded reader.
    pub name: String,
    /// `google_vision`, `aws_rekognition` or `openai` (any compatible server).
    #[arg(long)]
    pub protocol: Option<String>,
    /// Its whole address, https and without query, e.g. `https://vision.googleapis.com/v1/images:annotate`.
    #[arg(long)]
    pub endpoint: Option<String>,
    /// The model to ask for; needed for `openai`.
    #[arg(long)]
    pub model: Option<String>,
    /// 1 is asked first, 10 last; ties go by name.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=10))]
    pub priority: Option<i32>,
    /// Confidence below which the next service is asked: up to 0.85 for a service outside.
    #[arg(long)]
    pub threshold: Option<Decimal>,
    /// USD a call at the list price.
    #[arg(long)]
    pub cost: Option<Decimal>,
    /// Calls of one process in a minute; 0 for none at all.
    #[arg(long)]
    pub per_minute: Option<u32>,
    /// Calls of one process in an hour.
    #[arg(long)]
    pub per_hour: Option<u32>,
    /// Calls of one process in a day (UTC).
    #[arg(long)]
    pub per_day: Option<u32>,
    /// Milliseconds to wait for an answer.
    #[arg(long, value_parser = clap::value_parser!(i32).range(100..=60_000))]
    pub timeout_ms: Option<i32>,
    /// Milliseconds after which the next service is asked as well.
    #[arg(long, value_parser = clap::value_parser!(i32).range(10..=60_000))]
    pub hedge_ms: Option<i32>,
    /// A file with its API key, or AWS' access key id; `-` is standard input.
    #[arg(long)]
    pub key_file: Option<PathBuf>,
    /// A file with AWS' secret access key; `-` is standard input.
    #[arg(long)]
    pub secret_file: Option<PathBuf>,
}

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum Networks {
    /// Add a node, or change it: its genesis block says which network it is of.
    Add {
        /// Address of its API, without login.
        #[arg(long)]
        rpc_url: String,
        /// Address of its WebSockets.
        #[arg(long)]
        websocket_url: Option<String>,
        /// 1 is asked first.
        #[arg(long, default_value_t = 1)]
        priority: i32,
    },
    /// List nodes: network, address, priority, active.
    List,
    /// Ask a node no more.
    Disable {
        /// Its address as it was added.
        rpc_url: String,
    },
}

/// What to do with contracts.
#[derive(Debug, Subcommand)]
pub enum Contracts {
    /// Add a contract of the network that chain.genesis_id names, or change it.
    Add {
        /// `B3TR Token Contract`, `X2EarnRewardsPool`, `X2EarnApps` or `VeBetterPassport`.
        #[arg(long)]
        name: String,
        /// Its address.
        #[arg(long)]
        address: String,
        /// The app whose purse pays; for the pool.
        #[arg(long)]
        app_id: Option<String>,
        /// The transaction that created it.
        #[arg(long)]
        deployed_tx: Option<String>,
    },
    /// List contracts: network, address, active, name.
    List,
    /// Read the token's supplies anew.
    Refresh,
}

/// What to do with wallets.
#[derive(Debug, Subcommand)]
pub enum Wallet {
    /// Link a VeChain address to a user, making the account if there is none; the first is the one that rewards are paid to.
    Add {
        /// The user.
        #[arg(long)]
        user: Uuid,
        /// 0x and 40 hex digits.
        #[arg(long)]
        address: String,
    },
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Create missing topics, make the settings of the others as specified, and register schemas; refuse an incompatible schema
    /// and another partition count.
    Apply,
    /// Say what differs from the specification, and change nothing.
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
    /// Put a distributor's key into chain.keystore_file, encrypted with the password in chain.keystore_password_file, which is made
    /// if there is none. An existing keystore is never overwritten.
    Distributor {
        /// A file with the key in 64 hex digits; without it a new key is made.
        #[arg(long)]
        import: Option<PathBuf>,
        /// Use a cost that a laptop's local chain is happy with, instead of a second and 256 MiB.
        #[arg(long)]
        light: bool,
    },
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
