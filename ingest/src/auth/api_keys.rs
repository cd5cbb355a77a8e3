//! Keys by which a service acts for an account: random, kept as their hash, with scopes, an end and a revocation. A bearer that begins with
//! `PREFIX` is one; every other is a token.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use schemas::ids::{Micros, UserId};
use secrecy::SecretString;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;
use warp::http::Method;

use crate::accounts::session::fingerprint;
use crate::http::problem::{ACCOUNT_LOCKED, ApiError, TOKEN_EXPIRED, TOKEN_INVALID};

/// How a key begins: so that a search for secrets in a repository finds it.
pub(crate) const PREFIX: &str = "msk_";
/// Days that a key is good for at most.
pub const DAYS_MAX: u32 = 366;

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Routes that only read.
    pub read: bool,
    /// Routes that change something.
    pub write: bool,
}

impl Scopes {
    /// What whoever has a token may use it for.
    pub(crate) const ALL: Self = Self { read: true, write: true };

    /// Whether they allow a method.
    pub(crate) fn allow(self, method: &Method) -> bool {
        if [Method::GET, Method::HEAD].contains(method) { self.read } else { self.write }
    }

    fn labels(self) -> Vec<&'static str> {
        [("read", self.read), ("write", self.write)]
            .into_iter()
            .filter_map(|(label, is)| is.then_some(label))
            .collect()
    }
}

/// A key that is made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its id, by which it is listed and revoked.
    pub id: Uuid,
    /// The key itself; nobody can have it a second time.
    pub key: SecretString,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// Makes a key in the caller's transaction. `days` is 1 to [`DAYS_MAX`].
///
/// # Errors
/// The database's; one of the account where there is none.
pub async fn create(
    tx: &mut PgConnection,
    (user, name): (UserId, &str),
    scopes: Scopes,
    days: u32,
    now: DateTime<Utc>,
) -> Result<NewKey, sqlx::Error> {
    let random: [u8; 32] = rand::random();
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let made = NewKey {
        id: Uuid::now_v7(),
        expires_at: now + TimeDelta::days(days.clamp(1, DAYS_MAX).into()),
        key: SecretString::from(key.as_str()),
    };
    sqlx::query(
        "insert into api_keys (id, user_id, name, key_hash, scopes, created_at, expires_at) values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(made.id)
    .bind(user.0)
    .bind(name)
    .bind(fingerprint(key.as_bytes()))
    .bind(scopes.labels())
    .bind(now)
    .bind(made.expires_at)
    .execute(tx)
    .await?;
    Ok(made)
}

/// Who uses a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyHolder {
    pub(crate) id: Uuid,
    pub(crate) user: UserId,
    pub(crate) scopes: Scopes,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    user_id: Uuid,
    scopes: Vec<String>,
    expires_at: DateTime<Utc>,
    revoked: bool,
    last_used_at: Option<DateTime<Utc>>,
    is_active: bool,
}

/// Looks a key up: one row by its hash. That it is used is noted by the hour.
pub(crate) async fn check(pool: &PgPool, key: &str, now: Micros) -> Result<KeyHolder, ApiError> {
    let row: Option<Row> = sqlx::query_as(
        "select k.id, k.user_id, k.scopes, k.expires_at, k.revoked_at is not null as revoked, k.last_used_at, u.is_active
         from api_keys k join users u on u.id = k.user_id where k.key_hash = $1",
    )
    .bind(fingerprint(key.as_bytes()))
    .fetch_optional(pool)
    .await?;
    let row = row.filter(|row| !row.revoked).ok_or_else(|| TOKEN_INVALID.because("the key is not valid"))?;
    if row.expires_at <= now.to_utc() {
        return Err(TOKEN_EXPIRED.because("the key has expired: ask an operator for a new one"));
    }
    if !row.is_active {
        return Err(ACCOUNT_LOCKED.error());
    }
    let hour = now.to_utc().duration_trunc(TimeDelta::hours(1)).unwrap_or_else(|_| now.to_utc());
    if row.last_used_at.is_none_or(|used| used < hour) {
        sqlx::query("update api_keys set last_used_at = $2 where id = $1")
            .bind(row.id)
            .bind(hour)
            .execute(pool)
            .await?;
    }
    let has = |scope: &str| row.scopes.iter().any(|has| has == scope);
    let scopes = Scopes { read: has("read"), write: has("write") };
    Ok(KeyHolder { id: row.id, user: UserId(row.user_id), scopes })
}
