//! A wallet's signature under a challenge: a certificate (VIP-192), or typed data (EIP-712). A wallet that is a contract signs the same
//! (EIP-1271): `contract` asks it.

use chain::certificate::{Certificate, IDENTIFICATION, Payload};
use chain::{Address, Signature};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use utoipa::ToSchema;

use super::SignIn;
use super::challenge::{Challenge, Purpose};
use super::records::Trace;
use crate::http::problem::{
    ApiError, BUSY, CHALLENGE_EXPIRED, CHALLENGE_USED, CONTRACT_WALLET_UNSUPPORTED, NODE_UNAVAILABLE,
    Problem, SIGNATURE_REFUSED, STALE_CERTIFICATE, WRONG_DOMAIN,
};

/// A wallet's clock may differ from ours by this much.
const SKEW: TimeDelta = TimeDelta::minutes(1);
/// Timestamps from here on are milliseconds: as seconds they would lie in the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// What a proof can be refused for.
pub(crate) const REFUSALS: &[Problem] = &[
    CHALLENGE_EXPIRED,
    CHALLENGE_USED,
    WRONG_DOMAIN,
    STALE_CERTIFICATE,
    SIGNATURE_REFUSED,
    CONTRACT_WALLET_UNSUPPORTED,
    NODE_UNAVAILABLE,
    BUSY,
];
/// Bytes of a signature, at most: a contract's may be several keys', or a passkey's with all that it covers.
const SIGNATURE_MAX: usize = 4096;

/// What the wallet signed
#[derive(Deserialize, ToSchema)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Proof {
    /// A certificate whose content is the challenge's text
    Certificate {
        /// As the challenge had it
        #[schema(max_length = 512)]
        challenge_id: String,
        certificate: SignedCertificate,
    },
    /// The challenge's typed data
    Eip712 {
        /// As the challenge had it
        #[schema(max_length = 512)]
        challenge_id: String,
        /// 0x and 130 hex digits: r, s and v (0 or 1), s in the lower half of the order; a contract's (EIP-1271) may have 8,192
        #[schema(max_length = 8194)]
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
    /// 0x and 130 hex digits: r, s and v (0 or 1), s in the lower half of the order; a contract's (EIP-1271) may have 8,192
    #[schema(max_length = 8194)]
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

    /// The challenge as the client carried it.
    pub(super) fn ticket(&self) -> &str {
        let (Self::Certificate { challenge_id, .. } | Self::Eip712 { challenge_id, .. }) = self;
        challenge_id
    }

    /// What was signed of the challenge, in time, by whichever wallet; whose signature it is has to be looked at.
    ///
    /// # Errors
    /// One of [`REFUSALS`].
    fn signed(
        &self,
        challenge: &Challenge,
        purpose: Purpose,
        genesis_id: &str,
        now: DateTime<Utc>,
    ) -> Result<Signed, ApiError> {
        // One for something else is none at all here.
        let open = challenge.purpose == purpose && challenge.genesis_id == genesis_id;
        // Another gateway's clock may be a little ahead.
        if !open || challenge.expires_at() <= now || challenge.issued_at > now + SKEW {
            return Err(CHALLENGE_EXPIRED.error());
        }
        let wallet = challenge.wallet;
        let (hash, signature) = match self {
            Self::Certificate { certificate, .. } => {
                (certificate.signing_hash(challenge, wallet, now)?, &certificate.signature)
            }
            Self::Eip712 { signature, .. } => (challenge.typed_data().signing_hash(), signature),
        };
        Ok(Signed { wallet, hash, signature: read_signature(signature)? })
    }

    /// The wallet's address, where this is the signature of its key.
    #[cfg(test)]
    fn check(
        &self,
        challenge: &Challenge,
        purpose: Purpose,
        genesis_id: &str,
        now: DateTime<Utc>,
    ) -> Result<Address, ApiError> {
        let signed = self.signed(challenge, purpose, genesis_id, now)?;
        signed.is_by_key()?;
        Ok(signed.wallet)
    }
}

/// A signature, and of what and whose it should be.
struct Signed {
    wallet: Address,
    hash: [u8; 32],
    signature: Vec<u8>,
}

impl Signed {
    fn is_by_key(&self) -> Result<(), ApiError> {
        let signature = Signature::try_from(self.signature.as_slice()).map_err(refused)?;
        signature.verify(&self.hash, self.wallet).map_err(refused)
    }
}

impl SignIn {
    /// The address of the wallet that signed the challenge: by its key, or as a contract says.
    ///
    /// # Errors
    /// One of [`REFUSALS`].
    pub(super) async fn signer(
        &self,
        proof: &Proof,
        challenge: &Challenge,
        purpose: Purpose,
        trace: &mut Trace,
    ) -> Result<Address, ApiError> {
        let (genesis_id, now) = (&self.network()?.genesis_id, self.clock.now().to_utc());
        let signed = proof.signed(challenge, purpose, genesis_id, now)?;
        let Err(refusal) = signed.is_by_key() else { return Ok(signed.wallet) };
        let Some(contracts) = &self.contracts else {
            let may_be_a_keys = signed.signature.len() <= chain::signer::SIGNATURE_LEN;
            return Err(if may_be_a_keys { refusal } else { CONTRACT_WALLET_UNSUPPORTED.error() });
        };
        if !contracts.accept(signed.wallet, &signed.hash, &signed.signature).await? {
            return Err(refusal);
        }
        *trace = trace.clone().with("method", "eip1271");
        Ok(signed.wallet)
    }
}

impl SignedCertificate {
    fn signing_hash(
        &self,
        challenge: &Challenge,
        wallet: Address,
        now: DateTime<Utc>,
    ) -> Result<[u8; 32], ApiError> {
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
        Ok(certificate.signing_hash())
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

/// `0x` and hex digits of either case.
fn read_signature(text: &str) -> Result<Vec<u8>, ApiError> {
    let digits = text.strip_prefix("0x").ok_or_else(|| refused("a signature starts with 0x"))?;
    if digits.len() > 2 * SIGNATURE_MAX {
        return Err(refused(format!("a signature has at most {SIGNATURE_MAX} bytes")));
    }
    hex::decode(digits).map_err(|_| refused("a signature is 0x and 130 hex digits"))
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
