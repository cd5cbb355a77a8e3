//! On a real Postgres: the fence around `fraud_check` and `limit_check`, the kept answers of the reader, and its models' deployments.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod conduct;
mod corrections;
mod expiries;
mod limits;
mod owners;
mod payouts;
mod pictures;
mod plans;
mod pruning;
mod repeats;
mod reviews;
mod rules;
mod support;

use std::str::FromStr as _;
use std::sync::Arc;

use processors::fraud_check::FraudCheck;
use processors::models::deployed;
use processors::odometer_reading::{Answers as _, PostgresAnswers};
use processors::pipeline::Dependencies;
use providers::testing::{self, Answer, Server};
use providers::vault::Keys;
use runtime::deciding::DecidingWorker;
use runtime::fence::Guards;
use runtime::producer::{Ack, Message, NotTaken, Outbound};
use runtime::publish::PublishError;
use runtime::source::{Assignment, RawRecord};
use runtime::stored::StoredRecord;
use runtime::testing::{MemoryOutbound, MemorySchemas, assignment, record, stage_context};
use runtime::worker::Halt;
use runtime::{ManualClock, Processor as _, Verdict as Outcome};
use rust_decimal::Decimal;
use schemas::codec;
use schemas::events::{Event as _, OdometerRead, UploadDecided, UploadGraded, Verdict};
use schemas::ids::{EventId, Micros, UploadId, UserId};
use schemas::reason::Reason;
use schemas::sealed::UserKey;
use schemas::topic::Topic;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use support::{NOW, examples, photo, put};
use tokio::sync::mpsc;
use uuid::Uuid;

const TOPIC: &str = "uploads.readings";

/// A schema of its own with every table, which goes when the test is over.
struct Database {
    pool: PgPool,
    name: String,
}

