//! A challenge as the client carries it: its fields, and a code by which the gateway knows them as its own. The code's secret follows from
//! the signing key, which all gateways of a deployment share and which outlives them; a rotation leaves the challenges before it open.
//! Nobody makes one whose time is still to come, and has it signed beforehand.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chain::Address;
use chrono::DateTime;
use hmac::{Hmac, Mac as _};
use schemas::ids::UserId;
use sha2::Sha256;
use uuid::Uuid;

use super::SignIn;
use super::challenge::{Challenge, Purpose};
use crate::auth::keys::SigningKey;

/// Keeps the code apart from others under the same key, and from those of another layout.
const LABEL: &str = "milestream challenge 1";
/// Bytes of the code.
const CODE: usize = 32;

impl Challenge {
    /// Base64url of: what it is good for, and whose account that is (nil to sign in); id, wallet, seconds since 1970, domain; the code.
    pub(super) fn ticket(&self, key: &SigningKey) -> String {
        let user = match self.purpose {
            Purpose::SignIn => Uuid::nil(),
            Purpose::LinkWallet(user) => user.0,
        };
        let seconds = self.issued_at.timestamp().to_be_bytes();
        let parts: [&[u8]; 6] = [
            &[u8::from(self.purpose != Purpose::SignIn)],
            user.as_bytes(),
            self.id.as_bytes(),
            &self.wallet.0,
            &seconds,
            self.domain.as_bytes(),
        ];
        let mut bytes = parts.concat();
        if let Some(code) = code(key, &self.genesis_id, &bytes) {
            bytes.extend_from_slice(&code.finalize().into_bytes());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The challenge of a ticket; none where it was issued under another key or for another network, or is no ticket.
    fn open(ticket: &str, keys: &[impl AsRef<SigningKey>], genesis_id: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(ticket).ok()?;
        let (fields, claimed) = bytes.split_at_checked(bytes.len().checked_sub(CODE)?)?;
        let is_ours = |key: &SigningKey| {
            code(key, genesis_id, fields).is_some_and(|code| code.verify_slice(claimed).is_ok())
        };
        if !keys.iter().any(|key| is_ours(key.as_ref())) {
            return None;
        }
        let ([links], rest) = fields.split_first_chunk()?;
        let (user, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (wallet, rest) = rest.split_first_chunk()?;
        let (seconds, domain) = rest.split_first_chunk()?;
        let user = UserId(Uuid::from_bytes(*user));
        Some(Self {
            id: Uuid::from_bytes(*id),
            purpose: if *links == 0 { Purpose::SignIn } else { Purpose::LinkWallet(user) },
            wallet: Address(*wallet),
            domain: str::from_utf8(domain).ok()?.to_owned(),
            genesis_id: genesis_id.to_owned(),
            issued_at: DateTime::from_timestamp(i64::from_be_bytes(*seconds), 0)?,
        })
    }
}

impl SignIn {
    /// The challenge of a ticket that a gateway of this deployment issued.
    pub(super) fn open(&self, ticket: &str) -> Option<Challenge> {
        Challenge::open(ticket, &self.signer.known(), &self.network.as_ref()?.genesis_id)
    }
}

/// Over the network too, which has a length of its own.
fn code(key: &SigningKey, genesis_id: &str, fields: &[u8]) -> Option<Hmac<Sha256>> {
    Some(key.code(LABEL)?.chain_update(genesis_id).chain_update(fields))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::auth::keys::TokenSigner;

    use super::*;

    const GENESIS: &str = "0x00000000bb55405beed90df9fea5acdb1cb7caba61b0d7513395f42efd30e558";
    const MAIN: &str = "0x00000000851caf3cfdb6e899cf5958bfb1ac3413d346d43539627e6be7ec1b4a";

    fn challenge(purpose: Purpose) -> Challenge {
        Challenge {
            id: Uuid::from_u128(7),
            purpose,
            wallet: Address([1; 20]),
            domain: "gateway.test".into(),
            genesis_id: GENESIS.into(),
            issued_at: DateTime::from_timestamp(1_770_000_000, 0).unwrap(),
        }
    }

    fn key() -> SigningKey {
        SigningKey::generate().unwrap()
    }

    #[test]
    fn a_ticket_carries_the_whole_challenge_to_whoever_has_the_key() {
        let keys = [Arc::new(key())];
        for purpose in [Purpose::SignIn, Purpose::LinkWallet(UserId(Uuid::from_u128(9)))] {
            let challenge = challenge(purpose);
            let ticket = challenge.ticket(&keys[0]);
            assert_eq!(Challenge::open(&ticket, &keys, GENESIS), Some(challenge));
            assert_eq!(Challenge::open(&ticket, &keys, MAIN), None, "another network's");
            assert_eq!(Challenge::open(&ticket, &[Arc::new(key())], GENESIS), None, "another deployment's");
        }
        let longest = Challenge { domain: "a".repeat(253), ..challenge(Purpose::SignIn) };
        assert!(longest.ticket(&keys[0]).len() <= 512, "as the interface says");
    }

    #[test]
    fn a_ticket_of_which_any_byte_is_another_or_missing_opens_nothing() {
        let keys = [Arc::new(key())];
        let bytes = URL_SAFE_NO_PAD.decode(challenge(Purpose::SignIn).ticket(&keys[0])).unwrap();
        let opens = |bytes: &[u8]| Challenge::open(&URL_SAFE_NO_PAD.encode(bytes), &keys, GENESIS).is_some();
        assert!(opens(&bytes));
        for n in 0..bytes.len() {
            let mut other = bytes.clone();
            other[n] ^= 1;
            assert!(!opens(&other) && !opens(&bytes[..n]) && !opens(&bytes[n + 1..]), "byte {n}");
        }
        for text in ["", "€", "00000000-0000-0000-0000-000000000000"] {
            assert_eq!(Challenge::open(text, &keys, GENESIS), None, "{text}");
        }
    }

    #[test]
    fn a_rotation_leaves_the_tickets_of_either_key_open_on_every_gateway() {
        let (old, new) = (key(), key());
        let opens = |signer: &TokenSigner, issued_under: &SigningKey| {
            let ticket = challenge(Purpose::SignIn).ticket(issued_under);
            Challenge::open(&ticket, &signer.known(), GENESIS).is_some()
        };
        let signer = TokenSigner::new(Some(old.clone()));
        assert!(opens(&signer, &old) && !opens(&signer, &new));
        signer.announce(new.clone());
        assert!(opens(&signer, &old) && opens(&signer, &new), "another gateway may sign with it already");
        signer.replace(Some(new.clone()));
        assert!(opens(&signer, &old) && opens(&signer, &new), "issued just before");
        signer.replace(Some(key()));
        assert!(!opens(&signer, &old), "two rotations ago");
    }
}
