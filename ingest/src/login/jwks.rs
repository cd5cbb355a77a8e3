//! `GET /.well-known/jwks.json`: the public keys that access tokens are checked with.

use warp::http::header::{CACHE_CONTROL, HeaderValue};
use warp::reply::Response;

use crate::auth::keys::KeySet;
use crate::http::operation::Operation;
use crate::http::problem::ApiError;
use crate::http::reply::{AnyJson, Json, Reply};
use crate::http::request::Dependency;

/// A key set; those who check tokens may keep it for as long as a new key is published before it signs.
pub(crate) struct PublishedKeys(Json<AnyJson>);

impl Reply for PublishedKeys {
    fn into_response(self) -> Result<Response, ApiError> {
        let mut response = self.0.into_response()?;
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=30"));
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        Json::<AnyJson>::describe(operation);
    }
}

/// The route.
pub(crate) async fn get(Dependency(keys): Dependency<KeySet>) -> Result<PublishedKeys, ApiError> {
    Ok(PublishedKeys(Json(AnyJson(keys.jwks()))))
}
