//! Roles as processes on the shared local parts, under a topic prefix and a database of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod account;
mod conformance;
mod erasure;
mod forwarder;
mod next_release;
mod phones;
mod search;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::deployment::RoleSpec;
use runtime::snapshot;
use runtime::source::RawRecord;
use schemas::topic::Topic;
use world::World;

/// Who consumes which topic.
const READERS: [(&str, Topic); 25] = [
    ("quality_check", Topic::UploadsReceived),
    ("odometer_reading", Topic::UploadsGraded),
    ("fraud_check", Topic::UploadsReadings),
    ("reward_calculation", Topic::UploadsDecided),
    ("limit_check", Topic::RewardsCalculated),
    ("postgres", Topic::UploadsReceived),
    ("postgres", Topic::UploadsGraded),
    ("postgres", Topic::UploadsReadings),
    ("postgres", Topic::UploadsDecided),
    ("postgres", Topic::RewardsCalculated),
    ("postgres", Topic::RewardsGranted),
    ("postgres", Topic::PayoutsUpdated),
    ("postgres", Topic::ChainEvents),
    ("postgres", Topic::ModelsDeployed),
    ("postgres", Topic::AccountsEvents),
    ("analytics", Topic::UploadsReceived),
    ("analytics", Topic::UploadsReadings),
    ("analytics", Topic::UploadsDecided),
    ("analytics", Topic::RewardsCalculated),
    ("analytics", Topic::RewardsGranted),
    ("analytics", Topic::PayoutsUpdated),
    ("mongo", Topic::ActivityLogs),
    ("notices", Topic::UploadsDecided),
    ("notices", Topic::PayoutsUpdated),
    ("notices", Topic::ActivityLogs),
];

/// Bytes that are no event, with the reason that the engine must find.
fn malformed(world: &World, topic: Topic) -> Vec<(&'static str, Vec<u8>)> {
    let known = world.schema_id(topic);
    let framed = |id: u32, datum: &[u8]| [&[0][..], &id.to_be_bytes(), datum].concat();
    vec![
        ("bad_framing", b"\x07 a wrong magic byte".to_vec()),
        ("bad_framing", vec![0, 0]),
        ("unknown_schema", framed(2_000_000_000, b"anything")),
        ("bad_datum", framed(known, &[0xFF; 3])),
    ]
}

#[test]
fn malformed_records_on_every_topic_are_dead_lettered_with_their_cause_and_the_partition_moves_on() {
    let mut world = World::start("letters", &RoleSpec::without_chain(), None);
    let topics: std::collections::BTreeSet<Topic> = READERS.iter().map(|(_, topic)| *topic).collect();
    let mut sent: BTreeMap<(String, i64), (&str, Vec<u8>)> = BTreeMap::new();
    for topic in &topics {
        for (reason, bytes) in malformed(&world, *topic) {
            let headers = [("own", Some("kept")), ("traceparent", Some("00-aa-bb-01")), ("empty", None)];
            let offset = world.produce(*topic, 0, b"a key", &bytes, &headers);
            sent.insert((world.topic(*topic), offset), (reason, bytes));
        }
    }
    let kinds = sent.len() / topics.len();
    let expected = READERS.len() * kinds;
    let letters = world.until("every dead letter", |world| {
        let letters = snapshot::read(&world.kafka, &world.topic(Topic::DeadLetters)).ok()?;
        (letters.len() >= expected).then_some(letters)
    });
    assert_eq!(letters.len(), expected);
    for letter in &letters {
        check_letter(letter, &sent);
    }
    for (role, topic) in READERS {
        let count = letters
            .iter()
            .filter(|letter| {
                letter.header("dlq.stage") == Some(role)
                    && letter.header("dlq.original_topic") == Some(&world.topic(topic))
            })
            .count();
        assert_eq!(count, kinds, "{role} on {}", topic.name());
    }
    // What comes behind the bad records on the same partitions is worked on.
    let view = world.decided_upload();
    assert_eq!(view.verdict.as_deref(), Some("verified"));
    world.finish();
}

/// The letter holds the original's key, bytes and headers, and says where it stood and why it is here.
fn check_letter(letter: &RawRecord, sent: &BTreeMap<(String, i64), (&str, Vec<u8>)>) {
    let topic = letter.header("dlq.original_topic").unwrap();
    let offset: i64 = letter.header("dlq.original_offset").unwrap().parse().unwrap();
    let (reason, bytes) = &sent[&(topic.to_owned(), offset)];
    assert_eq!(letter.payload.as_ref(), Some(bytes));
    assert_eq!(letter.key.as_deref(), Some(&b"a key"[..]));
    assert_eq!(letter.header("dlq.reason"), Some(*reason));
    assert_eq!(letter.header("dlq.original_partition"), Some("0"));
    assert_eq!(letter.header("own"), Some("kept"));
    assert_eq!(letter.header("traceparent"), Some("00-aa-bb-01"));
    assert!(letter.headers.contains(&("empty".to_owned(), None)));
    assert_eq!(letter.header("dlq.stage_version"), Some(env!("CARGO_PKG_VERSION")));
    let detail = letter.header("dlq.detail").unwrap();
    let expected = match *reason {
        "bad_framing" if bytes.len() == 2 => "not Confluent framing: 2 bytes, expected at least 5",
        "bad_framing" => "not Confluent framing: magic byte 7, expected 0",
        "unknown_schema" => "the schema registry does not know schema id 2000000000",
        _ => "does not decode",
    };
    assert!(detail.contains(expected), "{detail}");
    for number in ["dlq.original_timestamp_ms", "dlq.at_us"] {
        assert!(letter.header(number).unwrap().parse::<i64>().unwrap() > 1_700_000_000_000, "{number}");
    }
}

