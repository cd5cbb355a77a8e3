//! `POST /v1/rewards/{id}/claim`.

use std::collections::BTreeSet;

use futures::future::join_all;
use ingest::wallets::add_wallet;
use runtime::clock::{Clock as _, SystemClock};
use schemas::codec;
use schemas::events::{Event as _, RewardClaimed};
use schemas::ids::{RewardId, UploadId, UserId};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Bench, Form, Response, SCHEMAS, jpeg};

pub async fn wallet(bench: &Bench, user: UserId) -> Uuid {
    let address = format!("0x{:040x}", user.0.as_u128());
    add_wallet(&bench.pool, SCHEMAS(), user, &address, "testnet", SystemClock.now()).await.unwrap()
}

/// A reward of a user in the tables.
pub async fn reward(bench: &Bench, user: UserId, status: &str) -> Uuid {
    let upload = Uuid::now_v7();
    let id = RewardId::of(UploadId(upload)).0;
    sqlx::query(
        "with upload as (insert into odometer_uploads (id, user_id, upload_status, created_at)
                         values ($2, $3, 'verified', now()) returning id)
         insert into rewards (id, user_id, upload_id, base_amount, bonus_amount, status, created_at, updated_at)
         select $1, $3, id, 5, 0, $4::rewards_status, now(), now() from upload",
    )
    .bind(id)
    .bind(upload)
    .bind(user.0)
    .bind(status)
    .execute(&bench.pool)
    .await
    .unwrap();
    id
}

async fn claim(bench: &Bench, reward: &str, token: &str) -> Response {
    claim_with(bench, reward, token, b"").await
}

async fn claim_with(bench: &Bench, reward: &str, token: &str, body: &[u8]) -> Response {
    let head = format!(
        "POST /v1/rewards/{reward}/claim HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-length: {}",
        body.len()
    );
    bench.send(&head, body).await
}

/// The claims that are on `rewards.granted`, after the outbox was relayed.
async fn published(bench: &Bench) -> Vec<RewardClaimed> {
    bench.relay().await;
    let records = bench.kafka.records("rewards.granted");
    let decode = |payload: &[u8]| {
        let (id, datum) = codec::unframe(payload).unwrap();
        codec::decode(RewardClaimed::schema(), id, datum).unwrap()
    };
    records.iter().map(|record| decode(record.payload.as_deref().unwrap())).collect()
}

#[tokio::test]
async fn a_claim_is_taken_once_and_asking_again_gives_the_first_response_again() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    let wallet = wallet(&bench, user).await;
    let reward = reward(&bench, user, "calculated").await;
    let first = claim(&bench, &reward.to_string(), &token).await;
    assert_eq!(first.status, 202, "{first:?}");
    let document = first.json();
    assert_eq!(document["reward_id"], json!(reward));
    assert_eq!((&document["status"], &document["wallet_id"]), (&json!("claimed"), &json!(wallet)));
    let again = claim_with(&bench, &reward.to_string(), &token, b"{}").await;
    assert_eq!((again.status, again.json()), (200, document.clone()));
    let item = bench.get("/v1/rewards", &token).await.json()["items"][0].clone();
    assert_eq!((&item["claimed_at"], &item["payout"]), (&document["claimed_at"], &json!(null)));

    let events = published(&bench).await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].reward_id.0, events[0].user_id, events[0].wallet_id), (reward, user, wallet));
    let record = &bench.kafka.records("rewards.granted")[0];
    assert_eq!(record.key.as_deref(), Some(user.to_string().as_bytes()));
    // Once paid, the first response is still the response.
    sqlx::query("update rewards set status = 'distributed'").execute(&bench.pool).await.unwrap();
    assert_eq!(claim(&bench, &reward.to_string(), &token).await.json(), document);
}

#[tokio::test]
async fn a_reward_that_has_expired_is_not_claimed_though_the_tables_do_not_show_it_yet() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    wallet(&bench, user).await;
    let reward = reward(&bench, user, "calculated").await;
    let payout = "insert into payouts (reward_id, user_id, amount_wei, state, reason, header, stamp, updated_at)
        values ($1, $2, 50000000000, 'cancelled', 'claim_expired: it was not claimed before Monday', '{}', '{}', now())";
    sqlx::query(payout).bind(reward).bind(user.0).execute(&bench.pool).await.unwrap();
    let refused = claim(&bench, &reward.to_string(), &token).await;
    refused.assert_problem(409, "reward_settled");
    assert!(refused.json()["detail"].as_str().unwrap().contains("it was not claimed before Monday"));
    assert_eq!(published(&bench).await.len(), 0);
}

