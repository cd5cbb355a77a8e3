//! The routes: the only file that knows warp's filters.

use std::convert::Infallible;

use bytes::Buf;
use futures::Stream;
use schemas::ids::UploadId;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::accept::json_response;
use crate::body::Body;
use crate::claims::CLAIM_BYTES;
use crate::config::Timeouts;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::list::PageQuery;
use crate::openapi;
use crate::server::Peer;
use crate::status::one;

/// Method and template of the gateway's own routes, as metrics and the OpenAPI document name them.
pub const ROUTES: [(&str, &str); 8] = [
    ("post", "/v1/uploads"),
    ("get", "/v1/uploads"),
    ("get", "/v1/uploads/{id}"),
    ("get", "/v1/uploads/{id}/events"),
    ("get", "/v1/rewards"),
    ("post", "/v1/rewards/{id}/claim"),
    ("post", "/v1/chain/events"),
    ("get", "/openapi.json"),
];

/// What metrics call a request that no route took.
pub(crate) const UNMATCHED: &str = "unmatched";

/// All routes of the role.
pub fn routes(gateway: Gateway, stop: CancellationToken) -> BoxedFilter<(Response,)> {
    let ops = runtime::ops::routes(gateway.health().clone(), gateway.parts().metrics.exporter.clone());
    let uploads = post_upload(gateway.clone()).or(list(gateway.clone())).unify();
    let upload = status(gateway.clone()).or(events(gateway.clone(), stop)).unify();
    let described = openapi(gateway.clone());
    let rewards = rewards(gateway.clone()).or(claim(gateway.clone())).unify();
    let rewards = rewards.or(chain_events(gateway.clone())).unify();
    let served = uploads.or(upload).unify().or(rewards).unify().or(described).unify().or(ops).unify();
    served.recover(move |rejection| refuse(gateway.clone(), rejection)).unify().boxed()
}

fn with(gateway: Gateway) -> impl Filter<Extract = (Gateway,), Error = Infallible> + Clone {
    warp::any().map(move || gateway.clone())
}

fn request() -> impl Filter<Extract = (HeaderMap, Option<Peer>), Error = Infallible> + Copy {
    warp::header::headers_cloned().and(warp::ext::optional::<Peer>())
}

fn post_upload(gateway: Gateway) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("v1" / "uploads")
        .and(warp::post())
        .and(with(gateway))
        .and(request())
        .and(warp::body::stream())
        .then(|gateway: Gateway, headers, peer, body| async move {
            let body = limited(&gateway, body);
            gateway.answer("/v1/uploads", gateway.post_upload(headers, peer, body)).await
        })
}

fn limited<B: Buf>(
    gateway: &Gateway,
    stream: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
) -> Body {
    let config = gateway.config();
    Body::new(stream, &config.limits, &config.timeouts)
}

fn list(gateway: Gateway) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("v1" / "uploads").and(warp::get()).and(with(gateway)).and(request()).and(query()).then(
        |gateway: Gateway, headers: HeaderMap, peer, query: String| async move {
            let work = async {
                let caller = gateway.admit(&headers, peer).await?;
                let query = PageQuery::parse(&query)?;
                Ok(json_response(&gateway.list(caller.user, query).await?))
            };
            gateway.answer("/v1/uploads", work).await
        },
    )
}

fn rewards(gateway: Gateway) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("v1" / "rewards").and(warp::get()).and(with(gateway)).and(request()).and(query()).then(
        |gateway: Gateway, headers: HeaderMap, peer, query: String| async move {
            let work = async {
                let caller = gateway.admit(&headers, peer).await?;
                let query = PageQuery::parse(&query)?;
                Ok(json_response(&gateway.rewards(caller.user, query).await?))
            };
            gateway.answer("/v1/rewards", work).await
        },
    )
}

