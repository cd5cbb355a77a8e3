//! `milestream dead-letters drop`: gives letters up. Of an upload that stands still by one, a record goes out that only `fraud_check`
//! decides: `failed`, once, unless the upload was decided before.

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use processors::pipeline::STAGES;
use runtime::clock::{Clock as _, SystemClock};
use runtime::dead_letter::header;
use runtime::registry::{Registry, RegistryError, SchemaSource as _};
use runtime::source::RawRecord;
use schemas::codec;
use schemas::events::{
    Event as _, OdometerRead, Review, Root, Stamp, UploadAbandoned, UploadGraded, UploadHeader,
    UploadReceived,
};
use schemas::ids::UploadId;
use schemas::topic::Topic;
use serde_json::json;
use sqlx::{PgConnection, PgPool};

use super::choose::{Chosen, Filter, Place, chosen, keep};
use super::line;
use crate::audit::{Action, audit};
use crate::commands::abandon::{is_decided, order};
use crate::config::Config;
use crate::database;

/// Topics whose records stand between a photo and its verdict.
const BEFORE_THE_VERDICT: [Topic; 3] = [Topic::UploadsReceived, Topic::UploadsGraded, Topic::UploadsReadings];

/// What the driver is told: `--because` may be of our insides.
const SAID: &str = "an operator has given it up after our pipeline could not process it";

/// Of which upload a letter is, and what a person had decided about it.
type Lost = (UploadHeader, Stamp, Option<Review>);

/// Which letters, and why.
#[derive(Debug, Args)]
pub struct Drop {
    /// Where the letters are, as the list shows. Without any, those that the filters hold and that were not redriven or dropped before.
    #[arg(value_name = "PARTITION:OFFSET")]
    places: Vec<Place>,
    #[command(flatten)]
    filter: Filter,
    /// Why, for the audit log.
    #[arg(long = "because", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    because: String,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Letters of an upload too that do not decode: nobody can tell whose they are, and that upload stays undecided.
    #[arg(long)]
    undecodable: bool,
}

/// What giving a letter up takes.
enum Loss {
    /// No upload stands still by it: a sink or a later stage has lost a record.
    Record,
    /// This upload stands still.
    Upload(Box<UploadAbandoned>),
    /// This upload was decided before, and the letter is a repeat of what it was decided by.
    Decided(UploadId),
    /// An upload stands still, and nobody can tell which.
    UnknownUpload(String),
}

impl Drop {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        if self.places.is_empty() && self.filter.is_empty() {
            bail!("name places or filters: `milestream dead-letters list` shows the letters");
        }
        let (pool, registry) = (database::pool(config)?, Registry::new(&config.registry_client())?);
        let schema_id = registry.id_of::<UploadAbandoned>(&config.kafka.topic_prefix).await?;
        let mut portions = chosen(config, &self.places, &self.filter);
        let mut refused = 0_u64;
        while let Some(portion) = portions.next().await? {
            for Chosen { letter, ended } in &portion {
                if ended.is_some() {
                    ensure!(self.places.is_empty(), "redriven or dropped before: {}", line(letter));
                    continue;
                }
                let loss = loss(config, (&registry, &pool), letter).await?;
                match &loss {
                    Loss::UnknownUpload(why) if !self.undecodable => {
                        refused += 1;
                        println!(
                            "refused: its upload is not known ({why}); --undecodable drops it: {}",
                            line(letter)
                        );
                    }
                    _ if self.dry_run => println!("would drop{}: {}", told(&loss), line(letter)),
                    _ => {
                        let mut tx = pool.begin().await?;
                        self.give_up(&mut tx, schema_id, letter, &loss).await?;
                        tx.commit().await?;
                        println!("dropped{}: {}", told(&loss), line(letter));
                    }
                }
            }
        }
        ensure!(refused == 0, "{refused} letters were refused");
        Ok(())
    }

    async fn give_up(
        &self,
        tx: &mut PgConnection,
        schema_id: u32,
        letter: &RawRecord,
        loss: &Loss,
    ) -> Result<()> {
        let mut upload = None;
        if let Loss::Upload(record) = loss {
            upload = Some(record.header.upload_id.to_string());
            // Of several letters of one upload the first ends it.
            order(tx, schema_id, record).await?;
        }
        keep(tx, &[letter], "dropped").await?;
        let what = Action { module: "pipeline", action: "letters.drop", severity: "warning" };
        let after = json!({ "letter": line(letter), "upload": upload, "because": self.because });
        audit(tx, what, "dead-letters", None, after).await
    }
}

