//! Transactions of VeChain: their parts, their hash, the id that is known before they are signed, and what they must cost.
//!
//! A transaction has no account nonce. It is valid in the blocks from its block reference to `reference + expiration`, both
//! included, and nothing else can cancel it; the same bytes stay valid on every branch of a fork.

mod encoding;
mod signed;

pub use signed::SignedTx;

use serde::{Deserialize, Serialize};

use crate::amount::Wei;
use crate::hash::blake2b256;
use crate::id::{Address, BlockId, TxId, Word};
use crate::signer::SignerError;

/// First byte of a dynamic fee transaction (`tx.TypeDynamicFee`).
pub const DYNAMIC_FEE_TYPE: u8 = 0x51;

/// Bytes that a node takes for one signed transaction (`txpool.maxTxSize`: 64 KiB).
pub const MAX_TX_SIZE: usize = 64 * 1024;

/// Clauses that a node decodes at most in one transaction (`tx.maxClauses`).
pub const MAX_CLAUSES: usize = 2_500;

/// Gas that a transaction may ask for from the Interstellar fork on (2^24, EIP-7825), after `@vechain/sdk-core` 2.1.0; Thor v2.4.4
/// knows only the block's limit. Plans should stay below it; it is not enforced here.
pub const MAX_TX_GAS: u64 = 1 << 24;

/// Gas of a transaction itself (`thor.TxGas`).
pub const TX_GAS: u64 = 5_000;
/// Gas of each clause with a receiver (`thor.ClauseGas`).
const CLAUSE_GAS: u64 = 16_000;
/// Gas of each clause that creates a contract (`thor.ClauseGasContractCreation`).
const CREATION_GAS: u64 = 48_000;
/// Gas of a zero byte of data (`params.TxDataZeroGas`).
const ZERO_BYTE_GAS: u64 = 4;
/// Gas of any other byte of data (`params.TxDataNonZeroGas`; Istanbul's 16 is not used here).
const OTHER_BYTE_GAS: u64 = 68;

/// Why a transaction cannot be built, read or trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// The bytes are no transaction: wrong type byte, wrong RLP, bytes left over, a number with leading zeros.
    #[error("the bytes are no transaction: {0}")]
    Encoding(&'static str),
    /// Features other than VIP-191 delegation, or reserved items that nothing defines.
    #[error("the transaction uses reserved features that this library does not know")]
    Reserved,
    /// More clauses than a node decodes.
    #[error("{0} clauses; a node takes {MAX_CLAUSES}")]
    TooManyClauses(usize),
    /// The signed bytes are longer than a node takes.
    #[error("{0} bytes; a node takes {MAX_TX_SIZE}")]
    TooLarge(usize),
    /// The priority fee is above the maximum fee.
    #[error("maxPriorityFeePerGas is above maxFeePerGas")]
    PriorityAboveMax,
    /// The gas limit does not cover the intrinsic gas.
    #[error("gas {gas} is below the intrinsic gas {intrinsic}")]
    GasTooLow {
        /// Gas limit of the transaction.
        gas: u64,
        /// What it has to cover at least.
        intrinsic: u64,
    },
    /// The transaction asks for a gas payer and has none, or has one without asking.
    #[error("delegation and the number of signatures do not agree")]
    Delegation,
    /// The signature belongs to another address than the one expected.
    #[error("signed by {found}, expected {expected}")]
    WrongSigner {
        /// The address that the plan names.
        expected: Address,
        /// The address that signed.
        found: Address,
    },
    /// A signature is malformed or fits no key.
    #[error(transparent)]
    Signature(#[from] SignerError),
}

/// The first eight bytes of a block id as a number. Nodes look at its upper half, the block's number, alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockRef(pub u64);

impl BlockRef {
    /// The number of the block that is referred to.
    #[must_use]
    pub fn number(self) -> u32 {
        // The upper 32 of 64 bits always fit.
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }
}

impl From<BlockId> for BlockRef {
    fn from(id: BlockId) -> Self {
        let mut head = [0; 8];
        head.copy_from_slice(&id.as_bytes()[..8]);
        Self(u64::from_be_bytes(head))
    }
}

/// One call, transfer or contract creation. All clauses of a transaction take effect or none does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clause {
    /// The receiver; `None` creates a contract.
    pub to: Option<Address>,
    /// VET in wei that the clause moves.
    pub value: Wei,
    /// Call data, or the init code of a contract.
    #[serde(with = "hex_bytes")]
    pub data: Vec<u8>,
}

impl Clause {
    /// A call of a contract that moves no VET.
    #[must_use]
    pub fn call(to: Address, data: Vec<u8>) -> Self {
        Self { to: Some(to), value: Wei::ZERO, data }
    }

