//! Codes of six digits, by which somebody shows that they read what is sent to an address.
//!
//! There are a million of them, so that a plain hash would be no secret to whoever reads it. What is kept is PBKDF2-HMAC-SHA256 with a
//! salt: trying all of them takes a core 10^6 x 30 ms, eight hours, and a code is good for ten minutes.

use std::num::NonZeroU32;

use rand::Rng as _;
use ring::pbkdf2;
use secrecy::{ExposeSecret as _, SecretString};

/// 100,000 rounds take a core about 30 ms: more than guessing is worth, and bearable for the few tries that a code has.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(99_999);
/// Digits of a code.
const DIGITS: usize = 6;

/// A code. It is not printed.
#[derive(Clone, Debug)]
pub struct OneTimeCode(SecretString);

/// What is kept of a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeDigest {
    /// Random, of this digest alone.
    pub salt: [u8; 16],
    /// The hash.
    pub hash: [u8; 32],
}

impl OneTimeCode {
    /// A new code.
    #[must_use]
    pub fn draw() -> Self {
        let number: u32 = rand::rng().random_range(0..1_000_000);
        Self(SecretString::from(format!("{number:0DIGITS$}")))
    }

    /// The code that somebody types; none where it is not six digits.
    #[must_use]
    pub fn typed(text: &str) -> Option<Self> {
        let is_one = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        is_one.then(|| Self(SecretString::from(text)))
    }

    /// The digits, for the message that carries them and nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is kept of the code for `address`: for another address it proves nothing. It takes a core some 30 ms.
    #[must_use]
    pub fn digest(&self, address: &str) -> CodeDigest {
        let (salt, mut hash) = (rand::random::<[u8; 16]>(), [0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, &self.secret(address), &mut hash);
        CodeDigest { salt, hash }
    }

    /// Whether this is the code whose digest was kept for `address`. It takes as long whatever differs, some 30 ms.
    #[must_use]
    pub fn proves(&self, address: &str, salt: &[u8], hash: &[u8]) -> bool {
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, &self.secret(address), hash).is_ok()
    }

    fn secret(&self, address: &str) -> Vec<u8> {
        // The code has a fixed length, so that no two pairs are joined alike.
        [self.expose().as_bytes(), address.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_proves_the_address_that_it_was_sent_to_and_no_other() {
        let code = OneTimeCode::typed("012345").unwrap();
        let CodeDigest { salt, hash } = code.digest("ada@example.org");
        assert!(code.proves("ada@example.org", &salt, &hash));
        assert!(!code.proves("eve@example.org", &salt, &hash));
        assert!(!OneTimeCode::typed("012346").unwrap().proves("ada@example.org", &salt, &hash));
        assert_ne!(code.digest("ada@example.org").hash, hash, "each digest has a salt of its own");
    }

    #[test]
    fn a_drawn_code_is_six_digits_and_none_is_printed() {
        for _ in 0..1_000 {
            let code = OneTimeCode::draw();
            assert!(OneTimeCode::typed(code.expose()).is_some());
            assert!(!format!("{code:?}").contains(code.expose()), "{code:?}");
        }
        for bad in ["", "12345", "1234567", "12345a", "１２３４５６", " 12345", "-12345"] {
            assert!(OneTimeCode::typed(bad).is_none(), "{bad}");
        }
    }
}
