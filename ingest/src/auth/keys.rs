//! Bearer tokens: EdDSA JWTs (RFC 8037), signed with one key and checked against a set of public keys (RFC 7517).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use hmac::{Hmac, Mac as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use schemas::ids::{Micros, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::http::problem::{ApiError, TOKEN_EXPIRED, TOKEN_INVALID};

/// `iss` of every token.
pub const ISSUER: &str = "milestream";
/// `aud` of every token.
pub const AUDIENCE: &str = "milestream-api";
/// A token's issuer may have a clock this many seconds ahead.
const SKEW_S: i64 = 60;
/// Keys of a set: a rotation needs two; more only cost memory.
pub const KEYS_MAX: usize = 16;
/// Bytes of a token; ours have about 420.
const TOKEN_MAX: usize = 4096;

/// What a token's bearer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sends photos.
    Driver,
    /// Decides reviews.
    Reviewer,
    /// Runs the system.
    Operator,
    /// A program that sends photos for an account, and sees what becomes of them.
    Service,
}

impl Role {
    /// As claims and tables have it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Reviewer => "reviewer",
            Self::Operator => "operator",
            Self::Service => "service",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "driver" => Ok(Self::Driver),
            "reviewer" => Ok(Self::Reviewer),
            "operator" => Ok(Self::Operator),
            "service" => Ok(Self::Service),
            _ => Err(format!("role {text:?} is not driver, reviewer, operator or service")),
        }
    }
}

/// A token's claims. `exp` and `iat` are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// [`ISSUER`].
    pub iss: String,
    /// [`AUDIENCE`].
    pub aud: String,
    /// The user.
    pub sub: UserId,
    /// The role.
    pub role: Role,
    /// Issued at.
    pub iat: i64,
    /// Expires at.
    pub exp: i64,
    /// The session, `user_sessions.id`.
    pub sid: Uuid,
}

impl Claims {
    /// Those of a token of this gateway that is issued at `now` and lives `ttl_s` seconds.
    pub(crate) fn new((sub, role, sid): (UserId, Role, Uuid), now: Micros, ttl_s: i64) -> Self {
        let iat = now.0.div_euclid(1_000_000);
        Self { iss: ISSUER.to_owned(), aud: AUDIENCE.to_owned(), sub, role, iat, exp: iat + ttl_s, sid }
    }
}

/// Why a key is not usable.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a PKCS#8 PEM of an Ed25519 key.
    #[error("the signing key is not the PKCS#8 PEM of an Ed25519 key")]
    SigningKey,
    /// Not a JWKS of Ed25519 keys.
    #[error("the key set is not usable: {0}")]
    KeySet(String),
    /// The token could not be made.
    #[error("the token could not be signed")]
    Sign,
}

/// The key that signs tokens. Never printed.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    encoding: EncodingKey,
    kid: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, [redacted])", self.kid)
    }
}

impl SigningKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`KeyError::SigningKey`] never in practice.
    pub fn generate() -> Result<Self, KeyError> {
        Self::of(ed25519_dalek::SigningKey::from_bytes(&rand::random()))
    }

    /// The key of a PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// [`KeyError::SigningKey`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::of(ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map_err(|_| KeyError::SigningKey)?)
    }

    fn of(key: ed25519_dalek::SigningKey) -> Result<Self, KeyError> {
        let der = key.to_pkcs8_der().map_err(|_| KeyError::SigningKey)?;
        let encoding = EncodingKey::from_ed_der(der.as_bytes());
        let kid = hex::encode(&Sha256::digest(key.verifying_key().as_bytes())[..8]);
        Ok(Self { key, encoding, kid })
    }

    /// The PEM to keep in a file of mode 0600, and nowhere else.
    ///
    /// # Errors
    /// [`KeyError::SigningKey`] never in practice.
    pub fn expose_pem(&self) -> Result<String, KeyError> {
        // Version 1, without the public key (RFC 5958): OpenSSL 3.0 and Python's `cryptography` refuse version 2.
        let secret = KeypairBytes { secret_key: self.key.to_bytes(), public_key: None };
        let pem = secret.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::SigningKey)?;
        Ok(pem.as_str().to_owned())
    }

    /// The key set that checks this key's tokens, as JSON.
    #[must_use]
    pub fn jwks(&self) -> String {
        document(vec![public(&self.kid, &URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes()))])
            .to_string()
    }

    /// The key's name in a key set.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// An HMAC under a secret that follows from the key (HKDF-Expand of RFC 5869, of which `label` is the info), so that it is worth
    /// nothing as a signature, nor as the code of another label. None never: HMAC takes keys of any length.
    pub(crate) fn code(&self, label: &str) -> Option<Hmac<Sha256>> {
        let expand = Hmac::<Sha256>::new_from_slice(self.key.as_bytes()).ok()?;
        let secret = expand.chain_update(label).chain_update([1]).finalize().into_bytes();
        Hmac::new_from_slice(&secret).ok()
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(|_| KeyError::Sign)
    }
}

