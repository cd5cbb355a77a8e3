//! A transaction with its signatures: one of the origin, and one of the gas payer when delegated (VIP-191).

use super::encoding;
use super::{MAX_TX_SIZE, TxError, UnsignedTx};
use crate::hash::blake2b256;
use crate::id::{Address, TxId, Word};
use crate::signer::{SIGNATURE_LEN, Signature, Signer, SignerError};

/// A signed transaction whose signatures were checked: who signed is known, not only claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTx {
    unsigned: UnsignedTx,
    origin_signature: Signature,
    gas_payer_signature: Option<Signature>,
    origin: Address,
    gas_payer: Address,
}

impl SignedTx {
    /// Signs a transaction whose origin pays for its own gas.
    ///
    /// # Errors
    /// [`TxError::Delegation`] for a delegated transaction; what [`UnsignedTx::check`] refuses; [`TxError::TooLarge`]; a signer's failure.
    pub fn sign(unsigned: UnsignedTx, origin: &Signer) -> Result<Self, TxError> {
        let signature = origin.sign_prehash(unsigned.signing_hash().as_bytes())?;
        Self::checked(unsigned, signature, None)
    }

    /// Signs a delegated transaction as its origin and as its gas payer.
    ///
    /// # Errors
    /// As [`SignedTx::sign`]; [`TxError::Delegation`] for a transaction that is not delegated.
    pub fn sign_delegated(
        unsigned: UnsignedTx,
        origin: &Signer,
        gas_payer: &Signer,
    ) -> Result<Self, TxError> {
        let signature = origin.sign_prehash(unsigned.signing_hash().as_bytes())?;
        let payer = gas_payer.sign_prehash(unsigned.id(origin.address()).as_bytes())?;
        Self::checked(unsigned, signature, Some(payer))
    }

    /// Joins a transaction and signatures that were made elsewhere (a key service, a fee sponsor).
    ///
    /// # Errors
    /// As [`SignedTx::sign`]; [`TxError::Signature`] when a signature is malformed; [`TxError::WrongSigner`] when the first one
    /// is not `expected_origin`'s.
    pub fn from_signatures(
        unsigned: UnsignedTx,
        expected_origin: Address,
        origin: Signature,
        gas_payer: Option<Signature>,
    ) -> Result<Self, TxError> {
        let signed = Self::checked(unsigned, origin, gas_payer)?;
        if signed.origin != expected_origin {
            return Err(TxError::WrongSigner { expected: expected_origin, found: signed.origin });
        }
        Ok(signed)
    }

    fn checked(
        unsigned: UnsignedTx,
        origin: Signature,
        gas_payer: Option<Signature>,
    ) -> Result<Self, TxError> {
        unsigned.check()?;
        let signed = Self::recovered(unsigned, origin, gas_payer)?;
        match signed.encode().len() {
            size if size > MAX_TX_SIZE => Err(TxError::TooLarge(size)),
            _ => Ok(signed),
        }
    }

    fn recovered(
        unsigned: UnsignedTx,
        origin_signature: Signature,
        payer: Option<Signature>,
    ) -> Result<Self, TxError> {
        if unsigned.delegated != payer.is_some() {
            return Err(TxError::Delegation);
        }
        let origin = origin_signature.recover(unsigned.signing_hash().as_bytes())?;
        let gas_payer = match &payer {
            Some(signature) => signature.recover(unsigned.id(origin).as_bytes())?,
            None => origin,
        };
        Ok(Self { unsigned, origin_signature, gas_payer_signature: payer, origin, gas_payer })
    }

    /// Reads the bytes of a signed transaction and recovers who signed. Takes any gas and fees, also those that [`UnsignedTx::check`]
    /// would refuse: what is on a chain or in a store is read as it is.
    ///
    /// # Errors
    /// [`TxError::TooLarge`], [`TxError::Encoding`], [`TxError::Reserved`], [`TxError::Delegation`], [`TxError::Signature`].
    pub fn decode(bytes: &[u8]) -> Result<Self, TxError> {
        if bytes.len() > MAX_TX_SIZE {
            return Err(TxError::TooLarge(bytes.len()));
        }
        let (unsigned, mut rest) = encoding::decode(bytes)?;
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
        Self::recovered(unsigned, origin, payer)
    }

    /// The bytes that are sent to a node.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut signatures = self.origin_signature.0.to_vec();
        if let Some(payer) = &self.gas_payer_signature {
            signatures.extend_from_slice(&payer.0);
        }
        self.unsigned.encode(Some(&signatures))
    }

    /// The parts that were signed.
    #[must_use]
    pub fn unsigned(&self) -> &UnsignedTx {
        &self.unsigned
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

    /// The transaction's id: that of [`UnsignedTx::id`].
    #[must_use]
    pub fn id(&self) -> TxId {
        self.unsigned.id(self.origin)
    }

    /// blake2b-256 of all bytes, by which a node's pool tells copies apart. It differs from the id.
    #[must_use]
    pub fn hash(&self) -> Word {
        Word(blake2b256(&[&self.encode()]))
    }
}
