//! RLP of a transaction (Thor `tx_legacy.go`, `tx_dynamic_fee.go`, `clause.go`, `reserved.go`). Decoding takes exactly what encoding
//! gives: integers without leading zeros, no bytes left over, so bytes and transaction stand for each other.

use alloy_primitives::U256;
use alloy_rlp::{Decodable, Encodable, Header};

use super::{Clause, DYNAMIC_FEE_TYPE, Fees, MAX_CLAUSES, TxError, UnsignedTx};
use crate::amount::Wei;
use crate::id::{Address, TxId};

/// First byte of an RLP list; anything below is a type byte or no transaction.
const FIRST_LIST_BYTE: u8 = 0xc0;
/// Feature bit of VIP-191.
const DELEGATED: u32 = 1;

impl UnsignedTx {
    /// The encoding that is hashed for signing: the type byte of a dynamic fee transaction and the list without signatures.
    #[must_use]
    pub fn encode_unsigned(&self) -> Vec<u8> {
        self.encode(None)
    }

    /// With `signatures` as the last item when there are any.
    pub(super) fn encode(&self, signatures: Option<&[u8]>) -> Vec<u8> {
        let mut items = Vec::new();
        self.chain_tag.encode(&mut items);
        self.block_ref.0.encode(&mut items);
        self.expiration.encode(&mut items);
        encode_clauses(&self.clauses, &mut items);
        match self.fees {
            Fees::Legacy { gas_price_coef } => gas_price_coef.encode(&mut items),
            Fees::Dynamic { max_priority_fee_per_gas, max_fee_per_gas } => {
                max_priority_fee_per_gas.0.encode(&mut items);
                max_fee_per_gas.0.encode(&mut items);
            }
        }
        self.gas.encode(&mut items);
        optional(self.depends_on.as_ref().map(|id| id.as_bytes().as_slice())).encode(&mut items);
        self.nonce.encode(&mut items);
        encode_reserved(self.delegated, &mut items);
        if let Some(signatures) = signatures {
            signatures.encode(&mut items);
        }

        let mut bytes = Vec::with_capacity(items.len() + 10);
        if matches!(self.fees, Fees::Dynamic { .. }) {
            bytes.push(DYNAMIC_FEE_TYPE);
        }
        Header { list: true, payload_length: items.len() }.encode(&mut bytes);
        bytes.extend_from_slice(&items);
        bytes
    }

    /// Reads what [`UnsignedTx::encode_unsigned`] wrote.
    ///
    /// # Errors
    /// [`TxError::Encoding`], [`TxError::Reserved`], [`TxError::TooManyClauses`].
    pub fn decode_unsigned(bytes: &[u8]) -> Result<Self, TxError> {
        let (unsigned, rest) = decode(bytes)?;
        if rest.is_empty() { Ok(unsigned) } else { Err(TxError::Encoding("items after the last field")) }
    }
}

/// The transaction and what follows it in the list: nothing, or the signatures.
pub(super) fn decode(bytes: &[u8]) -> Result<(UnsignedTx, &[u8]), TxError> {
    let (dynamic, mut list) = match bytes.first() {
        None => return Err(TxError::Encoding("no bytes")),
        Some(&DYNAMIC_FEE_TYPE) => (true, &bytes[1..]),
        Some(&first) if first >= FIRST_LIST_BYTE => (false, bytes),
        Some(_) => return Err(TxError::Encoding("unknown transaction type")),
    };
    let mut items = Header::decode_bytes(&mut list, true).map_err(|_| TxError::Encoding("no list"))?;
    if !list.is_empty() {
        return Err(TxError::Encoding("bytes after the list"));
    }
    let items = &mut items;
    let unsigned = UnsignedTx {
        chain_tag: field(items, "chainTag")?,
        block_ref: super::BlockRef(field(items, "blockRef")?),
        expiration: field(items, "expiration")?,
        clauses: decode_clauses(items)?,
        fees: if dynamic {
            Fees::Dynamic {
                max_priority_fee_per_gas: Wei(field(items, "maxPriorityFeePerGas")?),
                max_fee_per_gas: Wei(field(items, "maxFeePerGas")?),
            }
        } else {
            Fees::Legacy { gas_price_coef: field(items, "gasPriceCoef")? }
        },
        gas: field(items, "gas")?,
        depends_on: decode_optional::<32>(items, "dependsOn")?.map(TxId),
        nonce: field(items, "nonce")?,
        delegated: decode_reserved(items)?,
    };
    Ok((unsigned, items))
}

