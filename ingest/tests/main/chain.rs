//! `POST /v1/chain/events`: what the watcher of a chain posts.

use std::time::Duration;

use futures::future::join_all;
use ingest::config::ChainAccess;
use runtime::clock::{Clock as _, SystemClock};
use runtime::signature::{HEAD_SIGNATURE_HEADER, head, signature};
use schemas::codec;
use schemas::events::{
    BlockAdopted, BlockPlace, BlockUndone, ChainLog, ChainStep, ChainTransaction, Event as _,
};
use schemas::ids::Micros;
use schemas::payouts::{ChainBatch, ChainResponse, StepOutcome, chain_event_id};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::{Bench, Response};

const SECRET: &str = "the secret of watcher and gateway";

fn hash(n: i64) -> String {
    format!("0x{n:064x}")
}

fn genesis() -> String {
    hash(0xff)
}

async fn watched() -> Bench {
    Bench::start_with(|config| {
        config.chain = Some(ChainAccess { genesis_id: genesis(), secret: SecretString::from(SECRET) });
    })
    .await
}

/// The step that adopts block `seq`, whose parent is the block before.
fn adopted(seq: i64) -> ChainStep {
    let id = hash(seq);
    ChainStep::Adopted(BlockAdopted {
        event_id: chain_event_id(&genesis(), "adopted", &id, 1),
        occurred_at: SystemClock.now(),
        seq,
        genesis_id: genesis(),
        block: BlockPlace { id, number: seq, timestamp: Micros(seq * 10_000_000) },
        parent_id: hash(seq - 1),
        adoption: 1,
        finalized_number: 0,
        retold: false,
        transactions: vec![ChainTransaction {
            id: hash(seq + 1_000),
            index: 0,
            origin: format!("0x{:040x}", 1),
            gas_payer: format!("0x{:040x}", 1),
            gas_used: 300_000,
            paid_wei: "3150000000000000000".to_owned(),
            reverted: false,
            logs: vec![ChainLog {
                clause_index: 0,
                log_index: 0,
                address: format!("0x{:040x}", 2),
                topics: vec![hash(7), hash(8)],
                data: "0x".to_owned(),
                balance_after_wei: None,
            }],
        }],
    })
}

fn undone(seq: i64, block: i64) -> ChainStep {
    let block_id = hash(block);
    ChainStep::Undone(BlockUndone {
        event_id: chain_event_id(&genesis(), "undone", &block_id, 1),
        occurred_at: SystemClock.now(),
        seq,
        genesis_id: genesis(),
        block_id,
        number: block,
        adoption: 1,
    })
}

fn batch(steps: Vec<ChainStep>) -> ChainBatch {
    let checkpoint = steps.last().map(|step| json!({ "behind": step.seq() }));
    ChainBatch { genesis_id: genesis(), steps, checkpoint }
}

/// Posts a body under a signature of some seconds ago.
async fn post(bench: &Bench, body: &[u8], secret: &str, ago: i64) -> Response {
    let time = (SystemClock.now().0 / 1_000_000 - ago).to_string();
    let signature = signature(&SecretString::from(secret), &time, body);
    let head = format!(
        "POST /v1/chain/events HTTP/1.1\r\nx-milestream-time: {time}\r\nx-milestream-signature: {signature}\r\ncontent-length: {}",
        body.len()
    );
    bench.send(&head, body).await
}

/// Posts a batch as today's watcher does: its head is signed too.
async fn post_with_head(bench: &Bench, batch: &ChainBatch) -> Response {
    let (body, secret) = (serde_json::to_vec(batch).unwrap(), SecretString::from(SECRET));
    let time = (SystemClock.now().0 / 1_000_000).to_string();
    let head = format!(
        "POST /v1/chain/events HTTP/1.1\r\nx-milestream-time: {time}\r\nx-milestream-signature: {}\r\n{HEAD_SIGNATURE_HEADER}: {}\r\ncontent-length: {}",
        signature(&secret, &time, &body),
        signature(&secret, &time, head(body.len() as u64).as_bytes()),
        body.len()
    );
    bench.send(&head, &body).await
}

async fn post_batch(bench: &Bench, batch: &ChainBatch) -> Response {
    post(bench, &serde_json::to_vec(batch).unwrap(), SECRET, 0).await
}

async fn taken(bench: &Bench, batch: &ChainBatch) -> ChainResponse {
    let response = post_batch(bench, batch).await;
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(&response.body).unwrap()
}

fn outcomes(response: &ChainResponse) -> Vec<(i64, StepOutcome)> {
    response.results.iter().map(|result| (result.seq, result.outcome)).collect()
}

