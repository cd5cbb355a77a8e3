//! `milestream restore decisions` and `milestream uploads correct`, run as an operator runs them on real stages: a database of an hour
//! before is brought up to what its stages have published since, a verified reading is lowered, and an upload that gets no further
//! is ended.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod own;
#[path = "own/world.rs"]
mod world;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::deployment::RoleSpec;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::stored;
use rust_decimal::Decimal;
use schemas::events::{
    Correction, OdometerRead, ReadingCorrected, RewardCancelled, RewardGranted, Root, UploadAbandoned,
    UploadDecided, Verdict,
};
use schemas::ids::{Micros, UserId, derived};
use schemas::reason::Reason;
use schemas::topic::Topic;
use serde_json::{Value, json};
use uuid::Uuid;

use world::{TIMEOUT, World, photo, reviewed};

/// What those that decide remember.
const TABLES: [&str; 10] = [
    "stage_offsets",
    "decisions",
    "vehicle_readings",
    "driver_weeks",
    "driver_conduct",
    "reviews",
    "rejections",
    "reward_limits",
    "limit_charges",
    "limit_refunds",
];

impl World {
    /// Ends reviews as the gateway does with the records that are published here in its place.
    fn end_reviews(&self) {
        let sql = "update reviews set reviewer_id = '00000000-0000-0000-0000-000000000009', decided_at = accepted_at + interval '1 microsecond',
            decision = jsonb_build_object('decision', 'approve', 'mileage', record->'reading'->'best'->>'value', 'unit', null)";
        self.execute(sql.to_owned());
    }

    /// Everything that deciding stages remember, but for who holds a partition, when a row was stored, and the documents beside a decision.
    fn remembered(&self) -> Value {
        let tables: serde_json::Map<String, Value> = TABLES
            .iter()
            .map(|table| {
                let left_out = "'{epoch,owner,updated_at,occurred_at,output}'::text[]";
                let sql = format!(
                    "select coalesce(jsonb_agg(to_jsonb(t) - {left_out} order by (to_jsonb(t) - {left_out})::text), '[]') from {table} t"
                );
                let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&self.pool);
                ((*table).to_owned(), self.runtime.block_on(rows).unwrap())
            })
            .collect();
        Value::Object(tables)
    }

    /// The first record of every decision's output, by its stage and place.
    fn outputs(&self) -> Vec<(String, i32, i64, Option<stored::StoredRecord>)> {
        let rows: Vec<(String, i32, i64, Vec<u8>)> = self
            .runtime
            .block_on(
                sqlx::query_as(
                    "select stage, partition, record_offset, output from decisions order by 1, 2, 3",
                )
                .fetch_all(&self.pool),
            )
            .unwrap();
        rows.into_iter()
            .map(|(stage, partition, offset, output)| {
                (stage, partition, offset, stored::unpack(&output).unwrap().into_iter().next())
            })
            .collect()
    }
}

/// Some days of all drivers; photos that wait for a person are decided, and every photo comes twice.
fn days(drivers: u128, from: i64, to: i64) -> Vec<OdometerRead> {
    let mut records = Vec::new();
    for n in from..to {
        for driver in 1..=drivers {
            let photo = photo(driver, n);
            records.push(photo.clone());
            if n % 5 == 4 {
                records.push(reviewed(&photo));
            }
            records.push(photo);
        }
    }
    records
}

