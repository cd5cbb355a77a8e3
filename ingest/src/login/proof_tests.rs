//! Proofs made by VeChain's own library (`golden.json`, by `chain/tests/sdk/oracle.mjs`), and what is changed in them.

use chain::Signer;
use proptest::prelude::*;
use schemas::ids::UserId;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const KEY: &str = "7582be841ca040aa940fff6c05773129e135623e41acce3e0b8ba520dc1ae26a";
const GENESIS: &str = "0x00000000bb55405beed90df9fea5acdb1cb7caba61b0d7513395f42efd30e558";
/// Nothing here opens a ticket.
const TICKET: &str = "ticket";

fn at(seconds: i64) -> DateTime<Utc> {
    // 2026-02-02T02:40:00Z, when the challenge was issued.
    DateTime::from_timestamp(1_770_000_000 + seconds, 0).unwrap()
}

fn challenge() -> Challenge {
    Challenge {
        id: "00010203-0405-0607-0809-0a0b0c0d0e0f".parse().unwrap(),
        purpose: Purpose::SignIn,
        wallet: "0xd989829d88b0ed1b06edf5c50174ecfa64f14a64".parse().unwrap(),
        domain: "gateway.test".into(),
        genesis_id: GENESIS.into(),
        issued_at: at(0),
    }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

fn certificate(change: impl FnOnce(&mut Value)) -> Value {
    let mut certificate = golden()["certificate"].take();
    change(&mut certificate);
    json!({ "method": "certificate", "challenge_id": TICKET, "certificate": certificate })
}

fn typed(signature: &str) -> Value {
    json!({ "method": "eip712", "challenge_id": TICKET, "signature": signature })
}

/// The code of the refusal; none where the proof is good.
fn refusal_at(proof: &Value, challenge: &Challenge, seconds: i64) -> Option<&'static str> {
    let Ok(proof) = serde_json::from_value::<Proof>(proof.clone()) else { return Some("malformed_document") };
    match proof.check(challenge, Purpose::SignIn, GENESIS, at(seconds)) {
        Ok(wallet) => {
            assert_eq!(wallet, challenge.wallet);
            None
        }
        Err(error) => {
            assert!(REFUSALS.contains(&error.problem()), "{error}");
            Some(error.code())
        }
    }
}

fn refusal(proof: &Value) -> Option<&'static str> {
    refusal_at(proof, &challenge(), 60)
}

#[test]
fn what_the_official_library_signs_is_accepted_in_both_ways() {
    assert_eq!(challenge().text(), golden()["certificate"]["payload"]["content"].as_str().unwrap());
    assert_eq!(challenge().typed_data().document(), golden()["typed_data"]);
    assert_eq!(refusal(&certificate(|_| {})), None);
    assert_eq!(refusal(&typed(golden()["typed_signature"].as_str().unwrap())), None);
    let milliseconds = certificate(|certificate| *certificate = golden()["milliseconds"].take());
    assert_eq!(refusal(&milliseconds), None, "the library's own documentation says milliseconds");
    let checksummed =
        certificate(|certificate| certificate["signer"] = json!(challenge().wallet.checksummed()));
    assert_eq!(refusal(&checksummed), None, "the case of the signer is not signed");
}

#[test]
fn a_certificate_for_another_domain_address_or_time_is_refused_by_name() {
    let domain = certificate(|certificate| certificate["domain"] = json!("gateway.test.evil"));
    assert_eq!(refusal(&domain), Some("wrong_domain"));
    let other = Challenge { wallet: Address([0x11; 20]), ..challenge() };
    assert_eq!(refusal_at(&certificate(|_| {}), &other, 60), Some("signature_refused"));
    for (seconds, expected) in [
        (-61, Some("challenge_expired")),
        (-31, Some("stale_certificate")),
        (-30, None),
        (299, None),
        (300, Some("challenge_expired")),
    ] {
        assert_eq!(
            refusal_at(&certificate(|_| {}), &challenge(), seconds),
            expected,
            "{seconds} s after it was issued"
        );
    }
    // Signed 30 s after the challenge of the text was issued, and so long before this one.
    let later = Challenge { issued_at: at(91), ..challenge() };
    let text = certificate(|certificate| certificate["payload"]["content"] = json!(later.text()));
    assert_eq!(refusal_at(&text, &later, 100), Some("stale_certificate"));
    for timestamp in [0, -1, i64::MIN, i64::MAX] {
        let proof = certificate(|certificate| certificate["timestamp"] = json!(timestamp));
        assert_eq!(refusal(&proof), Some("stale_certificate"), "{timestamp}");
    }
}

