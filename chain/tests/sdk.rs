//! Transactions, keystores and what wallets sign to sign in, against VeChain's own library, `@vechain/sdk-core`, run by Node.js as an
//! oracle. Needs `node` and `npm`; the exact version and its dependencies are pinned in `tests/sdk/package-lock.json` and installed
//! below the target folder.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use alloy_primitives::U256;
use chain::certificate::Payload;
use chain::keystore::{Keystore, Password, ScryptCost, generate_key};
use chain::typed_data::Member;
use chain::{
    Address, BlockRef, Certificate, Clause, Fees, Signature, SignedTx, Signer, TxId, TypedData, UnsignedTx,
    Wei,
};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

/// Transactions to compare.
const CASES: usize = 1_200;

/// The folder that holds `node_modules`, installed from the lock file once a run.
fn installed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk");
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["package.json", "package-lock.json", "oracle.mjs"] {
            std::fs::copy(sources.join(file), folder.join(file)).unwrap();
        }
        // What an earlier run installed from the same lock file is used again.
        let lock = std::fs::read(folder.join("package-lock.json")).unwrap();
        let installed = folder.join("node_modules/.installed-lock.json");
        if std::fs::read(&installed).is_ok_and(|before| before == lock) {
            return folder;
        }
        let output = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .output()
            .unwrap_or_else(|e| panic!("this test needs npm (Node.js 20 or later): {e}"));
        assert!(output.status.success(), "npm ci failed: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(installed, lock).unwrap();
        folder
    })
}

/// Asks the oracle all questions and gives its responses in order.
fn ask(questions: &[Value]) -> Vec<Value> {
    let folder = installed();
    let mut oracle = Command::new("node")
        .arg(folder.join("oracle.mjs"))
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("this test needs node (Node.js 20 or later): {e}"));
    let mut input = oracle.stdin.take().unwrap();
    let lines: String = questions.iter().map(|question| format!("{question}\n")).collect();
    // On a thread of its own, or both sides would wait on full pipes.
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = oracle.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "the oracle failed: {}", output.status);
    let responses: Vec<Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .map(|response| response.expect("the oracle responds in JSON lines"))
        .collect();
    assert_eq!(responses.len(), questions.len(), "one response to each question");
    responses
}

/// Mostly small, often zero, sometimes huge: where encodings of integers go wrong.
fn wei(rng: &mut StdRng) -> Wei {
    match rng.random_range(0..4) {
        0 => Wei::ZERO,
        1 => Wei::from(rng.random_range(0..300_u128)),
        2 => Wei::from(rng.random::<u128>() >> rng.random_range(0..128)),
        _ => Wei(U256::from_limbs(rng.random())),
    }
}

fn number(rng: &mut StdRng) -> u64 {
    if rng.random_bool(0.2) { 0 } else { rng.random::<u64>() >> rng.random_range(0..64) }
}

fn data(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; [0, 1, 4, 55, 56, 164, 400][rng.random_range(0..7)]];
    rng.fill_bytes(&mut bytes);
    // Zero bytes cost less gas, so there must be some.
    bytes.iter_mut().for_each(|byte| *byte = if *byte < 64 { 0 } else { *byte });
    bytes
}

fn clause(rng: &mut StdRng) -> Clause {
    let to = rng.random_bool(0.8).then(|| Address(rng.random()));
    Clause { to, value: wei(rng), data: data(rng) }
}

fn unsigned(rng: &mut StdRng) -> UnsignedTx {
    let clauses = (0..rng.random_range(0..5)).map(|_| clause(rng)).collect();
    let (a, b) = (wei(rng), wei(rng));
    let fees = if rng.random_bool(0.5) {
        Fees::Legacy { gas_price_coef: rng.random() }
    } else {
        Fees::Dynamic { max_priority_fee_per_gas: a.min(b), max_fee_per_gas: a.max(b) }
    };
    let mut unsigned = UnsignedTx {
        chain_tag: rng.random(),
        block_ref: BlockRef(number(rng)),
        expiration: rng.random::<u32>() >> rng.random_range(0..32),
        clauses,
        fees,
        gas: 0,
        depends_on: rng.random_bool(0.3).then(|| TxId(rng.random())),
        nonce: number(rng),
        delegated: rng.random_bool(0.4),
    };
    unsigned.gas = unsigned.intrinsic_gas().saturating_add(number(rng));
    unsigned
}

