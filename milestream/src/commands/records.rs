//! `milestream records`: looks at a record, and sets one aside that halts a partition.

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use runtime::lookup;
use runtime::registry::{Registry, SchemaSource as _};
use runtime::source::RawRecord;
use runtime::stage::Position;
use schemas::events::registry_subjects;
use schemas::topic::Topic;
use schemas::{codec, show};
use serde_json::{Value, json};

use super::group::{self, Group};
use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;

/// What to do with records.
#[derive(Debug, Subcommand)]
pub enum Records {
    /// Print a record as JSON: key, headers, type and fields. Sealed fields stay sealed.
    Show(Place),
    /// Set a record aside whose type this release does not know and at which a stage or sink halts: it ends there as a dead
    /// letter, which `milestream dead-letters redrive` processes once a release knows the type.
    Skip(Skip),
}

/// Where a record is.
#[derive(Debug, Args)]
pub struct Place {
    /// The topic.
    topic: String,
    /// The partition.
    partition: i32,
    /// The offset.
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    offset: i64,
}

/// Which record to set aside, and for whom.
#[derive(Debug, Args)]
pub struct Skip {
    #[command(flatten)]
    group: Group,
    #[command(flatten)]
    place: Place,
    /// Why, for the dead letter and the audit log.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

impl Records {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Show(place) => place.show(config).await,
            Self::Skip(skip) => skip.run(config).await,
        }
    }
}

/// Prints a record as JSON.
///
/// # Errors
/// Where there is none.
pub async fn show(config: &Config, topic: &str, partition: i32, offset: i64) -> Result<()> {
    Place { topic: topic.to_owned(), partition, offset }.show(config).await
}

impl Place {
    async fn show(&self, config: &Config) -> Result<()> {
        group::topic_named(&self.topic, config)?;
        let record = self.read(config).await?;
        println!("{}", serde_json::to_string_pretty(&shown(config, &record).await?)?);
        Ok(())
    }

    async fn read(&self, config: &Config) -> Result<RawRecord> {
        let topic = group::prefixed(&self.topic, config).into();
        let at = Position { topic, partition: self.partition, offset: self.offset };
        let kafka = config.kafka_client();
        Ok(tokio::task::spawn_blocking(move || lookup::record_at(&kafka, &at)).await??)
    }
}

/// A record as operators may see it. One that does not decode is shown with what is known of it.
async fn shown(config: &Config, record: &RawRecord) -> Result<Value> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<Value> = record
        .headers
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value.as_deref().map(text)}))
        .collect();
    let (kind, fields) = match decoded(config, record).await {
        Ok((kind, fields)) => (json!(kind), fields),
        Err(error) => (Value::Null, json!(format!("{error:#}"))),
    };
    Ok(json!({
        "topic": &*record.position.topic, "partition": record.position.partition, "offset": record.position.offset,
        "timestamp_ms": record.timestamp_ms, "key": record.key.as_deref().map(text), "headers": headers,
        "bytes": record.payload.as_ref().map(Vec::len), "record": kind, "fields": fields,
    }))
}

/// The record's type and fields.
async fn decoded(config: &Config, record: &RawRecord) -> Result<(String, Value)> {
    let payload =
        record.payload.as_deref().context("a record without value: a tombstone of a compacted topic")?;
    let (id, datum) = codec::unframe(payload)?;
    let registry = Registry::new(&config.registry_client())?;
    let schema = registry.schema(id).await.with_context(|| format!("schema {id}"))?;
    Ok((schema.name().to_owned(), show::json_of(schema.avro(), id, datum)?))
}

impl Skip {
    async fn run(&self, config: &Config) -> Result<()> {
        let (group, place) = (&self.group, &self.place);
        let (topic, name) = group.topic(&place.topic, config)?;
        let record = place.read(config).await?;
        let (kind, fields) = decoded(config, &record)
            .await
            .context("only a record of a known schema halts a stage; one that does not decode is a dead letter already")?;
        refuse_known(&topic, &kind, &fields)?;
        let pool = database::pool(config)?;
        let mut tx = pool.begin().await?;
        let next = self.next(config, &name, &mut tx).await?;
        ensure!(
            place.offset >= next,
            "{} has processed {name}/{}@{}: its next record is {next}",
            group.stage,
            place.partition,
            place.offset
        );
        let added = sqlx::query(
            "insert into skipped_records (stage, topic, partition, record_offset, reason) values ($1, $2, $3, $4, $5)
             on conflict do nothing",
        )
        .bind(&group.stage)
        .bind(&name)
        .bind(place.partition)
        .bind(place.offset)
        .bind(&self.reason)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        ensure!(added == 1, "{} skips this record already", group.stage);
        let target = format!("{} {name}/{}@{}", group.stage, place.partition, place.offset);
        let before = json!({"record": kind, "next_offset": next});
        let after = json!({"outcome": "dead_letter", "reason": self.reason});
        let what = Action { module: "pipeline", action: "record.skip", severity: "warning" };
        audit(&mut tx, what, &target, Some(before), after).await?;
        tx.commit().await?;
        println!("{target} ({kind}) becomes a dead letter: a running {} goes on within seconds", group.stage);
        Ok(())
    }

    /// The next record that the group processes here: what it has decided counts, where it decides.
    async fn next(&self, config: &Config, topic: &str, tx: &mut sqlx::PgConnection) -> Result<i64> {
        let groups =
            runtime::offsets::show(&config.kafka_client(), &self.group.id(config), vec![topic.to_owned()])
                .await?;
        let found = groups.iter().find(|found| found.partition == self.place.partition);
        let committed = found.and_then(|found| found.committed).unwrap_or(0);
        let decided: Option<i64> = sqlx::query_scalar(
            "select decided_upto from stage_offsets where stage = $1 and topic = $2 and partition = $3",
        )
        .bind(&self.group.stage)
        .bind(topic)
        .bind(self.place.partition)
        .fetch_optional(tx)
        .await?;
        Ok(committed.max(decided.unwrap_or(0)))
    }
}

/// A record that this release can read is never skipped: a stage that halts there needs another remedy, and what the record
/// is about would be lost.
fn refuse_known(topic: &Topic, kind: &str, fields: &Value) -> Result<()> {
    if !registry_subjects().iter().any(|(on, known, _)| on == topic && *known == kind) {
        return Ok(());
    }
    let of = ["reward_id", "upload_id", "user_id", "block", "event_id"]
        .iter()
        .find_map(|name| Some(format!("{name} {}", fields.get(name)?)));
    bail!(
        "{kind} is known to this release: skipped, it would be lost with all that follows from it ({}). The stage's log says \
         why it halts there",
        of.unwrap_or_else(|| "no id".to_owned())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_this_release_reads_is_refused_with_what_would_be_lost() {
        let fields = json!({"event_id": "e", "reward_id": "r-1"});
        let error = refuse_known(&Topic::RewardsGranted, "milestream.RewardGranted", &fields).unwrap_err();
        assert!(
            error.to_string().contains("it would be lost with all that follows from it (reward_id \"r-1\")"),
            "{error}"
        );
        assert!(refuse_known(&Topic::RewardsGranted, "milestream.RewardDoubled", &fields).is_ok());
        // Known elsewhere, but not on this topic: the stage halts there.
        assert!(refuse_known(&Topic::RewardsGranted, "milestream.UploadGraded", &fields).is_ok());
    }
}
