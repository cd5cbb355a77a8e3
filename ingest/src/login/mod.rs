//! Signing in with a wallet. A client asks for a challenge (`challenge`), carries it (`ticket`), has the wallet sign it as a certificate or
//! as typed data (`proof`, and `contract` where the wallet is one), and gets an access token of minutes and a refresh token (`sign_in`,
//! `tokens`), which it changes for new ones (`refresh`) until it signs out (`sessions`). A login is looked up (`look`) and written
//! (`plain`) by one statement each, which logins at the same time share; one that makes or changes more of an account has a transaction
//! (`enter`). Attempts in vain are slowed down (`lockout`) and recorded (`records`). `link` adds a further wallet to an account in the same
//! way.

pub(crate) mod challenge;
pub(crate) mod contract;
pub(crate) mod development;
mod enter;
pub(crate) mod jwks;
mod link;
mod lockout;
pub(crate) mod look;
pub(crate) mod plain;
pub(crate) mod proof;
mod prune;
pub(crate) mod records;
pub(crate) mod refresh;
pub(crate) mod sessions;
pub(crate) mod sign_in;
mod ticket;
mod tokens;

pub(crate) use prune::prune;

use std::sync::Arc;

use chain::BlockId;
use runtime::clock::Clock;
use schemas::payouts::network_label;
use sqlx::PgPool;

use self::contract::ContractWallets;
use self::development::DevelopmentWallet;
use self::look::{Question, Seen};
use self::plain::{Entered, Plain};
use crate::activity::ActivityLog;
use crate::auth::admission::Admission;
use crate::auth::keys::{SigningKey, TokenSigner};
use crate::batches::Batches;
use crate::http::problem::{ApiError, SIGN_IN_UNAVAILABLE};
use crate::schema_ids::SchemaIds;

/// Open sessions of a user: a phone and a desk, and eighteen that were forgotten. Somebody who has a wallet's signature for a moment cannot
/// keep a thousand of them.
const SESSIONS: i64 = 20;

/// What signing in works with.
pub(crate) struct SignIn {
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) schemas: SchemaIds,
    pub(crate) log: Arc<ActivityLog>,
    pub(crate) signer: TokenSigner,
    pub(crate) looks: Batches<Question, Seen>,
    pub(crate) plains: Batches<Plain, Entered>,
    /// Limits of logins, and whether new accounts are made.
    pub(crate) admission: Arc<Admission>,
    /// The network whose wallets sign; none where none is configured.
    pub(crate) network: Option<Network>,
    /// Who is asked about wallets that are contracts; nobody where no node is set.
    pub(crate) contracts: Option<ContractWallets>,
    /// Hosts that wallets may sign for: the gateway's own first, then those of other origins whose pages may read its responses.
    pub(crate) domains: Vec<String>,
    /// Wallets that the gateway signs for; none but on a developer's machine.
    pub(crate) development_wallets: Vec<DevelopmentWallet>,
}

/// The network whose wallets sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) genesis_id: String,
    /// The chain tag, as transactions carry it.
    pub(crate) tag: u8,
    /// `user_wallets.network`.
    pub(crate) label: &'static str,
}

impl Network {
    /// The network of a genesis block; none where the id is none.
    pub(crate) fn of(genesis_id: &str) -> Option<Self> {
        let id: BlockId = genesis_id.parse().ok()?;
        let genesis_id = id.to_string();
        let label = if network_label(&genesis_id) == "vechain_mainnet" { "mainnet" } else { "testnet" };
        Some(Self { tag: id.chain_tag(), genesis_id, label })
    }
}

impl SignIn {
    fn network(&self) -> Result<&Network, ApiError> {
        let none =
            || SIGN_IN_UNAVAILABLE.because("nobody signs in here: the gateway has no chain.genesis_id");
        self.network.as_ref().ok_or_else(none)
    }

    fn key(&self) -> Result<Arc<SigningKey>, ApiError> {
        let none =
            || SIGN_IN_UNAVAILABLE.because("nobody signs in here: the gateway has no keys.signing_key_file");
        self.signer.key().ok_or_else(none)
    }
}

/// The hosts of a base URL and of origins, each once.
pub(crate) fn domains(base_url: &str, origins: &[String]) -> Vec<String> {
    let mut hosts = Vec::new();
    for url in std::iter::once(base_url).chain(origins.iter().map(String::as_str)) {
        let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        hosts.extend(host.filter(|host| !hosts.contains(host)));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_host_without_its_port_and_the_gateways_own_comes_first() {
        let origins = ["https://app.example".to_owned(), "https://API.example:8443".to_owned()];
        assert_eq!(domains("https://api.example:443/base", &origins), ["api.example", "app.example"]);
    }

    #[test]
    fn a_network_is_known_by_its_genesis_block() {
        let solo = Network::of("0x00000000bb55405beed90df9fea5acdb1cb7caba61b0d7513395f42efd30e558").unwrap();
        assert_eq!((solo.tag, solo.label), (0x58, "testnet"));
        let main = Network::of("0x00000000851caf3cfdb6e899cf5958bfb1ac3413d346d43539627e6be7ec1b4a").unwrap();
        assert_eq!((main.tag, main.label), (0x4a, "mainnet"));
        assert_eq!(Network::of("solo"), None);
    }
}
