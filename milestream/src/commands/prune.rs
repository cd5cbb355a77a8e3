//! `milestream prune`: takes away what is old and what no promise rests on.

use anyhow::{Result, ensure};
use chrono::{TimeDelta, Utc};
use clap::Args;
use processors::pipeline::{Kind, STAGES};
use runtime::offsets;
use runtime::prune::{Old, Place, old, outputs};
use serde_json::{Map, Value, json};

use super::group::{self, Group};
use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;

/// What is kept for how long, in days.
#[derive(Debug, Args)]
pub struct Prune {
    /// Only count what would go.
    #[arg(long)]
    dry_run: bool,
    /// Days for which published rows of the outbox are kept.
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    outbox_days: u32,
    /// Days for which the outputs of decisions are kept; the decisions themselves stay.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    outputs_days: u32,
    /// Days for which the events of published uploads are kept beside their topic.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    events_days: u32,
    /// Days for which readings are kept: a photo that is read again later is paid for again.
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    readings_days: u32,
    /// Days for which an Idempotency-Key counts; the gateway removes them after 30 by itself.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    keys_days: u32,
}

impl Prune {
    fn days(&self, what: Old) -> u32 {
        match what {
            Old::Outbox | Old::ChainPayloads => self.outbox_days,
            Old::PhotoEvents => self.events_days,
            Old::Readings => self.readings_days,
            Old::IdempotencyKeys => self.keys_days,
        }
    }

    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        let ages = Old::ALL.map(|what| (what.name(), self.days(what)));
        let ages: Vec<_> = ages.into_iter().chain([("decisions.output", self.outputs_days)]).collect();
        for (name, days) in &ages {
            ensure!(*days > 0, "{name}: 0 days would take away what is needed now; name at least 1");
        }
        let pool = database::pool(config)?;
        let places = places(config).await?;
        let policy: Value =
            ages.iter().map(|(name, days)| ((*name).to_owned(), json!(days))).collect::<Map<_, _>>().into();
        if !self.dry_run {
            record(&pool, "prune", json!({"days": policy})).await?;
        }
        let before = |days: u32| Utc::now() - TimeDelta::days(days.into());
        let mut counts = Map::new();
        for what in Old::ALL {
            let rows = old(&pool, what, before(self.days(what)), self.dry_run).await?;
            counts.insert(what.name().to_owned(), json!(rows));
        }
        let mut emptied = 0;
        for place in &places {
            emptied += outputs(&pool, place, before(self.outputs_days), self.dry_run).await?;
        }
        counts.insert("decisions.output".to_owned(), json!(emptied));
        for (name, rows) in &counts {
            println!("{name}: {rows}");
        }
        if !self.dry_run {
            record(&pool, "prune.done", json!({"rows": counts})).await?;
        }
        Ok(())
    }
}

/// Partitions whose group has an offset: of the others nobody knows what was published.
async fn places(config: &Config) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for stage in STAGES.iter().filter(|row| row.kind == Kind::Deciding) {
        let group = Group { stage: stage.name.to_owned() };
        let topics = group.topics().iter().map(|topic| group::prefixed(topic.name(), config)).collect();
        for shown in offsets::show(&config.kafka_client(), &group.id(config), topics).await? {
            let Some(committed) = shown.committed else { continue };
            places.push(Place {
                stage: group.stage.clone(),
                topic: shown.topic,
                partition: shown.partition,
                committed,
            });
        }
    }
    Ok(places)
}

async fn record(pool: &sqlx::PgPool, action: &'static str, after: Value) -> Result<()> {
    let mut tx = pool.begin().await?;
    audit(&mut tx, Action { module: "pipeline", action, severity: "info" }, "database", None, after).await?;
    Ok(tx.commit().await?)
}
