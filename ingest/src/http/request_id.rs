//! The number of a request: it stands in the response, in the log of a fault, and in what is recorded of a login or a change, so that a
//! driver's complaint leads to all of them. It is the gateway's own: one that a client could choose would be in two requests.

use uuid::Uuid;
use warp::http::header::{HeaderName, HeaderValue};
use warp::reply::Response;

/// The response's header.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static REQUEST: Uuid;
}

/// The number of the request that is served; a new one outside of any.
pub(crate) fn current() -> Uuid {
    REQUEST.try_with(|id| *id).unwrap_or_else(|_| Uuid::now_v7())
}

/// Serves a request under a number of its own.
pub(crate) async fn numbered(serve: impl Future<Output = Response>) -> Response {
    let id = Uuid::now_v7();
    let mut response = REQUEST.scope(id, serve).await;
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}