fn claim(gateway: Gateway) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("v1" / "rewards" / String / "claim")
        .and(warp::post())
        .and(with(gateway))
        .and(request())
        .and(warp::body::stream())
        .then(|id: String, gateway: Gateway, headers: HeaderMap, peer, body| async move {
            let timeouts = &gateway.config().timeouts;
            let body = Body::capped(body, CLAIM_BYTES, |_| ApiError::UnexpectedBody, timeouts);
            let work = async {
                let caller = gateway.admit(&headers, peer).await?;
                let reward = id.parse().map_err(|_| ApiError::RewardNotFound)?;
                gateway.post_claim(&caller, reward, body).await
            };
            gateway.answer("/v1/rewards/{id}/claim", work).await
        })
}

fn chain_events(gateway: Gateway) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("v1" / "chain" / "events")
        .and(warp::post())
        .and(with(gateway))
        .and(request())
        .and(warp::body::stream())
        .then(|gateway: Gateway, headers: HeaderMap, _peer, body| async move {
            let config = gateway.config();
            let too_large = |limit| ApiError::BatchTooLarge { limit };
            let timeouts = Timeouts { body_total: config.timeouts.batch, ..config.timeouts };
            let body = Body::capped(body, config.limits.chain_bytes, too_large, &timeouts);
            gateway.answer("/v1/chain/events", gateway.chain_events(&headers, body)).await
        })
}

/// The query, empty where there is none.
fn query() -> impl Filter<Extract = (String,), Error = Infallible> + Copy {
    warp::query::raw().or(warp::any().map(String::new)).unify()
}

fn status(gateway: Gateway) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("v1" / "uploads" / String)
        .and(warp::get())
        .and(with(gateway))
        .and(request())
        .and(query())
        .then(|id: String, gateway: Gateway, headers: HeaderMap, peer, query: String| async move {
            let work = async {
                let caller = gateway.admit(&headers, peer).await?;
                no_parameters(&query)?;
                let found = one(gateway.pool(), caller.user, upload_id(&id)?).await?;
                Ok(json_response(&found.ok_or(ApiError::UploadNotFound)?.document()))
            };
            gateway.answer("/v1/uploads/{id}", work).await
        })
}

fn events(
    gateway: Gateway,
    stop: CancellationToken,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("v1" / "uploads" / String / "events")
        .and(warp::get())
        .and(with(gateway))
        .and(request())
        .and(warp::any().map(move || stop.clone()))
        .then(|id: String, gateway: Gateway, headers: HeaderMap, peer, stop| async move {
            let work = async {
                let caller = gateway.admit(&headers, peer).await?;
                let last = headers.get("last-event-id");
                let last = last.map(|id| id.to_str().unwrap_or_default().to_owned());
                gateway.events(caller.user, upload_id(&id)?, last, stop).await
            };
            gateway.answer("/v1/uploads/{id}/events", work).await
        })
}

fn openapi(gateway: Gateway) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("openapi.json").and(warp::get()).and(with(gateway)).then(|gateway: Gateway| async move {
        let document = openapi::document(gateway.config());
        gateway.answer("/openapi.json", async { Ok(json_response(&document)) }).await
    })
}

/// An id that is no UUID is no upload either.
fn upload_id(text: &str) -> Result<UploadId, ApiError> {
    text.parse().map_err(|_| ApiError::UploadNotFound)
}

fn no_parameters(query: &str) -> Result<(), ApiError> {
    match url::form_urlencoded::parse(query.as_bytes()).next() {
        Some((name, _)) => Err(ApiError::UnknownParameter(name.chars().take(64).collect())),
        None => Ok(()),
    }
}

/// What no route took.
async fn refuse(gateway: Gateway, rejection: Rejection) -> Result<Response, Infallible> {
    let error = if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        ApiError::MethodNotAllowed
    } else {
        ApiError::RouteNotFound
    };
    Ok(gateway.answer(UNMATCHED, async { Err(error) }).await)
}
