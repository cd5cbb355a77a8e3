//! The plain login: of an account for which nothing but the login is to be written ([`super::look`]). One statement writes it, and all
//! others that come at the same time. What it does not write is left to the transaction of [`super::enter`].
//!
//! An account is taken as it was seen: where its role, its standing or its last login is another by now, nothing is written. Each login
//! moves the last one, so that of two at once the second finds another, and nobody gets more sessions than are allowed. Rows are locked in
//! one order here and in the transaction, account, wallet, challenge, each table's by its key, so that logins cannot deadlock; the
//! challenge comes last, and is used up only where all else is as it must be.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::challenge::Challenge;
use super::look::Known;
use crate::auth::rate::Key;
use crate::batches::Batches;
use crate::outbox::Row;

/// Milliseconds that the statement waits for a row that another transaction has locked: what is behind it waits as well.
const LOCK_MS: &str = "1000";

/// Tells of each login whose account was as it was seen whether it used the challenge up.
const ENTER: &str = "with bounded as materialized (select set_config('lock_timeout', $1, true)),
     account as materialized (
       select asked.* from bounded,
         unnest($2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::uuid[], $7::text[], $8::uuid[], $9::text[], $10::text[],
                $11::text[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::text[], $16::text[], $17::timestamptz[],
                $18::text[], $19::text[])
           as asked (session_id, user_id, role, last_login_at, wallet_id, wallet, challenge, domain, genesis_id,
                     asked_from, issued_at, challenge_ends, at, access, refresh, expires_at, address, agent)
         join users u on u.id = asked.user_id
       where u.is_active and u.role = asked.role and u.last_login_at is not distinct from asked.last_login_at
       order by u.id for no key update of u
     ), own as materialized (
       select account.* from account join user_wallets w on w.id = account.wallet_id
       where w.user_id = account.user_id and w.wallet_address = account.wallet and w.removed_at is null
       order by w.id for no key update of w
     ), used as (
       insert into wallet_challenges (id, purpose, wallet_address, domain, genesis_id, nonce, asked_from, issued_at, expires_at, used_at)
       select challenge, 'sign_in', wallet, domain, genesis_id, replace(challenge::text, '-', ''), asked_from, issued_at, challenge_ends, at
       from own order by challenge
       on conflict (id) do nothing returning id
     ), entered as materialized (
       select own.* from own join used on used.id = own.challenge
     ), proven as (
       update user_wallets w set verified_at = e.at, updated_at = e.at from entered e where w.id = e.wallet_id
     ), seen as (
       update users u set last_login_at = e.at, updated_at = e.at from entered e where u.id = e.user_id
     ), forgotten as (
       delete from sign_in_failures f using entered e where f.key = 'wallet/' || e.wallet
     ), ended as (
       update user_sessions s set is_active = false
       from unnest($20::uuid[], $21::uuid[]) as surplus (id, session_id) join entered e using (session_id)
       where s.id = surplus.id and s.user_id = e.user_id
     ), begun as (
       insert into user_sessions (id, user_id, session_token, refresh_token, expires_at, created_at, is_active, last_activity, ip_address,
         user_agent)
       select session_id, user_id, access, refresh, expires_at, at, true, date_trunc('minute', at, 'UTC'), address, agent from entered
     ), announced as (
       insert into outbox (topic, key, event_id, payload, created_at)
       select r.topic, r.key, r.event_id, r.payload, e.at
       from unnest($22::uuid[], $23::text[], $24::bytea[], $25::uuid[], $26::bytea[]) with ordinality
           as r (session_id, topic, key, event_id, payload, n) join entered e using (session_id)
       order by r.n
     )
     select session_id, challenge in (select id from used) from own";

/// A login that is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(super) known: Known,
    pub(super) challenge: Challenge,
    pub(super) session: Uuid,
    /// Of the tokens only hashes are kept.
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) address: IpAddr,
    pub(super) agent: Option<String>,
    /// Of the login, and of each session that ends for it.
    pub(super) records: Vec<Row>,
    pub(super) now: DateTime<Utc>,
}

/// What became of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// Written.
    Yes,
    /// Another attempt has used the challenge up.
    ChallengeUsed,
    /// Left to the transaction.
    No,
}

/// All that come at the same time.
pub(crate) fn plains(pool: &PgPool) -> Batches<Plain, Entered> {
    Batches::of(pool, |connection, wanted| enter(connection, wanted).boxed())
}

/// What became of them, in order.
async fn enter(executor: impl PgExecutor<'_>, wanted: &[Plain]) -> Result<Vec<Entered>, sqlx::Error> {
    // A statement touches a row once: of a user's, the first.
    let mut users = HashSet::new();
    let tried: Vec<&Plain> = wanted.iter().filter(|plain| users.insert(plain.known.user)).collect();
    let surplus: Vec<(Uuid, Uuid)> = tried
        .iter()
        .flat_map(|plain| plain.known.surplus.iter().map(|ended| (*ended, plain.session)))
        .collect();
    let records: Vec<(Uuid, &Row)> =
        tried.iter().flat_map(|plain| plain.records.iter().map(|record| (plain.session, record))).collect();
    let of = |challenge: fn(&Challenge) -> String| {
        tried.iter().map(|plain| challenge(&plain.challenge)).collect::<Vec<_>>()
    };
    let at =
        |instant: fn(&Plain) -> DateTime<Utc>| tried.iter().map(|plain| instant(plain)).collect::<Vec<_>>();
    let entered: Vec<(Uuid, bool)> = sqlx::query_as(ENTER)
        .bind(LOCK_MS)
        .bind(tried.iter().map(|plain| plain.session).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.known.user.0).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.known.role.label()).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.known.last_login_at).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.known.wallet_id).collect::<Vec<_>>())
        .bind(of(|challenge| challenge.wallet.to_string()))
        .bind(tried.iter().map(|plain| plain.challenge.id).collect::<Vec<_>>())
        .bind(of(|challenge| challenge.domain.clone()))
        .bind(of(|challenge| challenge.genesis_id.clone()))
        .bind(tried.iter().map(|plain| Key::network(plain.address).to_string()).collect::<Vec<_>>())
        .bind(at(|plain| plain.challenge.issued_at))
        .bind(at(|plain| plain.challenge.expires_at()))
        .bind(at(|plain| plain.now))
        .bind(tried.iter().map(|plain| plain.access.as_str()).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.refresh.as_str()).collect::<Vec<_>>())
        .bind(at(|plain| plain.expires_at))
        .bind(tried.iter().map(|plain| plain.address.to_string()).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.agent.as_deref()).collect::<Vec<_>>())
        .bind(surplus.iter().map(|(ended, _)| *ended).collect::<Vec<_>>())
        .bind(surplus.iter().map(|(_, session)| *session).collect::<Vec<_>>())
        .bind(records.iter().map(|(session, _)| *session).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, record)| record.topic).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, record)| record.key.as_slice()).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, record)| record.event_id).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, record)| record.payload.as_slice()).collect::<Vec<_>>())
        .fetch_all(executor)
        .await?;
    let entered: HashMap<Uuid, bool> = entered.into_iter().collect();
    let became = |plain: &Plain| match entered.get(&plain.session) {
        Some(true) => Entered::Yes,
        Some(false) => Entered::ChallengeUsed,
        None => Entered::No,
    };
    Ok(wanted.iter().map(became).collect())
}