fn hex_of(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// The transaction as the library's `TransactionBody`.
fn unsigned_json(unsigned: &UnsignedTx) -> Value {
    let clauses: Vec<_> = unsigned
        .clauses
        .iter()
        .map(|c| json!({ "to": c.to, "value": c.value.to_hex(), "data": hex_of(&c.data) }))
        .collect();
    let mut json = json!({
        "chainTag": unsigned.chain_tag, "blockRef": format!("{:#018x}", unsigned.block_ref.0), "expiration": unsigned.expiration,
        "clauses": clauses, "gas": unsigned.gas.to_string(), "dependsOn": unsigned.depends_on, "nonce": format!("{:#x}", unsigned.nonce),
    });
    match unsigned.fees {
        Fees::Legacy { gas_price_coef } => json["gasPriceCoef"] = gas_price_coef.into(),
        Fees::Dynamic { max_priority_fee_per_gas, max_fee_per_gas } => {
            json["type"] = chain::tx::DYNAMIC_FEE_TYPE.into();
            json["maxPriorityFeePerGas"] = max_priority_fee_per_gas.to_hex().into();
            json["maxFeePerGas"] = max_fee_per_gas.to_hex().into();
        }
    }
    if unsigned.delegated {
        json["reserved"] = json!({ "features": 1 });
    }
    json
}

struct Case {
    unsigned: UnsignedTx,
    keys: [String; 2],
    signed: SignedTx,
}

fn case(rng: &mut StdRng) -> Case {
    // A byte of 0x7f in front keeps the key below the curve's order.
    let keys = [(); 2].map(|()| {
        let mut key: [u8; 32] = rng.random();
        key[0] = 0x7f;
        hex_of(&key)
    });
    let [origin, payer] = [0, 1].map(|i| Signer::from_hex(&keys[i]).unwrap());
    let unsigned = unsigned(rng);
    let signed = if unsigned.delegated {
        SignedTx::sign_delegated(unsigned.clone(), &origin, &payer)
    } else {
        SignedTx::sign(unsigned.clone(), &origin)
    };
    Case { unsigned, keys, signed: signed.unwrap() }
}

#[test]
fn bytes_hashes_ids_and_signers_of_random_transactions_equal_those_of_vechains_own_library() {
    let seed: u64 = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    let cases: Vec<_> = (0..CASES).map(|_| case(&mut rng)).collect();
    let makings = cases.iter().map(|case| {
        let mut question = json!({ "body": unsigned_json(&case.unsigned), "key": case.keys[0] });
        if case.unsigned.delegated {
            question["payer"] = case.keys[1].clone().into();
        }
        question
    });
    let readings = cases.iter().map(|case| json!({ "decode": hex_of(&case.signed.encode()) }));
    let responses = ask(&makings.chain(readings).collect::<Vec<_>>());
    let (made, read) = responses.split_at(cases.len());

    for (index, ((case, made), read)) in cases.iter().zip(made).zip(read).enumerate() {
        let (unsigned, signed) = (&case.unsigned, &case.signed);
        let who = format!("transaction {index} of seed {seed}: {unsigned:?}\n made {made}\n read {read}");
        assert_eq!(made["unsigned"], hex_of(&unsigned.encode_unsigned()), "{who}");
        assert_eq!(made["hash"], unsigned.signing_hash().to_string(), "{who}");
        assert_eq!(made["raw"], hex_of(&signed.encode()), "{who}");
        assert_eq!(made["intrinsicGas"], unsigned.intrinsic_gas(), "{who}");
        for response in [made, read] {
            assert_eq!(response["id"], unsigned.id(signed.origin()).to_string(), "{who}");
            assert_eq!(response["origin"], signed.origin().to_string(), "{who}");
            assert_eq!(response["gasPayer"], signed.gas_payer().to_string(), "{who}");
            assert_eq!(response["raw"], made["raw"], "{who}");
        }
        let theirs = hex::decode(&made["raw"].as_str().unwrap()[2..]).unwrap();
        assert_eq!(SignedTx::decode(&theirs).as_ref(), Ok(signed), "{who}");
    }
    let of_kind = |kind: fn(&UnsignedTx) -> bool| cases.iter().filter(|case| kind(&case.unsigned)).count();
    for (name, count) in [
        ("legacy", of_kind(|b| matches!(b.fees, Fees::Legacy { .. }))),
        ("dynamic fee", of_kind(|b| matches!(b.fees, Fees::Dynamic { .. }))),
        ("delegated", of_kind(|b| b.delegated)),
        ("dependent", of_kind(|b| b.depends_on.is_some())),
    ] {
        assert!(count > CASES / 10, "only {count} {name} transactions of seed {seed}");
    }
}

#[test]
fn keystores_open_in_both_directions() {
    let key = generate_key();
    let signer = Signer::new(&key).unwrap();
    let text = "größe ☃ 1";
    let password = Password::new(text.to_owned().into());
    let ours = Keystore::encrypt(&key, &password, ScryptCost::LIGHT).unwrap();
    let ours: Value = serde_json::from_str(&ours.to_json().unwrap()).unwrap();
    let responses = ask(&[
        json!({ "keystore": ours, "password": text }),
        json!({ "encrypt": hex_of(key.expose_secret()), "password": text }),
        json!({ "keystore": ours, "password": "another" }),
    ]);
    assert_eq!(responses[0]["key"], hex_of(key.expose_secret()), "the library opens our keystore");
    let theirs = Keystore::from_json(&responses[1]["keystore"].to_string()).unwrap();
    assert_eq!(theirs.open(&password).unwrap().address(), signer.address(), "we open the library's keystore");
    assert!(responses[2]["error"].is_string(), "a wrong password opens nothing");
}

/// Text as people write it, composed (NFC) as the library would make it.
fn text(rng: &mut StdRng) -> String {
    let letters: Vec<char> = "ab Zé☃\"\\/\n\t\u{1}\u{7f}\u{2028}ß漢😀".chars().collect();
    (0..rng.random_range(0..40)).map(|_| letters[rng.random_range(0..letters.len())]).collect()
}

#[test]
fn certificates_and_typed_data_that_vechains_own_library_signed_are_their_signers() {
    let seed: u64 = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut questions = Vec::new();
    let mut hashes = Vec::new();
    for _ in 0..200 {
        let key: [u8; 32] = std::array::from_fn(|n| if n == 0 { 0x7f } else { rng.random() });
        let signer = Signer::from_hex(&hex::encode(key)).unwrap().address();
        let certificate = Certificate {
            domain: text(&mut rng),
            payload: Payload { content: text(&mut rng), kind: "text".into() },
            purpose: "identification".into(),
            signer,
            timestamp: rng.random_range(0..4_000_000_000),
        };
        // As a page gives it: in another order and with the checksum's capitals.
        questions.push(json!({ "key": hex_of(&key), "certify": {
            "purpose": certificate.purpose, "payload": { "type": "text", "content": certificate.payload.content },
            "domain": certificate.domain, "timestamp": certificate.timestamp, "signer": signer.checksummed(),
        }}));
        hashes.push((certificate.signing_hash(), signer));
        let typed = TypedData {
            name: text(&mut rng),
            version: "1".into(),
            primary_type: "Proof",
            members: vec![
                ("statement", Member::Text(text(&mut rng))),
                ("wallet", Member::Address(signer)),
                ("empty", Member::Text(String::new())),
            ],
        };
        questions.push(json!({ "key": hex_of(&key), "typed": typed.document() }));
        hashes.push((typed.signing_hash(), signer));
    }
    for (response, (hash, signer)) in ask(&questions).iter().zip(hashes) {
        let signature = response["signature"].as_str().unwrap_or_else(|| panic!("{response}, seed {seed}"));
        let signature = Signature::try_from(hex::decode(&signature[2..]).unwrap().as_slice()).unwrap();
        assert_eq!(signature.verify(&hash, signer), Ok(()), "seed {seed}");
    }
}