async fn count(bench: &Bench, table: &str) -> i64 {
    let count = format!("select count(*) from {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&bench.pool).await.unwrap()
}

#[tokio::test]
async fn taken_steps_stand_on_their_topic_in_order_and_an_empty_batch_shows_where_to_go_on() {
    let bench = watched().await;
    let response = taken(&bench, &batch(Vec::new())).await;
    assert_eq!((response.highest_seq, response.checkpoint, response.results), (0, None, Vec::new()));
    assert_eq!(count(&bench, "chain_cursors").await, 0, "a question changes nothing");

    let posted = [adopted(1), adopted(2), undone(3, 2)];
    let response = taken(&bench, &batch(posted.to_vec())).await;
    assert_eq!(outcomes(&response), [1, 2, 3].map(|seq| (seq, StepOutcome::Accepted)));
    assert_eq!(response.highest_seq, 3);
    let response = taken(&bench, &batch(Vec::new())).await;
    assert_eq!((response.highest_seq, response.checkpoint), (3, Some(json!({ "behind": 3 }))));

    bench.relay().await;
    let records = bench.kafka.records("chain.events");
    assert!(records.iter().all(|record| record.key.as_deref() == Some(genesis().as_bytes())));
    let decoded: Vec<ChainStep> = records
        .iter()
        .map(|record| {
            let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
            if id == crate::support::SCHEMAS().block_adopted {
                ChainStep::Adopted(codec::decode(BlockAdopted::schema(), id, datum).unwrap())
            } else {
                ChainStep::Undone(codec::decode(BlockUndone::schema(), id, datum).unwrap())
            }
        })
        .collect();
    assert_eq!(decoded, posted);
    let metrics = bench.metrics();
    assert!(metrics.contains(r#"milestream_chain_steps_total{outcome="accepted"} 3"#), "{metrics}");
}

#[tokio::test]
async fn a_batch_posted_twice_is_taken_once() {
    let bench = watched().await;
    let posted = batch(vec![adopted(1), adopted(2)]);
    taken(&bench, &posted).await;
    let again = taken(&bench, &posted).await;
    assert_eq!(outcomes(&again), [1, 2].map(|seq| (seq, StepOutcome::Duplicate)));
    assert_eq!((again.highest_seq, again.checkpoint), (2, posted.checkpoint.clone()));
    // Another watcher's steps may stand under the first numbers, so that the rest cannot be trusted to follow them.
    let longer = taken(&bench, &batch(vec![adopted(2), adopted(3)])).await;
    assert_eq!((longer.highest_seq, longer.checkpoint), (2, posted.checkpoint));
    assert_eq!(count(&bench, "outbox").await, 2);
    assert_eq!(taken(&bench, &batch(vec![adopted(3)])).await.highest_seq, 3);
}

#[tokio::test]
async fn steps_behind_a_gap_and_a_block_posted_under_a_second_number_are_refused_whole() {
    let bench = watched().await;
    taken(&bench, &batch(vec![adopted(1)])).await;
    let gap = post_batch(&bench, &batch(vec![adopted(3), adopted(4)])).await.assert_problem(409, "chain_gap");
    assert!(gap["detail"].as_str().unwrap().contains("step 2 is next"), "{gap}");
    let twice = post_batch(&bench, &batch(vec![adopted(2), with_seq(adopted(1), 3)])).await;
    assert_eq!(twice.assert_problem(422, "invalid_step")["field"], "3");
    let mut broken = adopted(3);
    if let ChainStep::Adopted(step) = &mut broken {
        step.transactions[0].logs[0].data = "0xz".to_owned();
    }
    let broken = post_batch(&bench, &batch(vec![adopted(2), broken])).await;
    assert_eq!(broken.assert_problem(422, "invalid_step")["field"], "3");
    assert_eq!((count(&bench, "outbox").await, count(&bench, "chain_cursors").await), (1, 1));
    assert_eq!(taken(&bench, &batch(Vec::new())).await.highest_seq, 1);
}

fn with_seq(step: ChainStep, seq: i64) -> ChainStep {
    match step {
        ChainStep::Adopted(step) => ChainStep::Adopted(BlockAdopted { seq, ..step }),
        ChainStep::Undone(step) => ChainStep::Undone(BlockUndone { seq, ..step }),
    }
}

#[tokio::test]
async fn forged_and_replayed_batches_and_those_of_another_network_change_nothing() {
    let bench = watched().await;
    let body = serde_json::to_vec(&batch(vec![adopted(1)])).unwrap();
    let forged = post(&bench, &body, "another secret of watcher and gateway", 0).await;
    forged.assert_problem(401, "bad_signature");
    assert!(forged.head.contains("www-authenticate: milestream-hmac-sha256"), "{}", forged.head);
    post(&bench, &body, SECRET, 400).await.assert_problem(401, "stale_batch");
    post(&bench, &body, SECRET, -400).await.assert_problem(401, "stale_batch");
    bench
        .send("POST /v1/chain/events HTTP/1.1\r\ncontent-length: 0", b"")
        .await
        .assert_problem(401, "bad_signature");
    post(&bench, b"{", SECRET, 0).await.assert_problem(400, "malformed_batch");
    let other = ChainBatch { genesis_id: hash(0xfe), ..batch(Vec::new()) };
    post_batch(&bench, &other).await.assert_problem(422, "wrong_network");
    assert_eq!((count(&bench, "outbox").await, count(&bench, "chain_cursors").await), (0, 0));
    let metrics = bench.metrics();
    assert!(metrics.contains(r#"milestream_chain_steps_total{outcome="refused"} 6"#), "{metrics}");
    assert_eq!(post(&bench, &body, SECRET, 200).await.status, 200, "a slow network is no replay");
}

#[tokio::test]
async fn a_body_beyond_its_cap_is_refused_and_a_gateway_without_a_chain_names_what_is_missing() {
    let bench = Bench::start_with(|config| {
        config.chain = Some(ChainAccess { genesis_id: genesis(), secret: SecretString::from(SECRET) });
        config.limits.chain_bytes = 1_000;
    })
    .await;
    post(&bench, &[b' '; 1_001], SECRET, 0).await.assert_problem(413, "batch_too_large");
    let chunked = format!(
        "POST /v1/chain/events HTTP/1.1\r\nx-milestream-time: 1\r\nx-milestream-signature: sha256={}\r\ntransfer-encoding: chunked",
        "0".repeat(64)
    );
    let body = [b"3e9\r\n".as_slice(), &[b' '; 1_001], b"\r\n0\r\n\r\n"].concat();
    bench.send(&chunked, &body).await.assert_problem(413, "batch_too_large");

    let bench = Bench::start().await;
    let problem = post_batch(&bench, &batch(Vec::new())).await.assert_problem(404, "chain_disabled");
    assert!(problem["detail"].as_str().unwrap().contains("chain.watch_secret"), "{problem}");
}

#[tokio::test]
async fn a_transaction_that_does_not_commit_leaves_nothing_and_the_same_batch_is_taken_later() {
    let bench = watched().await;
    // The last statement fails: all rows of the outbox are written by then.
    for sql in [
        "create function fail() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$",
        "create trigger fail before update on chain_cursors for each row execute function fail()",
    ] {
        sqlx::query(sql).execute(&bench.pool).await.unwrap();
    }
    let posted = batch(vec![adopted(1), adopted(2)]);
    let failed = post_batch(&bench, &posted).await;
    failed.assert_problem(500, "internal");
    assert_eq!((count(&bench, "outbox").await, count(&bench, "chain_cursors").await), (0, 0));
    sqlx::query("drop trigger fail on chain_cursors").execute(&bench.pool).await.unwrap();
    assert_eq!(outcomes(&taken(&bench, &posted).await), [1, 2].map(|seq| (seq, StepOutcome::Accepted)));
}

/// A watcher as the real one works: it goes on behind what the gateway has, and asks again when its steps do not fit.
async fn watch(bench: &Bench, last: i64, most: i64) {
    loop {
        let from = taken(bench, &batch(Vec::new())).await.highest_seq + 1;
        if from > last {
            return;
        }
        let mut next = from;
        while next <= last {
            let end = last.min(next + most - 1);
            let response = post_batch(bench, &batch((next..=end).map(adopted).collect())).await;
            let accepted = response.status == 200 && response.body.contains("accepted");
            assert!([200, 409].contains(&response.status), "{response:?}");
            if !accepted {
                break;
            }
            next = end + 1;
        }
    }
}

#[tokio::test]
async fn watchers_that_race_have_each_step_taken_once_and_in_order() {
    let bench = watched().await;
    join_all((1..=4).map(|most| watch(&bench, 60, most))).await;
    assert_eq!(count(&bench, "outbox").await, 60);
    bench.relay().await;
    let seqs: Vec<i64> = bench
        .kafka
        .records("chain.events")
        .iter()
        .map(|record| {
            let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
            codec::decode::<BlockAdopted>(BlockAdopted::schema(), id, datum).unwrap().seq
        })
        .collect();
    assert_eq!(seqs, (1..=60).collect::<Vec<i64>>());
    let stored: Value =
        sqlx::query_scalar("select checkpoint from chain_cursors").fetch_one(&bench.pool).await.unwrap();
    assert_eq!(stored, json!({ "behind": 60 }));
}

#[tokio::test]
async fn a_body_that_trickles_under_an_invented_signature_keeps_no_place_of_a_batch_whose_head_is_signed() {
    let bench = Bench::start_with(|config| {
        config.chain = Some(ChainAccess { genesis_id: genesis(), secret: SecretString::from(SECRET) });
        config.limits.batches = 1;
        config.timeouts.place = Duration::from_millis(50);
        config.timeouts.batch = Duration::from_millis(500);
        config.timeouts.drain = Duration::from_millis(50);
    })
    .await;
    let head = format!(
        "POST /v1/chain/events HTTP/1.1\r\nx-milestream-time: 1\r\nx-milestream-signature: sha256={}\r\ncontent-length: 10",
        "0".repeat(64)
    );
    // Its body never ends, so that it keeps the only place until its time is over.
    let slow = async { bench.send(&head, b"{").await.assert_problem(408, "body_timeout") };
    let other = async {
        while post_batch(&bench, &batch(Vec::new())).await.status != 503 {}
        // Every place of those whose head shows nothing is taken now; a watcher of today does not need one.
        assert_eq!(post_with_head(&bench, &batch(Vec::new())).await.status, 200);
    };
    tokio::join!(slow, other);
    assert_eq!(post_batch(&bench, &batch(Vec::new())).await.status, 200);
}
