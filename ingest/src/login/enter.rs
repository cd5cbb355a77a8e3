//! The login that makes or changes more of an account than a plain one: in a transaction, under the account's lock.

use chain::Address;
use chrono::{DateTime, Utc};
use runtime::switches::Flag;
use schemas::ids::{Micros, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::challenge::Challenge;
use super::lockout::Lockout;
use super::records::Trace;
use super::tokens::{Tokens, make};
use super::{Network, SESSIONS, SignIn};
use crate::accounts::level::raise;
use crate::accounts::session::NewSession;
use crate::accounts::token::account;
use crate::accounts::wallets::{WalletError, ensure_linked};
use crate::auth::keys::{Role, SigningKey};
use crate::http::problem::{ApiError, INTERNAL, REGISTRATIONS_CLOSED, WALLET_TAKEN};
use crate::outbox::announce;

impl SignIn {
    /// Enters by a wallet that has signed the challenge, which is used up.
    pub(super) async fn enter(
        &self,
        key: &SigningKey,
        (wallet, network): (Address, &Network),
        challenge: &Challenge,
        trace: &mut Trace,
        now: Micros,
    ) -> Result<Tokens, ApiError> {
        let mut tx = self.pool.begin().await?;
        trace.user = owner(&mut tx, wallet).await?;
        if trace.user.is_none() && !self.admission.live.now().switches.is_on(Flag::Registrations) {
            return Err(REGISTRATIONS_CLOSED.error());
        }
        let user = trace.user.unwrap_or_else(|| UserId(Uuid::now_v7()));
        let role = self.make(&mut tx, user, wallet, network, now).await?;
        challenge.consume(&mut tx, trace.address, now.to_utc()).await?;
        let session = Uuid::now_v7();
        let (tokens, expires_at) = make(key, (user, role, session), now.to_utc(), now)?;
        let row = NewSession {
            id: session,
            user: user.0,
            access: &tokens.access_token,
            refresh: tokens.refresh_token.as_bytes(),
            expires_at,
            address: Some(trace.address.to_string()),
            agent: trace.agent.as_deref(),
        };
        row.insert(&mut tx, now.to_utc()).await?;
        trace.user = Some(user);
        let log = trace.clone().with("session_id", session.to_string()).success(now)?;
        announce(&mut tx, self.schemas.activity_logged, &log, now).await?;
        self.end_oldest(&mut tx, (user, session), trace, now).await?;
        tx.commit().await?;
        Lockout::new(&self.pool, trace.address, Some(wallet)).succeeded().await?;
        Ok(tokens)
    }

    /// Makes the account where there is none, links the wallet, and notes what the signature proves; the account's role.
    async fn make(
        &self,
        tx: &mut PgConnection,
        user: UserId,
        wallet: Address,
        network: &Network,
        now: Micros,
    ) -> Result<Role, ApiError> {
        account(tx, self.schemas, user, now).await?;
        prove_wallet(tx, user, wallet, network, now).await?;
        raise(tx, self.schemas.account_changed, user, now).await?;
        let role: String = sqlx::query_scalar(
            "update users set last_login_at = $2, updated_at = $2 where id = $1 returning role",
        )
        .bind(user.0)
        .bind(now.to_utc())
        .fetch_one(tx)
        .await?;
        role.parse().map_err(|error: String| INTERNAL.caused_by(error))
    }

    /// Ends the sessions of a user that are more than anybody has, those first that were used least recently; the new one stays.
    async fn end_oldest(
        &self,
        tx: &mut PgConnection,
        (user, session): (UserId, Uuid),
        trace: &Trace,
        now: Micros,
    ) -> Result<(), ApiError> {
        let ended: Vec<Uuid> = sqlx::query_scalar(
            "update user_sessions set is_active = false where id in (
               select id from user_sessions where user_id = $1 and is_active and expires_at > $3 and id <> $2
               order by last_activity desc, created_at desc, id desc offset $4) returning id",
        )
        .bind(user.0)
        .bind(session)
        .bind(now.to_utc())
        .bind(SESSIONS - 1)
        .fetch_all(&mut *tx)
        .await?;
        for session in ended {
            let log = trace.made_room(session).success(now)?;
            announce(tx, self.schemas.activity_logged, &log, now).await?;
        }
        Ok(())
    }
}

/// Whose wallet it is, on whichever network. Two first logins of one wallet wait for each other here.
async fn owner(tx: &mut PgConnection, wallet: Address) -> Result<Option<UserId>, sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('wallet/' || $1, 0))")
        .bind(wallet.to_string())
        .execute(&mut *tx)
        .await?;
    let found: Option<Uuid> = sqlx::query_scalar(
        "select user_id from user_wallets where wallet_type = 'vechain' and network in ('mainnet', 'testnet')
           and wallet_address = $1 and removed_at is null limit 1",
    )
    .bind(wallet.to_string())
    .fetch_optional(tx)
    .await?;
    Ok(found.map(UserId))
}

/// Links a wallet that has signed; its row, which says so from now on.
pub(crate) async fn prove_wallet(
    tx: &mut PgConnection,
    user: UserId,
    wallet: Address,
    network: &Network,
    now: Micros,
) -> Result<Uuid, ApiError> {
    let at: DateTime<Utc> = now.to_utc();
    let id = match ensure_linked(tx, user, &wallet.to_string(), network.label, now).await {
        Ok(id) => id,
        Err(WalletError::Taken) => return Err(WALLET_TAKEN.error()),
        Err(WalletError::Database(error)) => return Err(error.into()),
        Err(WalletError::Account(error)) => return Err(error.into()),
        Err(other) => return Err(INTERNAL.caused_by(other)),
    };
    // One that was removed before comes back.
    sqlx::query(
        "update user_wallets w set verified_at = $2, removed_at = null, updated_at = $2,
           is_primary = coalesce(w.is_primary, false)
             or not exists (select from user_wallets o where o.user_id = w.user_id and o.is_primary)
         where w.id = $1",
    )
    .bind(id)
    .bind(at)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "update users u set wallet_address = w.wallet_address, is_verified = true
         from user_wallets w where w.id = $1 and w.is_primary and u.id = w.user_id",
    )
    .bind(id)
    .execute(tx)
    .await?;
    Ok(id)
}
