//! What the transaction of a batch tells the planner, on a real Postgres.

use std::time::Duration;

use runtime::planner::look_up_by_key;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::address;

/// As Postgres shows how it has run the statement.
async fn explained(tx: &mut PgConnection, statement: &'static str) -> Value {
    let plans: Value = sqlx::query_scalar(statement).fetch_one(tx).await.unwrap();
    plans[0].clone()
}

async fn timeout(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("select current_setting('statement_timeout')").fetch_one(connection).await.unwrap()
}

const LEAST: &str = "explain (analyze, format json) select min(newest) from few";
const BY_KEY: &str = "explain (analyze, format json) select newest from few where key = 2";

#[tokio::test]
async fn rows_are_looked_up_by_key_and_a_small_table_that_no_index_helps_to_read_is_scanned_without_a_compiler()
 {
    let mut connection = PgConnection::connect(&address("DATABASE_URL")).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    sqlx::query("create temporary table few (key int primary key, newest timestamptz not null)")
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query("insert into few select n, now() from generate_series(1, 3) n")
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query("analyze few").execute(&mut *tx).await.unwrap();

    // So it was before: the scan is told to be dear, and the compiler is called for it.
    sqlx::query("set local enable_seqscan = off").execute(&mut *tx).await.unwrap();
    let compiles: bool = sqlx::query_scalar("select pg_jit_available()").fetch_one(&mut *tx).await.unwrap();
    let before = explained(&mut tx, LEAST).await;
    assert_eq!(before.get("JIT").is_some(), compiles, "{before}");

    look_up_by_key(&mut tx, Some(Duration::from_secs(7))).await.unwrap();
    let least = explained(&mut tx, LEAST).await;
    assert!(least["Plan"]["Total Cost"].as_f64().unwrap() > 1e9 && least.get("JIT").is_none(), "{least}");
    let by_key = explained(&mut tx, BY_KEY).await;
    assert_eq!(by_key["Plan"]["Node Type"], "Index Scan", "{by_key}");
    assert_eq!(timeout(&mut tx).await, "7s");
    // Without one of its own the statement keeps what the session has.
    look_up_by_key(&mut tx, None).await.unwrap();
    assert_eq!(timeout(&mut tx).await, "7s");
    tx.rollback().await.unwrap();
    assert_eq!(timeout(&mut connection).await, "0");
}
