//! The statements that a deciding stage runs for every batch, on tables that hold many rows: none of these is read whole.

use processors::chain_submission::consume::PayoutInput;
use runtime::fence::Guards;
use runtime::source::RawRecord;
use runtime::testing::{assignment, record, tell_scans};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::corrections::{Books, grant};
use crate::limits::reward;
use crate::support::NOW;
use crate::{Database, TOPIC, upload};

/// 50,000 decisions of each stage, vehicles, drivers and charges, and three budgets of each of 50,000 users.
const FILLED: &str = "
insert into users (id) select lpad(to_hex(n), 32, '0')::uuid from generate_series(1, 50000) n;
insert into decisions (stage, input_event_id, effect_id, topic, partition, record_offset, rules_version, outcome, evidence, output,
    occurred_at)
select stage, gen_random_uuid(), 'before:' || n, 'before', 0, n, '1', 'emit', '{}', '', now()
from generate_series(1, 50000) n, unnest(array['fraud_check', 'limit_check']) stage;
insert into vehicle_readings (vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id)
select gen_random_uuid(), gen_random_uuid(), 1, 1, 'km', now(), gen_random_uuid() from generate_series(1, 50000);
insert into driver_conduct (user_id, uploads, frauds) select gen_random_uuid(), '[]', '[]' from generate_series(1, 50000);
insert into reward_limits (id, user_id, limit_type, period_start, period_end, limit_amount, current_amount, is_active, created_at,
    updated_at)
select gen_random_uuid(), id, t, '2026-02-01Z', '2026-03-01Z', 30, 1, true, now(), now()
from users, unnest(enum_range(null::reward_limits_limit_type)) t;
insert into limit_charges (reward_id, limit_type, user_id, period_start, amount)
select gen_random_uuid(), limit_type, user_id, period_start, 1 from reward_limits where limit_type = 'daily';
analyze users, decisions, vehicle_readings, driver_conduct, reward_limits, limit_charges;
";

/// Batches of a stage: a plan is made anew five times, and may be kept after that.
const BATCHES: u32 = 8;
/// Records of a batch.
const BATCH: u32 = 200;

/// One connection, whose counts of scans are told at once.
async fn one_connection(database: &Database) -> Database {
    let options = (*database.pool.connect_options()).clone();
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    Database { pool, name: database.name.clone() }
}

/// How often each large table was read whole.
async fn scans(database: &Database) -> Vec<(String, i64)> {
    tell_scans(&database.pool).await.unwrap();
    sqlx::query_as(
        "select relname::text, seq_scan from pg_stat_user_tables
         where schemaname = current_schema() and n_live_tup >= 20000 order by relname",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap()
}

async fn filled() -> (Database, Database) {
    let database = Database::new().await;
    tell_scans(&database.pool).await.unwrap();
    let one = one_connection(&database).await;
    sqlx::raw_sql(FILLED).execute(&one.pool).await.unwrap();
    (database, one)
}

fn batches(record: impl Fn(u32) -> RawRecord) -> Vec<Vec<RawRecord>> {
    (0..BATCHES).map(|batch| (batch * BATCH..(batch + 1) * BATCH).map(&record).collect()).collect()
}

#[tokio::test]
async fn a_batch_of_fraud_check_reads_no_large_table_whole() {
    let (database, one) = filled().await;
    let before = scans(&one).await;
    let names: Vec<_> = before.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["decisions", "driver_conduct", "limit_charges", "reward_limits", "users", "vehicle_readings"]
    );
    let (worker, outbound) = one.worker("one", Guards::On, NOW);
    for records in batches(|n| {
        let mut upload = upload(n.into(), 50_000);
        upload.header.vehicle_id.0 = Uuid::from_u128(u128::from(n % 300));
        record(&upload, n.into()).unwrap()
    }) {
        worker.run(&mut assignment(TOPIC, records)).await.unwrap();
    }
    assert!(outbound.sent().len() >= (BATCHES * BATCH) as usize);
    assert_eq!(scans(&one).await, before);
    one.pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_batch_of_limit_check_reads_no_large_table_whole() {
    let (database, one) = filled().await;
    let before = scans(&one).await;
    let (worker, outbound) = one.limit_check("one", Guards::On, NOW);
    for records in batches(|n| {
        let user = 1 + u128::from(n) * 7;
        record(&reward(n.into(), user, i64::from(n % 5), 1), n.into()).unwrap()
    }) {
        worker.run(&mut assignment("rewards.calculated", records)).await.unwrap();
    }
    assert_eq!(outbound.sent().len(), (BATCHES * BATCH) as usize);
    assert_eq!(scans(&one).await, before);
    one.pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_look_at_corrected_rewards_reads_no_large_table_whole() {
    let books = Books::new().await;
    books.consume(PayoutInput::Granted(Box::new(grant()))).await;
    // Most rewards are paid for good when their reading is corrected.
    let filled = sqlx::raw_sql(
        "insert into payouts select (jsonb_populate_record(p, jsonb_build_object('reward_id', gen_random_uuid(), 'state', 'final'))).*
         from payouts p, generate_series(1, 50000);
         insert into payout_corrections (reward_id, event_id, corrected_at, settled_at)
         select reward_id, gen_random_uuid(), now(), now() from payouts where state = 'final';
         insert into payout_corrections (reward_id, event_id, corrected_at)
         select reward_id, gen_random_uuid(), now() from payouts where state <> 'final';
         analyze payouts, payout_corrections",
    );
    filled.execute(&books.database.pool).await.unwrap();
    tell_scans(&books.database.pool).await.unwrap();
    let before = scans(&books.database).await;
    assert_eq!(before.len(), 2, "{before:?}");
    assert_eq!(books.cancel().await, 1);
    for _ in 0..BATCHES {
        assert_eq!(books.cancel().await, 0);
    }
    assert_eq!(scans(&books.database).await, before);
    books.database.drop().await;
}