fn public(kid: &str, x: &str) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x })
}

fn document(keys: Vec<Value>) -> Value {
    json!({ "keys": keys })
}

/// The key that a gateway signs access tokens with; none where nobody signs in. Clones share it, so that all see a rotation.
#[derive(Clone, Debug, Default)]
pub struct TokenSigner(Arc<RwLock<Signers>>);

#[derive(Debug, Default)]
struct Signers {
    in_force: Option<Arc<SigningKey>>,
    /// The key before a rotation, and the one that is about to sign: what other gateways may still issue under, or issue already.
    beside: [Option<Arc<SigningKey>>; 2],
}

impl TokenSigner {
    /// A signer with this key.
    #[must_use]
    pub fn new(key: Option<SigningKey>) -> Self {
        Self(Arc::new(RwLock::new(Signers { in_force: key.map(Arc::new), ..Signers::default() })))
    }

    /// Tells of a key that is about to sign.
    pub fn announce(&self, key: SigningKey) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).beside[1] = Some(Arc::new(key));
    }

    /// Signs with another key from now on.
    pub fn replace(&self, key: Option<SigningKey>) {
        let mut signers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut signers.in_force, key.map(Arc::new));
        signers.beside = [before, None];
    }

    /// The key in force.
    #[must_use]
    pub fn key(&self) -> Option<Arc<SigningKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).in_force.clone()
    }

    /// The key in force and those of a rotation beside it.
    pub(crate) fn known(&self) -> Vec<Arc<SigningKey>> {
        let signers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        signers.in_force.iter().chain(signers.beside.iter().flatten()).cloned().collect()
    }
}

/// Tokens that are remembered as verified: 10,000 x about 250 bytes = 2.5 MB.
const VERIFIED_MAX: usize = 10_000;

/// The public keys that tokens are checked with, by `kid`. Clones share them, so that all see a rotation.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Arc<RwLock<HashMap<String, PublicKey>>>,
    /// Claims of tokens whose signature was found right, and the key's name, by the token's SHA-256: a driver sends the same token many
    /// times, and a signature takes longer to check than all else of a request that is refused. When it is full, it begins anew.
    verified: Arc<Mutex<Verified>>,
}

type Verified = HashMap<[u8; 32], (String, Claims)>;

#[derive(Clone, Debug)]
struct PublicKey {
    decoding: DecodingKey,
    /// The point, base64url: what a key set says of a key beside its name.
    x: String,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    kid: String,
    x: String,
}