/// What the backup does not hold: photos, reviews, a correction and one that is refused, an upload that is ended before its reading comes
/// all the same, a refund, and a record that does not decode.
fn lost_hour(world: &mut World) {
    world.publish(&days(12, 8, 16));
    world.settle();
    let decided: Vec<UploadDecided> = world.events();
    let newest = |driver: u128| {
        let of = UserId(Uuid::from_u128(driver));
        let verified =
            decided.iter().filter(|event| event.header.user_id == of && event.verdict == Verdict::Verified);
        verified.max_by_key(|event| event.header.accepted_at).unwrap().clone()
    };
    let lowered = |driver: u128, by: i64| {
        let decided = newest(driver);
        let mileage_before = decided.final_mileage.unwrap();
        let mileage = mileage_before - Decimal::from(by);
        let correction = Correction { number: 1, mileage_before, mileage, corrected_at: Micros(1) };
        ReadingCorrected::of(decided, correction)
    };
    // The second falls below the reading before it, and is refused.
    world.publish(&[lowered(1, 10), lowered(2, 1_000)]);
    let late = photo(3, 30);
    let said = ("an operator has ended it".to_owned(), None);
    let by = ("1", Micros(1), Root { partition: 0, offset: 0 });
    world.publish(&[UploadAbandoned::of((late.header.clone(), late.stamp.clone()), said, by)]);
    world.publish(&[late]);
    let grants: Vec<RewardGranted> = world.events();
    let grant = grants.iter().find(|grant| grant.granted > Decimal::ZERO).unwrap();
    let mut header = grant.header.clone();
    header.event_id = derived(header.event_id, "cancelled", 0);
    let granted = grant.granted;
    world.publish(&[RewardCancelled {
        header,
        reward_id: grant.reward_id,
        granted,
        reason: "a test".into(),
    }]);
    world.runtime.block_on(async {
        let producer: FutureProducer = world.kafka().create().unwrap();
        let topic = world.name(Topic::UploadsReadings);
        producer.send(FutureRecord::to(&topic).key("k").payload(b"garbage"), TIMEOUT).await.unwrap();
    });
    world.publish(&days(12, 16, 18));
}

/// A start refuses, and names the way out.
fn refuses_to_start(world: &mut World) {
    world.deployment.start(RoleSpec::stage("fraud_check", "a")).unwrap();
    let until = Instant::now() + TIMEOUT;
    let log = world.deployment.log_file("fraud_check-a");
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("milestream restore decisions") {
        assert!(
            Instant::now() < until,
            "no word of the way out: {}",
            world.deployment.log_tail("fraud_check-a")
        );
        std::thread::park_timeout(Duration::from_millis(200));
    }
    world.deployment.terminate("fraud_check-a", Duration::from_secs(20)).unwrap();
}

/// Killed where it has folded some of it: somebody holds rows that the second stage needs.
fn killed_midway(world: &World) {
    let mut held = world.runtime.block_on(world.pool.begin()).unwrap();
    let hold = "select 1 from reward_limits for update";
    world.runtime.block_on(sqlx::query(hold).fetch_all(&mut *held)).unwrap();
    let mut killed = Command::new(env!("CARGO_BIN_EXE_milestream"))
        .args(["restore", "decisions", "--reason", "killed"])
        .envs(world.deployment.environment().iter().cloned())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let until = Instant::now() + TIMEOUT;
    while world.number(waiting) == 0 {
        assert!(Instant::now() < until, "it never waits for the row");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    world.runtime.block_on(held.rollback()).unwrap();
}

#[test]
fn a_database_of_an_hour_before_is_folded_up_to_what_was_published_and_nothing_is_decided_twice() {
    let mut world = World::new("restored");
    let users = "insert into users (id) select ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid from generate_series(1, 12) n";
    world.execute(users.to_owned());
    world.start();
    world.publish(&days(12, 0, 8));
    world.settle();
    world.end_reviews();
    // The dump: copies of what the stages remember.
    let dump = TABLES.map(|table| format!("create table dumped_{table} as table {table};")).concat();
    world.execute(dump);

    lost_hour(&mut world);
    world.settle();
    world.stop();
    world.end_reviews();
    let (straight, outputs) = (world.remembered(), world.outputs());
    let published =
        |world: &World| (world.events::<UploadDecided>().len(), world.events::<RewardGranted>().len());
    let before = published(&world);

    // The database is restored.
    let restore = TABLES
        .map(|table| format!("truncate {table} cascade; insert into {table} select * from dumped_{table};"));
    world.execute(restore.concat());
    refuses_to_start(&mut world);
    killed_midway(&world);
    let some = world.remembered();
    assert_eq!(some["vehicle_readings"], straight["vehicle_readings"], "the first stage was through");
    assert_ne!(some["reward_limits"], straight["reward_limits"], "and the second was not");

    let again = world.deployment.command(&["restore", "decisions", "--reason", "the disk was lost"]).unwrap();
    let again: Vec<Value> = serde_json::from_str(&again).unwrap();
    assert!(
        again.iter().all(|folded| folded["stage"] == "limit_check"),
        "it goes on where it was: {again:?}"
    );
    let restored = world.remembered();
    for table in TABLES {
        assert_eq!(restored[table], straight[table], "{table}");
    }
    assert_eq!(world.outputs(), outputs, "what would be published again is what was published");
    let nothing = world.deployment.command(&["restore", "decisions", "--reason", "once more"]).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&nothing).unwrap(), json!([]));

    // The stages go on as if nothing had happened.
    world.start();
    world.settle();
    assert_eq!(
        (published(&world), world.remembered()),
        (before, straight),
        "nothing is decided a second time"
    );
    world.publish(&days(12, 18, 19));
    world.settle();
    assert_eq!(published(&world).0, before.0 + 12);
    let last: Vec<UploadDecided> = world.events();
    let of_today = last.iter().filter(|event| event.final_mileage == Some(Decimal::from(50_720)));
    assert_eq!(of_today.filter(|event| event.distance_km == Some(Decimal::from(40))).count(), 12);
    world.deployment.stop();
    world.stack.stop();
}

