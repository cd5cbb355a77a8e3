//! secp256k1 signatures as Thor wants them: 65 bytes `r ‖ s ‖ v`, v 0 or 1 (never 27 or 28), s in the lower half of the order.

use std::fmt;

use k256::ecdsa::{RecoveryId, Signature as EcdsaSignature, SigningKey, VerifyingKey};
use k256::elliptic_curve::ops::{Invert as _, LinearCombination as _, Reduce};
use k256::elliptic_curve::point::DecompressPoint as _;
use k256::{AffinePoint, FieldBytes, ProjectivePoint, Scalar, U256};
use secrecy::{ExposeSecret, SecretBox};

use crate::hash::keccak256;
use crate::id::Address;

/// Bytes of one signature.
pub const SIGNATURE_LEN: usize = 65;

/// Bytes of a private key.
pub const KEY_LEN: usize = 32;

/// What is wrong with a key or a signature. Never carries key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The key is zero or not below the order of the curve, or its text is not 64 hex digits.
    #[error("the private key is not 32 bytes between 1 and the order of secp256k1")]
    Key,
    /// The signature is not 65 bytes.
    #[error("a signature has 65 bytes, found {0}")]
    Length(usize),
    /// The last byte is neither 0 nor 1.
    #[error("the recovery id is {0}, not 0 or 1")]
    RecoveryId(u8),
    /// s lies in the upper half: Thor's pool refuses it (`S value is out of range`).
    #[error("the signature's s is in the upper half of the order")]
    HighS,
    /// r or s is zero or too large, or no public key fits.
    #[error("the signature fits no public key")]
    Unrecoverable,
    /// The signature is somebody else's, or of something else.
    #[error("the signature is not the signer's")]
    Other,
    /// The curve library could not sign: with RFC 6979 this needs a digest that no one has found.
    #[error("signing failed")]
    Failed,
}

/// A recoverable signature, `r ‖ s ‖ v`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; SIGNATURE_LEN]);

impl Signature {
    /// The address whose key signed `prehash` (32 bytes).
    ///
    /// # Errors
    /// [`SignerError::RecoveryId`], [`SignerError::HighS`] or [`SignerError::Unrecoverable`].
    pub fn recover(&self, prehash: &[u8; 32]) -> Result<Address, SignerError> {
        let (rs, v) = (&self.0[..64], self.0[64]);
        if v > 1 {
            return Err(SignerError::RecoveryId(v));
        }
        let signature = EcdsaSignature::from_slice(rs).map_err(|_| SignerError::Unrecoverable)?;
        if signature.normalize_s().is_some() {
            return Err(SignerError::HighS);
        }
        let key = public_key(prehash, &signature, v == 1).ok_or(SignerError::Unrecoverable)?;
        Ok(address_of(&key))
    }

    /// Checks that it is `signer`'s of `prehash`.
    ///
    /// # Errors
    /// [`SignerError::Other`], and whatever [`Self::recover`] refuses.
    pub fn verify(&self, prehash: &[u8; 32], signer: Address) -> Result<(), SignerError> {
        if self.recover(prehash)? == signer { Ok(()) } else { Err(SignerError::Other) }
    }
}

/// The public key that a signature fits, `Q = r⁻¹(sR - zG)` (SEC 1, version 2.0, section 4.1.6); R is the point over r whose y is odd, or
/// the other one.
///
/// The curve's crate does the same and then checks the signature by the key that it has found. That doubles the work and tells nothing: Q
/// is made so that just this R comes out, and R is a point of the curve whose x is r.
pub(crate) fn public_key(
    prehash: &[u8; 32],
    signature: &EcdsaSignature,
    y_is_odd: bool,
) -> Option<VerifyingKey> {
    let (r, s) = signature.split_scalars();
    let z = <Scalar as Reduce<U256>>::reduce_bytes(FieldBytes::from_slice(prehash));
    let point = AffinePoint::decompress(&r.to_bytes(), u8::from(y_is_odd).into());
    let point = ProjectivePoint::from(Option::<AffinePoint>::from(point)?);
    let inverse = *r.invert_vartime();
    let key = ProjectivePoint::lincomb(&ProjectivePoint::GENERATOR, &-(inverse * z), &point, &(inverse * *s));
    VerifyingKey::from_affine(key.to_affine()).ok()
}

impl TryFrom<&[u8]> for Signature {
    type Error = SignerError;
    fn try_from(bytes: &[u8]) -> Result<Self, SignerError> {
        bytes.try_into().map(Self).map_err(|_| SignerError::Length(bytes.len()))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", hex::encode(self.0))
    }
}

/// The address of a public key: the last 20 bytes of keccak-256 of its uncompressed point without the leading 0x04.
pub(crate) fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_encoded_point(false);
    let hash = keccak256(&point.as_bytes()[1..]);
    let mut address = [0; 20];
    address.copy_from_slice(&hash[12..]);
    Address(address)
}

/// A private key that signs. Its memory is wiped when it is dropped, it cannot be cloned, and no `Debug` shows it.
pub struct Signer {
    /// Wipes itself on drop (k256's `ZeroizeOnDrop`).
    key: SigningKey,
    address: Address,
}

impl Signer {
    /// A signer of the key's 32 bytes.
    ///
    /// # Errors
    /// [`SignerError::Key`] when they are no private key.
    pub fn new(key: &SecretBox<[u8; KEY_LEN]>) -> Result<Self, SignerError> {
        let key = SigningKey::from_slice(key.expose_secret()).map_err(|_| SignerError::Key)?;
        let address = address_of(key.verifying_key());
        Ok(Self { key, address })
    }

