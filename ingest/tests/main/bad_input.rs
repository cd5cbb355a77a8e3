//! Bad input: the right problem document in time, bounded memory, nothing in Kafka.

use std::time::{Duration, Instant};

use schemas::ids::UserId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::{Bench, Form, Response, jpeg, sized_jpeg};

/// A PNG of 60,000 x 60,000 pixels in 57 bytes: signature, header, end.
fn bomb() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        bytes.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
        let body = [kind, data].concat();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&crc(&body).to_be_bytes());
    };
    let side = 60_000_u32.to_be_bytes();
    chunk(b"IHDR", &[&side[..], &side, &[8, 2, 0, 0, 0]].concat());
    chunk(b"IDAT", &[0x78, 0x9c, 0x63, 0, 0, 0, 1, 0, 1]);
    chunk(b"IEND", b"");
    bytes
}

/// CRC-32 of ISO 3309, as PNG's annex D has it.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 },
        )
    })
}

#[tokio::test]
async fn a_file_that_is_no_good_photo_is_refused_with_its_reason() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let whole = jpeg(1);
    for (bytes, status, code) in [
        (&b"%PDF-1.7 not a photo at all, but long enough"[..], 415, "unsupported_format"),
        (&whole[..whole.len() / 2], 422, "truncated_image"),
        (&sized_jpeg(64, 64, 1), 422, "low_resolution"),
        (&bomb(), 422, "unsupported_format"),
        (b"", 400, "empty_file"),
    ] {
        let problem = bench.post(&token, &Form::photo(bytes)).await.assert_problem(status, code);
        assert_eq!(problem["field"], "photo");
    }
    bench.assert_nothing_left();
}

#[tokio::test]
async fn wrong_missing_and_unknown_fields_are_named() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let photo = Form::photo(&jpeg(1));
    for (form, status, code, field) in [
        (Form::default().field("unit", "km"), 400, "missing_field", "photo"),
        (photo.clone().field("colour", "red"), 400, "unknown_field", "colour"),
        (photo.clone().field("unit", &"k".repeat(2000)), 400, "field_too_long", "unit"),
        (photo.clone().field("unit", "yards"), 422, "invalid_field", "unit"),
        (photo.clone().field("claimed_mileage", "1.234"), 422, "invalid_field", "claimed_mileage"),
        (photo.clone().field("claimed_mileage", "-5"), 422, "invalid_field", "claimed_mileage"),
        (photo.clone().field("captured_at", "2999-01-01T00:00:00Z"), 422, "invalid_field", "captured_at"),
        (photo.clone().field("vehicle_id", "mine"), 422, "invalid_field", "vehicle_id"),
    ] {
        let problem = bench.post(&token, &form).await.assert_problem(status, code);
        assert_eq!(problem["field"], field);
    }
    let json = format!(
        "POST /v1/uploads HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 2"
    );
    bench.send(&json, b"{}").await.assert_problem(415, "unsupported_media_type");
    bench.get("/v1/uploads?page=2", &token).await.assert_problem(400, "unknown_parameter");
    bench.assert_nothing_left();
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_with_413_in_bounded_memory() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let before = peak();
    let head = |length: &str| {
        format!(
            "POST /v1/uploads HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: multipart/form-data; boundary=B\r\n{length}\r\n\r\n"
        )
    };
    let start = b"--B\r\ncontent-disposition: form-data; name=\"photo\"\r\n\r\n";
    let mebibyte = vec![b'x'; 1024 * 1024];
    let whole = format!("content-length: {}", start.len() + 100 * mebibyte.len());
    // Announced beforehand, and found out only while reading.
    for chunked in [false, true] {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        let length = if chunked { "transfer-encoding: chunked" } else { whole.as_str() };
        stream.write_all(head(length).as_bytes()).await.unwrap();
        let mut wire = Vec::new();
        for part in std::iter::once(&start[..]).chain(std::iter::repeat_n(&mebibyte[..], 100)) {
            wire.clear();
            if chunked {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            }
            wire.extend_from_slice(part);
            if chunked {
                wire.extend_from_slice(b"\r\n");
            }
            if stream.write_all(&wire).await.is_err() {
                break;
            }
        }
        if chunked {
            let _ = stream.write_all(b"0\r\n\r\n").await;
        }
        Response::read(stream).await.assert_problem(413, "photo_too_large");
    }
    let grown = peak().saturating_sub(before);
    assert!(grown < 64, "{grown} MiB more at the peak");
    bench.assert_nothing_left();
}

#[tokio::test]
async fn a_token_that_is_missing_wrong_expired_or_revoked_is_distinguished() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    let form = Form::photo(&jpeg(1));
    bench
        .send("POST /v1/uploads HTTP/1.1\r\ncontent-length: 0", b"")
        .await
        .assert_problem(401, "token_missing");
    bench.post("a.b.c", &form).await.assert_problem(401, "token_invalid");
    bench.post(&format!("{token}x"), &form).await.assert_problem(401, "token_invalid");
    let old = bench.old_token(user).await;
    bench.post(&old, &form).await.assert_problem(401, "token_expired");
    sqlx::query("update user_sessions set is_active = false").execute(&bench.pool).await.unwrap();
    bench.post(&token, &form).await.assert_problem(401, "token_invalid");
    sqlx::query("update users set is_active = false").execute(&bench.pool).await.unwrap();
    bench.post(&token, &form).await.assert_problem(403, "account_locked");
    bench.assert_nothing_left();
}

