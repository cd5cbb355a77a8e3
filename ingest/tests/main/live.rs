//! Following an upload while the tables fill, as the sinks fill them.

use std::time::Duration;

use reading::Seen;
use schemas::reason::Reason;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::{Bench, Form, jpeg};

struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    async fn open(bench: &Bench, id: &str, token: &str, last: Option<&str>) -> (String, Self) {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        let resume = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
        let head = format!(
            "GET /v1/uploads/{id}/events HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}\r\n{resume}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next_line().await.unwrap().unwrap();
        (status, Self(lines))
    }

    /// Name, id and data of the next event; none at the end of the stream.
    async fn next(&mut self) -> Option<(String, String, serde_json::Value)> {
        let (mut name, mut id, mut data) = (None, None, None);
        while let Some(line) = self.0.next_line().await.unwrap() {
            match line.split_once(':') {
                Some(("event", value)) => name = Some(value.trim().to_owned()),
                Some(("id", value)) => id = Some(value.trim().to_owned()),
                Some(("data", value)) => data = Some(serde_json::from_str(value).unwrap()),
                _ => {}
            }
            if let Some(data) = data.take_if(|_| line.is_empty()) {
                return Some((name.unwrap(), id.unwrap(), data));
            }
        }
        None
    }
}

/// A driver's token and the id of a photo that they have posted, as it is written and as it is bound.
async fn posted(bench: &Bench) -> (String, String, Uuid) {
    let (_, token) = bench.driver().await;
    let response = bench.post(&token, &Form::photo(&jpeg(1))).await.json();
    let id = response["upload_id"].as_str().unwrap().to_owned();
    let upload = id.parse().unwrap();
    (token, id, upload)
}

async fn run(bench: &Bench, sql: &'static str, id: Uuid) {
    sqlx::query(sql).bind(id).execute(&bench.pool).await.unwrap();
}

#[tokio::test]
async fn a_stream_sends_each_stage_once_and_ends_after_the_verdict() {
    let bench = Bench::start().await;
    let (token, id, upload) = posted(&bench).await;
    let (status, mut events) = Events::open(&bench, &id, &token, None).await;
    assert!(status.contains("200"), "{status}");
    let (name, first, data) = events.next().await.unwrap();
    assert_eq!((name.as_str(), data["stage"].as_str()), ("stage", Some("quality_check")));
    run(
        &bench,
        "insert into odometer_uploads (id, user_id, upload_status, created_at, updated_at)
         select upload_id, user_id, 'processing', reserved_at, now() from photo_hashes where upload_id = $1",
        upload,
    )
    .await;
    run(&bench, "insert into upload_verifications (id, upload_id) values (gen_random_uuid(), $1)", upload)
        .await;
    let (_, second, data) = events.next().await.unwrap();
    assert_eq!(data["stage"], "odometer_reading");
    assert!(second.parse::<u64>().unwrap() > first.parse::<u64>().unwrap(), "ids grow");
    run(
        &bench,
        "insert into mileage_data (id, upload_id, verification_status, rejection_reason, ai_verified_mileage, mileage_unit)
         values (gen_random_uuid(), $1, 'rejected', 'rollback: 10.00 is below 20.00', 10, 'km')",
        upload,
    )
    .await;
    run(&bench, "update odometer_uploads set upload_status = 'rejected' where id = $1", upload).await;
    let (name, last, data) = events.next().await.unwrap();
    assert_eq!((name.as_str(), data["reason"].as_str()), ("decided", Some("rollback")));
    assert_eq!((data["reading"].as_str(), data["verdict"].as_str()), (Some("10.00"), Some("rejected")));
    assert!(events.next().await.is_none(), "the stream ends");

    let (_, mut resumed) = Events::open(&bench, &id, &token, Some(&second)).await;
    assert_eq!(resumed.next().await.unwrap().1, last, "what was seen is not sent again");
    let (status, _) = Events::open(&bench, &id, &token, Some(&last)).await;
    assert!(status.contains("204"), "nothing is left to send: {status}");
    let bad = bench.get(&format!("/v1/uploads/{id}/events"), &token).await;
    assert_eq!(bad.status, 200);
}

#[tokio::test]
async fn an_upload_in_doubt_says_what_was_seen_on_its_photo() {
    let bench = Bench::start().await;
    let (token, id, upload) = posted(&bench).await;
    for sql in [
        "insert into odometer_uploads (id, user_id, upload_status, created_at, updated_at)
         select upload_id, user_id, 'processing', reserved_at, now() from photo_hashes where upload_id = $1",
        r#"insert into upload_verifications (id, upload_id, processing_time, error_details, bounding_boxes)
         values (gen_random_uuid(), $1, 900, 'low_confidence: 0.75 is below 0.80',
             '{"width":1280,"height":960,"boxes":[],"seen":"between_numbers"}')"#,
        "insert into mileage_data (id, upload_id, verification_status, ai_verified_mileage, mileage_unit)
         values (gen_random_uuid(), $1, 'manual_review', 10, 'km')",
    ] {
        run(&bench, sql, upload).await;
    }
    let document = bench.get(&format!("/v1/uploads/{id}"), &token).await.json();
    let advice = [Reason::LowConfidence.advice(), &Seen::BetweenNumbers.advice()].join(" ");
    assert_eq!((&document["verdict"], &document["advice"]), (&json!("review"), &json!(advice)));
}

