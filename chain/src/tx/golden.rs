//! Vectors that others made: Thor's own tests, `@vechain/sdk-core` 2.1.0, and a transaction that a real node accepted.

use alloy_primitives::U256;

use super::*;
use crate::signer::Signer;

const K1: &str = "7582be841ca040aa940fff6c05773129e135623e41acce3e0b8ba520dc1ae26a";
const K2: &str = "321d6443bc6177273b5abf54210fe806d451d6b7973bccc2384ef78bbcd0bf51";
const DEPENDS_ON: &str = "0xd44cb3e0aa94b99331dc277895a004a8028c6a067deb207e18f0d7ac7cc13b30";

fn k1() -> Signer {
    Signer::from_hex(K1).unwrap()
}

fn clause(value: u128, data: &str) -> Clause {
    Clause {
        to: Some("0x7567d83b7b8d80addcb281a71d54fc7b3364ffed".parse().unwrap()),
        value: Wei::from(value),
        data: hex::decode(data).unwrap(),
    }
}

/// The transaction that Thor's tests share (`tx/transaction_test.go`).
fn unsigned(chain_tag: u8, fees: Fees, gas: u64) -> UnsignedTx {
    UnsignedTx {
        chain_tag,
        block_ref: BlockRef(0xaabb_ccdd),
        expiration: 32,
        clauses: vec![clause(10_000, "000000606060"), clause(20_000, "000000606060")],
        fees,
        gas,
        depends_on: None,
        nonce: 12_345_678,
        delegated: false,
    }
}

const LEGACY: Fees = Fees::Legacy { gas_price_coef: 128 };

fn dynamic(max_priority_fee_per_gas: u128, max_fee_per_gas: u128) -> Fees {
    Fees::Dynamic {
        max_priority_fee_per_gas: Wei::from(max_priority_fee_per_gas),
        max_fee_per_gas: Wei::from(max_fee_per_gas),
    }
}

/// Signs with K1 (and K2 as gas payer) without the checks of a builder, since Thor's vectors offer less than the intrinsic gas.
fn signed_bytes(unsigned: &UnsignedTx) -> Vec<u8> {
    let origin = k1();
    let mut signatures = origin.sign_prehash(unsigned.signing_hash().as_bytes()).unwrap().0.to_vec();
    if unsigned.delegated {
        let payer = Signer::from_hex(K2).unwrap();
        signatures.extend(payer.sign_prehash(unsigned.id(origin.address()).as_bytes()).unwrap().0);
    }
    unsigned.encode(Some(&signatures))
}

fn assert_vector(unsigned: UnsignedTx, signing_hash: &str, id: &str, raw: &str) {
    assert_eq!(unsigned.signing_hash().to_string(), signing_hash);
    assert_eq!(unsigned.id(k1().address()).to_string(), id, "the id is known before anything is signed");
    assert_eq!(hex::encode(signed_bytes(&unsigned)), raw);

    let decoded = SignedTx::decode(&hex::decode(raw).unwrap()).unwrap();
    assert_eq!(decoded.id().to_string(), id);
    assert_eq!(decoded.origin(), k1().address());
    let payer = if unsigned.delegated { Signer::from_hex(K2).unwrap().address() } else { k1().address() };
    assert_eq!(decoded.gas_payer(), payer);
    assert_eq!(hex::encode(decoded.encode()), raw);
    assert_eq!(*decoded.unsigned(), unsigned);
}

#[test]
fn a_legacy_transaction_equals_thors_vector() {
    // TestLegacyTx; sdk-js Transaction.unit.test.ts has the same.
    let unsigned = unsigned(1, LEGACY, 21_000);
    assert_eq!(unsigned.intrinsic_gas(), 37_432);
    assert_vector(
        unsigned,
        "0x2a1c25ce0d66f45276a5f308b99bf410e2fc7d5b6ea37a49f2ab9f1da9446478",
        "0xda90eaea52980bc4bb8d40cb2ff84d78433b3b4a6e7d50b75736c5e3e77b71ec",
        "f8970184aabbccdd20f840df947567d83b7b8d80addcb281a71d54fc7b3364ffed82271086000000606060df947567d83b7b8d80addcb281a71d54fc7b3364ffed824e208600000060606081808252088083bc614ec0b841f76f3c91a834165872aa9464fc55b03a13f46ea8d3b858e528fcceaf371ad6884193c3f313ff8effbb57fe4d1adc13dceb933bedbf9dbb528d2936203d5511df00",
    );
}

