//! The files of the gateway's keys: read at its start and every half minute from then on, so that a rotation needs no restart.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ingest::{KeySet, SigningKey, TokenSigner};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Pause between two looks. A new key signs from the second look on that finds it: by then every gateway has looked once, and knows what
/// is issued under it.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The key set that tokens are checked with.
///
/// # Errors
/// When the file is missing or unusable.
pub fn key_set(config: &Config) -> Result<KeySet> {
    let path = &config.keys.jwks_file;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("keys.jwks_file {}: run `milestream keys generate`", path.display()))?;
    Ok(KeySet::from_jwks(&text)?)
}

/// The private key that signs bearer tokens.
///
/// # Errors
/// When the file is missing or unusable.
pub fn signing_key(path: &Path) -> Result<SigningKey> {
    let pem = std::fs::read_to_string(path).with_context(|| {
        format!("keys.signing_key_file {}: run `milestream keys generate`", path.display())
    })?;
    Ok(SigningKey::from_pem(&pem)?)
}

/// The gateway's keys. Without the private one nobody signs in; a gateway that only checks tokens is a gateway all the same.
///
/// # Errors
/// When a file is unusable.
pub fn read(config: &Config) -> Result<(KeySet, Option<SigningKey>)> {
    let path = &config.keys.signing_key_file;
    let key = if path.exists() { Some(signing_key(path)?) } else { None };
    Ok((key_set(config)?, key))
}

/// Takes up changed files until stopped; one that does not read is logged, and the keys in force stay.
pub async fn follow(config: &Config, keys: &KeySet, signer: &TokenSigner, stop: &CancellationToken) {
    let mut rotation = Rotation::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        match read(config) {
            Ok((found, key)) => {
                keys.replace(&found);
                rotation.look(signer, key);
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "the keys in force stay"),
        }
    }
}

/// A new signing key between the two looks that it needs.
#[derive(Debug, Default)]
struct Rotation {
    seen: Option<String>,
}

impl Rotation {
    fn look(&mut self, signer: &TokenSigner, found: Option<SigningKey>) {
        let name = |key: &SigningKey| key.kid().to_owned();
        let (wanted, in_force) = (found.as_ref().map(name), signer.key().as_deref().map(name));
        if wanted == in_force {
            self.seen = None;
        } else if wanted.is_none() || self.seen == wanted {
            signer.replace(found);
            tracing::info!(key = wanted.as_deref().unwrap_or("none"), "the signing key has changed");
            self.seen = None;
        } else {
            self.seen = wanted;
            if let Some(key) = found {
                signer.announce(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_signs_from_the_second_look_on_and_one_that_is_gone_signs_no_more() {
        let (old, new) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let signer = TokenSigner::new(Some(old.clone()));
        let in_force = || signer.key().map(|key| key.kid().to_owned());
        let mut rotation = Rotation::default();
        rotation.look(&signer, Some(old.clone()));
        rotation.look(&signer, Some(new.clone()));
        assert_eq!(in_force(), Some(old.kid().to_owned()));
        rotation.look(&signer, Some(new.clone()));
        assert_eq!(in_force(), Some(new.kid().to_owned()));
        rotation.look(&signer, None);
        assert_eq!(in_force(), None);
    }
}