#[tokio::test]
async fn eight_claims_at_once_are_one_row_and_one_record() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    wallet(&bench, user).await;
    let reward = reward(&bench, user, "calculated").await.to_string();
    let responses = join_all((0..8).map(|_| claim(&bench, &reward, &token))).await;
    let documents: BTreeSet<&str> = responses.iter().map(|response| response.body.as_str()).collect();
    assert_eq!(documents.len(), 1, "{responses:?}");
    let mut statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 202]);
    let rows: i64 =
        sqlx::query_scalar("select count(*) from reward_claims").fetch_one(&bench.pool).await.unwrap();
    assert_eq!((rows, published(&bench).await.len()), (1, 1));
}

#[tokio::test]
async fn a_reward_that_the_tables_do_not_show_yet_may_be_claimed_by_the_driver_of_its_upload_alone() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    let (other, others) = bench.driver().await;
    wallet(&bench, user).await;
    wallet(&bench, other).await;
    let upload: Uuid = bench.post(&token, &Form::photo(&jpeg(1))).await.json()["upload_id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let reward = RewardId::of(UploadId(upload)).to_string();
    claim(&bench, &reward, &others).await.assert_problem(404, "reward_not_found");
    let first = claim(&bench, &reward, &token).await;
    assert_eq!(first.status, 202, "{first:?}");
    let again = claim(&bench, &reward, &token).await;
    assert_eq!((again.status, again.json()), (200, first.json()));
    assert_eq!(published(&bench).await.len(), 1);

    let late: Uuid = bench.post(&token, &Form::photo(&jpeg(2))).await.json()["upload_id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let reward = RewardId::of(UploadId(late)).to_string();
    sqlx::query("update photo_hashes set reserved_at = now() - interval '46 days' where upload_id = $1")
        .bind(late)
        .execute(&bench.pool)
        .await
        .unwrap();
    claim(&bench, &reward, &token).await.assert_problem(404, "reward_not_found");

    let rejected: Uuid = bench.post(&token, &Form::photo(&jpeg(3))).await.json()["upload_id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    sqlx::query("insert into odometer_uploads (id, user_id, upload_status, created_at) values ($1, $2, 'rejected', now())")
        .bind(rejected)
        .bind(user.0)
        .execute(&bench.pool)
        .await
        .unwrap();
    let reward = RewardId::of(UploadId(rejected)).to_string();
    claim(&bench, &reward, &token).await.assert_problem(404, "reward_not_found");
}

#[tokio::test]
async fn what_cannot_be_claimed_is_refused_with_its_reason_and_leaves_nothing() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    let (_, others) = bench.driver().await;
    let open = reward(&bench, user, "calculated").await.to_string();
    let problem = claim(&bench, &open, &token).await.assert_problem(409, "no_wallet");
    assert!(problem["detail"].as_str().unwrap().contains("link one"), "{problem}");
    wallet(&bench, user).await;
    for status in ["distributed", "cancelled"] {
        let settled = reward(&bench, user, status).await.to_string();
        let problem = claim(&bench, &settled, &token).await.assert_problem(409, "reward_settled");
        assert!(problem["detail"].as_str().unwrap().contains(status), "{problem}");
    }
    claim(&bench, &open, &others).await.assert_problem(404, "reward_not_found");
    for unknown in [Uuid::now_v7().to_string(), "x".to_owned()] {
        claim(&bench, &unknown, &token).await.assert_problem(404, "reward_not_found");
    }
    claim_with(&bench, &open, &token, b"{\"amount\":\"9\"}").await.assert_problem(400, "unexpected_body");
    claim_with(&bench, &open, &token, &[b' '; 65]).await.assert_problem(400, "unexpected_body");
    let head = format!("POST /v1/rewards/{open}/claim HTTP/1.1\r\ncontent-length: 0");
    bench.send(&head, b"").await.assert_problem(401, "token_missing");
    let rows: i64 =
        sqlx::query_scalar("select count(*) from reward_claims").fetch_one(&bench.pool).await.unwrap();
    assert_eq!((rows, published(&bench).await.len()), (0, 0));
    assert_eq!(claim(&bench, &open, &token).await.status, 202);
}
