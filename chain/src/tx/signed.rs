//! A body with its signatures: one of the origin, and one of the gas payer when delegated (VIP-191).

use super::encoding;
use super::{Body, MAX_TX_SIZE, TxError};
use crate::hash::blake2b256;
use crate::id::{Address, TxId, Word};
use crate::signer::{SIGNATURE_LEN, Signature, Signer, SignerError};

/// A signed transaction whose signatures were checked: who signed is known, not only claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTx {
    body: Body,
    origin_signature: Signature,
    gas_payer_signature: Option<Signature>,
    origin: Address,
    gas_payer: Address,
}

impl SignedTx {
    /// Signs a body whose origin pays for its own gas.
    ///
    /// # Errors
    /// [`TxError::Delegation`] for a delegated body; what [`Body::check`] refuses; [`TxError::TooLarge`]; a signer's failure.
    pub fn sign(body: Body, origin: &Signer) -> Result<Self, TxError> {
        let signature = origin.sign_prehash(body.signing_hash().as_bytes())?;
        Self::checked(body, signature, None)
    }

    /// Signs a delegated body as its origin and as its gas payer.
    ///
    /// # Errors
    /// As [`SignedTx::sign`]; [`TxError::Delegation`] for a body that is not delegated.
    pub fn sign_delegated(body: Body, origin: &Signer, gas_payer: &Signer) -> Result<Self, TxError> {
        let signature = origin.sign_prehash(body.signing_hash().as_bytes())?;
        let payer = gas_payer.sign_prehash(body.id(origin.address()).as_bytes())?;
        Self::checked(body, signature, Some(payer))
    }

    /// Joins a body and signatures that were made elsewhere (a key service, a fee sponsor).
    ///
    /// # Errors
    /// As [`SignedTx::sign`]; [`TxError::Signature`] when a signature is malformed; [`TxError::WrongSigner`] when the first one
    /// is not `expected_origin`'s.
    pub fn from_signatures(
        body: Body,
        expected_origin: Address,
        origin: Signature,
        gas_payer: Option<Signature>,
    ) -> Result<Self, TxError> {
        let signed = Self::checked(body, origin, gas_payer)?;
        if signed.origin != expected_origin {
            return Err(TxError::WrongSigner { expected: expected_origin, found: signed.origin });
        }
        Ok(signed)
    }

    fn checked(body: Body, origin: Signature, gas_payer: Option<Signature>) -> Result<Self, TxError> {
        body.check()?;
        let signed = Self::recovered(body, origin, gas_payer)?;
        match signed.encode().len() {
            size if size > MAX_TX_SIZE => Err(TxError::TooLarge(size)),
            _ => Ok(signed),
        }
    }

    fn recovered(body: Body, origin_signature: Signature, payer: Option<Signature>) -> Result<Self, TxError> {
        if body.delegated != payer.is_some() {
            return Err(TxError::Delegation);
        }
        let origin = origin_signature.recover(body.signing_hash().as_bytes())?;
        let gas_payer = match &payer {
            Some(signature) => signature.recover(body.id(origin).as_bytes())?,
            None => origin,
        };
        Ok(Self { body, origin_signature, gas_payer_signature: payer, origin, gas_payer })
    }

    /// Reads the bytes of a signed transaction and recovers who signed. Takes any gas and fees, also those that [`Body::check`]
    /// would refuse: what is on a chain or in a store is read as it is.
    ///
    /// # Errors
    /// [`TxError::TooLarge`], [`TxError::Encoding`], [`TxError::Reserved`], [`TxError::Delegation`], [`TxError::Signature`].
    pub fn decode(bytes: &[u8]) -> Result<Self, TxError> {
        if bytes.len() > MAX_TX_SIZE {
            return Err(TxError::TooLarge(bytes.len()));
        }
        let (body, mut rest) = encoding::decode(bytes)?;
        let signatures = encoding::decode_bytes(&mut rest, "signature")?;
        if !rest.is_empty() {
            return Err(TxError::Encoding("items after the signature"));
        }
        let (origin, payer) = match signatures.len() {
            SIGNATURE_LEN => (Signature::try_from(signatures)?, None),
            len if len == 2 * SIGNATURE_LEN => {
                let (origin, payer) = signatures.split_at(SIGNATURE_LEN);
                (Signature::try_from(origin)?, Some(Signature::try_from(payer)?))
            }
            len => return Err(SignerError::Length(len).into()),
        };
        Self::recovered(body, origin, payer)
    }

    /// The bytes that are sent to a node.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut signatures = self.origin_signature.0.to_vec();
        if let Some(payer) = &self.gas_payer_signature {
            signatures.extend_from_slice(&payer.0);
        }
        self.body.encode(Some(&signatures))
    }

    /// The parts that were signed.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The account that acts.
    #[must_use]
    pub fn origin(&self) -> Address {
        self.origin
    }

    /// The account that pays the gas: the origin unless delegated.
    #[must_use]
    pub fn gas_payer(&self) -> Address {
        self.gas_payer
    }

    /// The transaction's id: that of [`Body::id`].
    #[must_use]
    pub fn id(&self) -> TxId {
        self.body.id(self.origin)
    }

    /// blake2b-256 of all bytes, by which a node's pool tells copies apart. It differs from the id.
    #[must_use]
    pub fn hash(&self) -> Word {
        Word(blake2b256(&[&self.encode()]))
    }
}
