//! `milestream rules`: tariff, bonuses and budgets in versions. That one is applied is recorded in `system_audit_logs`, in the same
//! transaction.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use processors::reward_rules::apply::{self, Applied};
use processors::reward_rules::{FIRST, RewardRules, parse};
use schemas::ids::Micros;
use serde_json::json;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;

/// That a version is applied, as `system_audit_logs` has it.
const ACTIVATE: Action = Action { module: "rewards", action: "rules.activate", severity: "info" };
/// Bytes of a file: a hundred times the sample.
const FILE_MAX: u64 = 256 * 1024;

/// What to do with the rules of rewards.
#[derive(Debug, Subcommand)]
pub enum Rules {
    /// Read a file of rules without a database: every fault is told with its line.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Have a file of rules in force for what is accepted from an instant on. No role is restarted, and no version is ever changed.
    Apply {
        /// The file.
        file: PathBuf,
        /// The first acceptance that it holds for, such as 2026-03-01T00:00:00Z: at least two minutes from now.
        #[arg(long, value_name = "INSTANT")]
        from: DateTime<Utc>,
    },
    /// List the versions: the instant from which each is in force, its name, and when it was applied.
    List,
    /// Print the file of a version.
    Show {
        /// Its name.
        version: String,
    },
}

impl Rules {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Check { file } => {
                let (rules, _) = read(file)?;
                println!("{}: version {}, {}", file.display(), rules.version(), summary(&rules));
                Ok(())
            }
            Self::Apply { file, from } => apply_file(config, file, *from).await,
            Self::List => list(config).await,
            Self::Show { version } => show(config, version).await,
        }
    }
}

/// The rules of a file, and its text.
///
/// # Errors
/// With every fault and its line.
pub fn read(file: &Path) -> Result<(RewardRules, String)> {
    let name = file.display();
    let size = std::fs::metadata(file).with_context(|| format!("{name}"))?.len();
    if size > FILE_MAX {
        bail!("{name} has {size} bytes: a file of rules has at most {FILE_MAX}");
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("{name}"))?;
    match parse(&text) {
        Ok(rules) => Ok((rules, text)),
        Err(faults) => {
            let lines: Vec<String> =
                faults.iter().map(|fault| format!("{name}:{}: {}", fault.line, fault.text)).collect();
            bail!("the rules are refused\n{}", lines.join("\n"))
        }
    }
}

fn summary(rules: &RewardRules) -> String {
    let (tariff, policy) = (&rules.tariff, &rules.policy);
    format!(
        "{} kinds of vehicles, {} bonuses, at most {} B3TR an upload, {} a day, {} a week, {} a month",
        tariff.rates.len(),
        tariff.bonuses.len(),
        tariff.upload_cap,
        policy.daily,
        policy.weekly,
        policy.monthly,
    )
}

async fn apply_file(config: &Config, file: &Path, from: DateTime<Utc>) -> Result<()> {
    let (rules, text) = read(file)?;
    let pool = database::pool(config)?;
    let mut tx = pool.begin().await?;
    let applied = apply::apply(&mut tx, rules.version(), Micros::from(from), &text).await?;
    let after = json!({ "in_force_from": shown(applied.in_force_from), "document": text });
    audit(&mut tx, ACTIVATE, rules.version(), None, after).await?;
    tx.commit().await?;
    println!("{}", line(&applied));
    Ok(())
}

/// Prints versions, one per line, in the order in which they are in force.
async fn list(config: &Config) -> Result<()> {
    let pool = database::pool(config)?;
    println!("- 1 with the release");
    for applied in apply::all(&mut *pool.acquire().await?).await? {
        println!("{}", line(&applied));
    }
    Ok(())
}

/// Prints a version's file as it was written.
async fn show(config: &Config, version: &str) -> Result<()> {
    let pool = database::pool(config)?;
    let applied = apply::all(&mut *pool.acquire().await?).await?;
    let document = match applied.iter().find(|applied| applied.version == version) {
        Some(applied) => applied.document.as_str(),
        None if version == "1" => FIRST,
        None => bail!("there is no version {version}: `milestream rules list` shows them"),
    };
    print!("{document}");
    Ok(())
}

fn line(applied: &Applied) -> String {
    format!("{} {} applied {}", shown(applied.in_force_from), applied.version, shown(applied.applied_at))
}

fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
