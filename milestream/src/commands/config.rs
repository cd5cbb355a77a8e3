//! `milestream config`: shows the configuration.

use anyhow::Result;
use clap::Subcommand;

use crate::config::Config;

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print it, secrets redacted.
    Show,
}

impl ConfigCommand {
    /// Does it.
    pub fn run(&self, config: &Config) -> Result<()> {
        let Self::Show = self;
        print!("{}", config.shown()?);
        Ok(())
    }
}