/// `None` is the empty string.
fn optional(bytes: Option<&[u8]>) -> &[u8] {
    bytes.unwrap_or_default()
}

fn encode_clauses(clauses: &[Clause], out: &mut Vec<u8>) {
    let mut list = Vec::new();
    for clause in clauses {
        let mut item = Vec::with_capacity(clause.data.len() + 64);
        optional(clause.to.as_ref().map(|to| to.as_bytes().as_slice())).encode(&mut item);
        clause.value.0.encode(&mut item);
        clause.data.as_slice().encode(&mut item);
        Header { list: true, payload_length: item.len() }.encode(&mut list);
        list.extend_from_slice(&item);
    }
    Header { list: true, payload_length: list.len() }.encode(out);
    out.extend_from_slice(&list);
}

fn decode_clauses(items: &mut &[u8]) -> Result<Vec<Clause>, TxError> {
    let mut list = Header::decode_bytes(items, true).map_err(|_| TxError::Encoding("clauses"))?;
    let mut clauses = Vec::new();
    while !list.is_empty() {
        if clauses.len() == MAX_CLAUSES {
            return Err(TxError::TooManyClauses(MAX_CLAUSES + 1));
        }
        let mut item = Header::decode_bytes(&mut list, true).map_err(|_| TxError::Encoding("clause"))?;
        let clause = Clause {
            to: decode_optional::<20>(&mut item, "to")?.map(Address),
            value: Wei(field::<U256>(&mut item, "value")?),
            data: decode_bytes(&mut item, "data")?.to_vec(),
        };
        if !item.is_empty() {
            return Err(TxError::Encoding("items after a clause's data"));
        }
        clauses.push(clause);
    }
    Ok(clauses)
}

/// `[features, …unused]` with empty items trimmed from its end: `[]` without features.
fn encode_reserved(delegated: bool, out: &mut Vec<u8>) {
    if delegated {
        Header { list: true, payload_length: 1 }.encode(out);
        DELEGATED.encode(out);
    } else {
        Header { list: true, payload_length: 0 }.encode(out);
    }
}

fn decode_reserved(items: &mut &[u8]) -> Result<bool, TxError> {
    let mut list = Header::decode_bytes(items, true).map_err(|_| TxError::Encoding("reserved"))?;
    if list.is_empty() {
        return Ok(false);
    }
    let features: u32 = field(&mut list, "features")?;
    // A list of the feature set 0 alone is not trimmed: Thor refuses it too.
    if features == DELEGATED && list.is_empty() { Ok(true) } else { Err(TxError::Reserved) }
}

fn field<T: Decodable>(items: &mut &[u8], name: &'static str) -> Result<T, TxError> {
    T::decode(items).map_err(|_| TxError::Encoding(name))
}

/// A byte string.
pub(super) fn decode_bytes<'a>(items: &mut &'a [u8], name: &'static str) -> Result<&'a [u8], TxError> {
    Header::decode_bytes(items, false).map_err(|_| TxError::Encoding(name))
}

/// A byte string of `N` bytes, or none at all.
fn decode_optional<const N: usize>(
    items: &mut &[u8],
    name: &'static str,
) -> Result<Option<[u8; N]>, TxError> {
    let bytes = decode_bytes(items, name)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    bytes.try_into().map(Some).map_err(|_| TxError::Encoding(name))
}
