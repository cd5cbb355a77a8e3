//! `milestream dead-letters`: looks at the records that a role could not process, and appends them again.

use anyhow::Result;
use clap::Subcommand;
use runtime::dead_letter::header;
use runtime::source::RawRecord;
use schemas::topic::Topic;

use crate::config::Config;

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
        #[arg(required = true, value_name = "PARTITION:OFFSET", value_parser = place)]
        places: Vec<(i32, i64)>,
    },
}

fn place(text: &str) -> Result<(i32, i64), String> {
    let parsed = text.split_once(':').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is not PARTITION:OFFSET, e.g. 2:17"))
}

impl DeadLetters {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::List { stage, reason } => list(config, stage.as_deref(), reason.as_deref()).await,
            Self::Redrive { places } => redrive(config, places).await,
        }
    }
}

/// Prints dead letters, one per line.
async fn list(config: &Config, stage: Option<&str>, reason: Option<&str>) -> Result<()> {
    for letter in dead_letters(config).await? {
        let field = |name| letter.header(name).unwrap_or("?");
        let wanted = |filter: Option<&str>, name| filter.is_none_or(|filter| filter == field(name));
        if wanted(stage, header::STAGE) && wanted(reason, header::REASON) {
            println!(
                "{}:{} {} {} {}/{}@{} {}",
                letter.position.partition,
                letter.position.offset,
                field(header::STAGE),
                field(header::REASON),
                field(header::TOPIC),
                field(header::PARTITION),
                field(header::OFFSET),
                field(header::DETAIL)
            );
        }
    }
    Ok(())
}

/// Appends the originals of dead letters to their topics again.
async fn redrive(config: &Config, places: &[(i32, i64)]) -> Result<()> {
    let letters = dead_letters(config).await?;
    let topics = runtime::letters::redrive(&config.kafka_client(), &letters, places).await?;
    for ((partition, offset), topic) in places.iter().zip(topics) {
        println!("{partition}:{offset} appended to {topic}");
    }
    Ok(())
}

async fn dead_letters(config: &Config) -> Result<Vec<RawRecord>> {
    let topic = format!("{}{}", config.kafka.topic_prefix, Topic::DeadLetters.name());
    let client = config.kafka_client();
    Ok(tokio::task::spawn_blocking(move || runtime::snapshot::read(&client, &topic)).await??)
}
