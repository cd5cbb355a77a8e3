//! What holds for every transaction.

use alloy_primitives::U256;
use proptest::prelude::*;

use super::*;
use crate::signer::Signer;

fn wei() -> impl Strategy<Value = Wei> {
    // Small numbers and zeros are where encodings of integers go wrong.
    prop_oneof![
        Just(Wei::ZERO),
        (0_u128..300).prop_map(Wei::from),
        any::<[u64; 4]>().prop_map(|l| Wei(U256::from_limbs(l)))
    ]
}

fn clause() -> impl Strategy<Value = Clause> {
    (prop::option::of(any::<[u8; 20]>()), wei(), prop::collection::vec(any::<u8>(), 0..80))
        .prop_map(|(to, value, data)| Clause { to: to.map(Address), value, data })
}

fn fees() -> impl Strategy<Value = Fees> {
    prop_oneof![
        any::<u8>().prop_map(|gas_price_coef| Fees::Legacy { gas_price_coef }),
        (wei(), wei()).prop_map(|(a, b)| Fees::Dynamic {
            max_priority_fee_per_gas: a.min(b),
            max_fee_per_gas: a.max(b)
        }),
    ]
}

prop_compose! {
    fn unsigned()(
        chain_tag: u8,
        block_ref in prop_oneof![0_u64..300, any::<u64>()],
        expiration: u32,
        clauses in prop::collection::vec(clause(), 0..6),
        fees in fees(),
        spare_gas in 0_u64..1_000_000,
        depends_on in prop::option::of(any::<[u8; 32]>()),
        nonce in prop_oneof![0_u64..300, any::<u64>()],
        delegated: bool,
    ) -> UnsignedTx {
        let mut unsigned = UnsignedTx {
            chain_tag, block_ref: BlockRef(block_ref), expiration, clauses, fees, gas: 0,
            depends_on: depends_on.map(TxId), nonce, delegated,
        };
        unsigned.gas = unsigned.intrinsic_gas() + spare_gas;
        unsigned
    }
}

proptest! {
    #[test]
    fn an_unsigned_transaction_survives_its_encoding(unsigned in unsigned()) {
        prop_assert_eq!(UnsignedTx::decode_unsigned(&unsigned.encode_unsigned()).unwrap(), unsigned);
    }

    #[test]
    fn an_unsigned_transaction_survives_json(unsigned in unsigned()) {
        let json = serde_json::to_string(&unsigned).unwrap();
        prop_assert_eq!(serde_json::from_str::<UnsignedTx>(&json).unwrap(), unsigned);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = SignedTx::decode(&bytes);
        let _ = UnsignedTx::decode_unsigned(&bytes);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(unsigned in unsigned(), at: prop::sample::Index, flip in 1_u8..) {
        // One flipped byte either is refused or is another transaction, never a second encoding of the same one.
        let mut bytes = unsigned.encode_unsigned();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(other) = UnsignedTx::decode_unsigned(&bytes) {
            prop_assert_ne!(&other, &unsigned);
            prop_assert_eq!(other.encode_unsigned(), bytes);
        }
    }
}

proptest! {
    // Signing and recovering cost milliseconds each without optimisation.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_signed_transaction_survives_its_encoding_and_keeps_the_id_it_was_planned_with(unsigned in unsigned()) {
        let origin = Signer::from_hex(&"11".repeat(32)).unwrap();
        let payer = Signer::from_hex(&"22".repeat(32)).unwrap();
        let planned = unsigned.id(origin.address());
        let signed = if unsigned.delegated {
            SignedTx::sign_delegated(unsigned.clone(), &origin, &payer).unwrap()
        } else {
            SignedTx::sign(unsigned.clone(), &origin).unwrap()
        };
        let read = SignedTx::decode(&signed.encode()).unwrap();
        prop_assert_eq!(read.id(), planned);
        prop_assert_eq!(read.origin(), origin.address());
        prop_assert_eq!(read.gas_payer(), if unsigned.delegated { payer.address() } else { origin.address() });
        prop_assert_eq!(&read, &signed);
        prop_assert_eq!(read.unsigned(), &unsigned);
    }
}
