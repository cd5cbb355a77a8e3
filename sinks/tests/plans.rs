//! The plans of statements that read tables which grow: by index, however large the tables are.

use runtime::Sink as _;
use runtime::testing::tell_scans;
use rust_decimal::Decimal;
use schemas::events::Verdict;
use serde_json::Value;
use sinks::analytics::AnalyticsSink;
use sinks::postgres::{HISTORIES, PostgresConfig, PostgresSink, UploadEvent};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, query, query_scalar};
use uuid::Uuid;

use crate::analytics_stories::{counted, decided, story};
use crate::payments::{FINAL, Payment};
use crate::stories::Story;
use crate::support::{Schema, envelopes};

/// 2,000 users with 20 uploads each: of 200 users a batch a planner that is free reads the tables whole.
const FILLED: &str = "
insert into users (id) select lpad(to_hex(u), 32, '0')::uuid from generate_series(1, 2000) u;
insert into odometer_uploads (id, user_id, upload_status, created_at)
select lpad(to_hex(u * 100 + n), 32, '0')::uuid, lpad(to_hex(u), 32, '0')::uuid, 'verified',
    '2024-01-01T00:00:00Z'::timestamptz + n * interval '9 days'
from generate_series(1, 2000) u, generate_series(1, 20) n;
insert into mileage_data (id, upload_id, verification_status, final_mileage, distance_traveled)
select id, id, 'approved', 1000, 10 from odometer_uploads;
analyze users, odometer_uploads, mileage_data;
";

/// Every node of a plan that reads a table whole.
fn scans(plan: &Value, found: &mut Vec<String>) {
    if plan["Node Type"] == "Seq Scan" {
        found.push(plan["Relation Name"].to_string());
    }
    for inner in plan["Plans"].as_array().into_iter().flatten() {
        scans(inner, found);
    }
}

#[tokio::test]
async fn the_scores_of_a_batch_are_looked_up_by_index() {
    let schema = Schema::new().await;
    sqlx::raw_sql(FILLED).execute(&schema.pool).await.unwrap();
    let users: Vec<Uuid> = (1..=200).map(|user| Uuid::from_u128(user * 10)).collect();
    let explained = AssertSqlSafe(format!("explain (format json) {HISTORIES}"));
    let plan: Value = query_scalar(explained)
        .bind(&users)
        .bind(["petrol"])
        .bind([Decimal::ONE])
        .bind(Decimal::ONE)
        .bind(["rollback"])
        .bind(90 * 24)
        .fetch_one(&schema.pool)
        .await
        .unwrap();
    let mut found = Vec::new();
    scans(&plan[0]["Plan"], &mut found);
    assert!(found.is_empty(), "{found:?} in {plan:#}");

    // The window of 90 days before the last of 20 uploads, which are nine days apart, holds ten; two readings are enough to count.
    let rows = query(HISTORIES).bind(&users).bind(["petrol"]).bind([Decimal::ONE]).bind(Decimal::ONE);
    let rows = rows.bind(["rollback"]).bind(90 * 24).fetch_all(&schema.pool).await.unwrap();
    let counts = |row: &sqlx::postgres::PgRow| -> (i64, i64) {
        use sqlx::Row as _;
        (row.get(1), row.get(2))
    };
    assert_eq!(rows.iter().map(counts).collect::<Vec<_>>(), vec![(2, 10); 200]);
    schema.drop().await;
}

/// Of every table some 100,000 rows: of 200 look-ups in fewer a planner rightly reads the table.
const MORE: &str = "
insert into users (id) select lpad(to_hex(u), 32, '0')::uuid from generate_series(2001, 100000) u;
insert into odometer_uploads (id, user_id, upload_status, created_at)
select lpad(to_hex(u * 100), 32, '0')::uuid, lpad(to_hex(u), 32, '0')::uuid, 'verified', '2024-01-01T00:00:00Z'
from generate_series(2001, 100000) u;
insert into mileage_data (id, upload_id, verification_status, final_mileage, distance_traveled)
select o.id, o.id, 'approved', 1000, 10 from odometer_uploads o on conflict do nothing;
insert into upload_verifications (id, upload_id, ai_service_used, created_at) select id, id, 'reader', created_at from odometer_uploads;
insert into rewards (id, user_id, upload_id, base_amount, bonus_amount, granted_amount, status, created_at)
select id, user_id, id, 1, 0, 1, 'distributed', created_at from odometer_uploads;
insert into reward_transactions (id, reward_id, user_id, blockchain_tx_hash, created_at)
select id, id, user_id, '0x' || id, created_at from rewards;
insert into blockchain_transactions (id, user_id, tx_hash, status, block_number, created_at)
select id, user_id, '0x' || id, 'pending', 1, created_at from rewards;
insert into blockchain_events (id, genesis_id, block_id, log_index, tx_hash, canonical)
select id, '0x0', '0x' || id, 0, '0x' || id, true from rewards;
insert into chain_blocks (genesis_id, block_id, seq, canonical) select '0x0', '0x' || id, 1, true from rewards;
insert into user_keys (user_id, key) select id, sha256(id::text::bytea) from users;
insert into user_wallets (id, user_id, wallet_type, network, wallet_address)
select id, id, 'vechain', 'testnet', '0x' || lpad(replace(id::text, '-', ''), 40, '0') from users;
insert into analytics_seen (key, occurred_on) select id, '2026-01-01' from odometer_uploads;
insert into analytics_entities (key, revision) select 'verdict:' || id, 1 from odometer_uploads;
insert into analytics_data (id, metric_type, metric_name, metric_value, metric_unit, dimension, time_period, period_start,
    period_end, user_id, created_at, dimension_hash, exact_value, sample_count)
