//! Who signs and who pays the gas, as they are configured, and opening them.

use std::path::PathBuf;
use std::sync::Arc;

use chain::keystore::{Keystore, KeystoreError, Password};
use chain::node::Snippet;
use chain::signing::{
    AwsCredentials, FeeSponsor, KmsKey, KmsSigner, RemoteSigner, SignerLimits, SigningError,
};
use chain::{Address, TransactionSigner};
use runtime::Clock;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::spawn_blocking;

use super::submit::obstacle::Obstacle;

/// Where a key is.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// In an encrypted file, opened in this process.
    Keystore {
        /// The file.
        file: PathBuf,
        /// A file whose first line is its password.
        password: PathBuf,
    },
    /// In AWS KMS.
    Kms {
        /// Which.
        key: KmsKey,
        /// What it should sign for, where that is checked.
        address: Option<Address>,
    },
    /// Behind a signer over HTTP.
    Remote {
        /// Its URL, which may carry a token.
        url: SecretString,
        /// What it signs for.
        address: Address,
        /// A file whose first line is the bearer token.
        token: Option<PathBuf>,
    },
    /// A fee sponsor's.
    Sponsor {
        /// Its URL, which may carry a key.
        url: SecretString,
        /// What it pays with.
        address: Address,
    },
}

impl KeySource {
    /// Opens it. `who` is named in what is reported.
    ///
    /// # Errors
    /// [`Obstacle`].
    pub async fn open(
        &self,
        who: &str,
        limits: SignerLimits,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<dyn TransactionSigner>, Obstacle> {
        let named = |error| Obstacle::Signer { who: who.to_owned(), error };
        match self.clone() {
            Self::Keystore { file, password } => {
                // scrypt works for a second.
                let opened =
                    spawn_blocking(move || Keystore::read(&file)?.open(&Password::from_file(&password)?));
                let panicked = |_| named(SigningError::Config(Snippet::new("opening the keystore failed")));
                let signer = opened.await.map_err(panicked)??;
                Ok(Arc::new(signer))
            }
            Self::Kms { key, address } => {
                let clock = clock.clone();
                let now = Arc::new(move || clock.now().to_utc().into());
                let credentials = AwsCredentials::from_environment().map_err(named)?;
                let signer = KmsSigner::open(key, credentials, limits, now).await.map_err(named)?;
                let found = TransactionSigner::address(&signer);
                if let Some(wanted) = address.filter(|wanted| *wanted != found) {
                    let what = format!("the key in KMS is {found}'s, and {wanted} is configured");
                    return Err(named(SigningError::Config(Snippet::new(&what))));
                }
                Ok(Arc::new(signer))
            }
            Self::Remote { url, address, token } => {
                let token = match token {
                    Some(file) => Some(secret(file).await?),
                    None => None,
                };
                let signer = RemoteSigner::new(url.expose_secret(), address, token, limits);
                Ok(Arc::new(signer.map_err(named)?))
            }
            Self::Sponsor { url, address } => {
                let signer = FeeSponsor::new(url.expose_secret(), address, limits);
                Ok(Arc::new(signer.map_err(named)?))
            }
        }
    }
}

async fn secret(file: PathBuf) -> Result<SecretString, KeystoreError> {
    let read = spawn_blocking(move || Password::from_file(&file)).await;
    read.map_err(|_| KeystoreError::NoPassword("the file of the token".to_owned()))?
        .map(Password::into_secret)
}