impl KeySet {
    /// The set of a JWKS document with 1 to 16 Ed25519 keys.
    ///
    /// # Errors
    /// [`KeyError::KeySet`].
    pub fn from_jwks(json: &str) -> Result<Self, KeyError> {
        let fail = |detail: String| KeyError::KeySet(detail);
        let set: Jwks = serde_json::from_str(json).map_err(|error| fail(error.to_string()))?;
        let mut keys = HashMap::new();
        for key in set.keys {
            let bytes = URL_SAFE_NO_PAD.decode(&key.x).unwrap_or_default();
            if key.kty != "OKP" || key.crv != "Ed25519" || bytes.len() != 32 {
                return Err(fail(format!("key {:?} is not an Ed25519 public key", key.kid)));
            }
            let decoding =
                DecodingKey::from_ed_components(&key.x).map_err(|error| fail(error.to_string()))?;
            if keys.insert(key.kid.clone(), PublicKey { decoding, x: key.x }).is_some() {
                return Err(fail(format!("key {:?} is there twice", key.kid)));
            }
        }
        if !(1..=KEYS_MAX).contains(&keys.len()) {
            return Err(fail(format!("{} keys, 1 to {KEYS_MAX} are wanted", keys.len())));
        }
        Ok(Self { keys: Arc::new(RwLock::new(keys)), verified: Arc::default() })
    }

    /// Takes another set's keys, for every clone.
    pub fn replace(&self, other: &Self) {
        let keys = other.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Keys of the set.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a set has at least one key")]
    pub fn len(&self) -> usize {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The JWKS document of the set: public members alone, whatever its file holds beside them.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<(&String, &PublicKey)> = keys.iter().collect();
        keys.sort_by_key(|(kid, _)| *kid);
        document(keys.into_iter().map(|(kid, key)| public(kid, &key.x)).collect())
    }

    /// The claims of a valid token.
    ///
    /// # Errors
    /// [`TOKEN_INVALID`] or [`TOKEN_EXPIRED`].
    pub fn check(&self, token: &str, now: Micros) -> Result<Claims, ApiError> {
        if token.len() > TOKEN_MAX {
            return Err(invalid("it is too long"));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        let claims = match known {
            // A rotation may have taken the key away since.
            Some((kid, claims)) if self.knows(&kid) => claims,
            _ => {
                let (kid, claims) = self.verify(token)?;
                let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
                if verified.len() >= VERIFIED_MAX {
                    verified.clear();
                }
                verified.insert(digest, (kid, claims.clone()));
                claims
            }
        };
        let now = now.0 / 1_000_000;
        if claims.exp <= now {
            return Err(TOKEN_EXPIRED.error());
        }
        if claims.iat > now + SKEW_S {
            return Err(invalid("it was issued in the future"));
        }
        Ok(claims)
    }

    fn knows(&self, kid: &str) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).contains_key(kid)
    }

    /// The claims of a token that was signed with one of the keys, for us, and that key's name; whatever the time.
    fn verify(&self, token: &str) -> Result<(String, Claims), ApiError> {
        let shape = |_| invalid("it is no JWT of ours");
        let header = jsonwebtoken::decode_header(token).map_err(shape)?;
        if header.alg != Algorithm::EdDSA {
            return Err(invalid("its algorithm is not EdDSA"));
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = header.kid.and_then(|kid| keys.get(&kid).map(|key| (kid, &key.decoding)));
        let (kid, key) = key.ok_or_else(|| invalid("it was signed with a key that is not known"))?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[AUDIENCE]);
        rules.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
        // Against our own clock below, so that tests can set it.
        rules.validate_exp = false;
        let wrong = |_| invalid("its signature or a claim is wrong");
        Ok((kid, jsonwebtoken::decode::<Claims>(token, key, &rules).map_err(wrong)?.claims))
    }
}

