//! `POST /v1/auth/challenge`: what a wallet is asked to sign. The row is bound to domain, network, address and purpose, lasts five minutes
//! and is used once; text and typed data follow from it, so that the server never has to believe a client's copy of them.

use chain::typed_data::Member;
use chain::{Address, TypedData};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use schemas::ids::UserId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use std::net::IpAddr;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

use super::refresh::REMEMBERED;
use super::{Network, SignIn};
use crate::auth::admission::Visitor;
use crate::auth::rate::Key;
use crate::http::problem::{
    ApiError, BUSY, CHALLENGE_USED, INVALID_ADDRESS, Problem, RATE_LIMITED, SIGN_IN_UNAVAILABLE,
    UNKNOWN_DOMAIN,
};
use crate::http::reply::Uncached;
use crate::http::request::{Dependency, JsonBody};

/// How long a challenge may be signed.
const LIFE: TimeDelta = TimeDelta::minutes(5);
/// Open challenges that one network (an IPv6 network of 64 bits) may have: a household that signs in at once.
const OPEN_PER_NETWORK: i64 = 20;
/// Open challenges in all: 200,000 x about 400 bytes = 80 MB. More would need 10,000 networks at once.
const OPEN: i64 = 200_000;
/// What is pruned in one go, of each table: more than one request can add.
const PRUNED: i64 = 20;
/// Used refresh tokens that are pruned in one go: a session that has ended leaves a thousand at most, and began with a challenge.
const SPENT_PRUNED: i64 = 1_000;

/// What asking for a challenge refuses.
pub(crate) const REFUSALS: &[Problem] =
    &[SIGN_IN_UNAVAILABLE, INVALID_ADDRESS, UNKNOWN_DOMAIN, RATE_LIMITED, BUSY];

/// What a signature is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Signing in.
    SignIn,
    /// Linking the wallet to this account.
    LinkWallet(UserId),
}

impl Purpose {
    fn label(self) -> &'static str {
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

/// A challenge, as it is stored.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Challenge {
    pub(crate) id: Uuid,
    pub(crate) purpose: String,
    pub(crate) user_id: Option<Uuid>,
    pub(crate) wallet_address: String,
    pub(crate) domain: String,
    pub(crate) genesis_id: String,
    pub(crate) nonce: String,
    pub(crate) issued_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) used_at: Option<DateTime<Utc>>,
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
    challenge_id: Uuid,
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
        match self.user_id {
            None => format!("Sign in to Milestream at {}.", self.domain),
            Some(user) => format!("Link this wallet to the Milestream account {user} at {}.", self.domain),
        }
    }

    /// The text of a certificate.
    pub(crate) fn text(&self) -> String {
        let tag = Network::of(&self.genesis_id).map_or(0, |network| network.tag);
        format!(
            "{}\nIt costs nothing and moves nothing.\n\nNetwork: {} (chain tag 0x{tag:02x})\nWallet: {}\nChallenge: {}\nIssued: {}\nExpires: {}",
            self.statement(),
            self.genesis_id,
            self.wallet_address,
            self.nonce,
            shown(self.issued_at),
            shown(self.expires_at),
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
                ("wallet", Member::Address(self.address())),
                ("challenge", text(&self.nonce)),
                ("issued", Member::Text(shown(self.issued_at))),
                ("expires", Member::Text(shown(self.expires_at))),
            ],
        }
    }

    /// The wallet that is to sign.
    pub(crate) fn address(&self) -> Address {
        // The table holds nothing else.
        self.wallet_address.parse().unwrap_or_default()
    }

    pub(crate) fn document(&self) -> ChallengeDocument {
        ChallengeDocument {
            challenge_id: self.id,
            domain: self.domain.clone(),
            text: self.text(),
            typed_data: self.typed_data().document(),
            expires_at: shown(self.expires_at),
        }
    }

    /// The challenge of an id; none where it was never issued or ended more than an hour ago.
    pub(crate) async fn find(connection: &mut PgConnection, id: Uuid) -> Result<Option<Self>, sqlx::Error> {
        sqlx::query_as("select * from wallet_challenges where id = $1")
            .bind(id)
            .fetch_optional(connection)
            .await
    }

    /// Whether it was issued for this.
    pub(crate) fn is_for(&self, purpose: Purpose) -> bool {
        self.purpose == purpose.label() && self.user_id == purpose.user()
    }

    /// Uses it up: of two at once one wins.
    ///
    /// # Errors
    /// [`CHALLENGE_USED`].
    pub(crate) async fn consume(&self, tx: &mut PgConnection, now: DateTime<Utc>) -> Result<(), ApiError> {
        let used = sqlx::query("update wallet_challenges set used_at = $2 where id = $1 and used_at is null")
            .bind(self.id)
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
    Visitor(from): Visitor,
    JsonBody(request): JsonBody<ChallengeRequest>,
) -> Result<Uncached<ChallengeDocument>, ApiError> {
    sign_in.key()?;
    let challenge = sign_in.issue(Purpose::SignIn, &request, from).await?;
    Ok(Uncached(challenge.document()))
}

