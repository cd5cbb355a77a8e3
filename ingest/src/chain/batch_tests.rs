//! Batches that are taken and batches that are not.

use runtime::signature::signature;
use schemas::events::{BlockPlace, BlockUndone};
use schemas::ids::{EventId, Micros};
use schemas::payouts::chain_event_id;
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;
use warp::http::HeaderValue;

use super::*;

const NOW: i64 = 1_700_000_000;

fn hash(n: u8) -> String {
    format!("0x{}", hex::encode([n; 32]))
}

fn access() -> ChainAccess {
    ChainAccess { genesis_id: hash(9), secret: SecretString::from("a secret of thirty-two characters") }
}

fn headers(time: &str, signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(TIME_HEADER, HeaderValue::from_str(time).unwrap());
    headers.insert(SIGNATURE_HEADER, HeaderValue::from_str(signature).unwrap());
    headers
}

fn log() -> ChainLog {
    let address = format!("0x{}", "ab".repeat(20));
    ChainLog {
        clause_index: 0,
        log_index: 0,
        address,
        topics: vec![hash(3)],
        data: "0x00".into(),
        balance_after_wei: None,
    }
}

fn transaction() -> ChainTransaction {
    ChainTransaction {
        id: hash(7),
        index: 0,
        origin: format!("0x{}", "cd".repeat(20)),
        gas_payer: format!("0x{}", "cd".repeat(20)),
        gas_used: 100_000,
        paid_wei: "1000000000000000000".into(),
        reverted: false,
        logs: vec![log()],
    }
}

fn adopted(seq: i64) -> BlockAdopted {
    let id = hash(1);
    BlockAdopted {
        event_id: chain_event_id(&hash(9), "adopted", &id, 1),
        occurred_at: Micros(0),
        seq,
        genesis_id: hash(9),
        block: BlockPlace { id, number: 5, timestamp: Micros(0) },
        parent_id: hash(2),
        adoption: 1,
        finalized_number: 0,
        retold: false,
        transactions: vec![transaction()],
    }
}

fn undone(seq: i64) -> BlockUndone {
    let block_id = hash(1);
    BlockUndone {
        event_id: chain_event_id(&hash(9), "undone", &block_id, 1),
        occurred_at: Micros(0),
        seq,
        genesis_id: hash(9),
        block_id,
        number: 5,
        adoption: 1,
    }
}

fn batch(steps: Vec<ChainStep>) -> ChainBatch {
    let checkpoint = (!steps.is_empty()).then(|| json!({ "tip": 1 }));
    ChainBatch { genesis_id: hash(9), steps, checkpoint }
}

/// The code of the refusal.
fn refused(batch: &ChainBatch) -> Option<&'static str> {
    check(&access(), batch).err().map(|error| error.code())
}

/// The number of the step that one changed thing makes unusable.
fn refused_step(change: impl FnOnce(&mut BlockAdopted)) -> Option<String> {
    let mut step = adopted(3);
    change(&mut step);
    step.event_id = chain_event_id(&step.genesis_id, "adopted", &step.block.id, step.adoption);
    let error = check(&access(), &batch(vec![ChainStep::Adopted(step)])).err()?;
    assert_eq!(error.code(), "invalid_step");
    error.document()["field"].as_str().map(str::to_owned)
}

#[test]
fn a_batch_counts_within_five_minutes_of_its_signature_and_no_other_body_under_it() {
    let body = serde_json::to_vec(&batch(vec![ChainStep::Undone(undone(1))])).unwrap();
    let signed =
        |time: i64| headers(&time.to_string(), &signature(&access().secret, &time.to_string(), &body));
    let read = |headers: &HeaderMap, body: &[u8], now| {
        let read = BatchSignature::read(headers).and_then(|signature| read(&access(), &signature, body, now));
        read.map(|batch| batch.steps.len()).map_err(|error| error.code())
    };
    for (now, found) in
        [(-301, Err("stale_batch")), (-300, Ok(1)), (0, Ok(1)), (300, Ok(1)), (301, Err("stale_batch"))]
    {
        assert_eq!(read(&signed(NOW), &body, NOW + now), found, "{now}");
    }
    assert_eq!(read(&signed(NOW), b"{}", NOW), Err("bad_signature"));
    let mut moved = signed(NOW);
    moved.insert(TIME_HEADER, HeaderValue::from(NOW + 1));
    assert_eq!(read(&moved, &body, NOW), Err("bad_signature"), "the time is signed too");
    for time in [i64::MIN, i64::MAX] {
        assert_eq!(read(&signed(time), &body, NOW), Err("stale_batch"));
    }
    let other =
        signature(&SecretString::from("another secret of forty characters......"), &NOW.to_string(), &body);
    assert_eq!(read(&headers(&NOW.to_string(), &other), &body, NOW), Err("bad_signature"));
}

