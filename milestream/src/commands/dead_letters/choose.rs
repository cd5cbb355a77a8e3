//! Which letters are meant. The topic is read in portions, so that a million letters need no more memory than a thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::str::FromStr;

use anyhow::{Result, ensure};
use chrono::DateTime;
use clap::Args;
use runtime::dead_letter::header;
use runtime::snapshot::{self, SnapshotError};
use runtime::source::RawRecord;
use schemas::topic::Topic;
use sqlx::PgPool;
use tokio::sync::mpsc;

use crate::commands::group;
use crate::config::Config;
use crate::database;

/// Letters of a portion, at most 900 kB each; three portions are in memory at once.
const PORTION: usize = 50;

/// Where a letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The partition of `dead-letters`.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
        let (partition, offset) =
            parsed.ok_or_else(|| format!("{text:?} is not PARTITION:OFFSET, e.g. 2:17"))?;
        Ok(Self { partition, offset })
    }
}

impl Place {
    /// Of a letter.
    pub fn of(letter: &RawRecord) -> Self {
        Self { partition: letter.position.partition, offset: letter.position.offset }
    }
}

/// Which letters; all that is named must hold.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only originals of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only those of this role.
    #[arg(long)]
    stage: Option<String>,
    /// Only those with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Only those made at this time or later, e.g. 2026-03-01T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Only those made before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
}

/// Microseconds since 1970.
fn time(text: &str) -> Result<i64, String> {
    let parsed = DateTime::parse_from_rfc3339(text);
    parsed
        .map(|at| at.timestamp_micros())
        .map_err(|error| format!("{text:?} is no time as in RFC 3339, e.g. 2026-03-01T00:00:00Z: {error}"))
}

/// When a letter was made, microseconds; 0 where it does not say.
pub fn made_at(letter: &RawRecord) -> i64 {
    letter.header(header::AT).and_then(|at| at.parse().ok()).unwrap_or(0)
}

impl Filter {
    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        let Self { topic, stage, reason, from, to } = self;
        [topic, stage, reason].iter().all(|text| text.is_none()) && from.is_none() && to.is_none()
    }

    fn holds(&self, letter: &RawRecord, prefix: &str) -> bool {
        let is = |wanted: &Option<String>, name| {
            wanted.as_deref().is_none_or(|wanted| letter.header(name) == Some(wanted))
        };
        let topic = self
            .topic
            .as_ref()
            .map(|topic| if topic.starts_with(prefix) { topic.clone() } else { format!("{prefix}{topic}") });
        let at = made_at(letter);
        is(&topic, header::TOPIC)
            && is(&self.stage, header::STAGE)
            && is(&self.reason, header::REASON)
            && self.from.is_none_or(|from| at >= from)
            && self.to.is_none_or(|to| at < to)
    }
}

/// A letter, and what an operator has done with it before.
#[derive(Debug)]
pub struct Chosen {
    /// The letter.
    pub letter: RawRecord,
    /// `redriven` or `dropped`.
    pub ended: Option<String>,
}

/// Portions of letters; when it is dropped, the topic is read no further.
pub struct Portions {
    receiver: mpsc::Receiver<Vec<RawRecord>>,
    reader: Option<tokio::task::JoinHandle<Result<BTreeSet<Place>, SnapshotError>>>,
    pool: Result<PgPool>,
}

