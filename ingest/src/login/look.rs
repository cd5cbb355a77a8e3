//! What the database knows before a signature is looked at: whether attempts from there or about the wallet are delayed, whether the
//! challenge was used, and the account, where nothing but a login is to be written for it. One statement for all who ask at the same time;
//! it changes nothing.

use std::net::IpAddr;

use chain::Address;
use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use schemas::ids::UserId;
use sqlx::{FromRow, PgExecutor, PgPool};
use uuid::Uuid;

use super::{SESSIONS, SignIn};
use crate::auth::keys::Role;
use crate::auth::rate::Key;
use crate::batches::Batches;
use crate::http::problem::{ApiError, CHALLENGE_USED, INTERNAL, SIGN_IN_DELAYED};

/// Of a wallet that signed before, of an account in order, all is there that a first login makes.
const LOOK: &str = "select
       (select max(f.delayed_until) from sign_in_failures f
        where f.delayed_until > asked.at and (f.key = 'network/' || asked.from_network
          or f.key = 'wallet/' || asked.wallet and not exists (
            select from user_wallets w join user_sessions s on s.user_id = w.user_id
            where w.wallet_type = 'vechain' and w.network in ('mainnet', 'testnet') and w.wallet_address = asked.wallet
              and s.is_active and s.ip_address = asked.address))) as delayed_until,
       exists (select from wallet_challenges c where c.id = asked.challenge) as used,
       known.user_id, known.role, known.last_login_at, known.wallet_id, known.surplus
     from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[]) with ordinality
         as asked (address, from_network, wallet, network, challenge, at, place)
       left join lateral (
         select u.id as user_id, u.role, u.last_login_at, w.id as wallet_id,
           array(select s.id from user_sessions s where s.user_id = u.id and s.is_active and s.expires_at > asked.at
                 order by s.last_activity desc, s.created_at desc, s.id desc offset $7) as surplus
         from user_wallets w join users u on u.id = w.user_id
         where w.wallet_type = 'vechain' and w.network = asked.network::user_wallets_network and w.wallet_address = asked.wallet
           and w.removed_at is null and w.verified_at is not null
           and u.is_active and u.username is not null
           and exists (select from user_preferences p where p.user_id = u.id)
           and case when w.is_primary then u.is_verified and u.wallet_address = w.wallet_address
                    else exists (select from user_wallets o where o.user_id = u.id and o.is_primary) end
           and not (u.verification_level = 'basic' and u.is_verified and u.email_verified_at is not null)
           and not exists (select from user_wallets o where o.wallet_type = 'vechain' and o.network in ('mainnet', 'testnet')
                             and o.wallet_address = asked.wallet and o.user_id <> u.id)
           and not exists (select from users o where o.wallet_address = asked.wallet and o.id <> u.id)
       ) known on true
     order by asked.place";

/// What is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(super) address: IpAddr,
    /// None where nobody's delay counts but that of the network.
    pub(super) wallet: Option<Address>,
    /// `user_wallets.network`; none where no account is looked for.
    pub(super) network: Option<&'static str>,
    /// None where there is no challenge.
    pub(super) challenge: Option<Uuid>,
    pub(super) now: DateTime<Utc>,
}

impl Question {
    /// Of somebody whose account is known: only the delay of their network counts.
    pub(super) fn from(address: IpAddr, now: DateTime<Utc>) -> Self {
        Self { address, wallet: None, network: None, challenge: None, now }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, FromRow)]
pub(crate) struct Seen {
    delayed_until: Option<DateTime<Utc>>,
    used: bool,
    user_id: Option<Uuid>,
    role: Option<String>,
    last_login_at: Option<DateTime<Utc>>,
    wallet_id: Option<Uuid>,
    surplus: Option<Vec<Uuid>>,
}

/// An account for which nothing but a login is to be written, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(super) user: UserId,
    pub(super) role: Role,
    pub(super) last_login_at: Option<DateTime<Utc>>,
    pub(super) wallet_id: Uuid,
    /// Sessions that end so that a new one has room.
    pub(super) surplus: Vec<Uuid>,
}

impl Seen {
    /// Refuses an attempt before its delay is over, and a challenge that was used.
    ///
    /// # Errors
    /// [`SIGN_IN_DELAYED`], [`CHALLENGE_USED`].
    pub(super) fn check(&self, now: DateTime<Utc>) -> Result<(), ApiError> {
        if let Some(until) = self.delayed_until {
            let seconds = u64::try_from((until - now).num_seconds() + 1).unwrap_or(1);
            let detail = format!("too many attempts in vain: wait {seconds} s");
            return Err(SIGN_IN_DELAYED.because(detail).retry_after(seconds));
        }
        if self.used { Err(CHALLENGE_USED.error()) } else { Ok(()) }
    }

    pub(super) fn known(self) -> Option<Known> {
        let Self { last_login_at, surplus, .. } = self;
        Some(Known {
            user: UserId(self.user_id?),
            // A role of another release is the transaction's matter.
            role: self.role?.parse().ok()?,
            last_login_at,
            wallet_id: self.wallet_id?,
            surplus: surplus.unwrap_or_default(),
        })
    }
}

impl SignIn {
    /// What is known before a signature is looked at.
    pub(super) async fn look(&self, question: Question) -> Result<Seen, ApiError> {
        let seen = match self.looks.ask(question.clone()).await? {
            Some(seen) => Some(seen),
            None => look(&self.pool, &[question]).await?.pop(),
        };
        seen.ok_or_else(|| INTERNAL.error())
    }
}

/// All that are asked at the same time.
pub(crate) fn looks(pool: &PgPool) -> Batches<Question, Seen> {
    Batches::of(pool, |connection, asked| look(connection, asked).boxed())
}

/// What is known of each, in order.
async fn look(executor: impl PgExecutor<'_>, questions: &[Question]) -> Result<Vec<Seen>, sqlx::Error> {
    sqlx::query_as(LOOK)
        .bind(questions.iter().map(|asked| asked.address.to_string()).collect::<Vec<_>>())
        .bind(questions.iter().map(|asked| Key::network(asked.address).to_string()).collect::<Vec<_>>())
        .bind(questions.iter().map(|asked| asked.wallet.map(|wallet| wallet.to_string())).collect::<Vec<_>>())
        .bind(questions.iter().map(|asked| asked.network).collect::<Vec<_>>())
        .bind(questions.iter().map(|asked| asked.challenge).collect::<Vec<_>>())
        .bind(questions.iter().map(|asked| asked.now).collect::<Vec<_>>())
        .bind(SESSIONS - 1)
        .fetch_all(executor)
        .await
}
