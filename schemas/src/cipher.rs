//! The one cipher for secrets at rest and in events: XChaCha20-Poly1305 under a key of 32 bytes.
//!
//! What is sealed is a random nonce of 24 bytes and the ciphertext behind it. `place` is associated data: a sealed text opens only in the
//! place that it was sealed for, so that nobody moves it to another.

use chacha20poly1305::aead::{Aead as _, AeadCore as _, KeyInit as _, OsRng, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// Bytes of the nonce in front of the ciphertext (XChaCha20's extended nonce).
const NONCE_BYTES: usize = 24;

/// A fresh random key.
#[must_use]
pub fn generate_key() -> Zeroizing<[u8; 32]> {
    Zeroizing::new(XChaCha20Poly1305::generate_key(&mut OsRng).into())
}

/// Seals `text`; none only for one of more than 256 GiB, which the cipher refuses.
#[must_use]
pub fn seal(key: &[u8; 32], place: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
    let sealed =
        XChaCha20Poly1305::new(key.into()).encrypt(&nonce, Payload { msg: text, aad: place }).ok()?;
    Some([nonce.as_slice(), &sealed].concat())
}

/// Opens what [`seal`] made; none with another key, in another place, or after any change.
#[must_use]
pub fn open(key: &[u8; 32], place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_BYTES)?;
    let payload = Payload { msg: ciphertext, aad: place };
    XChaCha20Poly1305::new(key.into()).decrypt(XNonce::from_slice(nonce), payload).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn the_drafts_example_opens() {
        let key: [u8; 32] = std::array::from_fn(|n| 0x80 + u8::try_from(n).unwrap());
        let nonce: [u8; 24] = std::array::from_fn(|n| 0x40 + u8::try_from(n).unwrap());
        let place = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let ciphertext = hex(
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39\
             ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
             21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49",
        );
        let opened = open(&key, &place, &[nonce.as_slice(), &ciphertext].concat()).unwrap();
        assert!(opened.starts_with(b"Ladies and Gentlemen of the class of '99"));
        assert!(open(&key, b"elsewhere", &[nonce.as_slice(), &ciphertext].concat()).is_none());
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_with_its_key_alone() {
        let (key, other) = (generate_key(), generate_key());
        let sealed = seal(&key, b"here", b"text").unwrap();
        assert_eq!(open(&key, b"here", &sealed).unwrap().as_slice(), b"text");
        assert!(open(&key, b"there", &sealed).is_none() && open(&other, b"here", &sealed).is_none());
        assert!((0..sealed.len()).all(|end| open(&key, b"here", &sealed[..end]).is_none()));
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }
}
