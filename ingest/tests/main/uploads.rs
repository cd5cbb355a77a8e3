//! Uploads that are taken: their event, their responses, and who is first.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use rust_decimal::Decimal;
use schemas::events::{CameraFacts, FirstHolder, Unit};
use schemas::ids::{Micros, UploadId, UserId};
use schemas::sealed::UserKey;
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Bench, Form, jpeg};

#[tokio::test]
async fn an_upload_is_kept_published_and_its_response_has_its_urls() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    let photo = jpeg(1);
    let form = Form::photo(&photo)
        .field("claimed_mileage", "12345.60")
        .field("unit", "miles")
        .field("captured_at", "2026-01-31T13:00:00+01:00");
    let response = bench.post(&token, &form).await;
    assert_eq!(response.status, 202, "{response:?}");
    let json = response.json();
    let id = json["upload_id"].as_str().unwrap();
    assert_eq!(json["status_url"], format!("http://gateway.test/v1/uploads/{id}"));
    assert_eq!(json["events_url"], format!("http://gateway.test/v1/uploads/{id}/events"));
    assert!(response.head.contains(&format!("location: http://gateway.test/v1/uploads/{id}")));

    let event = &bench.kafka.events()[0];
    let (header, stamp) = (&event.header, &event.stamp);
    assert_eq!((header.upload_id.to_string(), header.user_id), (id.to_owned(), user));
    assert_eq!((header.upload_id.0.get_version_num(), header.root), (7, None));
    assert_eq!((header.mime_type.as_str(), header.file_size), ("image/jpeg", photo.len() as i64));
    assert_eq!(header.object_key, format!("photos/{user}/{}", header.image_hash));
    assert!(header.image_url.ends_with(&header.object_key) && header.image_url.starts_with("file:///"));
    assert_eq!(bench.kafka.uploads()[0].key.as_deref(), Some(user.to_string().as_bytes()));
    assert_eq!(std::fs::read(bench.folder.path().join(&header.object_key)).unwrap(), photo);
    assert_eq!(
        (stamp.claimed_mileage, stamp.claimed_unit),
        (Some(Decimal::new(1_234_560, 2)), Some(Unit::Miles))
    );
    assert_eq!((stamp.account_active, stamp.auto_claim, stamp.auto_accept), (true, true, true));
    assert_eq!((stamp.verification_level.as_str(), stamp.vehicle_kind.as_str()), ("basic", "unknown"));
    assert_eq!((stamp.region.as_str(), stamp.first_holder), ("ZZ", None));

    let key: Vec<u8> = sqlx::query_scalar("select key from user_keys").fetch_one(&bench.pool).await.unwrap();
    let name =
        UserKey::from_bytes(&key).unwrap().open(header.upload_id, stamp.original_filename.as_ref().unwrap());
    assert_eq!(name.unwrap(), "IMG 1.jpg");
    let log = &bench.kafka.documents("upload_processing_logs")[0];
    assert_eq!((&log["processing_stage"], &log["upload_id"]), (&Value::from("upload"), &json["upload_id"]));

    let status = bench.get(&format!("/v1/uploads/{id}"), &token).await.json();
    assert_eq!(
        (status["status"].as_str(), status["stage"].as_str()),
        (Some("uploaded"), Some("quality_check"))
    );
    let metrics = bench.metrics();
    assert!(metrics.contains(r#"milestream_http_requests_total{route="/v1/uploads",status="202"} 1"#));
    assert!(metrics.contains(r#"milestream_http_requests_total{route="/v1/uploads/{id}",status="200"} 1"#));
}

#[tokio::test]
async fn what_checks_need_of_a_photos_metadata_is_in_its_event_and_nothing_else_of_them() {
    const XMP: &[u8] = br#"<a xmp:CreatorTool="GIMP 2.10 of Jane" tiff:Model="A phone" exif:DateTimeOriginal="2026-03-01T12:30:15+01:00"/>"#;
    let plain = jpeg(1);
    let name = b"http://ns.adobe.com/xap/1.0/\0";
    let length = u16::try_from(2 + name.len() + XMP.len()).unwrap().to_be_bytes();
    let photo = [&plain[..2], b"\xFF\xE1", &length, name, XMP, &plain[2..]].concat();
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    for photo in [&photo, &jpeg(2)] {
        assert_eq!(bench.post(&token, &Form::photo(photo)).await.status, 202);
    }
    let [with, without] = &bench.kafka.events()[..] else { panic!("two uploads") };
    let taken_at = Some(Micros(1_772_364_615_000_000));
    let camera = CameraFacts { taken_at, zone_known: true, edited_by: Some("GIMP".to_owned()) };
    assert_eq!((&with.stamp.camera, &without.stamp.camera), (&Some(camera), &None));
    let record = bench.kafka.uploads()[0].payload.clone().unwrap();
    let said = |words: &[u8]| record.windows(words.len()).any(|part| part == words);
    assert!(said(b"GIMP") && !said(b"of Jane") && !said(b"A phone"));
}

#[tokio::test]
async fn a_photo_is_kept_without_what_the_camera_wrote_beside_it_unless_its_owner_wants_that_kept() {
    const PLACE: &[u8] = b"48.8584 N 2.2945 E";
    /// A photo with a comment.
    fn placed(seed: u32) -> Vec<u8> {
        let photo = jpeg(seed);
        [&photo[..2], b"\xFF\xFE\0\x14", PLACE, &photo[2..]].concat()
    }
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let kept = |at: usize| {
        let key = bench.kafka.events()[at].header.object_key.clone();
        std::fs::read(bench.folder.path().join(key)).unwrap()
    };
    assert_eq!(bench.post(&token, &Form::photo(&placed(1))).await.status, 202);
    assert_eq!(kept(0), jpeg(1));
    let again = bench.post(&token, &Form::photo(&placed(1))).await;
    assert_eq!((again.status, bench.kafka.events().len()), (200, 1), "known again by the file as it came");

    let mut preferences = bench.get("/v1/preferences", &token).await.json();
    preferences["dashboard_settings"]["privacy"]["keep_exif_location"] = true.into();
    assert_eq!(bench.json("PUT", "/v1/preferences", &token, &preferences).await.status, 200);
    assert_eq!(bench.post(&token, &Form::photo(&placed(2))).await.status, 202);
    assert_eq!(kept(1), placed(2));
}

#[tokio::test]
async fn the_same_photo_again_gives_the_first_response_unless_its_upload_failed() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    let form = Form::photo(&jpeg(1));
    let first = bench.post(&token, &form).await;
    let again = bench.post(&token, &form.clone().field("unit", "km")).await;
    assert_eq!((first.status, again.status, again.json()), (202, 200, first.json()));
    assert_eq!(bench.kafka.uploads().len(), 1);

    let id: Uuid = first.json()["upload_id"].as_str().unwrap().parse().unwrap();
    sqlx::query("insert into odometer_uploads (id, user_id, upload_status, created_at) values ($1, $2, 'failed', now())")
        .bind(id)
        .bind(user.0)
        .execute(&bench.pool)
        .await
        .unwrap();
    let renewed = bench.post(&token, &form).await;
    assert_eq!(renewed.status, 202, "{renewed:?}");
    assert_ne!(renewed.json(), first.json());
    assert_eq!(bench.kafka.events()[1].stamp.first_holder, None, "it takes its failed predecessor's place");
    let (_, other) = bench.driver().await;
    bench.post(&other, &form).await;
    let upload_id = bench.kafka.events()[1].header.upload_id;
    assert_eq!(bench.kafka.events()[2].stamp.first_holder, Some(FirstHolder { upload_id, user_id: user }));
    let list = bench.get("/v1/uploads", &token).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "the failed one is still listed: {list}");
}

#[tokio::test]
async fn of_users_who_post_one_photo_at_once_exactly_one_is_its_first_holder() {
    let bench = Bench::start().await;
    let mut tokens = Vec::new();
    for _ in 0..8 {
        tokens.push(bench.driver().await.1);
    }
    for seed in 1..4 {
        let form = Form::photo(&jpeg(seed));
        let responses = join_all(tokens.iter().map(|token| bench.post(token, &form))).await;
        assert!(responses.iter().all(|response| response.status == 202), "{responses:?}");
    }
    let events = bench.kafka.events();
    let hashes: BTreeSet<&str> = events.iter().map(|event| event.header.image_hash.as_str()).collect();
    assert_eq!((events.len(), hashes.len()), (24, 3));
    for hash in hashes {
        let ours: Vec<_> = events.iter().filter(|event| event.header.image_hash == hash).collect();
        let firsts: Vec<_> = ours.iter().filter(|event| event.stamp.first_holder.is_none()).collect();
        assert_eq!(firsts.len(), 1, "exactly one is first");
        let (upload_id, user_id) = (firsts[0].header.upload_id, firsts[0].header.user_id);
        let holders: BTreeSet<(UploadId, UserId)> = ours
            .iter()
            .filter_map(|event| event.stamp.first_holder)
            .map(|holder| (holder.upload_id, holder.user_id))
            .collect();
        assert_eq!(holders, BTreeSet::from([(upload_id, user_id)]), "all others name it");
        let stored: Uuid =
            sqlx::query_scalar("select upload_id from photo_first_holders where image_hash = $1")
                .bind(hash)
                .fetch_one(&bench.pool)
                .await
                .unwrap();
        assert_eq!(stored, upload_id.0);
    }
}

#[tokio::test]
async fn a_user_who_posts_one_photo_many_times_at_once_has_one_upload() {
    // A request that waits longer than this for another's publication publishes the same bytes itself.
    let bench = Bench::start_with(|config| config.timeouts.publish = Duration::from_secs(60)).await;
    let (_, token) = bench.driver().await;
    let form = Form::photo(&jpeg(1));
    let responses = join_all((0..8).map(|_| bench.post(&token, &form))).await;
    let documents: BTreeSet<&str> = responses.iter().map(|response| response.body.as_str()).collect();
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!(responses.iter().filter(|response| response.status == 202).count(), 1);
    assert_eq!(responses.iter().filter(|response| response.status == 200).count(), 7);
    assert_eq!(bench.kafka.uploads().len(), 1);
    assert_eq!(bench.incoming(), 0);
}

/// Posts four photos at once under one idempotency key; the statuses, sorted.
pub(crate) async fn four_photos_under_one_key(bench: &Bench, token: &str) -> Vec<u16> {
    let forms: Vec<Form> = (1..5).map(|seed| Form::photo(&jpeg(seed))).collect();
    let responses =
        join_all(forms.iter().map(|form| bench.post_with(token, form, "idempotency-key: k\r\n"))).await;
    let mut statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn one_idempotency_key_with_two_photos_at_once_publishes_one_of_them() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    assert_eq!(four_photos_under_one_key(&bench, &token).await, [202, 422, 422, 422]);
    assert_eq!(bench.kafka.uploads().len(), 1);
}

#[tokio::test]
async fn a_user_without_a_vehicle_id_always_has_the_same_vehicle() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    bench.post(&token, &Form::photo(&jpeg(1))).await;
    bench.post(&token, &Form::photo(&jpeg(2))).await;
    let default = schemas::ids::natural(&format!("vehicle/{user}"));
    let vehicles: Vec<Uuid> = bench.kafka.events().iter().map(|event| event.header.vehicle_id.0).collect();
    assert_eq!(vehicles, [default, default]);
}

