//! What sinks on PostgreSQL share: their tables, which errors pass, and columns of sets.

use runtime::SinkError;
use sqlx::postgres::PgDatabaseError;
use sqlx::{PgConnection, PgPool, query_scalar};
use uuid::Uuid;

/// A table that holds nothing but what topics say, declared beside the statement that writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The columns of its primary key, separated by commas.
    pub key: &'static str,
}

/// What a sink fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Parents first: the order in which the sink locks them, so that emptying and a batch wait for each other and never in a
    /// circle. A sink that fills one of them must also read the topics that it is filled from, or a rebuild leaves it empty.
    pub emptied: Vec<Table>,
    /// Statements that take back what the sink wrote elsewhere.
    pub resets: Vec<&'static str>,
}

impl Tables {
    /// The names of those that are emptied, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.emptied.iter().map(|table| table.name).collect()
    }

    /// The first of them that the schema does not have.
    ///
    /// # Errors
    /// When the database does not respond.
    pub async fn missing(&self, pool: &PgPool) -> sqlx::Result<Option<&'static str>> {
        for table in &self.emptied {
            if !exists(pool, table.name).await? {
                return Ok(Some(table.name));
            }
        }
        Ok(None)
    }
}

/// Whether the schema has a table of this name.
pub(crate) async fn exists(pool: &PgPool, table: &str) -> sqlx::Result<bool> {
    query_scalar("select to_regclass($1) is not null").bind(table).fetch_one(pool).await
}

/// Whether an error passes by itself. Only values that a column or constraint refuses (SQLSTATE classes 22 and 23) never
/// do; a missing table or permission is for an operator and shows as lag, never as dead letters.
#[must_use]
pub fn is_retryable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            !error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
        }
        sqlx::Error::Encode(_) => false,
        _ => true,
    }
}

/// The engine's view of an error; `what` names what was written, `table` where the server does not report it. The server's
/// detail is left out: it quotes rows.
pub(crate) fn sink_error(error: sqlx::Error, what: &str, table: &str) -> SinkError {
    if is_retryable(&error) {
        return SinkError::Retry(error.into());
    }
    let place = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()).map(
        |error| {
            let name = error.column().or_else(|| error.constraint()).unwrap_or("a value");
            format!("{}.{name}: {}", error.table().unwrap_or(table), error.message())
        },
    );
    SinkError::BadRow(format!("{what}: {}", place.unwrap_or_else(|| error.to_string())))
}

/// Those of these users who are erased: what is kept about a person is not written again.
pub(crate) async fn erased(tx: &mut PgConnection, users: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    query_scalar("select user_id from erased_users where user_id = any($1)").bind(users).fetch_all(tx).await
}

/// One column of rows, as an array.
pub(crate) fn column<R, T>(rows: &[R], value: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
