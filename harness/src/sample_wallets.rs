//! Wallets whose keys the gateway of a local run holds, so that one click signs in with them. Anybody works their keys out: they are worth
//! nothing.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::deployment::Deployment;
use crate::local_chain::{key_of, wallet_of};
use crate::scenario::driver_id;

/// Whose wallets these are, and what pages call them. Ada and Ben are drivers of the sample photos; Nora's first login makes her account.
const DRIVERS: [(&str, &str); 3] = [("ada", "Ada"), ("ben", "Ben"), ("nora", "Nora, who is new")];
/// Those who decide what is in doubt.
const REVIEWERS: [(&str, &str); 2] = [("rita", "Rita, a reviewer"), ("sven", "Sven, a reviewer")];

/// Writes the wallets into a folder; the gateway's setting that names them.
///
/// # Errors
/// When the file cannot be written.
pub fn write(folder: &Path) -> Result<(String, String)> {
    let file = folder.join("development-wallets.json");
    let wallets: Vec<_> = DRIVERS
        .iter()
        .chain(&REVIEWERS)
        .map(|(driver, name)| json!({ "name": name, "key": key_of(driver_id(driver)) }))
        .collect();
    std::fs::write(&file, serde_json::to_string_pretty(&wallets)?).context("write the sample wallets")?;
    Ok(("MILESTREAM_INGEST__DEVELOPMENT_WALLETS_FILE".to_owned(), file.display().to_string()))
}

/// Makes the reviewers' accounts, as an operator does.
///
/// # Errors
/// When a command fails.
pub fn add_reviewers(deployment: &Deployment) -> Result<()> {
    for (reviewer, _) in REVIEWERS {
        let user = driver_id(reviewer);
        let (id, address) = (user.to_string(), wallet_of(user).to_string());
        deployment.command(&["wallet", "add", "--user", &id, "--address", &address])?;
        deployment.command(&["users", "role", &id, "reviewer"])?;
    }
    Ok(())
}
