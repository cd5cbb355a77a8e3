//! A key in AWS KMS (`ECC_SECG_P256K1`, `SIGN_VERIFY`), by the two calls `GetPublicKey` and `Sign` over JSON 1.1. The key never leaves KMS.
//! Its signatures are not deterministic, may have a high s and carry no recovery id; here they become what Thor takes.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use k256::ecdsa::{Signature as EcdsaSignature, VerifyingKey};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::aws::AwsCredentials;
use super::endpoint::{self, Endpoint, Plain, SignerLimits};
use super::{SigningError, ToSign, TransactionSigner};
use crate::id::Address;
use crate::signer::{SIGNATURE_LEN, Signature, address_of, public_key};

/// What stands before the point of a secp256k1 key in a `SubjectPublicKeyInfo`: DER has one way to write it.
const SPKI_PREFIX: [u8; 23] = [
    0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x0a, 0x03, 0x42, 0x00,
];

/// Which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsKey {
    /// Its id, ARN or alias.
    pub key_id: String,
    /// Its region.
    pub region: String,
    /// Another address than the region's own, for a private endpoint.
    pub endpoint: Option<String>,
}

/// A signer whose key is in KMS.
pub struct KmsSigner {
    key: KmsKey,
    endpoint: Endpoint,
    credentials: AwsCredentials,
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    public: VerifyingKey,
    address: Address,
}

impl KmsSigner {
    /// Asks for the public key. `now` gives the time that questions are signed with.
    ///
    /// # Errors
    /// [`SigningError`]; [`SigningError::Config`] where the key is none that signs for VeChain.
    pub async fn open(
        key: KmsKey,
        credentials: AwsCredentials,
        limits: SignerLimits,
        now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    ) -> Result<Self, SigningError> {
        let url =
            key.endpoint.clone().unwrap_or_else(|| format!("https://kms.{}.amazonaws.com/", key.region));
        let endpoint = Endpoint::new(&url, limits, Plain::Loopback)?;
        let asking = Asking { key: &key, endpoint: &endpoint, credentials: &credentials, now: now() };
        let public = asking.public_key().await?;
        let address = address_of(&public);
        Ok(Self { key, endpoint, credentials, now, public, address })
    }
}

impl TransactionSigner for KmsSigner {
    fn address(&self) -> Address {
        self.address
    }

    fn sign<'a>(&'a self, what: ToSign<'a>) -> BoxFuture<'a, Result<Signature, SigningError>> {
        Box::pin(async move {
            let Self { key, endpoint, credentials, now, .. } = self;
            let digest = what.digest();
            let der = Asking { key, endpoint, credentials, now: now() }.sign(&digest).await?;
            recoverable(&der, &digest, &self.public)
        })
    }
}

impl fmt::Debug for KmsSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmsSigner")
            .field("key", &self.key)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// `r ‖ s ‖ v` with the lower s, from a DER signature of the key.
fn recoverable(der: &[u8], digest: &[u8; 32], public: &VerifyingKey) -> Result<Signature, SigningError> {
    let signature =
        EcdsaSignature::from_der(der).map_err(|_| SigningError::wrong("it is no DER signature"))?;
    let signature = signature.normalize_s().unwrap_or(signature);
    for v in [0_u8, 1] {
        if public_key(digest, &signature, v == 1).as_ref() == Some(public) {
            let mut bytes = [v; SIGNATURE_LEN];
            bytes[..64].copy_from_slice(&signature.to_bytes());
            return Ok(Signature(bytes));
        }
    }
    Err(SigningError::wrong("it is another key's, or of something else"))
}

struct Asking<'a> {
    key: &'a KmsKey,
    endpoint: &'a Endpoint,
    credentials: &'a AwsCredentials,
    now: SystemTime,
}

impl Asking<'_> {
    async fn public_key(&self) -> Result<VerifyingKey, SigningError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Public {
            public_key: String,
            key_spec: String,
            key_usage: String,
        }
        let found: Public = self.call("GetPublicKey", json!({"KeyId": self.key.key_id})).await?;
        if found.key_spec != "ECC_SECG_P256K1" || found.key_usage != "SIGN_VERIFY" {
            return Err(SigningError::config("the key in KMS is no ECC_SECG_P256K1 key that signs"));
        }
        let bytes = STANDARD.decode(found.public_key).map_err(|_| SigningError::wrong("it is no base64"))?;
        bytes
            .strip_prefix(&SPKI_PREFIX)
            .and_then(|point| VerifyingKey::from_sec1_bytes(point).ok())
            .ok_or_else(|| SigningError::wrong("it is no public key of secp256k1"))
    }

    async fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>, SigningError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Signed {
            signature: String,
        }
        let question = json!({
            "KeyId": self.key.key_id, "Message": STANDARD.encode(digest), "MessageType": "DIGEST",
            "SigningAlgorithm": "ECDSA_SHA_256",
        });
        let signed: Signed = self.call("Sign", question).await?;
        STANDARD.decode(signed.signature).map_err(|_| SigningError::wrong("it is no base64"))
    }

    async fn call<T: DeserializeOwned>(&self, call: &str, question: Value) -> Result<T, SigningError> {
        let body = question.to_string().into_bytes();
        let target = HeaderValue::from_str(&format!("TrentService.{call}"));
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1")),
            (
                HeaderName::from_static("x-amz-target"),
                target.map_err(|_| SigningError::config("no call of KMS"))?,
            ),
        ]);
        let url = &self.endpoint.url;
        let of = ("kms", self.key.region.as_str());
        self.credentials.sign(of, url, &mut headers, (&body, self.now)).await?;
        let (status, body) = self.endpoint.ask(Method::POST, url.clone(), headers, body).await?;
        if status.is_success() { endpoint::json(&body) } else { Err(refusal(status, &body)) }
    }
}

/// What an error says: most come with status 400 and their name in `__type`, at times behind a `#`.
fn refusal(status: reqwest::StatusCode, body: &[u8]) -> SigningError {
    #[derive(Deserialize)]
    struct Exception {
        #[serde(rename = "__type")]
        name: String,
    }
    let name = serde_json::from_slice::<Exception>(body).map(|exception| exception.name).unwrap_or_default();
    let name: String =
        name.rsplit('#').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
    match name.as_str() {
        "ThrottlingException"
        | "DependencyTimeoutException"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "LimitExceededException" => SigningError::unavailable(&name),
        "" => endpoint::by_status(status),
        _ if status.is_server_error() => SigningError::unavailable(&name),
        _ => SigningError::refused(&name),
    }
}