select id, 'sustainability_impact', 'distance', 1, 'km', '{}', 'day', created_at, created_at + interval '1 day', user_id, now(),
    sha256('{}'), 1, 1 from odometer_uploads;
";

/// How often each large table was read whole.
async fn whole(pool: &PgPool) -> Vec<(String, i64)> {
    tell_scans(pool).await.unwrap();
    sqlx::query_as(
        "select relname::text, seq_scan from pg_stat_user_tables
         where schemaname = current_schema() and n_live_tup > 50000 order by relname",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Filled tables, and one connection to them, whose counts of scans are told at once.
async fn filled() -> (Schema, PgPool) {
    let schema = Schema::new().await;
    tell_scans(&schema.pool).await.unwrap();
    let options = (*schema.pool.connect_options()).clone();
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    sqlx::raw_sql(FILLED).execute(&pool).await.unwrap();
    sqlx::raw_sql(MORE).execute(&pool).await.unwrap();
    // By name: without one every table of every test in the database would be locked.
    let tables: Vec<String> =
        sqlx::query_scalar("select tablename::text from pg_tables where schemaname = current_schema()")
            .fetch_all(&pool)
            .await
            .unwrap();
    let analyze = sqlx::AssertSqlSafe(format!("analyze {}", tables.join(", ")));
    query(analyze).execute(&pool).await.unwrap();
    (schema, pool)
}

/// Batches of each topic: a plan is made anew five times, and may be kept after that.
const BATCHES: i64 = 8;

#[tokio::test]
async fn no_statement_of_the_postgres_sink_reads_a_large_table_whole() {
    let (schema, pool) = filled().await;
    let before = whole(&pool).await;
    assert_eq!(before.len(), 14, "{before:?}");
    let sink = PostgresSink::new(pool.clone(), PostgresConfig::default());
    for batch in 0..BATCHES {
        // Accepted within the life of the rows that are there; 200 users.
        let stories: Vec<Story> = (1..=200).map(|user| Story::new(user, 1 + batch)).collect();
        let told = |event: fn(&Story) -> UploadEvent| envelopes(stories.iter().map(event));
        sink.write(&told(Story::received)).await.unwrap();
        sink.write(&told(Story::graded)).await.unwrap();
        sink.write(&told(Story::read)).await.unwrap();
        sink.write(&told(|story| story.decided(Verdict::Verified, None))).await.unwrap();
        sink.write(&told(Story::calculated)).await.unwrap();
        sink.write(&told(|story| story.granted(None))).await.unwrap();
        // One payment, told again and again.
        let payment = Payment::of([Story::new(1, 1), Story::new(2, 1)]);
        sink.write(&envelopes(payment.events(FINAL))).await.unwrap();
        sink.write(&envelopes(payment.chain())).await.unwrap();
    }
    assert_eq!(whole(&pool).await, before);
    pool.close().await;
    schema.drop().await;
}

#[tokio::test]
async fn no_statement_of_the_analytics_sink_reads_a_large_table_whole() {
    let (schema, pool) = filled().await;
    let before = whole(&pool).await;
    let sink = AnalyticsSink::new(pool.clone());
    for batch in 0..BATCHES {
        let events = (1..=200).flat_map(|user| {
            let story = story(user, 1 + batch, 0, ("electric", "basic", "DE"));
            decided(&story, Verdict::Verified, None, false)
        });
        sink.write(&envelopes(events)).await.unwrap();
        let payment = Payment::of([story(1, 1 + batch, 0, ("electric", "basic", "DE"))]);
        sink.write(&envelopes([counted(payment.claimed(0))])).await.unwrap();
    }
    assert_eq!(whole(&pool).await, before);
    pool.close().await;
    schema.drop().await;
}
