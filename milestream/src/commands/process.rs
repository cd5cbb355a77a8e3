//! `milestream process`: runs stages.

use anyhow::Result;
use clap::Args;
use clap::builder::PossibleValuesParser;
use processors::pipeline::STAGES;

use crate::config::Config;
use crate::roles::{self, Roles};

/// Which stages to run.
#[derive(Debug, Args)]
pub struct Process {
    /// The stages.
    #[arg(required = true, value_name = "STAGE", value_parser = PossibleValuesParser::new(STAGES.iter().map(|row| row.name)))]
    stages: Vec<String>,
}

impl Process {
    /// Runs them until asked to stop.
    pub async fn run(&self, config: &Config) -> Result<()> {
        roles::run(config, Roles::stages(&self.stages)?).await
    }
}