    /// A signer of a key in 64 hex digits, with or without `0x`: for the published keys of a local solo node and for tests.
    /// A key worth anything belongs into a [keystore](crate::keystore).
    ///
    /// # Errors
    /// [`SignerError::Key`].
    pub fn from_hex(text: &str) -> Result<Self, SignerError> {
        let mut decoded = Err(hex::FromHexError::OddLength);
        let key = SecretBox::init_with_mut(|key: &mut [u8; KEY_LEN]| {
            decoded = hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), key);
        });
        decoded.map_err(|_| SignerError::Key)?;
        Self::new(&key)
    }

    /// The address that this key signs for.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs 32 bytes that are already a hash. Deterministic (RFC 6979): the same hash gives the same signature.
    ///
    /// # Errors
    /// [`SignerError::Failed`].
    pub fn sign_prehash(&self, prehash: &[u8; 32]) -> Result<Signature, SignerError> {
        let (mut signature, mut recovery) =
            self.key.sign_prehash_recoverable(prehash).map_err(|_| SignerError::Failed)?;
        // k256 already gives the low s; should that ever change, -s belongs to the point mirrored in y.
        if let Some(low) = signature.normalize_s() {
            signature = low;
            recovery = RecoveryId::new(!recovery.is_y_odd(), recovery.is_x_reduced());
        }
        // v of 2 or 3 would mean that r exceeded the order: a chance of about 2^-128, and Thor takes only 0 and 1.
        if recovery.is_x_reduced() {
            return Err(SignerError::Failed);
        }
        let mut bytes = [0; SIGNATURE_LEN];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = recovery.to_byte();
        Ok(Signature(bytes))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const K1: &str = "7582be841ca040aa940fff6c05773129e135623e41acce3e0b8ba520dc1ae26a";
    /// The order n of secp256k1 (SEC 2).
    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

    #[test]
    fn a_key_gives_the_address_of_the_published_vector() {
        let signer = Signer::from_hex(K1).unwrap();
        assert_eq!(signer.address().to_string(), "0xd989829d88b0ed1b06edf5c50174ecfa64f14a64");
    }

    #[test]
    fn what_is_no_key_is_refused_and_the_error_does_not_repeat_it() {
        let zero = "0".repeat(64);
        for text in ["", "00", &zero, ORDER, &K1[1..], &K1.replace('7', "g")] {
            let error = Signer::from_hex(text).unwrap_err();
            assert_eq!(error, SignerError::Key);
            assert!(text.is_empty() || !error.to_string().contains(text) || text == "00");
        }
    }

    #[test]
    fn debug_shows_the_address_and_nothing_of_the_key() {
        let shown = format!("{:?}", Signer::from_hex(K1).unwrap());
        assert!(shown.contains("0xd989829d88b0ed1b06edf5c50174ecfa64f14a64"), "{shown}");
        assert!(!shown.contains(&K1[..8]), "{shown}");
    }

    #[test]
    fn a_mirrored_signature_is_refused_as_high_s() {
        let signer = Signer::from_hex(K1).unwrap();
        let hash = keccak256(b"x");
        let mut bytes = signer.sign_prehash(&hash).unwrap().0;
        let s = alloy_primitives::U256::from_be_slice(&bytes[32..64]);
        let order = alloy_primitives::U256::from_str_radix(ORDER, 16).unwrap();
        bytes[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
        bytes[64] ^= 1;
        assert_eq!(Signature(bytes).recover(&hash), Err(SignerError::HighS));
    }

    #[test]
    fn recovery_ids_of_other_chains_are_refused() {
        let signer = Signer::from_hex(K1).unwrap();
        let hash = keccak256(b"x");
        for v in [2, 3, 27, 28, 255] {
            let mut bytes = signer.sign_prehash(&hash).unwrap().0;
            bytes[64] = v;
            assert_eq!(Signature(bytes).recover(&hash), Err(SignerError::RecoveryId(v)));
        }
        assert_eq!(Signature([0; 65]).recover(&hash), Err(SignerError::Unrecoverable));
        assert_eq!(Signature::try_from(&[0_u8; 64][..]), Err(SignerError::Length(64)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_signature_recovers_to_its_signer_and_is_the_same_again(key in prop::array::uniform32(1_u8..), hash: [u8; 32]) {
            // Bytes of 1..=255 stay below the order unless all lead with 0xff.
            prop_assume!(key[0] != 0xff);
            let signer = Signer::from_hex(&hex::encode(key)).unwrap();
            let signature = signer.sign_prehash(&hash).unwrap();
            prop_assert_eq!(signature.recover(&hash), Ok(signer.address()));
            prop_assert_eq!(signer.sign_prehash(&hash).unwrap(), signature);
        }

        #[test]
        fn a_key_is_the_one_that_the_curves_crate_finds(rs in prop::array::uniform32(any::<[u8; 2]>()), hash: [u8; 32], odd: bool) {
            let rs: Vec<u8> = rs.concat();
            let signature = EcdsaSignature::from_slice(&rs);
            prop_assume!(signature.is_ok());
            let signature = signature.unwrap();
            // They refuse the higher s here, as `recover` does before it comes to this.
            let signature = signature.normalize_s().unwrap_or(signature);
            let theirs = VerifyingKey::recover_from_prehash(&hash, &signature, RecoveryId::new(odd, false)).ok();
            // They find none either where no point lies over r: every second time.
            prop_assert_eq!(public_key(&hash, &signature, odd), theirs);
        }

        #[test]
        fn no_bytes_make_recovery_panic(bytes in prop::collection::vec(any::<u8>(), 65), hash: [u8; 32]) {
            let _ = Signature::try_from(bytes.as_slice()).unwrap().recover(&hash);
        }
    }
}
