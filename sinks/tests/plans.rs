//! The plans of statements that read tables which grow: by index, however large the tables are.

use rust_decimal::Decimal;
use serde_json::Value;
use sinks::postgres::HISTORIES;
use sqlx::{AssertSqlSafe, query, query_scalar};
use uuid::Uuid;

use crate::support::Schema;

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