impl SignIn {
    /// Issues a challenge, and prunes what has ended.
    pub(crate) async fn issue(
        &self,
        purpose: Purpose,
        request: &ChallengeRequest,
        from: IpAddr,
    ) -> Result<Challenge, ApiError> {
        let network = self.network()?;
        let address = read_address(&request.address)?;
        let domain = self.domain(request.domain.as_deref())?;
        // To the second, as it is shown.
        let now = DateTime::from_timestamp(self.clock.now().0.div_euclid(1_000_000), 0).unwrap_or_default();
        let asked_from = Key::network(from).to_string();
        let mut tx = self.pool.begin().await?;
        room(&mut tx, &asked_from, now).await?;
        let nonce: [u8; 16] = rand::random();
        let challenge: Challenge = sqlx::query_as(
            "insert into wallet_challenges (id, purpose, user_id, wallet_address, domain, genesis_id, nonce, asked_from,
               issued_at, expires_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning *",
        )
        .bind(Uuid::now_v7())
        .bind(purpose.label())
        .bind(purpose.user())
        .bind(address.to_string())
        .bind(domain)
        .bind(&network.genesis_id)
        .bind(hex::encode(nonce))
        .bind(asked_from)
        .bind(now)
        .bind(now + LIFE)
        .fetch_one(&mut *tx)
        .await?;
        prune(&mut tx, now).await?;
        tx.commit().await?;
        Ok(challenge)
    }

    fn domain(&self, wanted: Option<&str>) -> Result<&str, ApiError> {
        let known = |domain: &&String| wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(domain));
        let found = self.domains.iter().find(known).map(String::as_str);
        found.ok_or_else(|| UNKNOWN_DOMAIN.error().field("domain"))
    }
}

/// Refuses a challenge too many.
async fn room(tx: &mut PgConnection, asked_from: &str, now: DateTime<Utc>) -> Result<(), ApiError> {
    let (theirs, all): (i64, i64) = sqlx::query_as(
        "select (select count(*) from wallet_challenges where asked_from = $1 and expires_at > $2 and used_at is null),
                (select count(*) from (select from wallet_challenges limit $3) counted)",
    )
    .bind(asked_from)
    .bind(now)
    .bind(OPEN)
    .fetch_one(tx)
    .await?;
    if theirs >= OPEN_PER_NETWORK {
        let detail = "too many challenges of your network are open: use one of them, or wait until they end";
        return Err(RATE_LIMITED.because(detail).retry_after(LIFE.num_seconds().unsigned_abs()));
    }
    if all >= OPEN { Err(BUSY.error()) } else { Ok(()) }
}

/// Takes away what is of no use any more. Two gateways never wait for each other here.
async fn prune(tx: &mut PgConnection, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    for (statement, life, most) in [
        (
            "delete from wallet_challenges where id in (select id from wallet_challenges where expires_at < $1
               order by expires_at limit $2 for update skip locked)",
            TimeDelta::hours(1),
            PRUNED,
        ),
        (
            "delete from sign_in_failures where key in (select key from sign_in_failures where last_at < $1
               order by last_at limit $2 for update skip locked)",
            TimeDelta::days(1),
            PRUNED,
        ),
        (
            "delete from user_sessions where id in (select id from user_sessions where expires_at < $1
               order by expires_at limit $2 for update skip locked)",
            TimeDelta::days(90),
            PRUNED,
        ),
        (
            "delete from spent_refresh_tokens where token_hash in (select token_hash from spent_refresh_tokens
               where spent_at < $1 order by spent_at limit $2 for update skip locked)",
            REMEMBERED,
            SPENT_PRUNED,
        ),
    ] {
        sqlx::query(statement).bind(now - life).bind(most).execute(&mut *tx).await?;
    }
    Ok(())
}