impl Database {
    async fn new() -> Self {
        let url = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL is not set: run this test under `devstack`, which starts a Postgres");
        let name = format!("processors_{}", Uuid::now_v7().simple());
        let options = PgConnectOptions::from_str(&url)
            .unwrap()
            .options([("search_path", name.as_str()), ("synchronous_commit", "off")]);
        let pool = PgPoolOptions::new().max_connections(6).connect_with(options).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("create schema {name}"))).execute(&pool).await.unwrap();
        migrations::MIGRATIONS.run(&pool).await.unwrap();
        Self { pool, name }
    }

    async fn drop(self) {
        let sql = format!("drop schema {} cascade", self.name);
        sqlx::query(AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
        self.pool.close().await;
    }

    fn dependencies(&self, at: Micros) -> (Dependencies, Arc<object_store::memory::InMemory>) {
        let store = Arc::new(object_store::memory::InMemory::new());
        (Dependencies::new(self.pool.clone(), store.clone(), Arc::new(ManualClock::at(at))), store)
    }

    /// A worker of `fraud_check`, and what it publishes.
    fn worker(
        &self,
        owner: &str,
        guards: Guards,
        at: Micros,
    ) -> (DecidingWorker<FraudCheck>, Arc<MemoryOutbound>) {
        let outbound = Arc::new(MemoryOutbound::default());
        let mut context = stage_context("fraud_check", outbound.clone()).unwrap();
        context.clock = Arc::new(ManualClock::at(at));
        let worker = DecidingWorker {
            decider: Arc::new(self.dependencies(at).0.fraud_check()),
            context,
            pool: self.pool.clone(),
            output: "uploads.decided".into(),
            output_schema: MemorySchemas::id_of::<UploadDecided>(),
            owner: owner.into(),
            guards,
        };
        (worker, outbound)
    }

    /// Every row that the stage owns.
    async fn state(&self) -> serde_json::Value {
        sqlx::query_scalar(
            "select jsonb_build_object(
                'decisions', (select jsonb_agg(to_jsonb(d) order by d.record_offset) from decisions d),
                'vehicles', (select jsonb_agg(to_jsonb(v) order by v.vehicle_id) from vehicle_readings v),
                'upto', (select jsonb_agg(s.decided_upto) from stage_offsets s))",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }
}

/// The `n`-th upload of one vehicle, `km` on the display, `n` hours after the first.
fn upload(n: u128, km: i64) -> OdometerRead {
    let example =
        examples(Topic::UploadsReadings).into_iter().find(|example| example.name == "normal-km").unwrap();
    let mut event: OdometerRead = example.event();
    event.header.event_id = EventId(Uuid::from_u128(n));
    event.header.upload_id = UploadId(Uuid::from_u128(1_000 + n));
    let hours = i64::try_from(n).unwrap() * 3_600_000_000;
    event.header.accepted_at.0 += hours;
    event.stamp.captured_at = event.stamp.captured_at.map(|at| Micros(at.0 + hours));
    event.stamp.claimed_mileage = None;
    let reading = event.reading.as_mut().unwrap();
    reading.candidates[0].value = km.into();
    reading.best = reading.candidates.first().cloned();
    event
}

/// Three photos of one vehicle in one batch, the second of them delivered twice.
fn batch() -> Vec<RawRecord> {
    let uploads = [upload(0, 50_310), upload(1, 50_400), upload(1, 50_400), upload(2, 50_350)];
    (0..).zip(&uploads).map(|(offset, event)| record(event, offset).unwrap()).collect()
}

fn decided(sent: &[StoredRecord]) -> Vec<UploadDecided> {
    sent.iter()
        .filter(|record| record.topic == "uploads.decided")
        .map(|record| {
            let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
            codec::decode(UploadDecided::schema(), id, datum).unwrap()
        })
        .collect()
}

#[tokio::test]
async fn two_uploads_of_one_vehicle_in_a_batch_see_each_other_and_a_repeat_is_dropped() {
    let database = Database::new().await;
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    let mut lane = assignment(TOPIC, batch());
    worker.run(&mut lane).await.unwrap();
    assert_eq!(lane.lane.frontier(), 4);
    let published: Vec<_> = decided(&outbound.sent())
        .iter()
        .map(|event| (event.verdict, event.distance_km, event.baseline))
        .collect();
    let expected = [
        (Verdict::Verified, Some(Decimal::ZERO), true),
        (Verdict::Verified, Some(90.into()), false),
        (Verdict::Rejected, None, false),
    ];
    assert_eq!(published, expected, "a baseline, 90 km, and a rollback behind it");
    let state = database.state().await;
    assert_eq!(state["vehicles"][0]["last_km"], 50_400.0);
    assert_eq!(state["decisions"][2]["outcome"], "drop");
    assert_eq!(state["decisions"][3]["evidence"]["checks"]["rollback"]["against"], true);
    // The next batch goes on from the stored vehicle.
    let mut lane = assignment(TOPIC, vec![record(&upload(3, 50_401), 4).unwrap()]);
    let (worker, outbound) = database.worker("two", Guards::On, NOW);
    worker.run(&mut lane).await.unwrap();
    assert_eq!(decided(&outbound.sent())[0].distance_km, Some(Decimal::ONE));
    database.drop().await;
}

#[tokio::test]
async fn what_was_decided_is_published_again_byte_for_byte_by_the_next_owner() {
    let database = Database::new().await;
    let (worker, first) = database.worker("one", Guards::On, NOW);
    worker.run(&mut assignment(TOPIC, batch())).await.unwrap();
    let before = database.state().await;
    // The offset was not committed: the next owner, an hour later, is given the same records.
    let (worker, second) = database.worker("two", Guards::On, Micros(NOW.0 + 3_600_000_000));
    worker.run(&mut assignment(TOPIC, batch())).await.unwrap();
    assert_eq!(first.sent(), second.sent());
    assert_eq!(before, database.state().await);
    database.drop().await;
}

/// An owner that holds the partition, sleeps while another takes it over and decides, and then goes on.
async fn zombie(
    database: &Database,
    guards: Guards,
) -> (Result<(), Halt>, Vec<UploadDecided>, Vec<UploadDecided>) {
    let (sleeper, late) = database.worker("sleeper", guards, NOW);
    let (wake, records) = mpsc::channel(8);
    let held = Assignment { records: records.into(), ..assignment(TOPIC, Vec::new()) };
    let sleeping = tokio::spawn(async move {
        let mut held = held;
        sleeper.run(&mut held).await
    });
    let epoch = "select epoch from stage_offsets where stage = 'fraud_check'";
    while sqlx::query_scalar::<_, i64>(epoch).fetch_optional(&database.pool).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let (successor, published) = database.worker("successor", guards, NOW);
    successor.run(&mut assignment(TOPIC, batch())).await.unwrap();
    let before = database.state().await;
    for record in batch() {
        wake.send(record).await.unwrap();
    }
    drop(wake);
    let ended = sleeping.await.unwrap();
    if guards == Guards::On {
        assert_eq!(before, database.state().await, "the sleeper changes nothing");
    }
    (ended, decided(&published.sent()), decided(&late.sent()))
}

#[tokio::test]
async fn a_zombie_is_fenced_publishes_nothing_and_changes_nothing() {
    let database = Database::new().await;
    let (ended, published, late) = zombie(&database, Guards::On).await;
    assert!(matches!(ended, Err(Halt::Fenced)), "{ended:?}");
    assert_eq!((published.len(), late.len()), (3, 0));
    database.drop().await;
}

#[tokio::test]
async fn without_the_guards_the_same_zombie_decides_every_upload_a_second_time_and_otherwise() {
    let database = Database::new().await;
    let (ended, published, late) = zombie(&database, Guards::Off).await;
    assert!(ended.is_ok(), "{ended:?}");
    let upload = published[0].header.upload_id;
    let again = late.iter().find(|event| event.header.upload_id == upload).unwrap();
    assert_eq!((published[0].verdict, published[0].baseline), (Verdict::Verified, true));
    assert!(!again.baseline, "the vehicle has moved on: the same photo comes late now");
    database.drop().await;
}

#[tokio::test]
async fn an_answer_is_kept_before_it_is_published_and_sealed_anew_for_another_upload_of_the_photo() {
    let database = Database::new().await;
    let (dependencies, store) = database.dependencies(NOW);
    let example = examples(Topic::UploadsGraded).into_iter().find(|e| e.name == "normal-readable").unwrap();
    let graded: UploadGraded = example.event();
    put(store.as_ref(), &graded.header, photo("odometer")).await;
    let mut other = graded.clone();
    other.header.upload_id = UploadId(Uuid::from_u128(77));
    other.header.user_id = UserId(Uuid::from_u128(78));
    for user in [graded.header.user_id, other.header.user_id] {
        sqlx::query("insert into users (id) values ($1)").bind(user.0).execute(&database.pool).await.unwrap();
        sqlx::query("insert into user_keys (user_id, key) values ($1, $2)")
            .bind(user.0)
            .bind(UserKey::generate().expose())
            .execute(&database.pool)
            .await
            .unwrap();
    }
    let stage = dependencies.odometer_reading().await.unwrap();
    let first = emitted(stage.process(&support::record(graded.clone(), 0)).await.unwrap());
    // The photo is gone by now: what is published comes from the kept answer alone.
    let (dependencies, _) = database.dependencies(Micros(NOW.0 + 60_000_000));
    let stage = dependencies.odometer_reading().await.unwrap();
    let again = emitted(stage.process(&support::record(graded.clone(), 0)).await.unwrap());
    assert_eq!((first.reading.clone(), first.fault.clone()), (again.reading, again.fault));
    let reading = first.reading.unwrap();
    let copy = emitted(stage.process(&support::record(other.clone(), 1)).await.unwrap()).reading.unwrap();
    assert_eq!((&copy.best, &copy.candidates), (&reading.best, &reading.candidates));
    let open = async |event: &UploadGraded, sealed| {
        let key = PostgresAnswers::new(dependencies.pool.clone())
            .user_key(event.header.user_id)
            .await
            .unwrap()
            .unwrap();
        key.open(event.header.upload_id, &sealed).unwrap()
    };
    let text = open(&graded, reading.detected_text.unwrap()).await;
    assert_eq!(text, open(&other, copy.detected_text.unwrap()).await);
    assert!(!text.is_empty());
    database.drop().await;
}

#[tokio::test]
async fn every_start_publishes_the_same_of_a_model_until_another_version_takes_over() {
    let database = Database::new().await;
    let models = reading::models().unwrap();
    let at = |seconds: i64| Micros(NOW.0 + seconds * 1_000_000).to_utc();
    let first = deployed(&database.pool, &models, at(0)).await.unwrap();
    let names: Vec<_> =
        first.iter().map(|event| (event.model_name.as_str(), event.model_version.as_str())).collect();
    let listed: Vec<_> = models.iter().map(|model| (model.name.as_str(), model.version())).collect();
    assert_eq!(names, listed.iter().map(|(name, version)| (*name, version.as_str())).collect::<Vec<_>>());
    assert!(first.iter().all(|event| event.first_deployed_at == NOW && event.occurred_at == NOW));
    // A restart, and a second instance beside it.
    let again =
        tokio::join!(deployed(&database.pool, &models, at(60)), deployed(&database.pool, &models, at(70)));
    assert_eq!((again.0.unwrap(), again.1.unwrap()), (first.clone(), first.clone()));
    // Another version, on a machine whose clock is behind, and the first one again.
    let mut other = vec![models[0].clone()];
    other[0].sha256 = "0123456789abcdef".repeat(4);
    let newer = deployed(&database.pool, &other, at(-5)).await.unwrap().remove(0);
    assert_eq!(newer.model_version, format!("{}-01234567", models[0].tag));
    assert_eq!(newer.occurred_at.0, NOW.0 + 1);
    let back = deployed(&database.pool, &models, at(90)).await.unwrap();
    assert_eq!((back[0].first_deployed_at, back[0].occurred_at.to_utc()), (NOW, at(90)));
    assert_ne!(back[0].event_id, first[0].event_id);
    assert_eq!(back[1..], first[1..]);
    // The same file, measured anew.
    other[0] = models[0].clone();
    other[0].cpu_ms += 1;
    let measured = deployed(&database.pool, &other, at(95)).await.unwrap().remove(0);
    assert_eq!((measured.first_deployed_at, measured.occurred_at.to_utc()), (NOW, at(95)));
    database.drop().await;
}

#[tokio::test]
async fn an_answer_that_was_paid_for_is_kept_under_its_cascade_and_a_restarted_stage_pays_no_second_time() {
    let database = Database::new().await;
    let line = [("123456 km", [0.3, 0.4, 0.7, 0.5], 1.0)];
    let server = Server::start(Answer::json(&testing::google(&line, 640.0, 480.0))).await.unwrap();
    let keys = Keys { text: "42".repeat(32).into(), ..Keys::default() };
    let id = Uuid::from_u128(5);
    let key = keys.vault().unwrap().seal(id, "api_key", &"the-key".into()).unwrap();
    sqlx::query(
        "insert into ai_service_configs (id, service_name, protocol, endpoint_url, priority, accuracy_threshold, cost_per_request,
            api_key, rate_limit)
         values ($1, 'Google Vision', 'google_vision', $2, 2, 0.70, 0.0015, $3, '{\"per_minute\": 60, \"per_day\": null}')",
    )
    .bind(id)
    .bind(&server.url)
    .bind(key)
    .execute(&database.pool)
    .await
    .unwrap();
    let (dependencies, store) = database.dependencies(NOW);
    let dependencies = dependencies.with_service_keys(keys);
    let example = examples(Topic::UploadsGraded).into_iter().find(|e| e.name == "edge-no-number").unwrap();
    let graded: UploadGraded = example.event();
    put(store.as_ref(), &graded.header, photo("tiles")).await;
    let mut published = Vec::new();
    for _ in 0..2 {
        let stage = dependencies.odometer_reading().await.unwrap();
        published.push(emitted(stage.process(&support::record(graded.clone(), 0)).await.unwrap()));
    }
    assert_eq!((server.calls(), &published[0]), (1, &published[1]));
    assert_eq!(published[0].reading.as_ref().unwrap().service, "Google Vision");
    let cascades: Vec<String> =
        sqlx::query_scalar("select chain from reading_results").fetch_all(&database.pool).await.unwrap();
    assert_eq!(cascades.iter().map(String::len).collect::<Vec<_>>(), [16]);
    // Without the service the cascade is the embedded reader alone, and its answer another one.
    sqlx::query("update ai_service_configs set is_active = false").execute(&database.pool).await.unwrap();
    let stage = dependencies.odometer_reading().await.unwrap();
    let alone = emitted(stage.process(&support::record(graded, 0)).await.unwrap());
    assert!(alone.fault.is_some() && !alone.reading.unwrap().fallback_used);
    assert_eq!(server.calls(), 1);
    database.drop().await;
}

