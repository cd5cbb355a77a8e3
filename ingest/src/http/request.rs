//! A request, and what handlers take from it: each argument of a handler is a type that knows how it is read from the request and what the
//! OpenAPI document says of it.

use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};
use utoipa::ToSchema;
use warp::http::header::CONTENT_ENCODING;
use warp::http::{Extensions, HeaderMap};

use super::body::Body;
use super::objects;
use super::operation::Operation;
use super::problem::{
    ApiError, BODY_TIMEOUT, BODY_TOO_LARGE, ENCODED_BODY, INCOMPLETE_BODY, MALFORMED_DOCUMENT, Problem,
    UNKNOWN_PARAMETER,
};
use crate::auth::address::Peer;

/// Characters of a name from outside that are shown again.
pub(crate) const SHOWN_NAME: usize = 64;

/// A request whose route is known.
pub(crate) struct Request {
    pub(crate) headers: HeaderMap,
    pub(crate) peer: Option<Peer>,
    /// Without the question mark; empty where there is none.
    pub(crate) query: String,
    /// The path's parameters, percent-decoded, in order.
    pub(crate) path: Vec<String>,
    pub(crate) body: Arc<Mutex<Body>>,
    /// What dispatch found out about it, by type: who asks.
    pub(crate) extensions: Extensions,
}

/// The dependencies `S` of a table of routes have a `T` for its handlers.
pub(crate) trait Provide<T> {
    /// A cheap clone.
    fn provide(&self) -> T;
}

/// An argument of a handler.
pub(crate) trait Extract<S>: Sized + Send {
    /// Reads it.
    fn extract(
        dependencies: &S,
        request: &mut Request,
    ) -> impl Future<Output = Result<Self, ApiError>> + Send;

    /// What the OpenAPI document says of it.
    fn describe(_operation: &mut Operation) {}
}

/// What the handler works with.
pub(crate) struct Dependency<T>(pub(crate) T);

impl<S: Provide<T> + Sync, T: Send> Extract<S> for Dependency<T> {
    async fn extract(dependencies: &S, _request: &mut Request) -> Result<Self, ApiError> {
        Ok(Self(dependencies.provide()))
    }
}

/// A parameter of the path: text that is none of its values leads nowhere, as an unknown one does.
pub(crate) trait PathParameter: FromStr + Send {
    /// The problem of one that is not there.
    const MISSING: Problem;
    /// Its JSON schema.
    fn schema() -> Value;
}

/// The next parameter of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Sync, T: PathParameter> Extract<S> for Path<T> {
    async fn extract(_state: &S, request: &mut Request) -> Result<Self, ApiError> {
        let text = if request.path.is_empty() { String::new() } else { request.path.remove(0) };
        text.parse().map(Self).map_err(|_| T::MISSING.error())
    }

    fn describe(operation: &mut Operation) {
        // The path's template has its name; see `Route`.
        operation.parameter("path", "", T::schema(), "");
        operation.problems(&[T::MISSING]);
    }
}

/// A route without query parameters.
pub(crate) struct NoQuery;

impl<S: Sync> Extract<S> for NoQuery {
    async fn extract(_state: &S, request: &mut Request) -> Result<Self, ApiError> {
        match url::form_urlencoded::parse(request.query.as_bytes()).next() {
            Some((name, _)) => Err(unknown_parameter(&name)),
            None => Ok(Self),
        }
    }

    fn describe(operation: &mut Operation) {
        operation.problems(&[UNKNOWN_PARAMETER]);
    }
}

/// The refusal of a query parameter that the route does not have.
pub(crate) fn unknown_parameter(name: &str) -> ApiError {
    let shown: String = name.chars().take(SHOWN_NAME).collect();
    UNKNOWN_PARAMETER.because(format!("the query parameter {shown:?} is not known")).field(shown)
}

/// The headers.
pub(crate) struct Headers(pub(crate) HeaderMap);

impl<S: Sync> Extract<S> for Headers {
    async fn extract(_state: &S, request: &mut Request) -> Result<Self, ApiError> {
        Ok(Self(request.headers.clone()))
    }
}

/// The body, lent: what is left of it after a refusal is read and thrown away by whoever responds.
pub(crate) struct RequestBody(pub(crate) OwnedMutexGuard<Body>);

impl<S: Sync> Extract<S> for RequestBody {
    async fn extract(_state: &S, request: &mut Request) -> Result<Self, ApiError> {
        let encodings = request.headers.get_all(CONTENT_ENCODING).iter();
        if encodings.into_iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(ENCODED_BODY.error());
        }
        Ok(Self(request.body.clone().lock_owned().await))
    }

    fn describe(operation: &mut Operation) {
        operation.problems(&[BODY_TIMEOUT, ENCODED_BODY, INCOMPLETE_BODY]);
    }
}

/// A JSON document as the body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned + ToSchema + Send> Extract<S> for JsonBody<T> {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        let RequestBody(mut body) = RequestBody::extract(dependencies, request).await?;
        let bytes = body.whole().await?;
        document(&bytes).map(Self)
    }

    fn describe(operation: &mut Operation) {
        <RequestBody as Extract<S>>::describe(operation);
        let content = operation.json::<T>();
        operation.body(true, content);
        operation.problems(&[MALFORMED_DOCUMENT, BODY_TOO_LARGE]);
    }
}

/// What a body holds as a JSON document.
pub(crate) fn document<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    objects::read(body)
        .map_err(|error| MALFORMED_DOCUMENT.because(format!("the body is not usable: {error}")))
}

/// The schema of a UUID.
pub(crate) fn uuid_schema() -> Value {
    json!({ "type": "string", "format": "uuid" })
}

/// A header as text; none where it is missing or no text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `Content-Length`, where it is sent.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-length").and_then(|length| length.parse().ok())
}
