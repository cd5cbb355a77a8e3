//! `milestream keys`: makes the key that signs bearer tokens, the distributor's key that signs payments, and keys of services.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use chain::Address;
use chain::keystore::{Keystore, Password, ScryptCost, generate_key};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use ingest::keys::KEYS_MAX;
use ingest::{KeySet, SigningKey};
use secrecy::SecretBox;
use serde_json::json;

use super::api_keys::ApiKeys;
use crate::audit::{Action, audit};
use crate::config::Config;
use crate::{database, key_files};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a signing key and its key set, unless they exist.
    Generate,
    /// Make a new signing key, which running gateways take up within a minute. Tokens of the keys before stay good.
    RotateSigning {
        /// Take the keys before out of the key set: whoever has one signs no more, and everybody signs in or refreshes again.
        #[arg(long)]
        revoke: bool,
    },
    /// Keys of services, by which they act for an account.
    #[command(subcommand)]
    Api(ApiKeys),
    /// Put a distributor's key into chain.keystore_file, encrypted with the password in chain.keystore_password_file, which is made
    /// if there is none. An existing keystore is never overwritten.
    Distributor {
        /// A file with the key in 64 hex digits; without it a new key is made.
        #[arg(long, value_name = "FILE")]
        import: Option<PathBuf>,
        /// Use a cost that a laptop's local chain is happy with, instead of a second and 256 MiB.
        #[arg(long)]
        light: bool,
    },
    /// Put another distributor's key into chain.keystore_file, under the same password. The old keystore is kept beside it, with its
    /// address behind its name. The new key signs from the next start on, once what the old one signed is in a block or proven dead:
    /// before that start, make its address a reward distributor of the app and send it VTHO.
    Rotate {
        /// A file with the key in 64 hex digits; without it a new key is made.
        #[arg(long, value_name = "FILE")]
        import: Option<PathBuf>,
        /// Use a cost that a laptop's local chain is happy with, instead of a second and 256 MiB.
        #[arg(long)]
        light: bool,
        /// Why, for the audit log.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
}

impl Keys {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Generate => generate(config),
            Self::RotateSigning { revoke } => rotate_signing(config, *revoke),
            Self::Api(keys) => keys.run(config).await,
            Self::Distributor { import, light } => distributor(config, import.as_deref(), *light),
            Self::Rotate { import, light, reason } => rotate(config, import.as_deref(), *light, reason).await,
        }
    }
}

/// Makes a signing key and its key set; keeps those that exist.
fn generate(config: &Config) -> Result<()> {
    let (private, public) = (&config.keys.signing_key_file, &config.keys.jwks_file);
    let key = if private.exists() {
        key_files::signing_key(private)?
    } else {
        let key = SigningKey::generate()?;
        write_new(private, &key.expose_pem()?, 0o600)?;
        key
    };
    if !public.exists() {
        write_new(public, &key.jwks(), 0o644)?;
    }
    println!("{} signs, {} checks", private.display(), public.display());
    Ok(())
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("write {}", path.display()))
}

/// Makes a new signing key, and publishes it beside those before it. The set is written first: a gateway that knows the new key and
/// does not sign with it yet is in order, the other way round its tokens are refused.
fn rotate_signing(config: &Config, revoke: bool) -> Result<()> {
    let (private, public) = (&config.keys.signing_key_file, &config.keys.jwks_file);
    let (key, before) = (SigningKey::generate()?, key_files::key_set(config)?);
    let mut set = KeySet::from_jwks(&key.jwks())?.jwks();
    if !revoke {
        ensure!(
            before.len() < KEYS_MAX,
            "{} holds {} keys, {KEYS_MAX} are the most: take out those whose tokens have expired",
            public.display(),
            before.len()
        );
        let mut others = before.jwks();
        if let (Some(all), Some(others)) = (set["keys"].as_array_mut(), others["keys"].as_array_mut()) {
            all.append(others);
        }
    }
    replace(public, &set.to_string(), 0o644)?;
    replace(private, &key.expose_pem()?, 0o600)?;
    println!("{} signs within a minute", key.kid());
    Ok(())
}

