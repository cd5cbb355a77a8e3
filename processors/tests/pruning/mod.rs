//! What pruning leaves of decisions and of the other tables, on a real Postgres.

use chrono::{DateTime, TimeDelta, Utc};
use runtime::fence::Guards;
use runtime::prune::{Old, Place, old, outputs, part};
use runtime::testing::{assignment, record};
use runtime::worker::Halt;
use schemas::ids::Micros;
use uuid::Uuid;

use crate::support::NOW;
use crate::{Database, TOPIC, decided, upload};

/// A batch and a half: of 300 records the newest 200 keep their outputs.
const RECORDS: u32 = 300;
const KEPT: i64 = 200;

/// After everything that the tests write.
fn later() -> DateTime<Utc> {
    Utc::now() + TimeDelta::days(1)
}

/// Has [`RECORDS`] uploads of thirty vehicles decided; returns what was published.
async fn decide(database: &Database) -> Vec<runtime::stored::StoredRecord> {
    let records = (0..RECORDS).map(|n| {
        let mut upload = upload(n.into(), 50_000 + i64::from(n));
        upload.header.vehicle_id.0 = Uuid::from_u128(u128::from(n % 30));
        record(&upload, n.into()).unwrap()
    });
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    worker.run(&mut assignment(TOPIC, records.collect())).await.unwrap();
    outbound.sent()
}

fn place(committed: i64) -> Place {
    Place { stage: "fraud_check".into(), topic: TOPIC.into(), partition: 0, committed }
}

#[tokio::test]
async fn outputs_are_emptied_behind_the_group_and_a_record_that_comes_again_is_dropped_as_before() {
    let database = Database::new().await;
    decide(&database).await;
    let end = i64::from(RECORDS);
    let vehicles = database.state().await["vehicles"].clone();
    for (committed, old_enough, expected) in
        [(KEPT, true, 0), (end, false, 0), (end, true, 100), (end, true, 0)]
    {
        let before = if old_enough { later() } else { Micros(NOW.0 - 1).to_utc() };
        assert_eq!(outputs(&database.pool, &place(committed), before, true).await.unwrap(), expected);
        assert_eq!(outputs(&database.pool, &place(committed), before, false).await.unwrap(), expected);
    }
    // The first record under a new offset, with the event id that was decided; and its upload under another event id.
    let again = record(&upload(0, 50_000), end).unwrap();
    let mut other = upload(0, 50_000);
    other.header.event_id.0 = Uuid::from_u128(77_777);
    let (worker, outbound) = database.worker("two", Guards::On, NOW);
    let mut lane = assignment(TOPIC, vec![again, record(&other, end + 1).unwrap()]);
    worker.run(&mut lane).await.unwrap();
    assert_eq!((outbound.sent().len(), lane.lane.frontier()), (0, end + 2));
    let state = database.state().await;
    assert_eq!(state["vehicles"], vehicles);
    assert_eq!(state["decisions"][300]["reason"], "duplicate_event");
    assert_eq!(state["decisions"][301]["reason"], "duplicate_event");
    // What was decided, and why, is still there.
    assert_eq!(
        (&state["decisions"][5]["outcome"], &state["decisions"][5]["output"]),
        (&"emit".into(), &"\\x".into())
    );
    assert!(state["decisions"][5]["evidence"]["checks"].is_object());
    database.drop().await;
}