#[test]
fn an_operator_lowers_a_verified_reading_and_is_told_why_where_that_cannot_be() {
    let mut world = World::new("restored");
    world.execute("insert into users (id) values ('00000000-0000-0000-0000-000000000001')".to_owned());
    world.start();
    let photos = [photo(1, 0), photo(1, 1), photo(1, 4)];
    world.publish(&photos);
    world.settle();
    let [first, second, waiting] = photos.map(|photo| photo.header.upload_id.to_string());
    let correct = |upload: &str, mileage: &str| {
        let command = ["uploads", "correct", upload, "--mileage", mileage, "--reason", "looked at again"];
        world.deployment.command(&command).map_err(|error| error.to_string())
    };
    let refused = |upload: &str, mileage: &str, why: &str| {
        let said = correct(upload, mileage).unwrap_err();
        assert!(said.contains(why), "{mileage}: {said}");
    };
    refused(&Uuid::from_u128(77).to_string(), "50000", "there is no upload");
    refused(&waiting, "50000", "it is review: only a verified reading is corrected");
    refused(&second, "50040", "50040 is not below the verified 50040");
    refused(&second, "49999", "lies below the verified reading that was accepted before it");
    refused(&second, "50020.25", "at most one decimal place");
    assert!(correct(&second, "50020").unwrap().contains("50040 is corrected to 50020"));
    refused(&second, "50010", "on its way already");

    // The gateway publishes what waits in the outbox.
    world.deployment.start(RoleSpec::ingest()).unwrap();
    let corrections = |world: &World| -> Vec<(Decimal, Decimal)> {
        let decided: Vec<UploadDecided> = world.events();
        let corrected = decided.into_iter().filter(|event| event.correction.is_some());
        corrected.map(|event| (event.final_mileage.unwrap(), event.distance_km.unwrap())).collect()
    };
    let until = Instant::now() + TIMEOUT;
    while corrections(&world).is_empty() {
        assert!(Instant::now() < until, "the correction is not decided");
        std::thread::park_timeout(Duration::from_millis(300));
    }
    let correct = |upload: &str, mileage: &str| {
        let command = ["uploads", "correct", upload, "--mileage", mileage, "--reason", "looked at again"];
        world.deployment.command(&command).unwrap()
    };
    correct(&second, "50010");
    correct(&first, "49990");
    while corrections(&world).len() < 3 {
        assert!(Instant::now() < until, "the other corrections are not decided");
        std::thread::park_timeout(Duration::from_millis(300));
    }
    let pair = |km: i64, paid: i64| (Decimal::from(km), Decimal::from(paid));
    let mut found = corrections(&world);
    found.sort();
    assert_eq!(found, [pair(49_990, 0), pair(50_010, 10), pair(50_020, 20)]);
    assert_eq!(world.number("select count(*) from system_audit_logs where action = 'uploads.correct'"), 3);
    let state = "select count(*) from vehicle_readings where last_km = 50010 and highest_km = 50040";
    assert_eq!(world.number(state), 1);
    world.deployment.stop();
    world.stack.stop();
}

