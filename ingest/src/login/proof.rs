//! A wallet's signature under a challenge: a certificate (VIP-192), or typed data (EIP-712). Smart accounts, which have no key of their own
//! (EIP-1271), are not asked.

use chain::certificate::{Certificate, IDENTIFICATION, Payload};
use chain::{Address, Signature};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::challenge::{Challenge, Purpose};
use crate::http::problem::{
    ApiError, CHALLENGE_EXPIRED, CHALLENGE_USED, Problem, SIGNATURE_REFUSED, STALE_CERTIFICATE, WRONG_DOMAIN,
};

/// A wallet's clock may differ from ours by this much.
const SKEW: TimeDelta = TimeDelta::minutes(1);
/// Timestamps from here on are milliseconds: as seconds they would lie in the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// What a proof can be refused for.
pub(crate) const REFUSALS: &[Problem] =
    &[CHALLENGE_EXPIRED, CHALLENGE_USED, WRONG_DOMAIN, STALE_CERTIFICATE, SIGNATURE_REFUSED];

/// What the wallet signed
#[derive(Deserialize, ToSchema)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Proof {
    /// A certificate whose content is the challenge's text
    Certificate { challenge_id: Uuid, certificate: SignedCertificate },
    /// The challenge's typed data
    Eip712 {
        challenge_id: Uuid,
        /// 0x and 130 hex digits: r, s and v (0 or 1), s in the lower half of the order
        #[schema(max_length = 132)]
        signature: String,
    },
}

/// A certificate as wallets return it
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignedCertificate {
    /// identification
    purpose: String,
    payload: CertificatePayload,
    /// The host of the page that asked
    domain: String,
    /// When it was signed, in seconds since 1970 (or milliseconds, as some wallets write)
    timestamp: i64,
    signer: String,
    /// 0x and 130 hex digits: r, s and v (0 or 1), s in the lower half of the order
    #[schema(max_length = 132)]
    signature: String,
}

/// The certificate's content
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificatePayload {
    /// text
    #[serde(rename = "type")]
    kind: String,
    /// The challenge's text
    content: String,
}

impl Proof {
    /// `metadata.method` of the logs.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Certificate { .. } => "certificate",
            Self::Eip712 { .. } => "eip712",
        }
    }

    pub(crate) fn challenge_id(&self) -> Uuid {
        let (Self::Certificate { challenge_id, .. } | Self::Eip712 { challenge_id, .. }) = self;
        *challenge_id
    }

    /// The wallet's address, where this is its signature of the challenge, in time.
    ///
    /// # Errors
    /// One of [`REFUSALS`].
    pub(crate) fn check(
        &self,
        challenge: &Challenge,
        purpose: Purpose,
        genesis_id: &str,
        now: DateTime<Utc>,
    ) -> Result<Address, ApiError> {
        // One for something else is none at all here; one of another network was left by another configuration.
        if !challenge.is_for(purpose) || challenge.genesis_id != genesis_id {
            return Err(CHALLENGE_EXPIRED.error());
        }
        if challenge.used_at.is_some() {
            return Err(CHALLENGE_USED.error());
        }
        if challenge.expires_at <= now {
            return Err(CHALLENGE_EXPIRED.error());
        }
        let wallet = challenge.address();
        match self {
            Self::Certificate { certificate, .. } => certificate.check(challenge, wallet, now)?,
            Self::Eip712 { signature, .. } => {
                let hash = challenge.typed_data().signing_hash();
                read_signature(signature)?.verify(&hash, wallet).map_err(refused)?;
            }
        }
        Ok(wallet)
    }
}

impl SignedCertificate {
    fn check(&self, challenge: &Challenge, wallet: Address, now: DateTime<Utc>) -> Result<(), ApiError> {
        if self.domain != challenge.domain {
            return Err(WRONG_DOMAIN.because(format!("the certificate is not for {}", challenge.domain)));
        }
        if self.purpose != IDENTIFICATION || self.payload.kind != "text" {
            return Err(refused("it is no identification by a text"));
        }
        if self.payload.content != challenge.text() {
            return Err(refused("its content is not the challenge's text"));
        }
        self.check_time(challenge, now)?;
        if self.signer.parse() != Ok(wallet) {
            return Err(refused("its signer is not the wallet of the challenge"));
        }
        let certificate = Certificate {
            domain: self.domain.clone(),
            payload: Payload { content: self.payload.content.clone(), kind: self.payload.kind.clone() },
            purpose: self.purpose.clone(),
            signer: wallet,
            timestamp: self.timestamp,
        };
        certificate.verify(&read_signature(&self.signature)?).map_err(refused)
    }

    /// Signed after the challenge was issued and not in the future, by a clock that may be a little wrong.
    fn check_time(&self, challenge: &Challenge, now: DateTime<Utc>) -> Result<(), ApiError> {
        let signed = if self.timestamp >= MILLISECONDS_FROM {
            DateTime::from_timestamp_millis(self.timestamp)
        } else {
            DateTime::from_timestamp(self.timestamp, 0)
        };
        let in_time = signed.is_some_and(|at| at >= challenge.issued_at - SKEW && at <= now + SKEW);
        if in_time { Ok(()) } else { Err(STALE_CERTIFICATE.error()) }
    }
}

fn refused(why: impl std::fmt::Display) -> ApiError {
    SIGNATURE_REFUSED.because(format!("the signature is not valid: {why}"))
}

/// `0x` and 130 hex digits of either case.
fn read_signature(text: &str) -> Result<Signature, ApiError> {
    let digits = text.strip_prefix("0x").ok_or_else(|| refused("a signature starts with 0x"))?;
    let mut bytes = [0; chain::signer::SIGNATURE_LEN];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| refused("a signature is 0x and 130 hex digits"))?;
    Ok(Signature(bytes))
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
