//! The signature of a watcher's batch: HMAC-SHA256 over its time and body, so that neither can be changed and an old one is worth nothing.

use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

/// Header with the seconds since 1970 at which the batch was signed.
pub const TIME_HEADER: &str = "x-milestream-time";
/// Header with `sha256=` and 64 hex digits.
pub const SIGNATURE_HEADER: &str = "x-milestream-signature";

/// Header with the signature of [`head`], by which a batch is known to be the watcher's before its body is read.
pub const HEAD_SIGNATURE_HEADER: &str = "x-milestream-head-signature";

/// What is signed of a batch's head, in the place of a body: a body of JSON never begins so.
#[must_use]
pub fn head(content_length: u64) -> String {
    format!("head.{content_length}")
}

/// The value of [`SIGNATURE_HEADER`]: HMAC-SHA256 of the time's text, a point, and the body.
#[must_use]
pub fn signature(secret: &SecretString, time: &str, body: &[u8]) -> String {
    let code = mac(secret, time, body).map(|mac| hex::encode(mac.finalize().into_bytes()));
    format!("sha256={}", code.unwrap_or_default())
}

/// Whether a signature is that of `secret`; takes the same time wherever it differs.
#[must_use]
pub fn is_signed(secret: &SecretString, time: &str, body: &[u8], claimed: &str) -> bool {
    let code = claimed.strip_prefix("sha256=").and_then(|digits| hex::decode(digits).ok());
    match (mac(secret, time, body), code) {
        (Some(mac), Some(code)) => mac.verify_slice(&code).is_ok(),
        _ => false,
    }
}

/// Always there: HMAC takes keys of any length (RFC 2104).
fn mac(secret: &SecretString, time: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_published_construction() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 'a secret of thirty-two characters'
        let secret = SecretString::from("a secret of thirty-two characters");
        let found = signature(&secret, "1700000000", b"{}");
        assert_eq!(found, VECTOR);
        assert_ne!(signature(&secret, "1700000001", b"{}"), found);
        assert_ne!(signature(&secret, "1700000000", b"{ }"), found);
        assert!(is_signed(&secret, "1700000000", b"{}", VECTOR));
        for forged in [
            "",
            "sha256=",
            "sha256=00",
            &VECTOR[7..],
            &VECTOR.replace("sha256", "sha1"),
            &VECTOR.to_uppercase(),
        ] {
            assert!(!is_signed(&secret, "1700000000", b"{}", forged), "{forged}");
        }
        assert!(!is_signed(&SecretString::from("another"), "1700000000", b"{}", VECTOR));
    }

    const VECTOR: &str = "sha256=44254216846bc9279312213fb908151318800422fc37a204f8a1fda9c5450434";
}
