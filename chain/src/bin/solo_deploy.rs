//! Sets up a local Thor node for paying rewards: compiles the contracts, deploys them, fills the pool, and prints the addresses as
//! JSON. With `--out` a set-up that the node still has is kept: the same JSON is printed again and nothing is sent.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chain::deploy::{Artifacts, Deployment, Plan, SOLO_KEYS, deploy};
use chain::keystore::{Keystore, Password, ScryptCost};
use chain::node::{Limits, Node};
use chain::{Signer, Wei};
use clap::Parser;
use rust_decimal::Decimal;
use secrecy::SecretBox;

/// Sets up B3TR and the reward pool on a local Thor node.
#[derive(Parser)]
struct Arguments {
    /// Address of the node's API.
    #[arg(long, env = "THOR_URL")]
    node: String,
    /// Folder with compile.mjs and its package files.
    #[arg(long)]
    contracts: PathBuf,
    /// Folder for packages and compiled contracts; created when missing.
    #[arg(long)]
    work: PathBuf,
    /// Name of the app that pays.
    #[arg(long, default_value = "milestream")]
    app: String,
    /// B3TR to fill the app's purse with.
    #[arg(long, default_value = "1000000")]
    funds: Decimal,
    /// File that keeps the addresses between runs.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Also write the distributor's key here, encrypted, unless the file exists.
    #[arg(long, requires = "password_file")]
    keystore: Option<PathBuf>,
    /// File whose first line is the keystore's password.
    #[arg(long)]
    password_file: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("solo_deploy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<String, Box<dyn std::error::Error>> {
    let node = Node::new(&arguments.node, None, Limits::default())?;
    let distributor = Signer::from_hex(SOLO_KEYS[1])?;
    if let (Some(path), Some(password)) = (&arguments.keystore, &arguments.password_file) {
        write_keystore(path, password)?;
    }
    if let Some(kept) = kept(arguments.out.as_deref(), &node).await? {
        return Ok(kept);
    }
    let artifacts = Artifacts::compile(&arguments.contracts, &arguments.work)?;
    let plan = Plan {
        app_name: arguments.app.clone(),
        distributor: distributor.address(),
        funds: Wei::from_b3tr(arguments.funds)?,
    };
    let deployment = deploy(&node, &artifacts, &Signer::from_hex(SOLO_KEYS[0])?, &plan).await?;
    let json = serde_json::to_string_pretty(&deployment)?;
    if let Some(path) = &arguments.out {
        std::fs::write(path, &json)?;
    }
    Ok(json)
}

/// What an earlier run wrote, if the node still has it. An unreadable file is an error, not a reason to deploy again.
async fn kept(out: Option<&Path>, node: &Node) -> Result<Option<String>, Box<dyn std::error::Error>> {
    let Some(path) = out.filter(|path| path.exists()) else { return Ok(None) };
    let deployment: Deployment = serde_json::from_str(&std::fs::read_to_string(path)?)
        .map_err(|e| format!("{}: {e}; remove it to deploy anew", path.display()))?;
    if deployment.is_on(node).await? {
        Ok(Some(serde_json::to_string_pretty(&deployment)?))
    } else {
        Ok(None)
    }
}

/// The published key of a local chain's distributor, so that the payer can be run as in production.
fn write_keystore(path: &Path, password: &Path) -> Result<(), Box<dyn std::error::Error>> {
    if path.exists() {
        return Ok(());
    }
    let mut key = [0; 32];
    hex::decode_to_slice(SOLO_KEYS[1], &mut key)?;
    let password = Password::from_file(password)?;
    Ok(Keystore::encrypt(&SecretBox::new(Box::new(key)), &password, ScryptCost::LIGHT)?.write_new(path)?)
}
