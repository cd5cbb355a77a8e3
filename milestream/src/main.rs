//! The binary: reads the command line and the configuration, starts the log, and does one thing.

use std::process::ExitCode;

use clap::Parser as _;

mod cli;
mod config;
mod operate;
mod payments;
mod roles;
mod telemetry;

use cli::{Cli, Command, ConfigCommand, DeadLetters, Keys, Offsets, Topics};
use config::Config;

fn main() -> ExitCode {
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
    runtime.block_on(dispatch(&cli.command, &config))
}

async fn dispatch(command: &Command, config: &Config) -> anyhow::Result<()> {
    match command {
        Command::Ingest => roles::run(config, roles::Roles::gateway()).await,
        Command::Process { stages } => roles::run(config, roles::Roles::stages(stages)?).await,
        Command::Sink { sinks } => roles::run(config, roles::Roles::sinks(sinks)?).await,
        Command::All => roles::run(config, roles::Roles::all(!config.chain.genesis_id.is_empty())).await,
        Command::Topics(Topics::Apply) => operate::apply_topics(config).await,
        Command::Topics(Topics::Check) => operate::check_topics(config).await,
        Command::Migrate => operate::migrate(config).await,
        Command::Rebuild => operate::rebuild(config).await,
        Command::DeadLetters(DeadLetters::List { stage, reason }) => {
            operate::list_dead_letters(config, stage.as_deref(), reason.as_deref()).await
        }
        Command::DeadLetters(DeadLetters::Redrive { places }) => operate::redrive(config, places).await,
        Command::Offsets(Offsets::Align { stage }) => operate::align_offsets(config, stage).await,
        Command::Keys(Keys::Generate) => operate::generate_keys(config),
        Command::Token { user, role, hours } => operate::token(config, *user, *role, *hours).await,
        Command::Config(ConfigCommand::Show) => {
            print!("{}", config.shown()?);
            Ok(())
        }
    }
}