#[test]
fn a_delegated_legacy_transaction_equals_thors_vector() {
    // TestDelegatedTx.
    assert_vector(
        UnsignedTx { delegated: true, ..unsigned(0xa4, LEGACY, 210_000) },
        "0x96c4cd08584994f337946f950eca5511abe15b152bc879bf47c2227901f9f2af",
        "0x956577b09b2a770d10ea129b26d916955df3606dc973da0043d6321b922fdef9",
        "f8db81a484aabbccdd20f840df947567d83b7b8d80addcb281a71d54fc7b3364ffed82271086000000606060df947567d83b7b8d80addcb281a71d54fc7b3364ffed824e20860000006060608180830334508083bc614ec101b882bad4d4401b1fb1c41d61727d7fd2aeb2bb3e65a27638a5326ca98404c0209ab159eaeb37f0ac75ed1ac44d92c3d17402d7d64b4c09664ae2698e1102448040c000f043fafeaf60343248a37e4f1d2743b4ab9116df6d627b4d8a874e4f48d3ae671c4e8d136eb87c544bea1763673a5f1762c2266364d1b22166d16e3872b5a9c700",
    );
}

#[test]
fn the_order_of_fields_is_thors_and_the_type_byte_is_hashed() {
    // TestHashingFieldsIntegrity: Thor hashes the bare list there, so the prefix is cut off for the comparison.
    let legacy = UnsignedTx {
        clauses: vec![clause(10_000, "000000616263"), clause(20_000, "000000666564")],
        depends_on: Some(DEPENDS_ON.parse().unwrap()),
        delegated: true,
        ..unsigned(1, LEGACY, 21_000)
    };
    assert_eq!(
        legacy.signing_hash().to_string(),
        "0xce14ed5355e855725646507cf50579f4e3679280f6e4ac79a98bb7c69ae84a4a"
    );
    let dynamic = UnsignedTx { fees: dynamic(20_000, 10_000_000), ..legacy };
    let bytes = dynamic.encode_unsigned();
    assert_eq!(
        hex::encode(&bytes),
        "51f87a0184aabbccdd20f840df947567d83b7b8d80addcb281a71d54fc7b3364ffed82271086000000616263df947567d83b7b8d80addcb281a71d54fc7b3364ffed824e2086000000666564824e2083989680825208a0d44cb3e0aa94b99331dc277895a004a8028c6a067deb207e18f0d7ac7cc13b3083bc614ec101"
    );
    assert_eq!(
        hex::encode(blake2b256(&[&bytes[1..]])),
        "0b196cb741cc67de0bc389b9da472ebf9b6282ad226325a19fdb8c3d8941086e"
    );
    assert_eq!(
        dynamic.signing_hash().to_string(),
        "0x28b883c0d4fc4f75abde7d10ba15500339d1ef84f6bdd8887aa889f7b5b654fe"
    );
    assert_eq!(UnsignedTx::decode_unsigned(&bytes).unwrap(), dynamic);
}

#[test]
fn a_dynamic_fee_transaction_equals_the_sdks_vector() {
    assert_vector(
        unsigned(0xf6, dynamic(500_000_000_000, 11_000_000_000_000), 210_000),
        "0x9dc02b1499ef6db712c5e1901694a7f99ad868dc8850018287add901b363ad16",
        "0xba1bb2a8af00bfbb466834330f016ed35a2f22818f389e9ae2389ac4258ca202",
        "51f8a481f684aabbccdd20f840df947567d83b7b8d80addcb281a71d54fc7b3364ffed82271086000000606060df947567d83b7b8d80addcb281a71d54fc7b3364ffed824e208600000060606085746a528800860a012317b000830334508083bc614ec0b84181638aebe743905c9d0aab0be8b993903b69acf4aa879ca60c8382e06141164535eae13aebd7a1b88d304e37f8613eb4cc83b1f74bcfcbcbde656f427fc45b2500",
    );
}

#[test]
fn a_dynamic_fee_transaction_without_fees_equals_the_sdks_vector() {
    assert_vector(
        unsigned(0xa4, dynamic(0, 0), 210_000),
        "0x75a83bf0e527930a114b7618bcac216e1c7aca757e804d880646db999c81234d",
        "0x17804b3a20061373912bf760db215312716a29e4bbd95b392ef5fba13e499d5b",
        "51f89981a484aabbccdd20f840df947567d83b7b8d80addcb281a71d54fc7b3364ffed82271086000000606060df947567d83b7b8d80addcb281a71d54fc7b3364ffed824e20860000006060608080830334508083bc614ec0b8418a7b86863f9d9ec5307fe018d3b19b2453000310e84def644155711ef502fc7a1cc36b25bf946690ba806382f362c4459ef17b5e66aec6b3dc9953d7f18e030100",
    );
}

