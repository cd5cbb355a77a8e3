//! Admission: who asks, and whether they may ask now.

use std::net::IpAddr;
use std::sync::Arc;

use runtime::clock::Clock;
use schemas::ids::UserId;
use sqlx::PgPool;
use uuid::Uuid;
use warp::http::HeaderMap;

use super::address::{Peer, Proxies};
use super::api_keys::{self, KeyHolder, Scopes};
use super::keys::{KeySet, Role};
use super::rate::{Key, Limiter};
use super::standing::Accounts;
use crate::http::operation::Operation;
use crate::http::problem::{ApiError, INTERNAL, MAINTENANCE, RATE_LIMITED, TOKEN_MISSING};
use crate::http::request::{Extract, Provide, Request, text};
use crate::live::LiveSettings;

/// Who asks, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: UserId,
    pub(crate) address: IpAddr,
    pub(crate) role: Role,
    /// `user_sessions.id`, or that of the key of a service.
    pub(crate) session: Uuid,
    /// What a key allows; a token allows all that its role may.
    pub(crate) scopes: Scopes,
}

/// A caller who may upload now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uploader(pub(crate) Caller);

/// A caller who may claim now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant(pub(crate) Caller);

/// A caller who may have everything about them put together now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exporter(pub(crate) Caller);

/// The address of somebody who has no token yet, within its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visitor(pub(crate) IpAddr);

/// The same, who may sign in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entrant(pub(crate) IpAddr);

/// `User-Agent`, as much of it as is kept.
pub(crate) struct Agent(pub(crate) Option<String>);

/// Characters of a `User-Agent` that are kept.
const AGENT_MAX: usize = 512;

/// What callers are checked against.
pub(crate) struct Admission {
    /// Where keys of services are.
    pub(crate) pool: PgPool,
    pub(crate) accounts: Accounts,
    pub(crate) keys: KeySet,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limiter: Limiter,
    pub(crate) live: Arc<LiveSettings>,
    /// Proxies that are believed.
    pub(crate) trusted_proxies: Proxies,
}

impl<S: Sync> Extract<S> for Caller {
    /// Dispatch has put it there, where the route's row lets only callers pass; a row that does not is a mistake that a test shows.
    async fn extract(_dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        request.extensions.get().copied().ok_or_else(|| INTERNAL.error())
    }

    fn describe(operation: &mut Operation) {
        operation.needs_caller();
    }
}

impl<S: Provide<Arc<Admission>> + Sync> Extract<S> for Visitor {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        dependencies.provide().address(&request.headers, request.peer).map(Self)
    }

    fn describe(operation: &mut Operation) {
        operation.problems(&[RATE_LIMITED]);
    }
}

impl<S: Sync> Extract<S> for Agent {
    async fn extract(_dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        let agent = text(&request.headers, "user-agent");
        Ok(Self(agent.map(|agent| agent.chars().take(AGENT_MAX).collect())))
    }
}

impl<S: Provide<Arc<Admission>> + Sync> Extract<S> for Uploader {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        let caller = Caller::extract(dependencies, request).await?;
        dependencies.provide().take(Key::UploadAddress(Key::network(caller.address)))?;
        Ok(Self(caller))
    }

    fn describe(operation: &mut Operation) {
        <Caller as Extract<S>>::describe(operation);
        operation.problems(&[RATE_LIMITED]);
    }
}

impl<S: Provide<Arc<Admission>> + Sync> Extract<S> for Claimant {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        let caller = Caller::extract(dependencies, request).await?;
        dependencies.provide().take(Key::Claim(caller.user))?;
        Ok(Self(caller))
    }

    fn describe(operation: &mut Operation) {
        <Caller as Extract<S>>::describe(operation);
        operation.problems(&[RATE_LIMITED]);
    }
}

impl<S: Provide<Arc<Admission>> + Sync> Extract<S> for Entrant {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        let admission = dependencies.provide();
        let address = admission.address(&request.headers, request.peer)?;
        admission.take(Key::LoginAddress(Key::network(address)))?;
        Ok(Self(address))
    }

    fn describe(operation: &mut Operation) {
        operation.problems(&[RATE_LIMITED]);
    }
}

impl<S: Provide<Arc<Admission>> + Sync> Extract<S> for Exporter {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        let caller = Caller::extract(dependencies, request).await?;
        dependencies.provide().take(Key::Export(caller.user))?;
        Ok(Self(caller))
    }

    fn describe(operation: &mut Operation) {
        <Caller as Extract<S>>::describe(operation);
        operation.problems(&[RATE_LIMITED]);
    }
}

impl Admission {
    /// Who asks: address within its rate, token valid, user within their rate, account and session active; the database is
    /// asked last.
    pub(super) async fn admit(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<Caller, ApiError> {
        let address = self.address(headers, peer)?;
        let bearer = bearer(headers)?;
        if bearer.starts_with(api_keys::PREFIX) {
            let KeyHolder { id, user, scopes } =
                api_keys::check(&self.pool, bearer, self.clock.now()).await?;
            self.take(Key::ApiUser(user))?;
            return Ok(Caller { user, address, role: Role::Service, session: id, scopes });
        }
        let claims = self.keys.check(bearer, self.clock.now())?;
        self.take(Key::ApiUser(claims.sub))?;
        self.accounts.check(&claims).await?;
        Ok(Caller { user: claims.sub, address, role: claims.role, session: claims.sid, scopes: Scopes::ALL })
    }

    /// Where the request comes from, within its rate.
    fn address(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<IpAddr, ApiError> {
        let address = self.trusted_proxies.client_address(headers, peer);
        self.take(Key::ApiAddress(Key::network(address)))?;
        Ok(address)
    }

    /// Refuses what is paused for maintenance: the writing of everybody but operators.
    pub(crate) fn admit_write(&self, caller: Option<&Caller>) -> Result<(), ApiError> {
        let operates = caller.is_some_and(|caller| caller.role == Role::Operator);
        if !operates && self.live.now().switches.maintenance { Err(MAINTENANCE.error()) } else { Ok(()) }
    }

    /// Takes one request of a key.
    pub(crate) fn take(&self, key: Key) -> Result<(), ApiError> {
        let refused = |seconds| {
            RATE_LIMITED.because(format!("too many requests: wait {seconds} s")).retry_after(seconds)
        };
        self.limiter.take(key, &self.live.now().rates, self.clock.now()).map_err(refused)
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = text(headers, "authorization").and_then(|value| value.split_once(' '));
    let (scheme, token) = value.ok_or_else(|| TOKEN_MISSING.error())?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(TOKEN_MISSING.error()) }
}