#[tokio::test]
async fn pages_hold_every_upload_once_newest_first() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let mut posted = Vec::new();
    for seed in 1..6 {
        posted.push(bench.post(&token, &Form::photo(&jpeg(seed))).await.json()["upload_id"].clone());
    }
    posted.reverse();
    let (mut seen, mut path) = (Vec::new(), "/v1/uploads?limit=2".to_owned());
    loop {
        let page = bench.get(&path, &token).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["upload_id"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/uploads?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, posted);
    let (_, other) = bench.driver().await;
    assert_eq!(bench.get("/v1/uploads", &other).await.json()["items"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn every_path_of_the_openapi_document_is_served_and_no_method_but_its_own() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let document = bench.get("/openapi.json", "").await.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", &Uuid::now_v7().to_string());
        for method in methods.as_object().unwrap().keys() {
            let head = format!(
                "{} {path} HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-length: 0",
                method.to_uppercase()
            );
            let response = bench.send(&head, b"").await;
            assert!(!response.body.contains("\"code\":\"not_found\""), "{method} {path}: {response:?}");
            assert_ne!(response.status, 405, "{method} {path}");
        }
        let response = bench.send(&format!("TRACE {path} HTTP/1.1"), b"").await;
        response.assert_problem(405, "method_not_allowed");
    }
}
