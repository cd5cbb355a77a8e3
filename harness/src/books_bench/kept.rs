//! The rows that a run kept, read back as they stand and written by nothing but `insert … select from unnest`.

use anyhow::Result;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Encode, PgPool, Postgres, Row as _, Type, ValueRef as _, query};

/// An array as the server sent it.
struct Column {
    type_info: PgTypeInfo,
    bytes: Vec<u8>,
}

impl Type<Postgres> for Column {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("unknown")
    }
}

impl Encode<'_, Postgres> for Column {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.type_info.clone())
    }

    fn size_hint(&self) -> usize {
        self.bytes.len()
    }
}

/// Rows of one table, in as many parts as there were batches.
pub struct Kept {
    insert: String,
    parts: Vec<Vec<Column>>,
}

/// Reads what transactions from `since` on left in a table, in the order of a column.
///
/// # Errors
/// When the database does not answer.
pub async fn read(pool: &PgPool, (table, order): (&str, &str), since: i64, batches: usize) -> Result<Kept> {
    let columns: Vec<(String, Option<String>)> = sqlx::query_as(
        "select column_name::text, case when data_type = 'USER-DEFINED' then udt_name::text end
         from information_schema.columns
         where table_schema = current_schema() and table_name = $1 and is_generated = 'NEVER' and is_identity = 'NO'
         order by ordinal_position",
    )
    .bind(table)
    .fetch_all(pool)
    .await?;
    // An enum of another schema is another type: it goes as text.
    let each = |text: fn(&str, Option<&str>) -> String| {
        columns.iter().map(|(name, of)| text(name, of.as_deref())).collect::<Vec<_>>().join(", ")
    };
    let taken = each(|name, of| match of {
        Some(_) => format!("array_agg({name}::text order by n)"),
        None => format!("array_agg({name} order by n)"),
    });
    let put = each(|name, of| of.map_or_else(|| name.to_owned(), |of| format!("{name}::{of}")));
    let names = each(|name, _| name.to_owned());
    let parameters: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
    let rows = query(AssertSqlSafe(format!(
        "select {taken} from (
            select *, row_number() over (order by {order}) as n,
                (row_number() over (order by {order}) - 1) * $2 / count(*) over () as part
            from {table} where xmin::text::bigint >= $1
         ) kept group by part order by part"
    )))
    .bind(since)
    .bind(i64::try_from(batches)?)
    .fetch_all(pool)
    .await?;
    Ok(Kept {
        // A number of all uploads of a day is there since the round before.
        insert: format!(
            "insert into {table} ({names}) select {put} from unnest({}) as r ({names}) on conflict do nothing",
            parameters.join(", ")
        ),
        parts: rows.iter().map(columns_of).collect::<Result<_>>()?,
    })
}

fn columns_of(row: &PgRow) -> Result<Vec<Column>> {
    let column = |n: usize| {
        let value = row.try_get_raw(n)?;
        let bytes = value.as_bytes().map_err(|error| anyhow::anyhow!(error))?.to_vec();
        Ok(Column { type_info: value.type_info().into_owned(), bytes })
    };
    (0..row.len()).map(column).collect()
}

/// The newest transaction: what comes after it is of the next run.
///
/// # Errors
/// When the database does not answer.
pub async fn next_transaction(pool: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        .fetch_one(pool)
        .await?)
}

/// Writes the rows, a transaction a batch, the tables in the order in which they are given; `parents` of them before all others,
/// whose rows may belong to any of theirs.
///
/// # Errors
/// When the database does not answer.
pub async fn write(pool: &PgPool, tables: &[Kept], parents: usize) -> Result<()> {
    let (parents, others) = tables.split_at(parents);
    batches(pool, parents).await?;
    batches(pool, others).await
}

async fn batches(pool: &PgPool, tables: &[Kept]) -> Result<()> {
    let batches = tables.iter().map(|kept| kept.parts.len()).max().unwrap_or(0);
    for batch in 0..batches {
        let mut tx = pool.begin().await?;
        for kept in tables {
            let Some(part) = kept.parts.get(batch) else { continue };
            let insert = query(AssertSqlSafe(kept.insert.clone()));
            let bind = |query: Query<'static, Postgres, PgArguments>, column: &Column| {
                query.bind(Column { type_info: column.type_info.clone(), bytes: column.bytes.clone() })
            };
            part.iter().fold(insert, bind).execute(&mut *tx).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}
