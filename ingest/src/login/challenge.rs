//! `POST /v1/auth/challenge`: what a wallet is asked to sign. It is bound to domain, network, address and purpose, lasts five minutes and
//! is used once; text and typed data follow from it. Nothing of it is kept until it is used: the client carries it (`ticket`), so that
//! asking costs no statement, and nobody fills a table with challenges.

use chain::typed_data::Member;
use chain::{Address, TypedData};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use schemas::ids::UserId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use std::net::IpAddr;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Network, SignIn};
use crate::auth::admission::Visitor;
use crate::auth::keys::SigningKey;
use crate::auth::rate::Key;
use crate::http::problem::{
    ApiError, CHALLENGE_USED, INVALID_ADDRESS, Problem, RATE_LIMITED, SIGN_IN_UNAVAILABLE, UNKNOWN_DOMAIN,
};
use crate::http::reply::Uncached;
use crate::http::request::{Dependency, JsonBody};

/// How long a challenge may be signed.
const LIFE: TimeDelta = TimeDelta::minutes(5);

/// What asking for a challenge refuses.
pub(crate) const REFUSALS: &[Problem] = &[SIGN_IN_UNAVAILABLE, INVALID_ADDRESS, UNKNOWN_DOMAIN, RATE_LIMITED];

/// What a signature is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Signing in.
    SignIn,
    /// Linking the wallet to this account.
    LinkWallet(UserId),
}

impl Purpose {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::LinkWallet(_) => "link_wallet",
        }
    }

    fn user(self) -> Option<Uuid> {
        match self {
            Self::SignIn => None,
            Self::LinkWallet(user) => Some(user.0),
        }
    }
}

/// A challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Random.
    pub(crate) id: Uuid,
    pub(crate) purpose: Purpose,
    /// The wallet that is to sign.
    pub(crate) wallet: Address,
    pub(crate) domain: String,
    pub(crate) genesis_id: String,
    /// To the second, as it is shown.
    pub(crate) issued_at: DateTime<Utc>,
}

/// Whose wallet is to sign
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChallengeRequest {
    /// 0x and 40 hex digits; where the letters carry a checksum (EIP-55), it must be right
    #[schema(max_length = 42)]
    address: String,
    /// The host of the page that asks, if it is not the gateway's own
    #[serde(default)]
    #[schema(max_length = 253)]
    domain: Option<String>,
}

/// What to have signed, in one of two ways
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChallengeDocument {
    /// The challenge itself, opaque: it goes back with the signature
    #[schema(max_length = 512)]
    challenge_id: String,
    /// The host that the signature is for
    domain: String,
    /// The content of a certificate (VIP-192) of purpose identification
    text: String,
    /// The same as typed data (EIP-712)
    #[schema(value_type = Object)]
    typed_data: Value,
    #[schema(format = DateTime)]
    expires_at: String,
}

impl Challenge {
    /// The first sentence: what the signature is good for.
    fn statement(&self) -> String {
        match self.purpose {
            Purpose::SignIn => format!("Sign in to Milestream at {}.", self.domain),
            Purpose::LinkWallet(user) => {
                format!("Link this wallet to the Milestream account {user} at {}.", self.domain)
            }
        }
    }

    /// The text of a certificate.
    pub(crate) fn text(&self) -> String {
        let tag = Network::of(&self.genesis_id).map_or(0, |network| network.tag);
        format!(
            "{}\nIt costs nothing and moves nothing.\n\nNetwork: {} (chain tag 0x{tag:02x})\nWallet: {}\nChallenge: {}\nIssued: {}\nExpires: {}",
            self.statement(),
            self.genesis_id,
            self.wallet,
            self.nonce(),
            shown(self.issued_at),
            shown(self.expires_at()),
        )
    }

