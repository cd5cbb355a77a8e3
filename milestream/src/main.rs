//! The binary: reads the command line and the configuration, starts the log, and does one thing.

use std::process::ExitCode;

use clap::Parser as _;

mod audit;
mod chain_commands;
mod cli;
mod config;
mod operate;
mod payments;
mod read;
mod roles;
mod service_commands;
mod telemetry;

use cli::{
    Cli, Command, ConfigCommand, Contracts, DeadLetters, Keys, Networks, Offsets, Service, Topics, Wallet,
};
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
        Command::Watch => roles::run(config, roles::Roles::watcher()).await,
        Command::Sink { sinks } => roles::run(config, roles::Roles::sinks(sinks)?).await,
        Command::All => roles::run(config, roles::Roles::all(!config.chain.genesis_id.is_empty())).await,
        Command::Topics(Topics::Apply) => operate::apply_topics(config).await,
        Command::Topics(Topics::Check) => operate::compare_topics(config).await,
        Command::Read(args) => read::run(args),
        Command::Migrate => operate::migrate(config).await,
        Command::Rebuild => operate::rebuild(config).await,
        Command::DeadLetters(DeadLetters::List { stage, reason }) => {
            operate::list_dead_letters(config, stage.as_deref(), reason.as_deref()).await
        }
        Command::DeadLetters(DeadLetters::Redrive { places }) => operate::redrive(config, places).await,
        Command::Offsets(Offsets::Align { stage }) => operate::align_offsets(config, stage).await,
        Command::Keys(Keys::Generate) => operate::generate_keys(config),
        Command::Keys(Keys::Distributor { import, light }) => {
            chain_commands::distributor(config, import.as_deref(), *light)
        }
        Command::Service(Service::List) => service_commands::list(config).await,
        Command::Service(Service::Set(service)) => service_commands::set(config, service).await,
        Command::Service(Service::Disable { name }) => service_commands::disable(config, name).await,
        Command::Service(Service::Rotate) => service_commands::rotate(config).await,
        Command::Networks(Networks::Add { rpc_url, websocket_url, priority }) => {
            chain_commands::add_node(config, rpc_url, websocket_url.as_deref(), *priority).await
        }
        Command::Networks(Networks::List) => chain_commands::list_nodes(config).await,
        Command::Networks(Networks::Disable { rpc_url }) => {
            chain_commands::disable_node(config, rpc_url).await
        }
        Command::Contracts(Contracts::Add { name, address, app_id, deployed_tx }) => {
            chain_commands::add_contract(config, name, address, app_id.as_deref(), deployed_tx.as_deref())
                .await
        }
        Command::Contracts(Contracts::List) => chain_commands::list_contracts(config).await,
        Command::Contracts(Contracts::Refresh) => chain_commands::refresh_contracts(config).await,
        Command::Wallet(Wallet::Add { user, address }) => {
            chain_commands::add_wallet(config, *user, address).await
        }
        Command::Token { user, role, hours } => operate::token(config, *user, *role, *hours).await,
        Command::Config(ConfigCommand::Show) => {
            print!("{}", config.shown()?);
            Ok(())
        }
    }
}
