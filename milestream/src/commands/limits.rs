//! `milestream limits`: how many requests and photos are taken in how much time. Each change is recorded in `system_audit_logs`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use ingest::config::{LIMITS, Rate, Rates};
use serde_json::json;

use crate::config::Config;
use crate::database;
use crate::system_config::Row;

/// What to do with limits.
#[derive(Debug, Subcommand)]
pub enum Limits {
    /// List the limits: name, requests, seconds of the window, requests at once.
    List,
    /// Set a limit. Gateways take it up within seconds.
    Set {
        /// Its name, such as `uploads.per_user`; `milestream limits list` prints every one.
        name: String,
        /// Requests in the window, 1 to 1,000,000.
        requests: u32,
        /// Seconds of the window, 1 to 604,800.
        #[arg(long)]
        seconds: u64,
        /// Requests that may come at once, 1 to all of the window's; all of them where it is left out. Photos by user and by vehicle are
        /// counted in windows that begin at multiples of their length, and may always come at once.
        #[arg(long)]
        burst: Option<u32>,
    },
}

impl Limits {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        let mut tx = database::pool(config)?.begin().await?;
        let mut row = Row::find(&mut tx).await?;
        let mut rates = Rates::default().with(Some(&row.limits)).map_err(anyhow::Error::msg)?;
        let Self::Set { name, requests, seconds, burst } = self else {
            for limit in &LIMITS {
                let Rate { requests, window, burst } = *(limit.rate)(&mut rates);
                println!("{} {requests} {} {burst}", limit.name(), window.as_secs());
            }
            return Ok(());
        };
        let known = LIMITS.iter().find(|limit| limit.name() == *name);
        let limit = known.with_context(|| {
            format!("there is no limit {name:?}: `milestream limits list` prints every one")
        })?;
        let wanted = Rate {
            requests: *requests,
            window: Duration::from_secs(*seconds),
            burst: burst.unwrap_or(*requests),
        };
        let rate = Rate::of(&wanted.document()).map_err(anyhow::Error::msg)?;
        let before = std::mem::replace((limit.rate)(&mut rates), rate);
        row.limits = rates.document();
        let change = (name.as_str(), json!(before.document()), json!(rate.document()));
        row.store(&mut tx, ("rate_limit.change", "warning"), change).await?;
        tx.commit().await?;
        println!("{name} {} {} {}", rate.requests, rate.window.as_secs(), rate.burst);
        Ok(())
    }
}
