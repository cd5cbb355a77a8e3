//! Signers over HTTP.
//!
//! **A signer** gets `POST URL` with `authorization: Bearer TOKEN` and
//!
//! ```json
//! {"version": 1, "role": "origin", "address": "0x…", "hash": "0x…", "id": "0x…", "origin": "0x…", "raw": "0x…",
//!  "transaction": {"chainTag": 74, "blockRef": "0x…", "expiration": 180, "clauses": [{"to": "0x…", "value": "0x0", "data": "0x…"}],
//!                  "maxFeePerGas": "0x…", "maxPriorityFeePerGas": "0x…", "gas": "210000", "dependsOn": null, "nonce": "0x…",
//!                  "reserved": {"features": 1}}}
//! ```
//!
//! `address` is whose signature is wanted and `hash` the 32 bytes to sign: with the role `origin` blake2b-256 of `raw`, with the role
//! `gas_payer` the transaction's `id`, which is blake2b-256 of that hash and `origin`. `raw` is the encoding without signatures, so that a
//! signer can work out for itself what it signs; `transaction` is the same as VeChain's SDK writes it. The response is 200 with
//! `{"signature": "0x…"}`, 65 bytes `r ‖ s ‖ v` with s in the lower half of the order and v 0 or 1. Status 408, 429 and 5xx mean "later",
//! any other means "no". The same question may be asked again, and any valid signature answers it: the id does not depend on it.
//!
//! **A fee sponsor** gets `POST URL` with `{"origin": "0x…", "raw": "0x…"}` and gives the same response (VIP-201).

use std::fmt;

use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::endpoint::{self, Endpoint, Plain, SignerLimits};
use super::{Role, SigningError, ToSign, TransactionSigner};
use crate::id::Address;
use crate::signer::Signature;
use crate::tx::{DYNAMIC_FEE_TYPE, Fees, UnsignedTx};

/// A signer that is asked over HTTP.
pub struct RemoteSigner {
    endpoint: Endpoint,
    address: Address,
    token: Option<SecretString>,
}

impl RemoteSigner {
    /// The signer at `url` for `address`; `token` shows who asks.
    ///
    /// # Errors
    /// [`SigningError::Config`].
    pub fn new(
        url: &str,
        address: Address,
        token: Option<SecretString>,
        limits: SignerLimits,
    ) -> Result<Self, SigningError> {
        let signer = Self { endpoint: Endpoint::new(url, limits, Plain::Loopback)?, address, token };
        signer.headers()?;
        Ok(signer)
    }

    fn headers(&self) -> Result<HeaderMap, SigningError> {
        let mut headers = json_headers();
        if let Some(token) = &self.token {
            let text = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| SigningError::config("the token has characters that no header holds"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

impl TransactionSigner for RemoteSigner {
    fn address(&self) -> Address {
        self.address
    }

    fn sign<'a>(&'a self, what: ToSign<'a>) -> BoxFuture<'a, Result<Signature, SigningError>> {
        Box::pin(
            async move { signature(&self.endpoint, self.headers()?, &question(self.address, what)).await },
        )
    }
}

impl fmt::Debug for RemoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSigner")
            .field("endpoint", &self.endpoint)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A service that pays the gas of transactions that it likes.
#[derive(Debug)]
pub struct FeeSponsor {
    endpoint: Endpoint,
    address: Address,
}

impl FeeSponsor {
    /// The sponsor at `url`, which pays with `address`. The URL may carry a key: it is not shown.
    ///
    /// # Errors
    /// [`SigningError::Config`].
    pub fn new(url: &str, address: Address, limits: SignerLimits) -> Result<Self, SigningError> {
        Ok(Self { endpoint: Endpoint::new(url, limits, Plain::Loopback)?, address })
    }
}

impl TransactionSigner for FeeSponsor {
    fn address(&self) -> Address {
        self.address
    }

    fn sign<'a>(&'a self, what: ToSign<'a>) -> BoxFuture<'a, Result<Signature, SigningError>> {
        Box::pin(async move {
            if what.role != Role::GasPayer {
                return Err(SigningError::config("a fee sponsor signs as gas payer alone"));
            }
            let body = json!({"origin": what.origin, "raw": hex_of(&what.unsigned.encode_unsigned())});
            signature(&self.endpoint, json_headers(), &body).await
        })
    }
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

async fn signature(endpoint: &Endpoint, headers: HeaderMap, body: &Value) -> Result<Signature, SigningError> {
    #[derive(Deserialize)]
    struct Signed {
        signature: String,
    }
    let asked = endpoint.ask(Method::POST, endpoint.url.clone(), headers, body.to_string().into_bytes());
    let (status, body) = asked.await?;
    // Sponsors differ in which success they say.
    if status != StatusCode::OK && status != StatusCode::CREATED {
        return Err(endpoint::by_status(status));
    }
    let signed: Signed = endpoint::json(&body)?;
    let digits = signed.signature.strip_prefix("0x").unwrap_or(&signed.signature);
    let bytes = hex::decode(digits).map_err(|_| SigningError::wrong("the signature is no hex"))?;
    Ok(Signature::try_from(bytes.as_slice())?)
}

fn question(address: Address, what: ToSign<'_>) -> Value {
    json!({
        "version": 1,
        "role": what.role.label(),
        "address": address,
        "hash": hex_of(&what.digest()),
        "id": what.unsigned.id(what.origin),
        "origin": what.origin,
        "raw": hex_of(&what.unsigned.encode_unsigned()),
        "transaction": body(what.unsigned),
    })
}

/// The transaction as the `TransactionBody` of VeChain's SDK.
fn body(unsigned: &UnsignedTx) -> Value {
    let clauses: Vec<Value> = unsigned
        .clauses
        .iter()
        .map(|clause| json!({"to": clause.to, "value": clause.value.to_hex(), "data": hex_of(&clause.data)}))
        .collect();
    let mut body = json!({
        "chainTag": unsigned.chain_tag,
        "blockRef": format!("{:#018x}", unsigned.block_ref.0),
        "expiration": unsigned.expiration,
        "clauses": clauses,
        "gas": unsigned.gas.to_string(),
        "dependsOn": unsigned.depends_on,
        "nonce": format!("{:#x}", unsigned.nonce),
    });
    match unsigned.fees {
        Fees::Legacy { gas_price_coef } => body["gasPriceCoef"] = gas_price_coef.into(),
        Fees::Dynamic { max_priority_fee_per_gas, max_fee_per_gas } => {
            body["type"] = DYNAMIC_FEE_TYPE.into();
            body["maxPriorityFeePerGas"] = max_priority_fee_per_gas.to_hex().into();
            body["maxFeePerGas"] = max_fee_per_gas.to_hex().into();
        }
    }
    if unsigned.delegated {
        body["reserved"] = json!({"features": 1});
    }
    body
}

fn hex_of(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}
