//! Dispatch by the table of routes, as one warp filter: the handler of method and path, 404 and 405 with `Allow`, HEAD and OPTIONS, metrics
//! by the path's template, and the rest of a refused body.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Buf;
use futures::Stream;
use percent_encoding::percent_decode_str;
use tokio::sync::Mutex;
use uuid::Uuid;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{ALLOW, EXPECT, HeaderValue};
use warp::http::{Extensions, HeaderMap, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;

use super::body::Body;
use super::cors::{Cors, is_preflight};
use super::handler::Route;
use super::operation::Operation;
use super::problem::{ApiError, METHOD_NOT_ALLOWED, NOT_FOUND};
use super::request::{Provide, Request};
use super::request_id::{self, numbered};
use crate::auth::address::Peer;
use crate::auth::admission::{Admission, Caller};
use crate::config::Timeouts;
use crate::metrics::GatewayMetrics;

/// What metrics call a request that no route took.
const UNMATCHED: &str = "unmatched";

/// Records what is served, beside log and metrics.
pub(crate) trait Recorder: Send + Sync {
    /// A fault of ours, and whose request met it, where that is known.
    fn fault(&self, error: &ApiError, user: Option<Uuid>);
    /// A request that a route has responded to.
    fn call(&self, route: &'static str, status: StatusCode, took: Duration);
}

/// The dispatcher.
pub(crate) struct Router<S>(Arc<Inner<S>>);

struct Inner<S> {
    dependencies: S,
    /// Routes of one path, by its template.
    paths: matchit::Router<Vec<(Route<S>, Operation)>>,
    timeouts: Timeouts,
    metrics: GatewayMetrics,
    recorder: Arc<dyn Recorder>,
}

/// A request before its route is known.
struct Head {
    method: Method,
    path: FullPath,
    headers: HeaderMap,
    peer: Option<Peer>,
    query: String,
}

/// The path or the path's methods that were looked for in vain.
enum Miss {
    Path,
    Method(&'static str, String),
}

impl<S: Provide<Arc<Admission>> + Clone + Send + Sync + 'static> Router<S> {
    /// The dispatcher of a table.
    pub(crate) fn new(
        dependencies: S,
        table: Vec<Route<S>>,
        timeouts: Timeouts,
        metrics: GatewayMetrics,
        recorder: Arc<dyn Recorder>,
    ) -> Self {
        let mut by_path: BTreeMap<&str, Vec<(Route<S>, Operation)>> = BTreeMap::new();
        for route in table {
            let operation = route.operation();
            by_path.entry(route.path).or_default().push((route, operation));
        }
        let mut paths = matchit::Router::new();
        for (path, routes) in by_path {
            // A template that clashes with another is a mistake in the table, which its test shows.
            if let Err(error) = paths.insert(path, routes) {
                tracing::error!(path, error = %error, "a route is left out");
            }
        }
        Self(Arc::new(Inner { dependencies, paths, timeouts, metrics, recorder }))
    }

    /// As warp's filter; it takes every request.
    pub(crate) fn filter(self, cors: Cors) -> BoxedFilter<(Response,)> {
        let (router, cors) = (self.0, Arc::new(cors));
        let query = warp::query::raw().or(warp::any().map(String::new)).unify();
        warp::method()
            .and(warp::path::full())
            .and(warp::header::headers_cloned())
            .and(warp::ext::optional::<Peer>())
            .and(query)
            .and(warp::body::stream())
            .then(move |method, path, headers, peer, query, body| {
                let (router, cors) = (Self(router.clone()), cors.clone());
                let (origin, asks_beforehand) = (cors.allowed(&headers), is_preflight(&method, &headers));
                async move {
                    let head = Head { method, path, headers, peer, query };
                    let mut response = numbered(router.serve(head, body)).await;
                    cors.add(origin, asks_beforehand, &mut response);
                    response
                }
            })
            .boxed()
    }

    async fn serve<B: Buf>(
        self,
        head: Head,
        body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
    ) -> Response {
        let begun = Instant::now();
        let body = Arc::new(Mutex::new(Body::new(body, &self.0.timeouts)));
        let expects = head.headers.contains_key(EXPECT);
        let (mut counted, mut user) = (true, None);
        let (label, result) = match self.find(&head.method, head.path.as_str()) {
            Ok((route, operation, path)) => {
                let Head { headers, peer, query, .. } = head;
                let extensions = Extensions::new();
                let mut request = Request { headers, peer, query, path, body: body.clone(), extensions };
                counted = route.counted;
                let admitted = route.admit(&self.0.dependencies, &mut request).await;
                user = request.extensions.get::<Caller>().map(|caller| caller.user.0);
                let result = match admitted {
                    Ok(()) => (route.call)(self.0.dependencies.clone(), request).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = &result {
                    debug_assert!(operation.allows(error.problem()), "{}: {}", route.path, error.code());
                }
                (route.path, result)
            }
            Err(Miss::Method(path, allow)) if head.method == Method::OPTIONS => (path, Ok(allowed(&allow))),
            Err(Miss::Method(_, allow)) => {
                let mut response = self.refuse(UNMATCHED, METHOD_NOT_ALLOWED.error(), None);
                response.headers_mut().extend(allowed(&allow).headers().clone());
                (UNMATCHED, Ok(response))
            }
            Err(Miss::Path) => (UNMATCHED, Err(NOT_FOUND.error())),
        };
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                discard(&body, self.0.timeouts.drain, expects).await;
                self.refuse(label, error, user)
            }
        };
        if counted {
            self.count(label, &response, begun.elapsed());
        }
        response
    }

    /// The route, and the path's parameters, percent-decoded. A slash at the end changes nothing; HEAD is GET without its body, which
    /// hyper leaves out.
    fn find(&self, method: &Method, path: &str) -> Result<(&Route<S>, &Operation, Vec<String>), Miss> {
        let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
        let found = self.0.paths.at(path).map_err(|_| Miss::Path)?;
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let parameters: Result<Vec<String>, _> = found.params.iter().map(|(_, text)| decoded(text)).collect();
        let parameters = parameters.map_err(|_| Miss::Path)?;
        match found.value.iter().find(|(route, _)| route.method == *wanted) {
            Some((route, operation)) => Ok((route, operation, parameters)),
            None => Err(Miss::Method(found.value[0].0.path, allow(found.value))),
        }
    }

    fn count(&self, label: &'static str, response: &Response, took: Duration) {
        let metrics = &self.0.metrics;
        metrics.http_requests.with_label_values(&[label, response.status().as_str()]).inc();
        metrics.http_seconds.with_label_values(&[label]).observe(took.as_secs_f64());
        self.0.recorder.call(label, response.status(), took);
    }

    /// The problem document; a fault of ours is logged and recorded.
    fn refuse(&self, label: &str, error: ApiError, user: Option<Uuid>) -> Response {
        // Being busy or in maintenance is no fault; what has a cause is.
        if std::error::Error::source(&error).is_some() {
            tracing::error!(route = label, request_id = %request_id::current(), code = error.code(), error = %error.causes(), "request failed");
            self.0.recorder.fault(&error, user);
        } else {
            tracing::debug!(route = label, code = error.code(), "request refused");
        }
        error.into_response()
    }
}

/// Reads the rest of a refused body, so that the client reads the response.
async fn discard(body: &Mutex<Body>, limit: Duration, expects: bool) {
    // A handler that ended has given the body back; one that left it to a task of its own has not.
    if let Ok(mut body) = body.try_lock() {
        body.discard(limit, expects).await;
    }
}

/// Methods of a path, as `Allow` names them.
fn allow<S>(routes: &[(Route<S>, Operation)]) -> String {
    let mut methods: Vec<&str> = vec!["OPTIONS"];
    for (route, _) in routes {
        methods.push(route.method.as_str());
        if route.method == Method::GET {
            methods.push("HEAD");
        }
    }
    methods.sort_unstable();
    methods.join(", ")
}

/// A 204 with `Allow`.
fn allowed(methods: &str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(methods) = HeaderValue::from_str(methods) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}