/// The letters at these places, or, where none is named, those that the filter holds.
pub fn chosen(config: &Config, places: &[Place], filter: &Filter) -> Portions {
    let (sender, receiver) = mpsc::channel(1);
    let topic = group::prefixed(Topic::DeadLetters.name(), config);
    let (kafka, prefix) = (config.kafka_client(), config.kafka.topic_prefix.clone());
    let (mut wanted, filter): (BTreeSet<Place>, _) = (places.iter().copied().collect(), filter.clone());
    let by_place = !wanted.is_empty();
    let reader = tokio::task::spawn_blocking(move || {
        let mut portion = Vec::new();
        snapshot::each(&kafka, &topic, |letter| {
            let is_wanted =
                if by_place { wanted.remove(&Place::of(&letter)) } else { filter.holds(&letter, &prefix) };
            if is_wanted {
                portion.push(letter);
            }
            let full = portion.len() >= PORTION;
            if full && sender.blocking_send(std::mem::take(&mut portion)).is_err() {
                return ControlFlow::Break(());
            }
            if by_place && wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if !portion.is_empty() {
            // Nobody waits for it where the command has ended with an error.
            let _ = sender.blocking_send(portion);
        }
        Ok(wanted)
    });
    Portions { receiver, reader: Some(reader), pool: database::pool(config) }
}

impl Portions {
    /// The next letters, of each partition in order; none at the end.
    ///
    /// # Errors
    /// Kafka's and Postgres', and at the end for a place that holds no letter.
    pub async fn next(&mut self) -> Result<Option<Vec<Chosen>>> {
        let Some(letters) = self.receiver.recv().await else {
            let Some(reader) = self.reader.take() else { return Ok(None) };
            let missing = reader.await??;
            let names: Vec<_> =
                missing.iter().map(|place| format!("{}:{}", place.partition, place.offset)).collect();
            ensure!(names.is_empty(), "there is no dead letter at {}", names.join(", "));
            return Ok(None);
        };
        let pool = self.pool.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let mut ended = ends(pool, &letters).await?;
        let chosen =
            letters.into_iter().map(|letter| Chosen { ended: ended.remove(&Place::of(&letter)), letter });
        Ok(Some(chosen.collect()))
    }
}

/// What was done with these letters.
async fn ends(pool: &PgPool, letters: &[RawRecord]) -> Result<BTreeMap<Place, String>> {
    let (partitions, offsets, made) = columns(letters.iter());
    let rows: Vec<(i32, i64, String)> = sqlx::query_as(
        "select partition, letter_offset, ended from dead_letter_ends
         join unnest($1::int[], $2::bigint[], $3::bigint[]) as l (partition, letter_offset, letter_at_us)
            using (partition, letter_offset, letter_at_us)",
    )
    .bind(partitions)
    .bind(offsets)
    .bind(made)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(partition, offset, ended)| (Place { partition, offset }, ended)).collect())
}

/// Partitions, offsets and times.
pub fn columns<'a>(letters: impl Iterator<Item = &'a RawRecord>) -> (Vec<i32>, Vec<i64>, Vec<i64>) {
    let (mut partitions, mut offsets, mut made) = (Vec::new(), Vec::new(), Vec::new());
    for letter in letters {
        partitions.push(letter.position.partition);
        offsets.push(letter.position.offset);
        made.push(made_at(letter));
    }
    (partitions, offsets, made)
}

/// Keeps what was done with letters; what was kept before stays.
///
/// # Errors
/// Postgres'.
pub async fn keep(tx: &mut sqlx::PgConnection, letters: &[&RawRecord], ended: &str) -> sqlx::Result<()> {
    let (partitions, offsets, made) = columns(letters.iter().copied());
    sqlx::query(
        "insert into dead_letter_ends (partition, letter_offset, letter_at_us, ended)
         select *, $4 from unnest($1::int[], $2::bigint[], $3::bigint[])
         on conflict (partition, letter_offset, letter_at_us) do update set ended = excluded.ended, ended_at = now()",
    )
    .bind(partitions)
    .bind(offsets)
    .bind(made)
    .bind(ended)
    .execute(tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use runtime::Position;

    use super::*;

    fn letter(headers: &[(&str, &str)]) -> RawRecord {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())));
        RawRecord {
            position: Position { topic: Arc::from("dead-letters"), partition: 1, offset: 2 },
            key: None,
            payload: None,
            headers: headers.collect(),
            timestamp_ms: 0,
        }
    }

    #[test]
    fn a_letter_is_chosen_by_all_that_is_named_with_and_without_the_environments_prefix() {
        let made = time("2026-03-01T12:00:00Z").unwrap();
        let made_text = made.to_string();
        let one = letter(&[
            (header::TOPIC, "test.uploads.graded"),
            (header::STAGE, "odometer_reading"),
            (header::REASON, "bad_datum"),
            (header::AT, &made_text),
        ]);
        let text = |text: &str| Some(text.to_owned());
        let good = Filter {
            topic: text("uploads.graded"),
            stage: text("odometer_reading"),
            reason: text("bad_datum"),
            from: Some(made),
            to: Some(made + 1),
        };
        assert!(good.holds(&one, "test.") && !good.is_empty());
        assert!(Filter { topic: text("test.uploads.graded"), ..good.clone() }.holds(&one, "test."));
        for other in [
            Filter { topic: text("uploads.readings"), ..good.clone() },
            Filter { stage: text("fraud_check"), ..good.clone() },
            Filter { reason: text("bad_row"), ..good.clone() },
            Filter { from: Some(made + 1), ..good.clone() },
            Filter { to: Some(made), ..good },
        ] {
            assert!(!other.holds(&one, "test."), "{other:?}");
        }
        assert!(Filter::default().holds(&letter(&[]), "") && Filter::default().is_empty());
        assert!(time("yesterday").is_err());
        assert_eq!("2:17".parse(), Ok(Place { partition: 2, offset: 17 }));
        assert!("2".parse::<Place>().is_err());
    }
}
