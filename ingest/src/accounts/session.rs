//! Sessions: a row is what access and refresh tokens hang on, and ends for good.

use chrono::{DateTime, Timelike as _, Utc};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

/// A session that begins.
pub(crate) struct NewSession<'a> {
    pub(crate) id: Uuid,
    pub(crate) user: Uuid,
    /// The access token.
    pub(crate) access: &'a str,
    /// The refresh token; random bytes that nobody has where it is not refreshed.
    pub(crate) refresh: &'a [u8],
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) address: Option<String>,
    pub(crate) agent: Option<&'a str>,
}

impl NewSession<'_> {
    /// Stores it. Of the tokens only hashes are kept.
    pub(crate) async fn insert(&self, tx: &mut PgConnection, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
        sqlx::query(
            "insert into user_sessions (id, user_id, session_token, refresh_token, expires_at, created_at, is_active,
               last_activity, ip_address, user_agent) values ($1, $2, $3, $4, $5, $6, true, $7, $8, $9)",
        )
        .bind(self.id)
        .bind(self.user)
        .bind(fingerprint(self.access.as_bytes()))
        .bind(fingerprint(self.refresh))
        .bind(self.expires_at)
        .bind(now)
        .bind(minute(now))
        .bind(&self.address)
        .bind(self.agent)
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// The minute of an instant: activity is not kept more exactly.
pub(crate) fn minute(now: DateTime<Utc>) -> DateTime<Utc> {
    now.with_second(0).and_then(|at| at.with_nanosecond(0)).unwrap_or(now)
}

/// `sha256:` and 64 hex digits.
pub(crate) fn fingerprint(secret: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_has_71_characters_and_not_the_secret() {
        let print = fingerprint(b"secret");
        assert_eq!(print.len(), 71);
        assert!(print.starts_with("sha256:") && !print.contains("secret"));
    }
}
