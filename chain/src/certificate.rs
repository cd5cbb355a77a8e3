//! Certificates (VIP-192): what a wallet signs to show that it is its address. The wallet itself fills in the domain of the page that asks.

use serde::Serialize;

use crate::hash::blake2b256;
use crate::id::Address;
use crate::signer::{Signature, SignerError};

/// The `purpose` of a certificate that says who somebody is.
pub const IDENTIFICATION: &str = "identification";

/// What is certified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Payload {
    /// The text that the wallet shows.
    pub content: String,
    /// `text`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A certificate without its signature. The order of the fields is that of their names, as its hash wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The host of the page that asked.
    pub domain: String,
    /// What is certified.
    pub payload: Payload,
    /// [`IDENTIFICATION`], or `agreement`.
    pub purpose: String,
    /// Who signs; written in lower case.
    pub signer: Address,
    /// When it was signed: seconds since 1970 in the standard, milliseconds in what some wallets write.
    pub timestamp: i64,
}

impl Certificate {
    /// blake2b-256 over its JSON with sorted keys and no white space. The official library also normalises the text (NFC), which changes
    /// nothing of ASCII.
    #[must_use]
    pub fn signing_hash(&self) -> [u8; 32] {
        // Texts and a number always encode.
        blake2b256(&[&serde_json::to_vec(self).unwrap_or_default()])
    }

    /// Checks that `signature` is that of [`Self::signer`].
    ///
    /// # Errors
    /// [`SignerError::Other`] for another signer's, and whatever [`Signature::recover`] refuses.
    pub fn verify(&self, signature: &Signature) -> Result<(), SignerError> {
        signature.verify(&self.signing_hash(), self.signer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vector of the official library (`@vechain/sdk-core`), with the key 7582be84….
    fn vector() -> (Certificate, Signature) {
        let certificate = Certificate {
            domain: "localhost".into(),
            payload: Payload { content: "fyi".into(), kind: "text".into() },
            purpose: IDENTIFICATION.into(),
            signer: "0xd989829d88b0ed1b06edf5c50174ecfa64f14a64".parse().unwrap(),
            timestamp: 1_545_035_330,
        };
        let signature = "390870e4a99a6a80c3903e0bc13fdcaf15ae46d27b6365e3e07275990e3e7495\
                         5ad43dba79682b9d0de3a47e96149539b07dde6b51c49a1c7eb6254036b913b000";
        (certificate, hex::decode(signature).unwrap().as_slice().try_into().unwrap())
    }

    #[test]
    fn the_published_certificate_is_its_signers() {
        let (certificate, signature) = vector();
        assert_eq!(certificate.verify(&signature), Ok(()));
    }

    #[test]
    fn text_outside_ascii_and_control_characters_hash_as_in_javascript() {
        let certificate = Certificate {
            domain: "app.example.org".into(),
            payload: Payload { content: "Größe \"q\" \n é ☃ \u{1}".into(), kind: "text".into() },
            purpose: "agreement".into(),
            timestamp: 1_700_000_000,
            ..vector().0
        };
        let hash = "e22b3a89029923241a7e62e726ca165682cece05f2426ea96f96cbb338bcf9d7";
        assert_eq!(hex::encode(certificate.signing_hash()), hash);
    }

    #[test]
    fn a_certificate_of_which_anything_is_changed_is_nobodys() {
        let (certificate, signature) = vector();
        let changed = [
            Certificate { domain: "localhost.".into(), ..certificate.clone() },
            Certificate { purpose: "agreement".into(), ..certificate.clone() },
            Certificate { timestamp: 1_545_035_331, ..certificate.clone() },
            Certificate { signer: Address([7; 20]), ..certificate.clone() },
            Certificate {
                payload: Payload { content: "fyI".into(), kind: "text".into() },
                ..certificate.clone()
            },
            Certificate { payload: Payload { content: "fyi".into(), kind: "html".into() }, ..certificate },
        ];
        for certificate in changed {
            assert!(certificate.verify(&signature).is_err(), "{certificate:?}");
        }
    }
}