#[tokio::test]
async fn what_was_not_pruned_is_published_again_and_a_start_before_that_is_refused_with_what_to_do() {
    let database = Database::new().await;
    let first = decide(&database).await;
    let end = i64::from(RECORDS);
    outputs(&database.pool, &place(end), later(), false).await.unwrap();
    let records =
        |from: u32| (from..RECORDS).map(|n| record(&upload(n.into(), 1), n.into()).unwrap()).collect();
    let (worker, outbound) = database.worker("two", Guards::On, NOW);
    worker.run(&mut assignment(TOPIC, records(RECORDS - 200))).await.unwrap();
    let again = outbound.sent();
    assert_eq!(decided(&again).len(), 200);
    assert_eq!(again[..], first[first.len() - again.len()..]);
    let (worker, outbound) = database.worker("three", Guards::On, NOW);
    let refused = worker.run(&mut assignment(TOPIC, records(99))).await;
    let Err(Halt::Operator(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("below 100") && text.contains("milestream offsets align fraud_check"), "{text}");
    assert!(outbound.sent().is_empty());
    database.drop().await;
}

#[tokio::test]
async fn only_what_is_old_and_done_goes_and_an_adoption_that_was_announced_stays_known() {
    let database = Database::new().await;
    let insert = "
        insert into users (id) values ('00000000-0000-0000-0000-000000000001');
        insert into outbox (topic, event_id, payload, published_at)
        select topic, gen_random_uuid(), 'x', at from unnest(array['chain.events', 'activity.logs']) topic,
            unnest(array[now() - interval '9 days', now(), null]) at;
        insert into photo_hashes (user_id, image_hash, upload_id, event_id, event, reserved_at, published_at)
        select '00000000-0000-0000-0000-000000000001', n::text, gen_random_uuid(), gen_random_uuid(), 'x', now() - interval '99 days',
            case when n < 2 then now() - n * interval '40 days' end from generate_series(0, 2) n;
        insert into reading_results (image_hash, reader_version, result, created_at)
        select n::text, 'reader', '{}', now() - n * interval '40 days' from generate_series(0, 1) n;
        insert into idempotency_keys (user_id, key, image_hash, created_at)
        select '00000000-0000-0000-0000-000000000001', n::text, 'x', now() - n * interval '40 days' from generate_series(0, 1) n;";
    sqlx::raw_sql(insert).execute(&database.pool).await.unwrap();
    let before = Utc::now() - TimeDelta::days(8);
    for dry in [true, false] {
        for what in Old::ALL {
            assert_eq!(old(&database.pool, what, before, dry).await.unwrap(), 1, "{what:?}");
        }
    }
    for what in Old::ALL {
        assert_eq!(old(&database.pool, what, before, false).await.unwrap(), 0, "{what:?}");
    }
    let left: Vec<String> = sqlx::query_scalar(
        "select topic || ' ' || count(*) || ' ' || count(nullif(payload, '')) from outbox group by topic
         union all select 'photos ' || count(*) || ' ' || count(nullif(event, '')) from photo_hashes
         union all select 'readings ' || count(*) from reading_results
         union all select 'keys ' || count(*) from idempotency_keys",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let mut left = left;
    left.sort();
    assert_eq!(left, ["activity.logs 2 2", "chain.events 3 2", "keys 1", "photos 3 2", "readings 1"]);
    database.drop().await;
}

#[tokio::test]
async fn a_part_of_a_table_is_read_alone_and_all_parts_one_after_the_other_are_the_table() {
    let database = Database::new().await;
    // 200 B a row: some 40 a block, of 50 blocks.
    sqlx::raw_sql(
        "insert into users (id) values ('00000000-0000-0000-0000-000000000001');
         insert into idempotency_keys (user_id, key, image_hash, created_at)
         select '00000000-0000-0000-0000-000000000001', n || repeat('k', 100), repeat('x', 64),
            now() - case when n % 2 = 0 then interval '31 days' else interval '29 days' end
         from generate_series(1, 2000) n;",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let before = Utc::now() - TimeDelta::days(30);
    let mut gone = Vec::new();
    for number in 0..8 {
        let part = part(&database.pool, Old::IdempotencyKeys, before, (number + 5, 8));
        gone.push(part.await.unwrap());
    }
    assert_eq!(gone.iter().sum::<u64>(), 1000, "{gone:?}");
    assert!(gone.iter().all(|rows| (80..=170).contains(rows)), "each of them reads as much: {gone:?}");
    let left: i64 =
        sqlx::query_scalar("select count(*) from idempotency_keys").fetch_one(&database.pool).await.unwrap();
    assert_eq!(left, 1000);
    // And the rest of the table is not looked at, however much there is of it.
    let explained =
        "explain delete from idempotency_keys where ctid >= '(7,0)'::text::tid and ctid < '(14,0)'::text::tid
                       and created_at < now()";
    let plan: Vec<String> = sqlx::query_scalar(explained).fetch_all(&database.pool).await.unwrap();
    assert!(plan.iter().any(|line| line.contains("Tid Range Scan")), "{plan:#?}");
    database.drop().await;
}
