//! The binary: reads the command line and the configuration, starts the log, and does one thing.

use std::process::ExitCode;

use clap::Parser as _;

mod audit;
mod calls;
mod commands;
mod config;
mod database;
#[cfg(test)]
mod documents;
mod erasure;
mod key_files;
mod memory;
#[cfg(test)]
mod named_commands;
#[cfg(test)]
mod pages;
mod payments;
mod recorded;
mod rewinds;
mod roles;
mod schema_ids;
mod signing;
mod stores;
mod system_config;
mod telemetry;
mod timers;

use commands::Cli;
use config::Config;

fn main() -> ExitCode {
    memory::give_back_large_buffers();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("milestream: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let config = Config::load(&cli.config)?;
    telemetry::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(cli.command.run(&config))
}