#[test]
fn a_challenge_for_something_else_or_of_another_network_is_no_challenge() {
    let proof = certificate(|_| {});
    let user = UserId(Uuid::from_u128(1));
    let linking = Challenge { purpose: Purpose::LinkWallet(user), ..challenge() };
    assert_eq!(refusal_at(&proof, &linking, 60), Some("challenge_expired"));
    let network = Challenge { genesis_id: format!("0x{}", "0".repeat(64)), ..challenge() };
    assert_eq!(refusal_at(&proof, &network, 60), Some("challenge_expired"));
    let proof: Proof = serde_json::from_value(proof).unwrap();
    for purpose in [Purpose::LinkWallet(user), Purpose::LinkWallet(UserId(Uuid::nil()))] {
        assert!(proof.check(&challenge(), purpose, GENESIS, at(60)).is_err());
    }
    assert_ne!(linking.text(), challenge().text(), "the text says what it is good for");
    assert_ne!(linking.typed_data().signing_hash(), challenge().typed_data().signing_hash());
}

#[test]
fn a_mirrored_signature_and_the_v_of_other_chains_are_refused() {
    // The order of secp256k1; n - s and the other parity sign the same.
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let mut bytes =
        Signer::from_hex(KEY).unwrap().sign_prehash(&challenge().typed_data().signing_hash()).unwrap().0;
    assert_eq!(refusal(&typed(&format!("0x{}", hex::encode(bytes)))), None);
    for v in [27, 28, 2, 255] {
        let other = [&bytes[..64], &[v]].concat();
        assert_eq!(refusal(&typed(&format!("0x{}", hex::encode(other)))), Some("signature_refused"), "{v}");
    }
    let mut borrow = 0;
    for n in (0..32).rev() {
        let (digit, less) = (i16::from(order[n]) - i16::from(bytes[32 + n]) - borrow, 256);
        borrow = i16::from(digit < 0);
        bytes[32 + n] = u8::try_from(digit.rem_euclid(less)).unwrap();
    }
    bytes[64] ^= 1;
    assert_eq!(refusal(&typed(&format!("0x{}", hex::encode(bytes)))), Some("signature_refused"), "high s");
    for text in [
        "",
        "0x",
        "0x00",
        &"0".repeat(130),
        &format!("0x{}", "0".repeat(130)),
        &format!("0x{}", "€".repeat(65)),
    ] {
        assert_eq!(refusal(&typed(text)), Some("signature_refused"), "{text}");
    }
}

/// Changes one character of a text to another, by places that may be anywhere.
fn with_another_character(text: &str, place: prop::sample::Index, by: char) -> Option<String> {
    let mut characters: Vec<char> = text.chars().collect();
    let place = place.index(characters.len());
    let before = std::mem::replace(&mut characters[place], by);
    (!before.eq_ignore_ascii_case(&by)).then(|| characters.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn a_proof_with_any_character_changed_is_refused(place: prop::sample::Index, what: prop::sample::Index, by: char, digit in "[0-9a-f]") {
        let fields = [
            "/domain", "/purpose", "/payload/type", "/payload/content", "/signer", "/signature", "/timestamp", "typed",
        ];
        let field = fields[what.index(fields.len())];
        let digit = digit.chars().next().unwrap();
        let proof = if field == "typed" {
            with_another_character(golden()["typed_signature"].as_str().unwrap(), place, digit).map(|text| typed(&text))
        } else {
            let mut golden = golden();
            let value = golden["certificate"].pointer_mut(field).unwrap();
            // Hex digits change to hex digits, or nothing but the parser would be tried.
            let by = if ["/signature", "/signer"].contains(&field) { digit } else { by };
            let changed = match value.as_i64() {
                Some(number) => Some(json!(number + 1 + i64::try_from(place.index(20)).unwrap())),
                None => with_another_character(value.as_str().unwrap(), place, by).map(Value::from),
            };
            if let Some(changed) = &changed {
                *value = changed.clone();
            }
            changed.map(|_| certificate(|certificate| *certificate = golden["certificate"].take()))
        };
        if let Some(proof) = proof {
            prop_assert!(refusal(&proof).is_some(), "{} is accepted: {}", field, proof);
        }
    }
}