#[test]
fn headers_that_no_body_could_make_right_are_refused_before_it_is_read() {
    let digits = "0".repeat(64);
    let good = format!("sha256={digits}");
    assert!(BatchSignature::read(&headers("1", &good)).is_ok());
    for (time, signature) in [
        ("", good.as_str()),
        ("1.5", good.as_str()),
        ("now", good.as_str()),
        ("1", ""),
        ("1", "sha256="),
        ("1", digits.as_str()),
        ("1", &good.replace("sha256", "sha1")),
        ("1", &good[..70]),
        ("1", &good.replace('0', "g")),
    ] {
        let error = BatchSignature::read(&headers(time, signature)).unwrap_err();
        assert_eq!(error.code(), "bad_signature", "{time} {signature}");
    }
    assert!(BatchSignature::read(&HeaderMap::new()).is_err());
}

#[test]
fn a_question_and_steps_that_rise_by_one_are_taken() {
    assert_eq!(refused(&batch(Vec::new())), None);
    assert_eq!(refused(&batch(vec![ChainStep::Adopted(adopted(1)), ChainStep::Undone(undone(2))])), None);
    assert_eq!(refused(&batch(vec![ChainStep::Adopted(adopted(41)), ChainStep::Undone(undone(42))])), None);
}

#[test]
fn numbers_that_do_not_rise_by_one_from_one_are_refused() {
    let numbered =
        |numbers: &[i64]| batch(numbers.iter().map(|seq| ChainStep::Undone(undone(*seq))).collect());
    for numbers in [&[0][..], &[-1], &[1, 3], &[2, 1], &[1, 1], &[i64::MAX, i64::MIN]] {
        assert_eq!(refused(&numbered(numbers)), Some("invalid_step"), "{numbers:?}");
    }
    assert_eq!(refused(&numbered(&(1..=512).collect::<Vec<_>>())), None);
    assert_eq!(refused(&numbered(&(1..=513).collect::<Vec<_>>())), Some("malformed_batch"));
}

#[test]
fn another_network_another_id_and_steps_without_a_checkpoint_are_refused() {
    let other = ChainBatch { genesis_id: hash(8), ..batch(Vec::new()) };
    assert_eq!(refused(&other), Some("wrong_network"));
    let mut step = adopted(1);
    step.genesis_id = hash(8);
    assert_eq!(refused(&batch(vec![ChainStep::Adopted(step)])), Some("invalid_step"));
    let step = BlockUndone { event_id: EventId(Uuid::nil()), ..undone(1) };
    assert_eq!(refused(&batch(vec![ChainStep::Undone(step)])), Some("invalid_step"));
    for checkpoint in [None, Some(Value::Null)] {
        let lost = ChainBatch { checkpoint, ..batch(vec![ChainStep::Undone(undone(1))]) };
        assert_eq!(refused(&lost), Some("malformed_batch"));
    }
}

#[test]
fn a_step_is_taken_with_well_formed_values_only_and_its_number_is_the_field_at_fault() {
    assert_eq!(refused_step(|_| {}), None);
    let at_fault = Some("3".to_owned());
    let changes: [fn(&mut BlockAdopted); 18] = [
        |step| step.block.id = hash(1)[2..].to_owned(),
        |step| step.block.id = hash(0xab).to_uppercase(),
        |step| step.parent_id.push('0'),
        |step| step.parent_id = step.parent_id.replace('0', "g"),
        |step| step.block.number = 0,
        |step| step.block.number = 1 << 31,
        |step| step.block.timestamp = Micros(-1),
        |step| step.finalized_number = -1,
        |step| step.adoption = 0,
        |step| step.transactions[0].id.clear(),
        |step| step.transactions[0].origin = hash(1),
        |step| step.transactions[0].paid_wei.clear(),
        |step| step.transactions[0].paid_wei = "1".repeat(39),
        |step| step.transactions[0].paid_wei = "-1".into(),
        |step| step.transactions[0].reverted = true,
        |step| step.transactions[0].logs[0].topics = vec![hash(1); 6],
        |step| step.transactions[0].logs[0].data = "0x0".into(),
        |step| step.transactions[0].logs[0].log_index = -1,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        assert_eq!(refused_step(change), at_fault, "change {n}");
    }
}

#[test]
fn a_body_that_is_no_batch_is_malformed() {
    for body in ["", "{}", "[]", "{\"genesis_id\":\"\",\"steps\":[],\"checkpoint\":null,\"more\":1}"] {
        let time = NOW.to_string();
        let signed =
            BatchSignature::read(&headers(&time, &signature(&access().secret, &time, body.as_bytes())))
                .unwrap();
        let error = read(&access(), &signed, body.as_bytes(), NOW).unwrap_err();
        assert_eq!((error.status(), error.code()), (400, "malformed_batch"), "{body}");
    }
}
