//! Whether an account and its session are in order, asked anew for each request: a lock and the end of a session count at once. Requests
//! that ask at the same time share a statement.

use futures::FutureExt as _;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::keys::Claims;
use crate::batches::Batches;
use crate::http::problem::{ACCOUNT_LOCKED, ApiError, INTERNAL, TOKEN_INVALID};

/// An account and a session of it.
type Question = (Uuid, Uuid);
/// Whether the account is active (none where there is none), whether the session is (likewise).
type Standing = (Option<bool>, Option<bool>);

/// The accounts of a database.
pub(crate) struct Accounts {
    pool: PgPool,
    batches: Batches<Question, Standing>,
}

impl Accounts {
    pub(crate) fn new(pool: PgPool) -> Self {
        let batches = Batches::of(&pool, |connection, asked| look(connection, asked).boxed());
        Self { pool, batches }
    }

    /// An error where the account or the session is not in order.
    pub(crate) async fn check(&self, claims: &Claims) -> Result<(), ApiError> {
        let question = (claims.sub.0, claims.sid);
        let standing = match self.batches.ask(question).await? {
            Some(standing) => Some(standing),
            None => look(&self.pool, &[question]).await?.pop(),
        };
        match standing.ok_or_else(|| INTERNAL.error())? {
            (Some(true), Some(true)) => Ok(()),
            (Some(false), _) => Err(ACCOUNT_LOCKED.error()),
            (Some(true), _) => Err(TOKEN_INVALID.because("the token is not valid: its session has ended")),
            (None, _) => Err(TOKEN_INVALID.because("the token is not valid: its account does not exist")),
        }
    }
}

async fn look(executor: impl PgExecutor<'_>, questions: &[Question]) -> Result<Vec<Standing>, sqlx::Error> {
    let (users, sessions): (Vec<Uuid>, Vec<Uuid>) = questions.iter().copied().unzip();
    sqlx::query_as(
        "select u.is_active, s.is_active
         from unnest($1::uuid[], $2::uuid[]) with ordinality as asked (user_id, session_id, place)
           left join users u on u.id = asked.user_id
           left join user_sessions s on s.id = asked.session_id and s.user_id = asked.user_id
         order by asked.place",
    )
    .bind(users)
    .bind(sessions)
    .fetch_all(executor)
    .await
}
