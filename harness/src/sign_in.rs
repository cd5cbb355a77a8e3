//! Signing in with a wallet, as an app does: ask for a challenge, sign it as a certificate (VIP-192), give it back.

use chain::Signer;
use chain::certificate::{Certificate, IDENTIFICATION, Payload};
use chain::signer::SignerError;
use serde_json::{Value, json};

/// The document for `POST /v1/auth/login`: the challenge of `POST /v1/auth/challenge`, signed by a wallet for a page of `domain` at `now`
/// (seconds since 1970).
///
/// # Errors
/// [`SignerError::Failed`] for one of the few keys and hashes that have no signature.
pub fn certificate(challenge: &Value, wallet: &Signer, domain: &str, now: i64) -> Result<Value, SignerError> {
    let certificate = Certificate {
        domain: domain.to_owned(),
        payload: Payload {
            content: challenge["text"].as_str().unwrap_or_default().to_owned(),
            kind: "text".into(),
        },
        purpose: IDENTIFICATION.into(),
        signer: wallet.address(),
        timestamp: now,
    };
    let signature = wallet.sign_prehash(&certificate.signing_hash())?;
    let mut signed = json!(certificate);
    signed["signature"] = json!(format!("0x{}", hex::encode(signature.0)));
    Ok(json!({ "method": "certificate", "challenge_id": challenge["challenge_id"], "certificate": signed }))
}