/// What becomes of the upload.
fn told(loss: &Loss) -> String {
    match loss {
        Loss::Upload(record) => format!(" (upload {} ends as failed)", record.header.upload_id),
        Loss::Decided(upload) => format!(" (upload {upload} was decided before, and stays as it is)"),
        Loss::UnknownUpload(_) => {
            " (its upload is not known: once you know it, `milestream uploads abandon` ends it)".to_owned()
        }
        Loss::Record => String::new(),
    }
}

/// What is lost with a letter.
///
/// # Errors
/// Where the registry does not respond: whether the letter decodes is not known then.
async fn loss(config: &Config, (registry, pool): (&Registry, &PgPool), letter: &RawRecord) -> Result<Loss> {
    let (stage, topic) = (letter.header(header::STAGE), letter.header(header::TOPIC).unwrap_or_default());
    let topic = topic.strip_prefix(&config.kafka.topic_prefix).unwrap_or(topic);
    // The relay of the outbox is the gateway's here: a person's decision that Kafka has refused.
    let of_a_stage = STAGES.iter().any(|row| Some(row.name) == stage) || stage == Some("outbox");
    if !of_a_stage || !BEFORE_THE_VERDICT.iter().any(|before| before.name() == topic) {
        return Ok(Loss::Record);
    }
    let Some((id, datum)) = letter.payload.as_deref().and_then(|payload| codec::unframe(payload).ok()) else {
        return Ok(Loss::UnknownUpload("it is not framed Avro".into()));
    };
    let schema = match registry.schema(id).await {
        Ok(schema) => schema,
        Err(error @ (RegistryError::Unknown(_) | RegistryError::Unparsable { .. })) => {
            return Ok(Loss::UnknownUpload(error.to_string()));
        }
        Err(error) => return Err(error).with_context(|| format!("schema {id}")),
    };
    let decoded: Result<Lost, _> =
        match schema.name() {
            UploadReceived::NAME => codec::decode::<UploadReceived>(&schema, id, datum)
                .map(|event| (event.header, event.stamp, None)),
            UploadGraded::NAME => codec::decode::<UploadGraded>(&schema, id, datum)
                .map(|event| (event.header, event.stamp, None)),
            OdometerRead::NAME => codec::decode::<OdometerRead>(&schema, id, datum)
                .map(|event| (event.header, event.stamp, event.review)),
            UploadAbandoned::NAME => codec::decode::<UploadAbandoned>(&schema, id, datum)
                .map(|event| (event.header, event.stamp, event.review)),
            other => return Ok(Loss::UnknownUpload(format!("{other} is not known to this release"))),
        };
    let (header, stamp, review) = match decoded {
        Ok(lost) => lost,
        Err(error) => return Ok(Loss::UnknownUpload(error.to_string())),
    };
    if is_decided(pool, header.upload_id, review.is_some()).await? {
        return Ok(Loss::Decided(header.upload_id));
    }
    let by = (env!("CARGO_PKG_VERSION"), SystemClock.now(), root(letter));
    Ok(Loss::Upload(Box::new(UploadAbandoned::of((header, stamp), (SAID.to_owned(), review), by))))
}

/// The original's place, which is the upload's own where it was lost by the first stage.
fn root(letter: &RawRecord) -> Root {
    let number = |name| letter.header(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or(-1);
    let partition = i32::try_from(number(header::PARTITION)).unwrap_or(-1);
    Root { partition, offset: number(header::OFFSET) }
}
