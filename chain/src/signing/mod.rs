//! Signatures from wherever a key is: in this process, in AWS KMS, behind a signer or a fee sponsor over HTTP. One trait for all of them;
//! whatever signs is asked for one transaction at a time, may fail, and is believed only after its signature was held against its
//! address.

mod aws;
mod endpoint;
mod kms;
mod remote;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use aws::{AwsCredentials, INSTANCE_METADATA};
pub use endpoint::SignerLimits;
pub use kms::{KmsKey, KmsSigner};
pub use remote::{FeeSponsor, RemoteSigner};

use std::fmt;

use futures::future::{BoxFuture, ready};

use crate::id::Address;
use crate::node::Snippet;
use crate::signer::{Signature, Signer, SignerError};
use crate::tx::{SignedTx, TxError, UnsignedTx};

/// For which of its two signatures somebody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The account that acts.
    Origin,
    /// The account that pays the gas of another's transaction (VIP-191).
    GasPayer,
}

impl Role {
    /// The word in the remote signer's protocol.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::GasPayer => "gas_payer",
        }
    }
}

/// A transaction that is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct ToSign<'a> {
    /// All of its content.
    pub unsigned: &'a UnsignedTx,
    /// The account that acts.
    pub origin: Address,
    /// As whom.
    pub role: Role,
}

impl ToSign<'_> {
    /// The 32 bytes that are signed: the signing hash by the origin, the transaction's id by the gas payer.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        match self.role {
            Role::Origin => *self.unsigned.signing_hash().as_bytes(),
            Role::GasPayer => *self.unsigned.id(self.origin).as_bytes(),
        }
    }
}

/// Why there is no signature. Carries neither keys nor tokens, nor what a foreign server wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The settings cannot work: an address without TLS, a malformed token.
    #[error("{0}")]
    Config(Snippet),
    /// It gives no response, or says that it cannot at the moment.
    #[error("it gives no response: {0}")]
    Unavailable(Snippet),
    /// It does not sign this, or not for us.
    #[error("it refuses to sign: {0}")]
    Refused(Snippet),
    /// What it gave is not the signature that was asked for.
    #[error("its response is not the signature that was asked for: {0}")]
    Wrong(Snippet),
}

impl SigningError {
    fn config(what: &str) -> Self {
        Self::Config(Snippet::new(what))
    }

    fn unavailable(what: &str) -> Self {
        Self::Unavailable(Snippet::new(what))
    }

    fn refused(what: &str) -> Self {
        Self::Refused(Snippet::new(what))
    }

    fn wrong(what: &str) -> Self {
        Self::Wrong(Snippet::new(what))
    }
}

impl From<SignerError> for SigningError {
    fn from(error: SignerError) -> Self {
        Self::Wrong(Snippet::new(&error.to_string()))
    }
}

/// Something that signs for one address. What it gives is not trusted: [`sign`] holds it against that address.
pub trait TransactionSigner: Send + Sync + fmt::Debug {
    /// The address that it signs for.
    fn address(&self) -> Address;

    /// Asks for a signature of the transaction, within a bounded time.
    fn sign<'a>(&'a self, what: ToSign<'a>) -> BoxFuture<'a, Result<Signature, SigningError>>;
}

impl TransactionSigner for Signer {
    fn address(&self) -> Address {
        Self::address(self)
    }

    /// Deterministic (RFC 6979): the same transaction gives the same signature.
    fn sign<'a>(&'a self, what: ToSign<'a>) -> BoxFuture<'a, Result<Signature, SigningError>> {
        Box::pin(ready(self.sign_prehash(&what.digest()).map_err(SigningError::from)))
    }
}

/// Why a transaction was not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The transaction itself, or that it asks for a gas payer and there is none, or the reverse.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// One of those who are asked.
    #[error("{} {address}: {error}", if *.role == Role::Origin { "the signer" } else { "the gas payer" })]
    Signer {
        /// As whom it was asked.
        role: Role,
        /// Its address.
        address: Address,
        /// What it said.
        error: SigningError,
    },
}

/// Signs a transaction; a delegated one takes the gas payer's signature too. The gas payer is asked first: its signature alone moves
/// nothing, so that nobody but the caller ever holds a complete transaction.
///
/// # Errors
/// [`SignError`]; [`TxError::Delegation`] where the transaction asks for a gas payer and there is none, or does not and there is one.
pub async fn sign(
    unsigned: UnsignedTx,
    signer: &dyn TransactionSigner,
    gas_payer: Option<&dyn TransactionSigner>,
) -> Result<SignedTx, SignError> {
    if unsigned.delegated != gas_payer.is_some() {
        return Err(TxError::Delegation.into());
    }
    unsigned.check()?;
    let origin = signer.address();
    let payer = match gas_payer {
        Some(payer) => {
            Some(asked(payer, ToSign { unsigned: &unsigned, origin, role: Role::GasPayer }).await?)
        }
        None => None,
    };
    let signature = asked(signer, ToSign { unsigned: &unsigned, origin, role: Role::Origin }).await?;
    Ok(SignedTx::from_signatures(unsigned, origin, signature, payer)?)
}

/// A signature that is its address's, of this transaction.
async fn asked(signer: &dyn TransactionSigner, what: ToSign<'_>) -> Result<Signature, SignError> {
    let address = signer.address();
    let checked = signer.sign(what).await.and_then(|signature| {
        signature.verify(&what.digest(), address)?;
        Ok(signature)
    });
    checked.map_err(|error| SignError::Signer { role: what.role, address, error })
}