#[test]
fn what_is_in_doubt_waits_for_a_person_whose_decision_is_the_verdict() {
    let mut world = World::start("reviews", &RoleSpec::without_chain(), None);
    let reviewer = uuid::Uuid::now_v7();
    let id = reviewer.to_string();
    let token = world.deployment.command(&["token", "--user", &id, "--role", "reviewer"]).unwrap();
    let (approved, turned_down) = (world.post_claimed(Some("1")), world.post_claimed(Some("2")));
    for upload in [approved, turned_down] {
        let view = world.until("a verdict", |world| world.view(upload).filter(|view| view.verdict.is_some()));
        assert_eq!(
            (view.verdict.as_deref(), view.reason.as_deref()),
            (Some("review"), Some("claim_mismatch"))
        );
    }
    assert_eq!(world.waiting(&token), [approved, turned_down]);
    let approve = serde_json::json!({ "decision": "approve", "mileage": "123456", "unit": "km" });
    let statuses = [(); 2].map(|()| world.decide(&token, approved, &approve));
    assert_eq!(statuses, [202, 200]);
    let reject = serde_json::json!({ "decision": "reject", "reason": "edited_photo" });
    assert_eq!(world.decide(&token, turned_down, &reject), 202);
    let decided = |world: &World, upload, verdict: &str| {
        world.view(upload).filter(|view| view.verdict.as_deref() == Some(verdict))
    };
    world.until("the approval", |world| decided(world, approved, "verified"));
    let rejected = world.until("the rejection", |world| decided(world, turned_down, "rejected"));
    assert_eq!(rejected.reason.as_deref(), Some("edited_photo"));
    assert_eq!(world.waiting(&token), Vec::<uuid::Uuid>::new());
    world.finish();
}

#[test]
fn while_the_registry_is_away_records_wait_and_go_on_when_it_is_back() {
    // The shared registry serves other tests at the same time: its outage is made in front of it.
    let registry = std::env::var("SCHEMA_REGISTRY_URL").expect("run under `devstack`");
    let mut gate = forwarder::Forwarder::to(&registry);
    let mut world = World::start("registry", &RoleSpec::without_chain(), Some(gate.url()));
    gate.close();
    let id = world.post_sample();
    world.until("quality_check asking for the schema", |world| {
        let metrics = world.deployment.metrics("quality_check-a").ok()?;
        let line = metrics.lines().find(|line| {
            line.starts_with("milestream_stage_retries_total") && line.contains("schema_registry")
        })?;
        (line.rsplit(' ').next()?.parse::<f64>().ok()? >= 3.0).then_some(())
    });
    let letters = snapshot::read(&world.kafka, &world.topic(Topic::DeadLetters)).unwrap();
    assert!(letters.is_empty(), "an outage made {} dead letters", letters.len());
    gate.open();
    let view = world.until("the verdict", |world| world.view(id).filter(|view| view.verdict.is_some()));
    assert_eq!(view.verdict.as_deref(), Some("verified"));
    world.finish();
}

#[test]
fn a_role_drains_on_sigterm_and_its_successor_goes_on_without_a_repeat() {
    let mut world = World::start("sigterm", &RoleSpec::without_chain(), None);
    let first = world.decided_upload();
    assert_eq!(first.verdict.as_deref(), Some("verified"));
    world.deployment.terminate("fraud_check-a", Duration::from_secs(10)).unwrap();
    let log = std::fs::read_to_string(world.deployment.log_file("fraud_check-a")).unwrap();
    assert!(log.contains("stopping: readiness falls"), "{log}");
    assert!(log.contains("partitions revoked"), "{log}");
    world.deployment.start_again("fraud_check-a").unwrap();
    let id = world.post_sample();
    world.until("the verdict", |world| world.view(id).filter(|view| view.verdict.is_some()));
    let metrics = world.deployment.metrics("fraud_check-a").unwrap();
    let republished = metrics.lines().any(|line| line.contains("outcome=\"republish\""));
    assert!(!republished, "a drained stage leaves nothing to publish again: {metrics}");
    world.finish();
}
