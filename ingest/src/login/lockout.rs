//! The delay after attempts in vain, which grows with each: by the network that they come from, and by the wallet that they are about. It
//! is kept in Postgres, so that it holds over restarts and gateways, and nothing that an attacker does shortens it. [`super::look`] refuses
//! whoever does not wait.

use chain::Address;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use std::net::IpAddr;

use crate::auth::rate::Key;

/// Attempts in vain before there is a delay, and the longest delay in seconds. Many people may share a network.
const BY_NETWORK: (i32, i64) = (10, 900);
/// A wallet's address is public, so that anybody can fail in its name: nobody is kept out of their account for longer than a minute by
/// that, nor at all where they signed in from before.
const BY_WALLET: (i32, i64) = (5, 60);
/// After so much quiet the count begins anew.
const QUIET: TimeDelta = TimeDelta::hours(1);

/// Counts attempts in vain.
pub(super) struct Lockout<'a> {
    pool: &'a PgPool,
    network: String,
    wallet: Option<Address>,
}

/// What an attempt in vain came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failed {
    /// Attempts in vain of the network, this one included.
    pub(super) failures: i32,
    /// With this attempt the network's delay begins.
    pub(super) network_delayed: bool,
    /// With this attempt the wallet's delay begins.
    pub(super) wallet_delayed: bool,
}

impl<'a> Lockout<'a> {
    pub(super) fn new(pool: &'a PgPool, from: IpAddr, wallet: Option<Address>) -> Self {
        Self { pool, network: format!("network/{}", Key::network(from)), wallet }
    }

    fn wallet_key(&self) -> Option<String> {
        self.wallet.map(|wallet| format!("wallet/{wallet}"))
    }

    /// Counts an attempt in vain.
    pub(super) async fn failed(&self, now: DateTime<Utc>) -> Result<Failed, sqlx::Error> {
        let failures = self.count(&self.network, BY_NETWORK, now).await?;
        let by_wallet = match self.wallet_key() {
            Some(key) => self.count(&key, BY_WALLET, now).await?,
            None => 0,
        };
        Ok(Failed {
            failures,
            network_delayed: failures == BY_NETWORK.0 + 1,
            wallet_delayed: by_wallet == BY_WALLET.0 + 1,
        })
    }

    async fn count(&self, key: &str, limits: (i32, i64), now: DateTime<Utc>) -> Result<i32, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let failures: i32 = sqlx::query_scalar(
            "insert into sign_in_failures (key, failures, last_at, delayed_until) values ($1, 1, $2, $2)
             on conflict (key) do update set last_at = $2,
               failures = case when sign_in_failures.last_at < $3 then 1
                               else least(sign_in_failures.failures, 1000000) + 1 end
             returning failures",
        )
        .bind(key)
        .bind(now)
        .bind(now - QUIET)
        .fetch_one(&mut *tx)
        .await?;
        sqlx::query("update sign_in_failures set delayed_until = greatest(delayed_until, $2) where key = $1")
            .bind(key)
            .bind(now + TimeDelta::seconds(delay(failures, limits)))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(failures)
    }

    /// The wallet has signed: what others failed at in its name is forgotten. The network's count is not, or an attacker would clear it
    /// with a wallet of their own.
    pub(super) async fn succeeded(&self) -> Result<(), sqlx::Error> {
        sqlx::query("delete from sign_in_failures where key = $1")
            .bind(self.wallet_key())
            .execute(self.pool)
            .await?;
        Ok(())
    }
}

/// Seconds after the n-th attempt in vain: none at first, then twice as long each time.
fn delay(failures: i32, (free, most): (i32, i64)) -> i64 {
    match failures - free {
        ..=0 => 0,
        // 2^20 s are longer than any limit.
        over => most.min(1 << over.min(20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_with_each_attempt_up_to_its_limit() {
        let delays: Vec<i64> = [1, 5, 6, 7, 10, 11, 100, i32::MAX].map(|n| delay(n, BY_WALLET)).into();
        assert_eq!(delays, [0, 0, 2, 4, 32, 60, 60, 60]);
        assert_eq!(delay(20, BY_NETWORK), 900);
    }
}
