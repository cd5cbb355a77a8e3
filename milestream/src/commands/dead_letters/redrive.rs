//! `milestream dead-letters redrive`: appends originals to their topics again, at a bounded rate, and not for ever.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use runtime::letters::{self, Redriver};
use serde_json::json;

use super::choose::{Chosen, Filter, Place, chosen, keep};
use super::line;
use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;

/// How often an original may come back as a letter: what still fails then fails by itself, and goes round for ever.
const MOST_REDRIVES: u32 = 3;

/// Which letters, and how.
#[derive(Debug, Args)]
pub struct Redrive {
    /// Where the letters are, as the list shows. Without any, those that the filters hold and that were not redriven or dropped before.
    #[arg(value_name = "PARTITION:OFFSET")]
    places: Vec<Place>,
    #[command(flatten)]
    filter: Filter,
    /// Every letter, where no place and no filter is named.
    #[arg(long)]
    all: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Records per second at most: those who consume them have other work too.
    #[arg(long, value_name = "RECORDS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Those too that have come back as a letter three times or more.
    #[arg(long)]
    force: bool,
}

impl Redrive {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        if self.places.is_empty() && self.filter.is_empty() && !self.all {
            bail!("name places, filters or --all: `milestream dead-letters list` shows the letters");
        }
        let (pool, redriver) = (database::pool(config)?, Redriver::new(&config.kafka_client())?);
        let mut portions = chosen(config, &self.places, &self.filter);
        let pause = Duration::from_secs(1) / self.rate;
        let (mut done, mut refused) = (0_u64, 0_u64);
        while let Some(portion) = portions.next().await? {
            let mut redriven = Vec::new();
            for Chosen { letter, ended } in &portion {
                // A letter that is named is meant, whatever was done with it before: a second time changes nothing.
                if self.places.is_empty() && ended.is_some() {
                    continue;
                }
                if let Some(why) = self.refused(letter) {
                    refused += 1;
                    println!("refused: {why}: {}", line(letter));
                } else if self.dry_run {
                    println!("would append: {}", line(letter));
                } else {
                    let topic = redriver.redrive(letter).await?;
                    let place = Place::of(letter);
                    println!("{}:{} appended to {topic}", place.partition, place.offset);
                    redriven.push(letter);
                    tokio::time::sleep(pause).await;
                }
            }
            done += redriven.len() as u64;
            if !redriven.is_empty() {
                let mut tx = pool.begin().await?;
                keep(&mut tx, &redriven, "redriven").await?;
                let what = Action { module: "pipeline", action: "letters.redrive", severity: "info" };
                let places: Vec<_> = redriven.iter().map(|letter| line(letter)).collect();
                audit(&mut tx, what, "dead-letters", None, json!({ "letters": places, "force": self.force }))
                    .await?;
                tx.commit().await?;
            }
        }
        ensure!(refused == 0, "{done} letters were redriven, {refused} were refused");
        Ok(())
    }

    /// Why a letter is not redriven.
    fn refused(&self, letter: &runtime::source::RawRecord) -> Option<&'static str> {
        if letters::is_cut(letter) {
            return Some("it holds only the first bytes of its original");
        }
        let often = letters::redrives(letter) >= MOST_REDRIVES && !self.force;
        often.then_some("its original has come back three times; mend the cause, then add --force")
    }
}