    /// The creation of a contract from its init code.
    #[must_use]
    pub fn create(init_code: Vec<u8>) -> Self {
        Self { to: None, value: Wei::ZERO, data: init_code }
    }
}

/// What is offered for gas; decides the type of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fees {
    /// Type 0: the network's base gas price times `1 + coef / 255`.
    Legacy {
        /// 0 to 255.
        gas_price_coef: u8,
    },
    /// Type 0x51: `min(max_fee_per_gas, base fee + max_priority_fee_per_gas)`, wei of VTHO per gas.
    Dynamic {
        /// The tip for the block's signer.
        max_priority_fee_per_gas: Wei,
        /// The most that is paid in all; only what is really paid is held back.
        max_fee_per_gas: Wei,
    },
}

/// A transaction without signatures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnsignedTx {
    /// Last byte of the network's genesis id: a transaction is valid on one network only.
    pub chain_tag: u8,
    /// The block from whose number on the transaction is valid.
    pub block_ref: BlockRef,
    /// Blocks after the reference in which it is still valid.
    pub expiration: u32,
    /// At most [`MAX_CLAUSES`].
    pub clauses: Vec<Clause>,
    /// Price of gas, and with it the type.
    pub fees: Fees,
    /// Most gas that may be used.
    pub gas: u64,
    /// A transaction that must have succeeded before this one is packed.
    pub depends_on: Option<TxId>,
    /// A salt: any number, it only tells two equal transactions apart.
    pub nonce: u64,
    /// VIP-191: another account pays for the gas and signs too.
    pub delegated: bool,
}

impl UnsignedTx {
    /// What the origin signs: blake2b-256 of the encoding without signatures, the type byte included.
    #[must_use]
    pub fn signing_hash(&self) -> Word {
        Word(blake2b256(&[&self.encode_unsigned()]))
    }

    /// The id that the transaction will have when `origin` signs it: blake2b-256 of the signing hash and the origin. It depends
    /// on no signature and no gas payer, so it can be stored before either exists. It is also what a gas payer signs (VIP-191).
    #[must_use]
    pub fn id(&self, origin: Address) -> TxId {
        TxId(blake2b256(&[self.signing_hash().as_bytes(), origin.as_bytes()]))
    }

    /// The last block number in which the transaction may be packed: reference + expiration.
    #[must_use]
    pub fn last_valid_block(&self) -> u64 {
        u64::from(self.block_ref.number()) + u64::from(self.expiration)
    }

    /// Gas that is charged before anything runs: 5,000, and for each clause 16,000 (48,000 for a creation), 4 for each zero
    /// byte and 68 for each other byte of data; 21,000 without clauses. Saturates at `u64::MAX`.
    #[must_use]
    pub fn intrinsic_gas(&self) -> u64 {
        if self.clauses.is_empty() {
            return TX_GAS + CLAUSE_GAS;
        }
        self.clauses.iter().map(clause_gas).fold(TX_GAS, u64::saturating_add)
    }

    /// Refuses a transaction that every node would refuse: too many clauses, priority above maximum, gas below the intrinsic gas.
    ///
    /// # Errors
    /// [`TxError::TooManyClauses`], [`TxError::PriorityAboveMax`], [`TxError::GasTooLow`].
    pub fn check(&self) -> Result<(), TxError> {
        if self.clauses.len() > MAX_CLAUSES {
            return Err(TxError::TooManyClauses(self.clauses.len()));
        }
        if let Fees::Dynamic { max_priority_fee_per_gas, max_fee_per_gas } = self.fees
            && max_priority_fee_per_gas > max_fee_per_gas
        {
            return Err(TxError::PriorityAboveMax);
        }
        let intrinsic = self.intrinsic_gas();
        if self.gas < intrinsic {
            return Err(TxError::GasTooLow { gas: self.gas, intrinsic });
        }
        Ok(())
    }
}

/// Intrinsic gas of one clause, without the 5,000 of the transaction itself; see [`UnsignedTx::intrinsic_gas`].
#[must_use]
pub fn clause_gas(clause: &Clause) -> u64 {
    let zeros = clause.data.iter().filter(|byte| **byte == 0).count() as u64;
    let others = clause.data.len() as u64 - zeros;
    let base = if clause.to.is_some() { CLAUSE_GAS } else { CREATION_GAS };
    zeros
        .saturating_mul(ZERO_BYTE_GAS)
        .saturating_add(others.saturating_mul(OTHER_BYTE_GAS))
        .saturating_add(base)
}

/// Bytes as `0x` and hex in JSON.
pub(crate) mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("0x{}", hex::encode(bytes)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let digits =
            text.strip_prefix("0x").ok_or_else(|| serde::de::Error::custom("expected 0x and hex digits"))?;
        hex::decode(digits).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod properties;