fn invalid(detail: &str) -> ApiError {
    TOKEN_INVALID.because(format!("the token is not valid: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_770_000_000_000_000);

    fn claims() -> Claims {
        Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: UserId(Uuid::from_u128(7)),
            role: Role::Driver,
            iat: 1_770_000_000,
            exp: 1_770_000_060,
            sid: Uuid::from_u128(8),
        }
    }

    fn code(keys: &KeySet, token: &str, now: Micros) -> &'static str {
        keys.check(token, now).unwrap_err().code()
    }

    #[test]
    fn a_token_passes_until_it_expires_and_only_under_its_own_key() {
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap().expose_pem().unwrap()).unwrap();
        let keys = KeySet::from_jwks(&key.jwks()).unwrap();
        let token = key.sign(&claims()).unwrap();
        assert_eq!(keys.check(&token, NOW).unwrap(), claims());
        assert_eq!(code(&keys, &token, Micros(NOW.0 + 60_000_000)), "token_expired");
        let other = SigningKey::generate().unwrap();
        assert_eq!(code(&keys, &other.sign(&claims()).unwrap(), NOW), "token_invalid");
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_is_written_as_openssl_writes_it_and_openssls_own_is_read() {
        // PKCS#8 version 1 of RFC 8410 section 10.3: its first key, which `openssl pkey` prints in the same bytes.
        let rfc = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        assert_eq!(SigningKey::from_pem(rfc).unwrap().expose_pem().unwrap(), rfc);
    }

    #[test]
    fn a_changed_token_another_algorithm_and_wrong_claims_are_refused() {
        let key = SigningKey::generate().unwrap();
        let keys = KeySet::from_jwks(&key.jwks()).unwrap();
        let token = key.sign(&claims()).unwrap();
        let (head, signature) = token.rsplit_once('.').unwrap();
        assert_eq!(code(&keys, &format!("{head}x.{signature}"), NOW), "token_invalid");
        let payload = head.split_once('.').unwrap().1;
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert_eq!(code(&keys, &format!("{none}.{payload}."), NOW), "token_invalid");
        let header = Header { kid: Some(key.kid.clone()), ..Header::new(Algorithm::HS256) };
        // The public key as an HMAC secret: the classic confusion.
        let secret = EncodingKey::from_secret(key.key.verifying_key().as_bytes());
        let confused = jsonwebtoken::encode(&header, &claims(), &secret).unwrap();
        assert_eq!(code(&keys, &confused, NOW), "token_invalid");
        for wrong in [
            Claims { aud: "other".into(), ..claims() },
            Claims { iss: "other".into(), ..claims() },
            Claims { iat: 1_770_000_061, ..claims() },
        ] {
            assert_eq!(code(&keys, &key.sign(&wrong).unwrap(), NOW), "token_invalid");
        }
        assert_eq!(code(&keys, &"x".repeat(5000), NOW), "token_invalid");
    }

    #[test]
    fn a_rotated_set_takes_the_new_key_and_no_longer_a_key_that_is_not_in_it() {
        let (old, new) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let keys = KeySet::from_jwks(&old.jwks()).unwrap();
        let (before, after) = (old.sign(&claims()).unwrap(), new.sign(&claims()).unwrap());
        let shared = keys.clone();
        assert!(shared.check(&before, NOW).is_ok());
        let both = serde_json::to_string(&json!({ "keys": [
            keys.jwks()["keys"][0], KeySet::from_jwks(&new.jwks()).unwrap().jwks()["keys"][0],
        ]}));
        keys.replace(&KeySet::from_jwks(&both.unwrap()).unwrap());
        assert!(shared.check(&before, NOW).is_ok() && shared.check(&after, NOW).is_ok());
        keys.replace(&KeySet::from_jwks(&new.jwks()).unwrap());
        assert_eq!(code(&shared, &before, NOW), "token_invalid");
        assert!(shared.check(&after, NOW).is_ok());
    }

    #[test]
    fn a_published_set_holds_nothing_private() {
        let key = SigningKey::generate().unwrap();
        let mut file: Value = serde_json::from_str(&key.jwks()).unwrap();
        file["keys"][0]["d"] = json!("c2VjcmV0");
        let published = KeySet::from_jwks(&file.to_string()).unwrap().jwks();
        assert_eq!(published, serde_json::from_str::<Value>(&key.jwks()).unwrap());
        assert_eq!(published["keys"][0]["kid"], key.kid());
    }

    #[test]
    fn a_key_set_needs_one_to_sixteen_ed25519_keys() {
        for bad in [
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"AAAA"}]}"#,
            r#"{"keys":[{"kty":"RSA","crv":"","kid":"a","x":""}]}"#,
            "{}",
        ] {
            assert!(KeySet::from_jwks(bad).is_err(), "{bad}");
        }
    }
}