#[tokio::test]
async fn a_stream_follows_the_payment_confirmation_by_confirmation_until_it_is_settled() {
    let bench = Bench::start().await;
    let (token, id, upload) = posted(&bench).await;
    for sql in [
        "insert into odometer_uploads (id, user_id, upload_status, created_at, updated_at)
         select upload_id, user_id, 'verified', reserved_at, now() from photo_hashes where upload_id = $1",
        "insert into mileage_data (id, upload_id, verification_status, final_mileage, mileage_unit, distance_traveled)
         values (gen_random_uuid(), $1, 'approved', 50, 'km', 40)",
    ] {
        run(&bench, sql, upload).await;
    }
    let (_, mut events) = Events::open(&bench, &id, &token, None).await;
    let (name, _, data) = events.next().await.unwrap();
    assert_eq!((name.as_str(), data["stage"].as_str()), ("decided", Some("decided")));
    run(
        &bench,
        "insert into rewards (id, user_id, upload_id, base_amount, bonus_amount, status)
         select gen_random_uuid(), user_id, id, 4, 0, 'pending' from odometer_uploads where id = $1",
        upload,
    )
    .await;
    assert_eq!(events.next().await.unwrap().0, "reward");
    run(
        &bench,
        "insert into reward_transactions (id, reward_id, user_id, blockchain_tx_hash, amount, status, confirmation_count)
         select gen_random_uuid(), id, user_id, '0x01', 4, 'pending', 0 from rewards where upload_id = $1",
        upload,
    )
    .await;
    for confirmations in 0..=12 {
        let (name, _, data) = events.next().await.unwrap();
        assert_eq!((name.as_str(), &data["payout"]["confirmations"]), ("payout", &confirmations.into()));
        assert_eq!((&data["stage"], &data["payout"]["amount"]), (&"payout".into(), &"4.00000000".into()));
        if confirmations < 12 {
            run(
                &bench,
                "update reward_transactions t set confirmation_count = confirmation_count + 1
                 from rewards r where r.id = t.reward_id and r.upload_id = $1",
                upload,
            )
            .await;
        }
    }
    run(&bench, "update rewards set status = 'distributed' where upload_id = $1", upload).await;
    let (name, last, data) = events.next().await.unwrap();
    assert_eq!((name.as_str(), data["stage"].as_str()), ("payout", Some("paid")));
    assert!(events.next().await.is_none(), "the stream ends with the payment");
    let (status, _) = Events::open(&bench, &id, &token, Some(&last)).await;
    assert!(status.contains("204"), "{status}");
}

#[tokio::test]
async fn a_driver_with_every_stream_of_their_own_leaves_those_of_others() {
    let bench = Bench::start_with(|config| config.limits.streams_per_user = 1).await;
    let (one, another) = (bench.driver().await.1, bench.driver().await.1);
    let mut open = Vec::new();
    for (n, token) in [(1, &one), (2, &another)] {
        let id =
            bench.post(token, &Form::photo(&jpeg(n))).await.json()["upload_id"].as_str().unwrap().to_owned();
        let (_, mut events) = Events::open(&bench, &id, token, None).await;
        events.next().await.unwrap();
        let path = format!("/v1/uploads/{id}/events");
        bench.get(&path, token).await.assert_problem(429, "rate_limited");
        open.push((path, events));
    }
    let (path, events) = open.remove(0);
    drop(events);
    // The place is free as soon as the gateway sees that the client has gone.
    let mut tries = 0;
    while bench.send(&format!("HEAD {path} HTTP/1.1\r\nauthorization: Bearer {one}"), b"").await.status == 429
    {
        tries += 1;
        assert!(tries < 100, "the stream that ended is still counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn streams_beyond_the_cap_are_asked_to_come_back_and_a_stopping_gateway_ends_them() {
    let bench = Bench::start_with(|config| config.limits.streams = 1).await;
    let (token, id, _) = posted(&bench).await;
    let (_, mut events) = Events::open(&bench, &id, &token, None).await;
    events.next().await.unwrap();
    bench.get(&format!("/v1/uploads/{id}/events"), &token).await.assert_problem(503, "busy");
    bench.stop.cancel();
    assert!(events.next().await.is_none(), "the stream ends with the gateway");
}
