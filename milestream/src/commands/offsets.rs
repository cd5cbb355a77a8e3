//! `milestream offsets`: where consumer groups stand, and the ways to move them that break no promise.

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use runtime::offsets::{self, GroupOffset, Target};
use serde_json::{Value, json};

use super::group::{self, Group};
use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;

/// What to do with offsets.
#[derive(Debug, Subcommand)]
pub enum Offsets {
    /// Show where groups stand: group, topic/partition, next record, end, lag; for a deciding stage also `decided_upto`.
    Show {
        /// Only this stage or sink.
        #[arg(value_name = "STAGE", value_parser = clap::builder::PossibleValuesParser::new(group::names()))]
        stage: Option<String>,
    },
    /// Set the offsets of a stopped pure stage, paying stage or sink back, so that it processes records again: what it writes
    /// is the same, and what comes of it is recognized as a repeat.
    Reset(Reset),
    /// Set the offsets of a stopped deciding stage where they contradict its decisions: after a restore of the database, or
    /// when the group's offsets have expired.
    Align(Group),
}

/// Where to set a group back to.
#[derive(Debug, Args)]
pub struct Reset {
    #[command(flatten)]
    group: Group,
    /// Only this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition.
    #[arg(long, requires = "topic")]
    partition: Option<i32>,
    /// An offset; without it the oldest record that is kept.
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    to: Option<i64>,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Offsets {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Show { stage } => {
                for name in group::names().filter(|name| stage.as_deref().is_none_or(|stage| stage == *name))
                {
                    show(config, &Group { stage: name.to_owned() }).await?;
                }
                Ok(())
            }
            Self::Reset(reset) => reset.run(config).await,
            Self::Align(group) => align(config, group).await,
        }
    }
}

async fn show(config: &Config, group: &Group) -> Result<()> {
    let decided = if group.decides() { decided_upto(config, group).await? } else { Vec::new() };
    for place in places(config, group).await? {
        let decided = decided
            .iter()
            .find(|(topic, partition, _)| (topic, *partition) == (&place.topic, place.partition))
            .map_or(String::new(), |(_, _, upto)| format!(" decided_upto {upto}"));
        println!(
            "{} {}/{} next {} end {} lag {}{decided}",
            group.stage,
            place.topic,
            place.partition,
            place.committed.map_or("-".to_owned(), |offset| offset.to_string()),
            place.end,
            place.lag(),
        );
    }
    Ok(())
}

async fn places(config: &Config, group: &Group) -> Result<Vec<GroupOffset>> {
    let topics = group.topics().iter().map(|topic| group::prefixed(topic.name(), config)).collect();
    Ok(offsets::show(&config.kafka_client(), &group.id(config), topics).await?)
}

async fn decided_upto(config: &Config, group: &Group) -> Result<Vec<Target>> {
    let query = "select topic, partition, decided_upto from stage_offsets where stage = $1";
    Ok(sqlx::query_as(query).bind(&group.stage).fetch_all(&database::pool(config)?).await?)
}

impl Reset {
    async fn run(&self, config: &Config) -> Result<()> {
        let stage = &self.group.stage;
        ensure!(
            !self.group.decides(),
            "{stage} decides: another offset than its decisions reach would decide a record twice or not at all. \
             `milestream offsets align {stage}` sets it to what they reach"
        );
        let topic = match &self.topic {
            Some(name) => Some(self.group.topic(name, config)?.1),
            None => None,
        };
        let mut before = places(config, &self.group).await?;
        before.retain(|place| {
            topic.as_ref().is_none_or(|topic| *topic == place.topic)
                && self.partition.is_none_or(|partition| partition == place.partition)
        });
        ensure!(!before.is_empty(), "there is no such partition");
        let targets = before.iter().map(|place| self.target(place)).collect::<Result<Vec<_>>>()?;
        set(config, &self.group, "offsets.reset", &before, targets, &self.reason).await
    }

    /// Where to set one partition; never forward, where records would be passed over.
    fn target(&self, place: &GroupOffset) -> Result<Target> {
        let to = self.to.unwrap_or(place.low);
        let GroupOffset { topic, partition, low, .. } = place;
        let next = place.committed.unwrap_or(*low);
        if to > next {
            bail!(
                "{topic}/{partition}: {to} lies ahead of the next record, {next}: {} records would be lost. \
                 `milestream records skip` sets a single one aside, as a dead letter",
                to - next
            );
        }
        ensure!(to >= *low, "{topic}/{partition}: {to} is not kept any more, {low} is the oldest");
        Ok((topic.clone(), *partition, to))
    }
}

async fn align(config: &Config, group: &Group) -> Result<()> {
    let stage = &group.stage;
    ensure!(
        group.decides(),
        "{stage} stores no decisions, so there is nothing to align with; `milestream offsets reset {stage}` sets it back"
    );
    let (kafka, pool) = (config.kafka_client(), database::pool(config)?);
    let targets = offsets::misaligned(&kafka, &pool, &config.kafka.topic_prefix, stage).await?;
    if targets.is_empty() {
        println!(
            "{stage} is aligned: it starts as it is, and publishes again what it has decided and not published"
        );
        return Ok(());
    }
    let before = places(config, group).await?;
    set(config, group, "offsets.align", &before, targets, "the group contradicts the decisions").await
}

/// Sets offsets and records that in the audit log: Kafka first, so that what is recorded has been done.
async fn set(
    config: &Config,
    group: &Group,
    action: &'static str,
    before: &[GroupOffset],
    targets: Vec<Target>,
    reason: &str,
) -> Result<()> {
    let mut tx = database::pool(config)?.begin().await?;
    let changed = |(topic, partition, _): &Target| {
        let place = before.iter().find(|place| (&place.topic, place.partition) == (topic, *partition));
        json!({"topic": topic, "partition": partition, "offset": place.and_then(|place| place.committed)})
    };
    let old: Value = targets.iter().map(changed).collect();
    let new: Value = targets
        .iter()
        .map(|(topic, partition, offset)| json!({"topic": topic, "partition": partition, "offset": offset}))
        .collect();
    let what = Action { module: "pipeline", action, severity: "warning" };
    let after = json!({"offsets": new, "reason": reason});
    audit(&mut tx, what, &group.stage, Some(json!({"offsets": old})), after).await?;
    offsets::set(&config.kafka_client(), &group.id(config), targets.clone()).await?;
    tx.commit().await?;
    for (topic, partition, offset) in targets {
        println!("{topic}/{partition}: {offset}");
    }
    Ok(())
}