fn emitted(outcome: Outcome<OdometerRead>) -> OdometerRead {
    let Outcome::EmitWith(event, _) = outcome else { panic!("{outcome:?}") };
    event
}

#[tokio::test]
async fn an_upload_that_can_never_be_decided_is_decided_as_failed_and_the_600_behind_it_go_on() {
    let database = Database::new().await;
    let bad = upload(2, 50_310);
    // The database refuses this one vehicle's row, again and again.
    let refuse = format!(
        "create function refuse() returns trigger language plpgsql as
            $$ begin raise exception 'no room for this vehicle'; end $$;
         create trigger refuse before insert on vehicle_readings for each row
            when (new.last_upload_id = '{}') execute function refuse()",
        bad.header.upload_id.0
    );
    sqlx::raw_sql(AssertSqlSafe(refuse)).execute(&database.pool).await.unwrap();
    let uploads = (0..603u128).map(|n| {
        let mut upload = upload(n, 50_310);
        let vehicle = if n == 2 { 7_777 } else { n % 30 };
        upload.header.vehicle_id.0 = Uuid::from_u128(vehicle);
        upload.header.user_id.0 = Uuid::from_u128(vehicle);
        upload
    });
    let records = (0..).zip(uploads).map(|(offset, event)| record(&event, offset).unwrap()).collect();
    let (mut worker, outbound) = database.worker("one", Guards::On, NOW);
    worker.context.retry_limit.after = std::time::Duration::from_millis(200);
    let mut lane = assignment(TOPIC, records);
    worker.run(&mut lane).await.unwrap();
    assert_eq!(lane.lane.frontier(), 603);
    let decided = decided(&outbound.sent());
    let failed: Vec<_> = decided.iter().filter(|event| event.verdict == Verdict::Failed).collect();
    assert_eq!((decided.len(), failed.len()), (603, 1));
    assert_eq!(failed[0].header.upload_id, bad.header.upload_id);
    assert_eq!(outbound.sent().iter().filter(|record| record.topic == "dead-letters").count(), 0);
    // The next owner publishes the same again, from what is stored.
    let (worker, again) = database.worker("two", Guards::On, NOW);
    worker.run(&mut assignment(TOPIC, vec![record(&bad, 2).unwrap()])).await.unwrap();
    assert_eq!(self::decided(&again.sent())[0].verdict, Verdict::Failed);
    database.drop().await;
}

