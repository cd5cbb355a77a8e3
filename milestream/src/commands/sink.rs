//! `milestream sink`: runs sinks.

use anyhow::Result;
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::config::Config;
use crate::roles::{self, Roles, SINKS};

/// Which sinks to run.
#[derive(Debug, Args)]
pub struct Sink {
    /// The sinks.
    #[arg(required = true, value_name = "SINK", value_parser = PossibleValuesParser::new(SINKS))]
    sinks: Vec<String>,
}

impl Sink {
    /// Runs them until asked to stop.
    pub async fn run(&self, config: &Config) -> Result<()> {
        roles::run(config, Roles::sinks(&self.sinks)?).await
    }
}
