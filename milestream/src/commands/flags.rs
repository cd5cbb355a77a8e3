//! `milestream flags`: what is switched on and off while roles run. Each change is recorded in `system_audit_logs`.

use anyhow::{Result, anyhow};
use clap::{Subcommand, ValueEnum};
use runtime::switches::{Flag, Switches};
use serde_json::json;

use crate::config::Config;
use crate::database;
use crate::system_config::Row;

/// The switch that is a column of its own.
const MAINTENANCE: &str = "maintenance_mode";

/// What to do with flags.
#[derive(Debug, Subcommand)]
pub enum Flags {
    /// List the flags and the maintenance: name, on or off, and what happens in the other case.
    List,
    /// Switch a flag, or the maintenance. Running roles take it up within seconds.
    Set {
        /// Its name: `maintenance_mode`, or a flag such as `registrations`.
        name: String,
        /// On or off.
        #[arg(value_enum)]
        to: Switch,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is on.
    On,
    /// It is off.
    Off,
}

impl Flags {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        let mut tx = database::pool(config)?.begin().await?;
        let row = Row::find(&mut tx).await?;
        match self {
            Self::List => list(row),
            Self::Set { name, to } => {
                set(&mut tx, row, name, *to == Switch::On).await?;
                tx.commit().await?;
                println!("{name} {}", shown(*to == Switch::On));
                Ok(())
            }
        }
    }
}

fn shown(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn list(row: Row) -> Result<()> {
    let switches = Switches::of(row.maintenance, Some(row.flags)).map_err(anyhow::Error::msg)?;
    println!(
        "{MAINTENANCE} {} (on: only operators change anything, and nothing new is signed)",
        shown(row.maintenance)
    );
    for flag in Flag::ALL {
        println!("{} {} (off: {})", flag.label(), shown(switches.is_on(flag)), flag.off());
    }
    Ok(())
}

async fn set(tx: &mut sqlx::PgConnection, mut row: Row, name: &str, on: bool) -> Result<()> {
    if name == MAINTENANCE {
        let before = std::mem::replace(&mut row.maintenance, on);
        let action = if on { "maintenance.on" } else { "maintenance.off" };
        return row.store(tx, (action, "warning"), (name, json!(before), json!(on))).await;
    }
    let flag = Flag::ALL.iter().find(|flag| flag.label() == name);
    let flag =
        flag.ok_or_else(|| anyhow!("there is no flag {name:?}: `milestream flags list` prints every one"))?;
    let before =
        Switches::of(row.maintenance, Some(row.flags.clone())).map_err(anyhow::Error::msg)?.is_on(*flag);
    row.flags[name] = json!(on);
    row.store(tx, ("flag.change", "info"), (name, json!(before), json!(on))).await
}
