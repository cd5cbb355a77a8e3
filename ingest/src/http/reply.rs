//! What handlers respond with; each response's type knows what the OpenAPI document says of it.

use serde::Serialize;
use utoipa::ToSchema;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use warp::reply::Response;

use super::operation::Operation;
use super::problem::{ApiError, INTERNAL};

/// A response.
pub(crate) trait Reply {
    /// As it goes out.
    fn into_response(self) -> Result<Response, ApiError>;

    /// What the OpenAPI document says of it.
    fn describe(operation: &mut Operation);
}

/// A 200 with a document.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize + ToSchema> Reply for Json<T> {
    fn into_response(self) -> Result<Response, ApiError> {
        json_response(StatusCode::OK, &self.0)
    }

    fn describe(operation: &mut Operation) {
        let content = operation.json::<T>();
        operation.response(200, "The document", content);
    }
}

/// A 200 with a document that nobody may keep, as it opens something.
pub(crate) struct Uncached<T>(pub(crate) T);

impl<T: Serialize + ToSchema> Reply for Uncached<T> {
    fn into_response(self) -> Result<Response, ApiError> {
        let mut response = json_response(StatusCode::OK, &self.0)?;
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        Json::<T>::describe(operation);
    }
}

/// A 201 with what was made.
pub(crate) struct Created<T>(pub(crate) T);

impl<T: Serialize + ToSchema> Reply for Created<T> {
    fn into_response(self) -> Result<Response, ApiError> {
        json_response(StatusCode::CREATED, &self.0)
    }

    fn describe(operation: &mut Operation) {
        let content = operation.json::<T>();
        operation.response(201, "Made", content);
    }
}

/// A 204.
pub(crate) struct NoContent;

impl Reply for NoContent {
    fn into_response(self) -> Result<Response, ApiError> {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        operation.response(204, "Done", serde_json::Value::Null);
    }
}

/// A document of no fixed shape.
#[derive(Serialize, ToSchema)]
#[schema(value_type = Object)]
pub(crate) struct AnyJson(pub(crate) serde_json::Value);

/// A 202 for what is taken now, a 200 for what was taken before; the same document.
pub(crate) struct Taken<T> {
    pub(crate) now: bool,
    /// Where to follow it.
    pub(crate) location: Option<String>,
    pub(crate) document: T,
}

impl<T: Serialize + ToSchema> Reply for Taken<T> {
    fn into_response(self) -> Result<Response, ApiError> {
        let status = if self.now { StatusCode::ACCEPTED } else { StatusCode::OK };
        let mut response = json_response(status, &self.document)?;
        if let Some(location) = self.location.and_then(|url| HeaderValue::from_str(&url).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        let content = operation.json::<T>();
        operation.response(202, "Accepted", content.clone());
        operation.response(200, "Accepted before: the first response", content);
    }
}

fn json_response(status: StatusCode, document: &impl Serialize) -> Result<Response, ApiError> {
    let text = serde_json::to_string(document).map_err(|error| INTERNAL.caused_by(error))?;
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