/// Writes a file beside the one that it takes the place of, so that nobody reads half of it.
fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let new = path.with_extension("new");
    if new.exists() {
        std::fs::remove_file(&new).with_context(|| format!("remove {}", new.display()))?;
    }
    write_new(&new, text, mode)?;
    std::fs::rename(&new, path).with_context(|| format!("write {}", path.display()))
}

/// Puts the distributor's key into its keystore.
fn distributor(config: &Config, import: Option<&Path>, light: bool) -> Result<()> {
    let (keystore, password_file) = (&config.chain.keystore_file, &config.chain.keystore_password_file);
    ensure!(!keystore.exists(), "{} exists: it is never overwritten", keystore.display());
    let key = key(import)?;
    if let Some(folder) = keystore.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    if !password_file.exists() {
        let secret: [u8; 32] = rand::random();
        write_new(password_file, &hex::encode(secret), 0o600)?;
    }
    let store = Keystore::encrypt(&key, &Password::from_file(password_file)?, cost(light))?;
    store.write_new(keystore)?;
    println!("{} in {}", address(&store)?, keystore.display());
    Ok(())
}

/// Puts another key in the place of the distributor's.
async fn rotate(config: &Config, import: Option<&Path>, light: bool, reason: &str) -> Result<()> {
    let keystore = &config.chain.keystore_file;
    let password = Password::from_file(&config.chain.keystore_password_file)?;
    let old = Keystore::read(keystore)?;
    // What cannot be opened may be under another password: nothing would say so before the next start.
    let before = old.open(&password)?.address();
    let new = Keystore::encrypt(&key(import)?, &password, cost(light))?;
    let after = address(&new)?;
    ensure!(after != before, "{} holds this key already", keystore.display());
    let beside = |name: &str| {
        let mut path = keystore.clone().into_os_string();
        path.push(format!(".{name}"));
        PathBuf::from(path)
    };
    let (kept, made) = (beside(&before.to_string()), beside("new"));
    let mut tx = database::pool(config)?.begin().await?;
    let what = Action { module: "chain", action: "key.rotate", severity: "critical" };
    let shown = json!({"distributor": after.to_string(), "why": reason});
    audit(&mut tx, what, "distributor", Some(json!({"distributor": before.to_string()})), shown).await?;
    // A crash at any point leaves a keystore in its place: the old one, or the new one with the old one beside it.
    new.write_new(&made)?;
    std::fs::hard_link(keystore, &kept).with_context(|| format!("keep {}", kept.display()))?;
    std::fs::rename(&made, keystore).with_context(|| format!("write {}", keystore.display()))?;
    tx.commit().await?;
    println!("{after} in {}, {before} in {}", keystore.display(), kept.display());
    Ok(())
}

fn cost(light: bool) -> ScryptCost {
    if light { ScryptCost::LIGHT } else { ScryptCost::STANDARD }
}

fn address(store: &Keystore) -> Result<Address> {
    store.address()?.context("the keystore names no address")
}

/// The key in a file, or a new one.
fn key(import: Option<&Path>) -> Result<SecretBox<[u8; 32]>> {
    Ok(match import {
        None => generate_key(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let mut decoded = Ok(());
            let key = SecretBox::init_with_mut(|key: &mut [u8; 32]| {
                decoded = hex::decode_to_slice(text.trim().trim_start_matches("0x"), key);
            });
            decoded.with_context(|| format!("{} does not hold 64 hex digits", path.display()))?;
            key
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_publishes_the_new_key_beside_the_old_and_a_revoking_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.keys.jwks_file = folder.path().join("jwks.json");
        config.keys.signing_key_file = folder.path().join("signing-key.pem");
        generate(&config).unwrap();
        let first = key_files::read(&config).unwrap().1.unwrap();
        rotate_signing(&config, false).unwrap();
        let (set, second) = key_files::read(&config).unwrap();
        assert_ne!(second.as_ref().unwrap().kid(), first.kid());
        assert_eq!(set.len(), 2);
        rotate_signing(&config, true).unwrap();
        let (set, third) = key_files::read(&config).unwrap();
        assert_eq!(
            (set.len(), set.jwks()["keys"][0]["kid"].as_str()),
            (1, third.as_ref().map(SigningKey::kid))
        );
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&config.keys.signing_key_file).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600, "nobody else reads the private key");
    }
}
