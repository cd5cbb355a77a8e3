//! What a client holds while it is signed in: an access token of minutes, which says who it is, and a refresh token, which gets the next.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use schemas::ids::{Micros, UserId};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::keys::{Claims, Role, SigningKey};
use crate::http::problem::{ApiError, INTERNAL};

/// Seconds of an access token: what a lock or the end of a session cannot take back at once it takes back by then.
const ACCESS_S: i64 = 600;
/// A session that is not refreshed ends after this.
const IDLE: TimeDelta = TimeDelta::days(7);
/// A session ends after this, however often it is refreshed.
const WHOLE: TimeDelta = TimeDelta::days(30);

/// What opens the gateway, and what gets the next of it
#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    pub(super) user_id: Uuid,
    pub(super) session_id: Uuid,
    /// Goes into the Authorization header as a bearer token
    pub(super) access_token: String,
    #[schema(pattern = "^Bearer$")]
    token_type: &'static str,
    /// Seconds until the access token expires
    expires_in: i64,
    /// Good for one call of /v1/auth/refresh; keep it from everybody
    pub(super) refresh_token: String,
    /// When the refresh token expires
    #[schema(format = DateTime)]
    refresh_expires_at: String,
}

/// Makes the tokens of a session that was created at `created_at`; and when it ends if it is not refreshed.
pub(super) fn make(
    key: &SigningKey,
    (user, role, session): (UserId, Role, Uuid),
    created_at: DateTime<Utc>,
    now: Micros,
) -> Result<(Tokens, DateTime<Utc>), ApiError> {
    let claims = Claims::new((user, role, session), now, ACCESS_S);
    let secret: [u8; 32] = rand::random();
    let expires_at = (created_at + WHOLE).min(now.to_utc() + IDLE);
    let tokens = Tokens {
        user_id: user.0,
        session_id: session,
        access_token: key.sign(&claims).map_err(|error| INTERNAL.caused_by(error))?,
        token_type: "Bearer",
        expires_in: ACCESS_S,
        refresh_token: URL_SAFE_NO_PAD.encode(secret),
        refresh_expires_at: crate::queries::payout::instant(expires_at),
    };
    Ok((tokens, expires_at))
}
