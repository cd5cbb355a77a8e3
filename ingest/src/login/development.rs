//! `POST /v1/auth/development-signature`: on a developer's machine the gateway holds the keys of a few wallets, and signs a challenge for
//! whoever asks, so that one can sign in without a wallet. All else of a login stays as it is. There are none by default, none are read
//! where the configuration names mainnet, and [`allowed_on`] leaves none there in any case.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use chain::{Address, Signer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Network, SignIn};
use crate::auth::admission::Visitor;
use crate::http::problem::{ApiError, CHALLENGE_EXPIRED, INTERNAL, NO_DEVELOPMENT_WALLET, Problem};
use crate::http::reply::Uncached;
use crate::http::request::{Dependency, JsonBody};

/// What the route refuses.
pub(crate) const REFUSALS: &[Problem] = &[NO_DEVELOPMENT_WALLET, CHALLENGE_EXPIRED];

/// A wallet whose key the gateway holds.
#[derive(Clone)]
pub struct DevelopmentWallet {
    /// What pages call it.
    pub name: String,
    signer: Arc<Signer>,
}

/// Why the wallets were not read.
#[derive(Debug, thiserror::Error)]
pub enum WalletsError {
    /// The file.
    #[error("the file of development wallets: {0}")]
    File(#[from] std::io::Error),
    /// Its form. The text of the error names a place and no key.
    #[error("the file of development wallets: a list of {{\"name\", \"key\"}} is wanted, line {0}")]
    Form(usize),
    /// A key.
    #[error("the development wallet {0:?}: {1}")]
    Key(String, chain::signer::SignerError),
}

/// A wallet as its file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    key: String,
}

impl DevelopmentWallet {
    /// Reads a file: a JSON list of names and keys, the keys in 64 hex digits.
    ///
    /// # Errors
    /// [`WalletsError`].
    pub fn read(file: &Path) -> Result<Vec<Self>, WalletsError> {
        let text = std::fs::read_to_string(file)?;
        let entries: Vec<Entry> =
            serde_json::from_str(&text).map_err(|error| WalletsError::Form(error.line()))?;
        entries
            .into_iter()
            .map(|Entry { name, key }| match Signer::from_hex(&key) {
                Ok(signer) => Ok(Self { name, signer: Arc::new(signer) }),
                Err(error) => Err(WalletsError::Key(name, error)),
            })
            .collect()
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Address {
        self.signer.address()
    }
}

impl fmt::Debug for DevelopmentWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevelopmentWallet({}, {})", self.name, self.address())
    }
}

/// The wallets where the network is a test's; none on mainnet, and none where no network is known.
pub(crate) fn allowed_on(
    network: Option<&Network>,
    wallets: Vec<DevelopmentWallet>,
) -> Vec<DevelopmentWallet> {
    let is_test = network.is_some_and(|network| network.label != "mainnet");
    if !is_test && !wallets.is_empty() {
        tracing::error!("development wallets are left out: they are for test networks alone");
    }
    if is_test { wallets } else { Vec::new() }
}

/// Which challenge to sign
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignatureRequest {
    #[schema(max_length = 512)]
    challenge_id: String,
}

/// A development wallet's signature
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignatureDocument {
    /// Of the challenge's typed data
    #[schema(pattern = "^0x[0-9a-f]{130}$")]
    signature: String,
}

/// The route.
pub(crate) async fn post(
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    _: Visitor,
    JsonBody(request): JsonBody<SignatureRequest>,
) -> Result<Uncached<SignatureDocument>, ApiError> {
    if sign_in.development_wallets.is_empty() {
        return Err(NO_DEVELOPMENT_WALLET.error());
    }
    let challenge = sign_in.open(&request.challenge_id).ok_or_else(|| CHALLENGE_EXPIRED.error())?;
    let known = |wallet: &&DevelopmentWallet| wallet.address() == challenge.wallet;
    let wallet = sign_in.development_wallets.iter().find(known);
    let wallet = wallet.ok_or_else(|| NO_DEVELOPMENT_WALLET.error())?;
    let hash = challenge.typed_data().signing_hash();
    let signature = wallet.signer.sign_prehash(&hash).map_err(|error| INTERNAL.caused_by(error))?;
    Ok(Uncached(SignatureDocument { signature: format!("0x{}", hex::encode(signature.0)) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

    fn wallets(text: &str) -> Result<Vec<DevelopmentWallet>, WalletsError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wallets.json");
        std::fs::write(&file, text).unwrap();
        DevelopmentWallet::read(&file)
    }

    #[test]
    fn a_development_wallet_exists_on_a_test_network_alone() {
        let some = || wallets(&format!(r#"[{{"name":"Ada","key":"{KEY}"}}]"#)).unwrap();
        let network = |genesis: &str| Network::of(genesis).unwrap();
        let solo = network("0x00000000bb55405beed90df9fea5acdb1cb7caba61b0d7513395f42efd30e558");
        let main = network("0x00000000851caf3cfdb6e899cf5958bfb1ac3413d346d43539627e6be7ec1b4a");
        assert_eq!(allowed_on(Some(&solo), some()).len(), 1);
        assert!(allowed_on(Some(&main), some()).is_empty());
        assert!(allowed_on(None, some()).is_empty());
    }

    #[test]
    fn neither_an_error_nor_debug_shows_a_key() {
        let unusable = "11".repeat(31);
        for bad in [
            format!(r#"[{{"name":"Ada","key":"{unusable}"}}]"#),
            format!(r#"[{{"name":"Ada","secret":"{unusable}"}}]"#),
            unusable.clone(),
        ] {
            let error = wallets(&bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(&unusable), "{error}");
        }
        let good = wallets(&format!(r#"[{{"name":"Ada","key":"{KEY}"}}]"#)).unwrap();
        assert!(!format!("{good:?}").contains("1111111111111111111111111111111111111111111"), "{good:?}");
    }
}