#[test]
fn a_delegated_dynamic_fee_transaction_with_a_dependency_equals_the_sdks_vector() {
    assert_vector(
        UnsignedTx {
            depends_on: Some(DEPENDS_ON.parse().unwrap()),
            delegated: true,
            ..unsigned(0xf6, dynamic(20_000, 0x0918_4e72_a000), 210_000)
        },
        "0x73c3bec2d5ea1bb0a0030d214fe2f530749cca2369d27c2ac6ec313c32af9905",
        "0xc5a24580bab93a2b9aaffd127194d88f2568fad53167bbb9732ef5dead0633b5",
        "51f9010381f684aabbccdd20f840df947567d83b7b8d80addcb281a71d54fc7b3364ffed82271086000000606060df947567d83b7b8d80addcb281a71d54fc7b3364ffed824e2086000000606060824e208609184e72a00083033450a0d44cb3e0aa94b99331dc277895a004a8028c6a067deb207e18f0d7ac7cc13b3083bc614ec101b882c85180cb02a4f04447429635b84960ee7851b533377aaeeba043e46e4d91067678ed7894884c22a9925992aa95c94bd333e21b29b12b1e777982558192baa3f701c4e3afe49230380c1a6f914a2d4f619e50d6959e547465f4ec761fc25f2785fb4a120212013e58407573c14840ccdfead70ed80fdc4537c199b789edeb8709e000",
    );
}

#[test]
fn a_creation_with_the_largest_numbers_and_zeros_equals_the_sdks_vector() {
    let unsigned = UnsignedTx {
        block_ref: BlockRef(0),
        expiration: 0,
        clauses: vec![Clause { to: None, value: Wei(U256::MAX), data: vec![0] }],
        nonce: 0,
        ..unsigned(
            0xf6,
            Fees::Dynamic { max_priority_fee_per_gas: Wei::ZERO, max_fee_per_gas: Wei(U256::MAX) },
            53_004,
        )
    };
    assert_eq!(unsigned.intrinsic_gas(), 53_004);
    assert_vector(
        unsigned,
        "0x66fadad696e6808bb31df721a37eb61336669a81c368df5b7132ba49202eab20",
        "0x7e0eb7ff1d6b2ad327610869ffb3fa1ccfbb00b7d9ea7d74a383ac24131b33bf",
        "51f89481f68080e4e380a0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff0080a0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff82cf0c8080c0b8410151e469143b9e7cd5b0cbe53573511132c7463bfc4507cb72ffea88dee900f57936d360cf883cbeab0a5622c96a4793dac404f6e977afaaaa4f87c8400eda2900",
    );
}

#[test]
fn a_transaction_that_a_real_node_accepted_reads_to_its_id_and_origin() {
    // GET /transactions/{id}?raw=true of a Thor 2.4.4 solo node.
    let raw = "51f87e588544fbb7bb041ed8d794435933c8064b4ae76be665428e0307ef2ccfbd68018085746a5288008612309ce54000830186a0808601a204f6ec0fc0b841299f792926c8d2d74bff298ef92a4a49219332bf58d1ca31f368654716cec8754516da7c7fbf03107f3c735939bdf4c44db4a597224b5904ab40ec602568401201";
    let tx = SignedTx::decode(&hex::decode(raw).unwrap()).unwrap();
    assert_eq!(tx.id().to_string(), "0xf1ff7f9e20a0ec5c67754201723dbaeafc3d460823ce054835d2d01ee3d89338");
    assert_eq!(tx.origin().to_string(), "0xf077b491b355e64048ce21e3a6fc4751eeea77fa");
    assert_eq!((tx.unsigned().block_ref.number(), tx.unsigned().expiration), (0x44, 30));
    assert_eq!(tx.unsigned().last_valid_block(), 0x44 + 30);
    assert_ne!(tx.hash().as_bytes(), tx.id().as_bytes());
}

#[test]
fn a_dynamic_fee_transfer_of_thor_devkit_reads_to_its_signer() {
    // thor-devkit.py, test_dynamic_fee_vet_transfer, signed with solo account 0.
    let raw = "51f87581f6880151e082d486408220d8d794435933c8064b4ae76be665428e0307ef2ccfbd6801808203e8830186a08252088001c0b84166ff82069aeb228a517e443d87ff2e644846850317b78970a91e79235159a7ad2783443b56dcf8c5438a61196a393fec76e070e50253eeccf2b552acf95a5e8900";
    let tx = SignedTx::decode(&hex::decode(raw).unwrap()).unwrap();
    assert_eq!(tx.origin().to_string(), "0xf077b491b355e64048ce21e3a6fc4751eeea77fa");
    assert_eq!(tx.unsigned().fees, dynamic(1_000, 100_000));
}

