//! Schemas and addresses of the real parts.

use std::str::FromStr as _;

use runtime::{Envelope, Position};
use serde_json::Value;
use sinks::postgres::tables;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

/// An address from the environment; a test without its part fails, it is never skipped.
pub fn address(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run the test under `devstack`, which starts the real parts")
    })
}

/// A schema of its own with every table, which goes when the test is over.
pub struct Schema {
    pub pool: PgPool,
    name: String,
}

impl Schema {
    pub async fn new() -> Self {
        let name = format!("sinks_{}", Uuid::now_v7().simple());
        let options = PgConnectOptions::from_str(&address("DATABASE_URL")).unwrap();
        let options = options.options([("search_path", name.as_str())]).application_name(&name);
        let pool = PgPoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("create schema {name}"))).execute(&pool).await.unwrap();
        migrations::MIGRATIONS.run(&pool).await.unwrap();
        Self { pool, name }
    }

    /// Deletes what tests write: faster than truncating, which makes new files for every table and index.
    pub async fn empty(&self) {
        let filled = tables().emptied.into_iter().rev().map(|table| table.name);
        for table in filled.chain(["user_keys", "user_wallets", "users"]) {
            let sql = AssertSqlSafe(format!("delete from {table}"));
            sqlx::query(sql).execute(&self.pool).await.unwrap();
        }
    }

    /// Every row and column that the sink fills.
    pub async fn dump(&self) -> Value {
        let mut dump = serde_json::Map::new();
        for table in ["users"].into_iter().chain(tables().emptied.iter().map(|table| table.name)) {
            dump.insert(table.to_owned(), self.rows(table).await);
        }
        Value::Object(dump)
    }

    /// A table's rows by key.
    pub async fn rows(&self, table: &str) -> Value {
        let found = tables().emptied.into_iter().find(|filled| filled.name == table);
        let key = found.map_or("id", |table| table.key);
        let sql = format!("select coalesce(jsonb_agg(to_jsonb(t) order by {key}), '[]') from {table} t");
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until so many of the schema's connections wait for a lock.
    pub async fn waiting(&self, connections: i64) {
        let count =
            "select count(*) from pg_stat_activity where application_name = $1 and wait_event_type = 'Lock'";
        let found = async || -> i64 {
            sqlx::query_scalar(count).bind(&self.name).fetch_one(&self.pool).await.unwrap()
        };
        while found().await < connections {
            tokio::task::yield_now().await;
        }
    }

    pub async fn drop(self) {
        sqlx::query(AssertSqlSafe(format!("drop schema {} cascade", self.name)))
            .execute(&self.pool)
            .await
            .unwrap();
        self.pool.close().await;
    }
}

/// Kafka's timestamp of every record, 2024-01-01T00:00:00Z.
pub const RECORDED_MS: i64 = 1_704_067_200_000;

/// Events as the engine hands them over.
pub fn envelopes<T>(events: impl IntoIterator<Item = T>) -> Vec<Envelope<T>> {
    let position = |offset| Position { topic: "t".into(), partition: 0, offset };
    (0..)
        .zip(events)
        .map(|(offset, payload)| Envelope {
            payload,
            position: position(offset),
            timestamp_ms: RECORDED_MS,
            redrive: 0,
            traceparent: None,
        })
        .collect()
}
