//! Rows that are there before a run: spread over the keys as those of a long life are, so that new rows fall between them.

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgPool, raw_sql};

/// `spread(n)` are ids that follow one another and are spread over all of them; `timely(n)` are ids in the order of time, below
/// those of the bench, as UUIDv7 are.
const FUNCTIONS: &str = "
create function spread(n bigint) returns uuid language sql immutable as
    $$ select (lpad(to_hex((n * 4294967295) / {rows}), 8, '0') || lpad(to_hex(n), 24, '0'))::uuid $$;
create function timely(n bigint) returns uuid language sql immutable as
    $$ select ('0191f39f00007000' || lpad(to_hex(n), 16, '0'))::uuid $$;
set session_replication_role = replica;
";

/// `decisions` of a stage.
pub const DECISIONS: &str = "
insert into decisions (stage, input_event_id, redrive, effect_id, topic, partition, record_offset, rules_version, outcome, reason,
    evidence, output, occurred_at)
select stage, spread(n), 0, 'verdict:' || timely(n), 'before', 0, n, '1', 'emit', null,
    '{\"rules\": \"1\", \"decided_by\": null}', decode(repeat('ab', 600), 'hex'), now()
from generate_series(1, {rows}::bigint) n, unnest(array['fraud_check', 'limit_check']) stage;
";

/// Vehicles of `fraud_check`.
pub const VEHICLES: &str = "
insert into vehicle_readings (vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id)
select spread(n), spread(n), 1000, 1000, 'km', now(), timely(n) from generate_series(1, {rows}::bigint) n;
";

/// Three budgets and three charges of a reward, of every third number.
pub const BUDGETS: &str = "
insert into users (id) select spread(n) from generate_series(3, {rows}::bigint, 3) n;
insert into reward_limits (id, user_id, limit_type, period_start, period_end, limit_amount, current_amount, is_active, created_at,
    updated_at)
select spread(n - t), spread(n), (enum_range(null::reward_limits_limit_type))[t + 1], '2026-02-01Z', '2026-03-01Z', 30, 1, true,
    now(), now()
from generate_series(3, {rows}::bigint, 3) n, generate_series(0, 2) t;
insert into limit_charges (reward_id, limit_type, user_id, period_start, amount)
select spread(n), (enum_range(null::reward_limits_limit_type))[t + 1], spread(n), '2026-02-01Z', 1
from generate_series(3, {rows}::bigint, 3) n, generate_series(0, 2) t;
";

/// Ten uploads of each user, every one verified and rewarded.
pub const UPLOADS: &str = "
insert into users (id) select spread(n) from generate_series(10, {rows}::bigint, 10) n;
insert into odometer_uploads (id, user_id, image_url, image_hash, file_size, mime_type, upload_status, created_at, updated_at,
    processed_at, vehicle_id, vehicle_kind, status_rank)
select timely(n), spread((n + 9) / 10 * 10), 'https://photos.example/photos/' || timely(n),
    replace(spread(n)::text || spread(n)::text, '-', ''), 48213, 'image/png', 'verified', at, at, at, spread(n), 'petrol', 2
from (select n, '2024-01-01Z'::timestamptz + n * interval '1 second' as at from generate_series(1, {rows}::bigint) n) s;
insert into mileage_data (id, upload_id, ai_verified_mileage, final_mileage, mileage_confidence, mileage_unit, distance_traveled,
    verification_status, status_rank)
select spread(n), timely(n), 1000, 1000, 0.97, 'km', 10, 'approved', 2 from generate_series(1, {rows}::bigint) n;
insert into upload_verifications (id, upload_id, ai_service_used, processing_time, confidence_score, bounding_boxes,
    image_quality_score, lighting_conditions, blur_detected, glare_detected, multiple_readings_detected, fallback_used, created_at)
select spread(n), timely(n), 'Milestream Embedded', 900, 0.97, '{\"width\": 640, \"height\": 480, \"boxes\": []}', 0.9, 'good',
    false, false, false, false, '2024-01-01Z'::timestamptz + n * interval '1 second'
from generate_series(1, {rows}::bigint) n;
insert into rewards (id, user_id, upload_id, base_amount, bonus_amount, reward_rate, distance_traveled, status, calculated_at,
    created_at, updated_at, granted_amount, revision)
select spread(n), spread((n + 9) / 10 * 10), timely(n), 1, 0, 0.01, 10, 'distributed', at, at, at, 1, 4
from (select n, '2024-01-01Z'::timestamptz + n * interval '1 second' as at from generate_series(1, {rows}::bigint) n) s;
";

/// What was counted, and numbers of users.
pub const NUMBERS: &str = "
insert into analytics_seen (key, occurred_on) select spread(n), '2026-01-01' from generate_series(1, {rows}::bigint) n;
insert into analytics_entities (key, revision, counted_at, amount, samples, label)
select 'verdict:' || timely(n), 1, now(), 0, 1, 'verified' from generate_series(1, {rows}::bigint) n;
insert into analytics_data (id, metric_type, metric_name, metric_value, metric_unit, dimension, time_period, period_start,
    period_end, user_id, created_at, dimension_hash, exact_value, sample_count)
select spread(n), 'sustainability_impact', 'distance', 1, 'km', '{}', 'day', '2026-01-01Z', '2026-01-02Z', spread(n), now(),
    sha256('{}'), 1, 1
from generate_series(1, {rows}::bigint) n;
";

/// Fills tables to `rows` each, and looks at what they hold, as autovacuum would by then.
///
/// # Errors
/// When the database does not answer.
pub async fn fill(pool: &PgPool, statements: &[&str], rows: u64) -> Result<()> {
    // Replication role and functions are of this one connection.
    let mut connection = pool.acquire().await?;
    let run = |text: &str| raw_sql(AssertSqlSafe(text.replace("{rows}", &rows.to_string())));
    run(FUNCTIONS).execute(&mut *connection).await?;
    for statement in statements {
        run(statement).execute(&mut *connection).await?;
    }
    run("set session_replication_role = origin; drop function spread; drop function timely")
        .execute(&mut *connection)
        .await?;
    // Of the whole schema, without the tables of other schemas.
    let tables: Vec<String> = sqlx::query_scalar(
        "select quote_ident(tablename) from pg_tables where schemaname = current_schema()",
    )
    .fetch_all(&mut *connection)
    .await?;
    run(&format!("vacuum analyze {}", tables.join(", "))).execute(&mut *connection).await?;
    Ok(())
}
