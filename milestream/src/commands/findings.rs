//! `milestream errors` and `milestream security-events`: documents that somebody has to act on, and the end of it. A resolution is a record
//! on `activity.logs` as the document was, so that the log database says the same after it was filled again.

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use runtime::outbox::OutboxRows;
use runtime::registry::Registry;
use schemas::events::ActivityLogged;
use schemas::logs::{Collection, ErrorLog, LogDocument as _, SecurityEvent};
use serde_json::json;
use sinks::mongo::Finding;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::{database, stores};

/// Longest notes, in characters (data map's lineage).
const NOTES: usize = 2_000;

/// What to do with documents that somebody has to act on.
#[derive(Debug, Subcommand)]
pub enum Findings {
    /// List those that nobody has resolved, newest first: id, time, severity, what it is, where or whose, and a sentence.
    List {
        /// So many at most.
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: u32,
    },
    /// Say that something was done about one, and what. It is on no list any more; saying it again replaces the notes.
    Resolve {
        /// Its id, as `list` prints it.
        id: String,
        /// What was found and done, 2,000 characters at most.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        notes: String,
    },
}

/// A collection of such documents, and how its resolutions are recorded.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    collection: &'static Collection,
    action: Action,
}

/// `error_logs`.
pub const ERRORS: Kind = Kind {
    collection: ErrorLog::COLLECTION,
    action: Action { module: "errors", action: "error.resolve", severity: "info" },
};
/// `security_events`.
pub const SECURITY_EVENTS: Kind = Kind {
    collection: SecurityEvent::COLLECTION,
    action: Action { module: "auth", action: "security_event.resolve", severity: "info" },
};

impl Findings {
    /// Does it.
    pub async fn run(&self, config: &Config, kind: Kind) -> Result<()> {
        let logs = stores::logs(config).logs().await.context("mongodb.uri")?;
        match self {
            Self::List { limit } => {
                for finding in logs.unresolved(kind.collection, i64::from(*limit)).await? {
                    println!("{}", line(&finding));
                }
                Ok(())
            }
            Self::Resolve { id, notes } => {
                ensure!(notes.chars().count() <= NOTES, "notes have at most {NOTES} characters");
                let found = logs.finding(kind.collection, id).await?;
                let finding = found.with_context(|| format!("{} has no {id}", kind.collection.name))?;
                resolve(config, kind, &finding, notes).await?;
                println!("{id} is resolved, as soon as the mongo sink has it");
                Ok(())
            }
        }
    }
}

fn line(finding: &Finding) -> String {
    let fields = ["severity", "error_code", "event_type", "module", "user_id", "error_message"];
    let told = fields.iter().filter_map(|field| finding.fields[*field].as_str());
    [finding.id.as_str(), finding.at.to_utc().to_rfc3339().as_str()]
        .into_iter()
        .chain(told)
        .collect::<Vec<_>>()
        .join("  ")
}

async fn resolve(config: &Config, kind: Kind, finding: &Finding, notes: &str) -> Result<()> {
    let registry = Registry::new(&config.registry_client())?;
    let schema_id = registry.id_of::<ActivityLogged>(&config.kafka.topic_prefix).await?;
    let record = finding.resolution(kind.collection, notes)?;
    let mut rows = OutboxRows::created_at(Utc::now());
    // An id of its own: the outbox takes an id once, and notes may be replaced.
    rows.push(schema_id, &record, uuid::Uuid::now_v7())?;
    let mut tx = database::pool(config)?.begin().await?;
    rows.insert(&mut tx).await?;
    let before = json!({ "resolved": finding.fields["resolved"] });
    audit(&mut tx, kind.action, &finding.id, Some(before), json!({ "resolved": true, "notes": notes }))
        .await?;
    tx.commit().await?;
    Ok(())
}