#[test]
fn an_operator_ends_an_upload_that_gets_no_further_once_and_its_reading_that_comes_all_the_same_is_dropped() {
    let mut world = World::new("abandoned");
    world.execute("insert into users (id) values ('00000000-0000-0000-0000-000000000001')".to_owned());
    let photos = world.accept(vec![photo(1, 0), photo(1, 1), photo(1, 4)]);
    let [decided, stuck, waiting] = photos.clone().try_into().unwrap();
    for OdometerRead { header, .. } in &photos {
        world.execute(format!(
            "insert into photo_hashes (user_id, image_hash, upload_id, event_id, event, reserved_at, published_at)
             values ('{}', '{}', '{}', '{}', '', '{}', null)",
            header.user_id,
            header.upload_id,
            header.upload_id,
            header.event_id,
            header.accepted_at.to_utc().to_rfc3339()
        ));
    }
    let abandon = |world: &World, upload: &OdometerRead, reason: &str| {
        let upload = upload.header.upload_id.to_string();
        let command = ["uploads", "abandon", &upload, "--reason", reason];
        world.deployment.command(&command).map_err(|error| error.to_string())
    };
    let refused = |world: &World, upload: &OdometerRead, why: &str| {
        let said = abandon(world, upload, "the photo is lost").unwrap_err();
        assert!(said.contains(why), "{said}");
    };
    refused(&world, &photo(7, 7), "there is no upload");
    refused(&world, &stuck, "it is on no topic yet");
    world.execute("update photo_hashes set published_at = reserved_at".to_owned());
    world.start();
    world.publish(&[decided.clone(), waiting.clone()]);
    world.settle();
    refused(&world, &decided, "it is decided already");
    refused(&world, &waiting, "it waits for a person");
    assert!(abandon(&world, &stuck, "two\nlines").unwrap_err().contains("a reason is one line"));
    let said = abandon(&world, &stuck, "the photo is lost").unwrap();
    assert!(said.contains("ends as failed, as soon as fraud_check has decided it"), "{said}");
    refused(&world, &stuck, "is on its way already");

    // The gateway publishes what waits in the outbox.
    world.deployment.start(RoleSpec::ingest()).unwrap();
    let of_it = |world: &World| {
        let decided: Vec<UploadDecided> = world.events();
        let own = decided.into_iter().filter(|event| event.header.upload_id == stuck.header.upload_id);
        own.collect::<Vec<_>>()
    };
    let until = Instant::now() + TIMEOUT;
    while of_it(&world).is_empty() {
        assert!(Instant::now() < until, "the end is not decided");
        std::thread::park_timeout(Duration::from_millis(300));
    }
    refused(&world, &stuck, "it is abandoned already");

    // A letter of it was redriven.
    world.publish(std::slice::from_ref(&stuck));
    world.settle();
    let [ended] = of_it(&world).try_into().unwrap();
    assert_eq!((ended.verdict, ended.reason), (Verdict::Failed, Some(Reason::Abandoned)));
    assert_eq!(ended.detail.as_deref(), Some("an operator has ended it: the photo is lost"));
    assert_eq!(ended.header.root, stuck.header.root, "a replay's cut holds it as it holds its acceptance");
    let grants: Vec<RewardGranted> = world.events();
    assert!(grants.iter().all(|grant| grant.header.upload_id != stuck.header.upload_id), "{grants:?}");
    let audited = "select count(*) from system_audit_logs where action = 'uploads.abandon'
        and action_details->'before'->>'status' = 'uploaded' and action_details->'after'->>'status' = 'failed'
        and action_details->'after'->>'why' = 'the photo is lost'";
    assert_eq!(world.number(audited), 1);
    world.deployment.stop();
    world.stack.stop();
}