/// Takes what is small; refuses what is large as Kafka does, and one key as if the brokers were away.
#[derive(Default)]
struct Choosy {
    taken: MemoryOutbound,
    is_away: std::sync::atomic::AtomicBool,
}

impl Outbound for Choosy {
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken> {
        let away = message.key == Some(b"away") && self.is_away.load(std::sync::atomic::Ordering::SeqCst);
        if away {
            ack.settle(Err(PublishError::Timeout("brokers away".into())));
        } else if message.topic == "p.chain.events" && message.payload.is_some_and(|bytes| bytes.len() > 100)
        {
            return Err(NotTaken::Never(PublishError::Refused("message size too large".into())));
        } else {
            return self.taken.send(message, ack);
        }
        Ok(())
    }
}

#[tokio::test]
async fn one_bad_outbox_row_is_set_aside_with_its_cause_and_its_neighbours_go_out_once() {
    let database = Database::new().await;
    for (key, bytes) in [("a", 10), ("large", 1_000), ("away", 10), ("b", 10)] {
        sqlx::query("insert into outbox (topic, key, event_id, payload) values ('chain.events', $1, $2, $3)")
            .bind(key.as_bytes())
            .bind(Uuid::now_v7())
            .bind(vec![1u8; bytes])
            .execute(&database.pool)
            .await
            .unwrap();
    }
    let outbound = Choosy { is_away: true.into(), ..Choosy::default() };
    let error = runtime::outbox::round(&database.pool, &outbound, "p.").await.unwrap_err();
    assert_eq!(error.to_string(), "publish");
    outbound.is_away.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(runtime::outbox::round(&database.pool, &outbound, "p.").await.unwrap(), 1);
    assert_eq!(runtime::outbox::round(&database.pool, &outbound, "p.").await.unwrap(), 0);
    let sent = outbound.taken.sent();
    let keys: Vec<_> =
        sent.iter().map(|record| (record.topic.as_str(), record.key.as_deref().unwrap())).collect();
    let event = |key| ("p.chain.events", key);
    assert_eq!(keys, [event(&b"a"[..]), event(b"b"), ("p.dead-letters", b"large"), event(b"away")]);
    let cause = ("dlq.detail".to_owned(), Some(b"message size too large".to_vec()));
    assert!(sent[2].headers.contains(&cause));
    database.drop().await;
}
