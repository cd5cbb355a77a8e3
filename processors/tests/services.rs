//! `odometer_reading` with services outside, behind a local server: what is recorded, and that nobody is paid twice.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use object_store::memory::InMemory;
use processors::odometer_reading::{OdometerReading, ServiceRow};
use processors::pipeline::Dependencies;
use providers::Limits;
use providers::testing::{self, Answer, Server};
use providers::vault::Keys;
use runtime::{ManualClock, Processor as _, Verdict};
use rust_decimal::Decimal;
use schemas::events::{ActivityLogged, AttemptOutcome, OdometerRead, UploadGraded};
use schemas::ids::{Micros, UploadId};
use schemas::reason::Reason;
use schemas::topic::Topic;
use serde_json::Value;
use sqlx::types::Json;
use support::{MemoryAnswers, NOW, examples, photo, put, record};
use uuid::Uuid;

/// The key that seals.
const SEALING: &str = "4242424242424242424242424242424242424242424242424242424242424242";
const LINE: [testing::Text<'static>; 1] = [("123456 km", [0.3, 0.4, 0.7, 0.5], 1.0)];

fn keys() -> Keys {
    Keys { text: SEALING.into(), ..Keys::default() }
}

fn google() -> Answer {
    Answer::json(&testing::google(&LINE, 640.0, 480.0))
}

/// A row as `milestream service set` writes it, its key sealed.
fn row(name: &str, protocol: &str, priority: i32, url: &str) -> ServiceRow {
    let id = Uuid::from_u128(u128::from(priority.unsigned_abs()));
    let sealed = |column| Some(keys().vault().unwrap().seal(id, column, &"the-key".into()).unwrap());
    ServiceRow {
        id,
        service_name: name.to_owned(),
        protocol: Some(protocol.to_owned()),
        endpoint_url: Some(url.to_owned()),
        model: None,
        priority: Some(priority),
        accuracy_threshold: Some(Decimal::new(70, 2)),
        cost_per_request: Some(Decimal::new(15, 4)),
        rate_limit: None,
        timeout_ms: 10_000,
        hedge_ms: None,
        api_key: sealed("api_key"),
        api_secret: sealed("api_secret"),
    }
}

/// A photo without a number, which the embedded reader leaves to the next service.
struct World {
    dependencies: Dependencies,
    store: Arc<InMemory>,
    clock: Arc<ManualClock>,
    graded: UploadGraded,
    answers: MemoryAnswers,
}

impl World {
    async fn new(services: Vec<ServiceRow>) -> Self {
        let store = Arc::new(InMemory::new());
        let pool = sqlx::PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let dependencies = Dependencies::new(pool, store.clone(), clock.clone()).with_service_keys(keys());
        let example =
            examples(Topic::UploadsGraded).into_iter().find(|e| e.name == "edge-no-number").unwrap();
        let graded: UploadGraded = example.event();
        put(store.as_ref(), &graded.header, photo("tiles")).await;
        Self { dependencies, store, clock, graded, answers: MemoryAnswers::with(services) }
    }

    /// A process that has just started, over the same store.
    async fn stage(&self) -> OdometerReading<MemoryAnswers> {
        self.dependencies.odometer_reading_with(self.answers.clone()).await.unwrap()
    }

    async fn read(&self, stage: &OdometerReading<MemoryAnswers>) -> (OdometerRead, Vec<ActivityLogged>) {
        let Verdict::EmitWith(read, logs) = stage.process(&record(self.graded.clone(), 41)).await.unwrap()
        else {
            panic!("an event with documents")
        };
        (read, logs)
    }

    /// The next upload of another photo, with the same pixels.
    async fn next_upload(&mut self, n: u128) {
        self.graded.header.upload_id = UploadId(Uuid::from_u128(n));
        self.graded.header.image_hash = format!("{n:064x}");
        self.graded.header.object_key = format!("photos/{n}");
        put(self.store.as_ref(), &self.graded.header, photo("tiles")).await;
    }
}

fn documents(logs: &[ActivityLogged], collection: &str) -> Vec<Value> {
    let of = logs.iter().filter(|log| log.collection == collection);
    of.map(|log| serde_json::from_str(&log.document).unwrap()).collect()
}

/// Of calls to services outside every failed one is recorded, and one in ten of the others.
fn assert_failed_calls_are_told_of(logs: &[ActivityLogged], call: &Value) {
    let outside = documents(logs, "integration_logs");
    let failed: Vec<_> = outside.iter().filter(|log| log["success"] == false).collect();
    assert_eq!((failed.len(), &failed[0]["request_id"]), (1, &call["request_id"]));
    assert_eq!(failed[0]["error_details"], "http_503: HTTP status 503");
    assert!(outside.iter().all(|log| log["service_name"] != "Milestream Embedded"));
}

#[tokio::test]
async fn a_fallback_is_in_the_event_and_in_the_logs_with_its_reason_and_cost() {
    let server = Server::start(google()).await.unwrap();
    let down = Server::start(Answer::Body(503, b"<html>".to_vec())).await.unwrap();
    let services = vec![
        row("OpenAI Vision", "openai", 2, &down.url),
        row("AWS Rekognition", "aws_rekognition", 3, &down.url),
        row("Google Vision", "google_vision", 4, &server.url),
    ];
    let world = World::new(services).await;
    let (read, logs) = world.read(&world.stage().await).await;
    assert_eq!(read.fault, None);
    let reading = read.reading.unwrap();
    assert_eq!((reading.service.as_str(), reading.fallback_used), ("Google Vision", true));
    assert_eq!(reading.reader_version, "google_text_detection@builtin/latest");
    assert_eq!(reading.best.unwrap().value, Decimal::from(123_456));
    // The chat model has no model to ask for, so it is not part of the chain.
    let tries: Vec<_> =
        reading.attempts.iter().map(|a| (a.service.as_str(), a.outcome, a.http_status, a.cost_usd)).collect();
    assert_eq!(
        tries,
        [
            ("Milestream Embedded", AttemptOutcome::NoReading, None, Decimal::ZERO),
            ("AWS Rekognition", AttemptOutcome::HttpStatus, Some(503), Decimal::ZERO),
            ("Google Vision", AttemptOutcome::Success, None, Decimal::new(15, 4)),
        ]
    );
    let fallbacks = documents(&logs, "fallback_logs");
    let published: Vec<_> = fallbacks
        .iter()
        .map(|log| {
            ["primary_service", "fallback_service", "trigger_reason", "primary_error"]
                .map(|field| log[field].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        published,
        [
            [
                "Milestream Embedded",
                "AWS Rekognition",
                "no_reading",
                "no_reading: no number looks like a total mileage"
            ],
            ["AWS Rekognition", "Google Vision", "error", "http_503: HTTP status 503"],
        ]
    );
    assert_eq!(
        (&fallbacks[0]["fallback_success"], &fallbacks[1]["fallback_success"]),
        (&false.into(), &true.into())
    );
    assert_eq!(fallbacks[1]["fallback_result"]["value"], "123456");
    assert_eq!(fallbacks[1]["fallback_result"]["cost"], "0.0015");
    let tried = documents(&logs, "ai_processing_logs");
    let costs: Vec<_> = tried.iter().map(|log| log["cost_incurred"].as_str().unwrap()).collect();
    assert_eq!(costs, ["0", "0", "0.0015"]);
    assert_eq!(
        tried.iter().map(|log| log["fallback_used"].as_bool().unwrap()).collect::<Vec<_>>(),
        [false, true, true]
    );
    let calls = documents(&logs, "ai_service_logs");
    assert_eq!((calls.len(), &calls[1]["error_code"]), (3, &"http_503".into()));
    assert_eq!(calls[2]["service_metadata"]["provider_request_id"], "call-1");
    let ids: std::collections::BTreeSet<_> = calls.iter().map(|log| log["request_id"].to_string()).collect();
    assert_eq!(ids.len(), 3);
    assert_failed_calls_are_told_of(&logs, &calls[1]);
    assert!(logs.iter().all(|log| !log.document.contains("the-key")));
    let body = server.received()[0].json();
    let sent = body["requests"][0]["image"]["content"].as_str().unwrap();
    assert!(sent.starts_with("/9j/"), "a JPEG's first bytes, though the photo is a PNG");
}

#[tokio::test]
async fn a_kill_after_the_answer_is_kept_and_before_it_is_published_costs_no_second_call() {
    let server = Server::start(google()).await.unwrap();
    let world = World::new(vec![row("Google Vision", "google_vision", 2, &server.url)]).await;
    let first = world.read(&world.stage().await).await;
    // What was published is lost with the process: another one is given the record again.
    let second = world.read(&world.stage().await).await;
    assert_eq!((server.calls(), world.answers.count()), (1, 1));
    assert_eq!(first, second);
}

#[tokio::test]
async fn another_cascade_is_another_answer_and_another_key_or_limit_is_not() {
    let server = Server::start(google()).await.unwrap();
    let mut service = row("Google Vision", "google_vision", 2, &server.url);
    let world = World::new(vec![service.clone()]).await;
    world.read(&world.stage().await).await;
    service.rate_limit = Some(Json(Limits { per_day: Some(1_000), ..Limits::default() }));
    service.api_key = Some(keys().vault().unwrap().seal(service.id, "api_key", &"another".into()).unwrap());
    *world.answers.services.lock().unwrap() = vec![service.clone()];
    world.read(&world.stage().await).await;
    assert_eq!((server.calls(), world.answers.count()), (1, 1));
    service.accuracy_threshold = Some(Decimal::new(71, 2));
    *world.answers.services.lock().unwrap() = vec![service];
    world.read(&world.stage().await).await;
    assert_eq!((server.calls(), world.answers.count()), (2, 2));
}

#[tokio::test]
async fn a_running_stage_learns_of_changed_services_within_half_a_minute() {
    let server = Server::start(google()).await.unwrap();
    let mut world = World::new(vec![row("Google Vision", "google_vision", 2, &server.url)]).await;
    let stage = world.stage().await;
    world.read(&stage).await;
    world.answers.services.lock().unwrap().clear();
    for (seconds, calls) in [(29, 2), (30, 2)] {
        world.clock.set(Micros(NOW.0 + seconds * 1_000_000));
        world.next_upload(u128::try_from(seconds).unwrap()).await;
        let (read, _) = world.read(&stage).await;
        assert_eq!(read.reading.unwrap().fallback_used, seconds < 30);
        assert_eq!(server.calls(), calls, "after {seconds} s");
    }
}

#[tokio::test]
async fn a_service_whose_key_does_not_open_is_left_out_and_photos_are_still_read() {
    let server = Server::start(google()).await.unwrap();
    let mut sealed_elsewhere = row("Google Vision", "google_vision", 2, &server.url);
    sealed_elsewhere.id = Uuid::from_u128(99);
    let mut unspoken = row("Unknown", "google_vision", 3, &server.url);
    unspoken.protocol = None;
    let world = World::new(vec![sealed_elsewhere, unspoken]).await;
    let (read, _) = world.read(&world.stage().await).await;
    assert_eq!(read.fault.unwrap().reason, Reason::NoOdometer);
    assert!(!read.reading.unwrap().fallback_used);
    assert_eq!(server.calls(), 0);
}
