//! The gateway's parts, put together once and shared by every connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::clock::Clock;
use runtime::health::Health;
use runtime::producer::Outbound;
use schemas::ids::{Micros, UserId};
use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;
use warp::http::HeaderMap;
use warp::http::header::AUTHORIZATION;
use warp::reply::Response;

use crate::activity::ErrorBudget;
use crate::check::PhotoCheck;
use crate::config::GatewayConfig;
use crate::error::ApiError;
use crate::keys::{Claims, KeySet};
use crate::metrics::GatewayMetrics;
use crate::rate::{Key, Limiter};
use crate::routes::{ROUTES, UNMATCHED};
use crate::server::Peer;
use crate::store::PhotoStore;
use crate::token::SchemaIds;

/// What the gateway works with.
pub struct Parts {
    /// Postgres.
    pub pool: PgPool,
    /// Kafka; its patience should not be above [`crate::config::Timeouts::publish`].
    pub outbound: Arc<dyn Outbound>,
    /// Where photos are kept.
    pub photos: PhotoStore,
    /// The check of a photo's bytes.
    pub check: Arc<dyn PhotoCheck>,
    /// Public keys of tokens.
    pub keys: KeySet,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: GatewayMetrics,
    /// Liveness and readiness.
    pub health: Health,
    /// Registry ids of what the gateway writes.
    pub schemas: SchemaIds,
}

/// The gateway; cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    config: GatewayConfig,
    parts: Parts,
    limiter: Limiter,
    uploads: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    batches: Arc<Semaphore>,
    errors: ErrorBudget,
}

/// Who asks, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: UserId,
    pub(crate) address: IpAddr,
    /// False while uploads are paused.
    pub(crate) writable: bool,
}

impl Gateway {
    /// Puts the parts together.
    #[must_use]
    pub fn new(config: GatewayConfig, parts: Parts) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count));
        Self(Arc::new(Inner {
            limiter: Limiter::default(),
            uploads: places(config.limits.uploads),
            checks: places(config.limits.checks),
            streams: places(config.limits.streams),
            batches: places(config.limits.batches),
            errors: ErrorBudget::default(),
            config,
            parts,
        }))
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &GatewayConfig {
        &self.0.config
    }

    /// Liveness and readiness.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.0.parts.health
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.0.parts.pool
    }

    pub(crate) fn now(&self) -> Micros {
        self.0.parts.clock.now()
    }

    pub(crate) fn error_budget(&self) -> &ErrorBudget {
        &self.0.errors
    }

    /// A place among the uploads being read.
    pub(crate) async fn upload_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.place(&self.0.uploads).await
    }

    /// A place among the photos being checked.
    pub(crate) async fn check_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.place(&self.0.checks).await
    }

    /// A place among the batches of chain events being taken.
    pub(crate) async fn batch_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.place(&self.0.batches).await
    }

    /// A place among the event streams: at once or not at all, as they last long.
    pub(crate) fn stream_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.0.streams.clone().try_acquire_owned().map_err(|_| ApiError::Busy { retry_after: 10 })
    }

    async fn place(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
        let wait = self.0.config.timeouts.place;
        match tokio::time::timeout(wait, places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(ApiError::Busy { retry_after: 5 }),
        }
    }

    /// Who asks: address within its rate, token valid, user within their rate, account and session active; the database is
    /// asked last.
    pub(crate) async fn admit(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<Caller, ApiError> {
        let address = self.address(headers, peer);
        let rates = &self.0.config.rates;
        self.take(Key::ApiAddress(Key::network(address)), rates.api_per_address)?;
        let claims = self.0.parts.keys.check(bearer(headers)?, self.now())?;
        self.take(Key::ApiUser(claims.sub), rates.api_per_user)?;
        let writable = self.account(&claims).await?;
        Ok(Caller { user: claims.sub, address, writable })
    }

    /// Within the rates of uploads.
    pub(crate) fn admit_upload(&self, caller: &Caller) -> Result<(), ApiError> {
        if !caller.writable {
            return Err(ApiError::Maintenance);
        }
        let rates = &self.0.config.rates;
        self.take(Key::UploadAddress(Key::network(caller.address)), rates.uploads_per_address)?;
        self.take(Key::UploadUser(caller.user), rates.uploads_per_user)
    }

    fn take(&self, key: Key, rate: crate::config::Rate) -> Result<(), ApiError> {
        let taken = self.0.limiter.take(key, rate, self.now());
        taken.map_err(|retry_after| ApiError::RateLimited { retry_after })
    }

    /// Whether uploads are taken; an error where the account or the session is not in order.
    async fn account(&self, claims: &Claims) -> Result<bool, ApiError> {
        let row: Option<(bool, Option<bool>, bool)> = sqlx::query_as(
            "select u.is_active, s.is_active, exists (select from system_config where maintenance_mode)
             from users u left join user_sessions s on s.id = $2 and s.user_id = u.id where u.id = $1",
        )
        .bind(claims.sub.0)
        .bind(claims.sid)
        .fetch_optional(self.pool())
        .await?;
        match row {
            Some((true, Some(true), maintenance)) => Ok(!maintenance),
            Some((false, ..)) => Err(ApiError::AccountLocked),
            Some(_) => Err(ApiError::TokenInvalid("its session has ended")),
            None => Err(ApiError::TokenInvalid("its account does not exist")),
        }
    }

    /// The client's address: the peer, or behind trusted proxies the last address that none of them has.
    fn address(&self, headers: &HeaderMap, peer: Option<Peer>) -> IpAddr {
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip().to_canonical());
        let trusted = &self.0.config.trusted_proxies;
        if !trusted.contains(&peer) {
            return peer;
        }
        let forwarded: Vec<IpAddr> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|address| address.trim().parse().ok())
            .collect();
        forwarded.into_iter().rev().find(|address| !trusted.contains(address)).unwrap_or(peer)
    }

    /// Counts and times a request, turns an error into its problem document, and records a fault of ours.
    pub(crate) async fn answer(
        &self,
        route: &'static str,
        work: impl Future<Output = Result<Response, ApiError>>,
    ) -> Response {
        debug_assert!(route == UNMATCHED || ROUTES.iter().any(|(_, known)| *known == route), "{route}");
        let begun = Instant::now();
        let response = work.await.unwrap_or_else(|error| self.refuse(route, error));
        self.count(route, &response, begun.elapsed());
        response
    }

    pub(crate) fn count(&self, route: &str, response: &Response, took: Duration) {
        let metrics = &self.0.parts.metrics;
        metrics.http_requests.with_label_values(&[route, response.status().as_str()]).inc();
        metrics.http_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    fn refuse(&self, route: &str, error: ApiError) -> Response {
        // Being busy or in maintenance is no fault; what has a cause is.
        if std::error::Error::source(&error).is_some() {
            tracing::error!(route, code = error.answer().1, error = %error.causes(), "request failed");
            self.record_error(&error);
        } else {
            tracing::debug!(route, code = error.answer().1, "request refused");
        }
        error.into_response()
    }

    /// An id for what has no event: UUIDv7.
    pub(crate) fn fresh_id() -> Uuid {
        Uuid::now_v7()
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = headers.get(AUTHORIZATION).ok_or(ApiError::TokenMissing)?;
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(ApiError::TokenMissing) }
}