#[tokio::test]
async fn another_users_upload_responds_like_one_that_does_not_exist() {
    let bench = Bench::start().await;
    let ((_, mine), (_, other)) = (bench.driver().await, bench.driver().await);
    let id = bench.post(&mine, &Form::photo(&jpeg(1))).await.json()["upload_id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(bench.get(&format!("/v1/uploads/{id}"), &mine).await.status, 200);
    let nobodys = Uuid::now_v7().to_string();
    let mut seen = Vec::new();
    for id in [id, &nobodys, "no-uuid"] {
        for tail in ["", "/events"] {
            let response = bench.get(&format!("/v1/uploads/{id}{tail}"), &other).await;
            seen.push(response.assert_problem(404, "upload_not_found"));
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "nothing distinguishes them: {seen:?}");
}

#[tokio::test]
async fn an_idempotency_key_with_another_photo_is_refused_and_publishes_nothing() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let key = "idempotency-key: k-1\r\n";
    let first = bench.post_with(&token, &Form::photo(&jpeg(1)), key).await;
    assert_eq!(first.status, 202, "{first:?}");
    let other = bench.post_with(&token, &Form::photo(&jpeg(2)), key).await;
    other.assert_problem(422, "idempotency_key_reused");
    let again = bench.post_with(&token, &Form::photo(&jpeg(1)), key).await;
    assert_eq!((again.status, again.json()), (200, first.json()));
    let bad = bench.post_with(&token, &Form::photo(&jpeg(1)), "idempotency-key: a b\r\n").await;
    bad.assert_problem(400, "idempotency_key_invalid");
    assert_eq!(bench.kafka.uploads().len(), 1);
    assert_eq!(bench.incoming(), 0);
}

#[tokio::test]
async fn a_body_that_falls_silent_or_trickles_is_cut_in_time_with_408() {
    let bench = Bench::start_with(|config| {
        config.timeouts.body_idle = Duration::from_millis(300);
        config.timeouts.body_total = Duration::from_millis(900);
    })
    .await;
    let (_, token) = bench.driver().await;
    let head = format!(
        "POST /v1/uploads HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: multipart/form-data; boundary=B\r\ncontent-length: 100000\r\n\r\n--B\r\ncontent-disposition: form-data; name=\"photo\"\r\n\r\n"
    );
    for (trickle, limit) in [(false, 300), (true, 900)] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let drip = tokio::spawn(async move {
            while trickle && writer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            writer
        });
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes).await;
        let took = begun.elapsed();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 408") && text.contains("\"code\":\"body_timeout\""), "{text}");
        assert!(
            took >= Duration::from_millis(limit) && took < Duration::from_millis(limit + 1500),
            "{took:?}"
        );
        drip.abort();
    }
    bench.assert_nothing_left();
}

#[tokio::test]
async fn an_encoded_body_is_refused_and_a_form_is_read_in_whatever_case_and_order_its_names_come() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let form = Form::photo(&jpeg(1));
    let encoded = bench.post_with(&token, &form, "content-encoding: gzip\r\n").await;
    encoded.assert_problem(415, "unsupported_content_encoding");
    bench.assert_nothing_left();
    let disposition = "Form-Data; FileName*=UTF-8''%D0%BF%3B%20name%3Dunit.jpg; NAME=photo";
    let mut body = format!("--B\r\nContent-Disposition: {disposition}\r\n\r\n").into_bytes();
    body.extend_from_slice(&jpeg(2));
    body.extend_from_slice(b"\r\n--B--\r\n");
    let head = format!(
        "POST /v1/uploads HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-encoding: identity\r\ncontent-type: multipart/form-data; boundary=B\r\ncontent-length: {}",
        body.len()
    );
    let response = bench.send(&head, &body).await;
    assert_eq!(response.status, 202, "{response:?}");
}

#[tokio::test]
async fn one_users_bodies_leave_memory_for_anothers() {
    let bench = Bench::start_with(|config| {
        config.limits.photo_bytes = 400_000;
        config.limits.upload_memory_bytes = 4 * 500_000;
        config.timeouts.body_idle = Duration::from_millis(700);
        config.timeouts.drain = Duration::from_millis(50);
    })
    .await;
    let (one, another) = (bench.driver().await.1, bench.driver().await.1);
    let slow = format!(
        "POST /v1/uploads HTTP/1.1\r\nauthorization: Bearer {one}\r\ncontent-type: multipart/form-data; boundary=B\r\ncontent-length: 400000"
    );
    // A body that never comes keeps its user's share, a quarter, and no more.
    let form = Form::photo(&jpeg(3));
    let (first, second, other) = tokio::join!(
        bench.send(&slow, b"--B\r\n"),
        bench.send(&slow, b"--B\r\n"),
        bench.post(&another, &form)
    );
    let (silent, refused) = if first.status == 408 { (first, second) } else { (second, first) };
    silent.assert_problem(408, "body_timeout");
    refused.assert_problem(429, "rate_limited");
    assert_eq!(other.status, 202, "{other:?}");
}

#[tokio::test]
async fn a_vehicle_of_another_user_is_not_found_and_a_default_vehicle_cannot_be_taken() {
    let bench = Bench::start().await;
    let ((user, mine), (_, other)) = (bench.driver().await, bench.driver().await);
    let vehicle = Uuid::new_v4().to_string();
    let response = bench.post(&mine, &Form::photo(&jpeg(1)).field("vehicle_id", &vehicle)).await;
    assert_eq!(response.status, 202, "{response:?}");
    let default = schemas::ids::natural(&format!("vehicle/{user}")).to_string();
    for id in [vehicle, default] {
        let response = bench.post(&other, &Form::photo(&jpeg(2)).field("vehicle_id", &id)).await;
        assert_eq!(response.assert_problem(404, "vehicle_not_found")["field"], "vehicle_id");
    }
    assert_eq!(bench.kafka.events().len(), 1);
    let unknown: UserId = bench.kafka.events()[0].header.user_id;
    assert_eq!(unknown, user);
}
