//! The lease of a signer: one process at a time plans and signs. It lapses by the database's clock; every transaction that uses it
//! asks for it again, so that an owner that has lost it without noticing changes nothing.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

/// Life of a lease that is not renewed. A killed owner's successor waits this long.
pub const LIFE: Duration = Duration::from_secs(10);

/// Whether an owner may act for a signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The signer's address.
    pub signer: String,
    /// Counts owners.
    pub epoch: i64,
}

/// Why an owner stopped in the middle.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another owner has the lease, or it has lapsed.
    #[error("the lease is lost")]
    Lost,
    /// Postgres.
    #[error("postgres")]
    Postgres(#[from] sqlx::Error),
}

impl Lease {
    /// Takes the lease if it is free, lapsed or `owner`'s own from an earlier life; `None` while another holds it.
    ///
    /// # Errors
    /// Postgres'.
    pub async fn take(pool: &PgPool, signer: &str, owner: &str) -> sqlx::Result<Option<Self>> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "insert into submitter_leases as l (signer, epoch, owner, expires_at)
             values ($1, 1, $2, now() + make_interval(secs => $3))
             on conflict (signer) do update set epoch = l.epoch + 1, owner = excluded.owner, expires_at = excluded.expires_at
             where l.expires_at <= now()
             returning epoch",
        )
        .bind(signer)
        .bind(owner)
        .bind(LIFE.as_secs_f64())
        .fetch_optional(pool)
        .await?;
        Ok(epoch.map(|epoch| Self { signer: signer.to_owned(), epoch }))
    }

    /// Makes it last another [`LIFE`].
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn renew(&self, pool: &PgPool) -> Result<(), LeaseError> {
        self.extend(pool, LIFE).await
    }

    /// Gives it up, so that a successor need not wait.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn release(&self, pool: &PgPool) -> Result<(), LeaseError> {
        self.extend(pool, Duration::ZERO).await
    }

    async fn extend(&self, pool: &PgPool, life: Duration) -> Result<(), LeaseError> {
        let done = sqlx::query(
            "update submitter_leases set expires_at = now() + make_interval(secs => $3)
             where signer = $1 and epoch = $2 and expires_at > now()",
        )
        .bind(&self.signer)
        .bind(self.epoch)
        .bind(life.as_secs_f64())
        .execute(pool)
        .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(LeaseError::Lost) }
    }

    /// Holds the lease until the transaction ends: a successor cannot take it before.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn hold(&self, tx: &mut PgConnection) -> Result<(), LeaseError> {
        let held: Option<i64> = sqlx::query_scalar(
            "select epoch from submitter_leases where signer = $1 and epoch = $2 and expires_at > now() for update",
        )
        .bind(&self.signer)
        .bind(self.epoch)
        .fetch_optional(tx)
        .await?;
        held.map(|_| ()).ok_or(LeaseError::Lost)
    }
}
