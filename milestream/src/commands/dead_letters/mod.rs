//! `milestream dead-letters`: looks at the records that a role could not process, appends them again, and gives up what cannot be mended.

mod choose;
mod drop;
mod redrive;

use anyhow::Result;
use clap::Subcommand;
use runtime::dead_letter::header;
use runtime::source::RawRecord;

use self::choose::{Chosen, Filter, Place, chosen};
use super::records;
use crate::config::Config;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them: place, role, reason, original topic, partition and offset, and the cause in words.
    List {
        #[command(flatten)]
        filter: Filter,
        /// Those too that were redriven or dropped, with what was done.
        #[arg(long)]
        all: bool,
    },
    /// Print a letter as JSON: its headers, and type and fields of the original. Sealed fields stay sealed.
    Show {
        /// Where the letter is, as the list shows: PARTITION:OFFSET.
        #[arg(value_name = "PARTITION:OFFSET")]
        place: Place,
    },
    /// Append the originals to their topics again, once the cause is gone.
    Redrive(redrive::Redrive),
    /// Give letters up. An upload that stands still by one ends as `failed`, which is our fault and lets its driver send the photo again.
    Drop(drop::Drop),
}

impl DeadLetters {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::List { filter, all } => list(config, filter, *all).await,
            Self::Show { place } => {
                records::show(config, "dead-letters", place.partition, place.offset).await
            }
            Self::Redrive(redrive) => redrive.run(config).await,
            Self::Drop(drop) => drop.run(config).await,
        }
    }
}

/// Prints dead letters, one per line.
async fn list(config: &Config, filter: &Filter, all: bool) -> Result<()> {
    let mut portions = chosen(config, &[], filter);
    while let Some(portion) = portions.next().await? {
        for Chosen { letter, ended } in portion {
            match ended {
                None => println!("{}", line(&letter)),
                Some(ended) if all => println!("{} [{ended}]", line(&letter)),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// A letter as the list shows it.
fn line(letter: &RawRecord) -> String {
    let field = |name| letter.header(name).unwrap_or("?");
    format!(
        "{}:{} {} {} {}/{}@{} {}",
        letter.position.partition,
        letter.position.offset,
        field(header::STAGE),
        field(header::REASON),
        field(header::TOPIC),
        field(header::PARTITION),
        field(header::OFFSET),
        field(header::DETAIL)
    )
}