    /// The same as typed data.
    pub(crate) fn typed_data(&self) -> TypedData {
        let text = |text: &str| Member::Text(text.to_owned());
        TypedData {
            name: "Milestream".to_owned(),
            version: "1".to_owned(),
            primary_type: "Proof",
            members: vec![
                ("statement", Member::Text(self.statement())),
                ("domain", text(&self.domain)),
                ("network", text(&self.genesis_id)),
                ("wallet", Member::Address(self.wallet)),
                ("challenge", Member::Text(self.nonce())),
                ("issued", Member::Text(shown(self.issued_at))),
                ("expires", Member::Text(shown(self.expires_at()))),
            ],
        }
    }

    /// What makes the text another one each time.
    pub(super) fn nonce(&self) -> String {
        self.id.simple().to_string()
    }

    pub(super) fn expires_at(&self) -> DateTime<Utc> {
        self.issued_at + LIFE
    }

    fn document(&self, key: &SigningKey) -> ChallengeDocument {
        ChallengeDocument {
            challenge_id: self.ticket(key),
            domain: self.domain.clone(),
            text: self.text(),
            typed_data: self.typed_data().document(),
            expires_at: shown(self.expires_at()),
        }
    }

    /// Uses it up: of two at once one wins.
    ///
    /// # Errors
    /// [`CHALLENGE_USED`].
    pub(super) async fn consume(
        &self,
        tx: &mut PgConnection,
        from: IpAddr,
        now: DateTime<Utc>,
    ) -> Result<(), ApiError> {
        let used = sqlx::query(
            "insert into wallet_challenges (id, purpose, user_id, wallet_address, domain, genesis_id, nonce, asked_from,
               issued_at, expires_at, used_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             on conflict (id) do nothing",
        )
        .bind(self.id)
        .bind(self.purpose.label())
        .bind(self.purpose.user())
        .bind(self.wallet.to_string())
        .bind(&self.domain)
        .bind(&self.genesis_id)
        .bind(self.nonce())
        .bind(Key::network(from).to_string())
        .bind(self.issued_at)
        .bind(self.expires_at())
        .bind(now)
        .execute(tx)
        .await?;
        if used.rows_affected() == 1 { Ok(()) } else { Err(CHALLENGE_USED.error()) }
    }
}

/// As people and wallets read it: to the second.
fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// An address as a person gives it: one whose letters carry a checksum must fit it, and nobody has the key of the zero address.
pub(crate) fn read_address(text: &str) -> Result<Address, ApiError> {
    let refused = |detail: String| INVALID_ADDRESS.because(detail).field("address");
    match Address::parse_checked(text) {
        Ok(address) if address.is_zero() => Err(refused("the zero address is nobody's wallet".to_owned())),
        Ok(address) => Ok(address),
        Err(error) => Err(refused(format!("the address is not usable: {error}"))),
    }
}

/// The route for signing in.
pub(crate) async fn post(
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    _: Visitor,
    JsonBody(request): JsonBody<ChallengeRequest>,
) -> Result<Uncached<ChallengeDocument>, ApiError> {
    Ok(Uncached(sign_in.issue(Purpose::SignIn, &request)?))
}

impl SignIn {
    /// Issues a challenge.
    pub(crate) fn issue(
        &self,
        purpose: Purpose,
        request: &ChallengeRequest,
    ) -> Result<ChallengeDocument, ApiError> {
        let (key, network) = (self.key()?, self.network()?);
        let wallet = read_address(&request.address)?;
        let domain = self.domain(request.domain.as_deref())?.to_owned();
        let issued_at =
            DateTime::from_timestamp(self.clock.now().0.div_euclid(1_000_000), 0).unwrap_or_default();
        let genesis_id = network.genesis_id.clone();
        let challenge = Challenge { id: Uuid::new_v4(), purpose, wallet, domain, genesis_id, issued_at };
        Ok(challenge.document(&key))
    }

    fn domain(&self, wanted: Option<&str>) -> Result<&str, ApiError> {
        let known = |domain: &&String| wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(domain));
        let found = self.domains.iter().find(known).map(String::as_str);
        found.ok_or_else(|| UNKNOWN_DOMAIN.error().field("domain"))
    }
}