#[test]
fn a_signature_over_a_hash_without_the_type_byte_belongs_to_someone_else() {
    let unsigned = unsigned(1, dynamic(1, 2), 40_000);
    let bare = k1().sign_prehash(&blake2b256(&[&unsigned.encode_unsigned()[1..]])).unwrap();
    let read = SignedTx::decode(&unsigned.encode(Some(&bare.0))).unwrap();
    assert_ne!(read.origin(), k1().address());
    let error = SignedTx::from_signatures(unsigned, k1().address(), bare, None).unwrap_err();
    assert_eq!(error, TxError::WrongSigner { expected: k1().address(), found: read.origin() });
}

#[test]
fn each_further_transfer_in_a_batch_saves_the_5000_gas_of_a_transaction() {
    // A B3TR transfer of a small amount: 68 bytes of call data, 9 of them not zero.
    let one = Clause::call(Address([1; 20]), [vec![1; 9], vec![0; 59]].concat());
    let batch =
        |n: usize| UnsignedTx { clauses: vec![one.clone(); n], ..unsigned(1, LEGACY, 0) }.intrinsic_gas();
    assert_eq!([1, 10, 50, 100].map(batch), [21_848, 173_480, 847_400, 1_689_800]);
    assert_eq!(batch(0), 21_000);
}

#[test]
fn the_builder_refuses_what_every_node_refuses() {
    let sign = |unsigned: UnsignedTx| SignedTx::sign(unsigned, &k1()).map(|tx| tx.id());
    assert_eq!(sign(unsigned(1, LEGACY, 37_431)), Err(TxError::GasTooLow { gas: 37_431, intrinsic: 37_432 }));
    assert!(sign(unsigned(1, LEGACY, 37_432)).is_ok());
    assert_eq!(sign(unsigned(1, dynamic(2, 1), 40_000)), Err(TxError::PriorityAboveMax));
    assert_eq!(sign(UnsignedTx { delegated: true, ..unsigned(1, LEGACY, 40_000) }), Err(TxError::Delegation));
    let crowd = UnsignedTx { clauses: vec![clause(0, ""); MAX_CLAUSES + 1], ..unsigned(1, LEGACY, u64::MAX) };
    assert_eq!(sign(crowd), Err(TxError::TooManyClauses(MAX_CLAUSES + 1)));
    let long =
        UnsignedTx { clauses: vec![clause(0, &"00".repeat(MAX_TX_SIZE))], ..unsigned(1, LEGACY, u64::MAX) };
    assert!(matches!(sign(long), Err(TxError::TooLarge(_))));
}

#[test]
fn a_signature_of_another_key_is_refused_when_joined() {
    let unsigned = unsigned(1, LEGACY, 40_000);
    let foreign = Signer::from_hex(K2).unwrap();
    let signature = foreign.sign_prehash(unsigned.signing_hash().as_bytes()).unwrap();
    let error = SignedTx::from_signatures(unsigned.clone(), k1().address(), signature, None).unwrap_err();
    assert_eq!(error, TxError::WrongSigner { expected: k1().address(), found: foreign.address() });
    let signature = k1().sign_prehash(unsigned.signing_hash().as_bytes()).unwrap();
    assert!(SignedTx::from_signatures(unsigned, k1().address(), signature, None).is_ok());
}

#[test]
fn bytes_that_are_no_transaction_are_refused() {
    let good = signed_bytes(&unsigned(1, dynamic(1, 2), 40_000));
    assert!(SignedTx::decode(&good).is_ok());
    for cut in 0..good.len() {
        assert!(SignedTx::decode(&good[..cut]).is_err(), "cut at {cut}");
    }
    assert!(matches!(SignedTx::decode(&[good.clone(), vec![0]].concat()), Err(TxError::Encoding(_))));
    assert_eq!(SignedTx::decode(&[0x52]), Err(TxError::Encoding("unknown transaction type")));
    // A nonce with a leading zero byte, and the list's length put right so that nothing else is wrong.
    let unsigned_hex = hex::encode(unsigned(1, LEGACY, 40_000).encode_unsigned());
    assert_eq!(unsigned_hex.matches("83bc614e").count(), 1);
    let mut padded = hex::decode(unsigned_hex.replace("83bc614e", "8400bc614e")).unwrap();
    padded[1] += 1;
    assert_eq!(UnsignedTx::decode_unsigned(&padded), Err(TxError::Encoding("nonce")));
    // Features that are not VIP-191, and a list that should have been trimmed.
    for (reserved, error) in
        [("c102", TxError::Reserved), ("c20101", TxError::Reserved), ("c180", TxError::Reserved)]
    {
        let mut items = unsigned(1, LEGACY, 40_000).encode_unsigned();
        assert_eq!(items.pop(), Some(0xc0));
        items.extend(hex::decode(reserved).unwrap());
        items[1] = u8::try_from(items.len() - 2).unwrap();
        assert_eq!(UnsignedTx::decode_unsigned(&items), Err(error), "{reserved}");
    }
}
