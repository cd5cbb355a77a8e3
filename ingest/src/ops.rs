//! `/livez` and `/readyz`, for balancers, beside the gateway's own routes. Metrics are served by `ops.listen` alone: they are nobody's
//! business outside.

use runtime::health::Health;
use serde_json::json;
use warp::reply::Response;

use crate::http::operation::Operation;
use crate::http::problem::ApiError;
use crate::http::reply::Reply;
use crate::http::request::Dependency;

/// A response in plain text.
pub(crate) struct Text(Response);

impl Reply for Text {
    fn into_response(self) -> Result<Response, ApiError> {
        Ok(self.0)
    }

    fn describe(operation: &mut Operation) {
        let text = json!({ "text/plain": { "schema": { "type": "string" } } });
        operation.response(200, "Yes", text.clone());
        operation.response(503, "No", text);
    }
}

/// Whether every loop makes progress.
pub(crate) async fn livez(Dependency(health): Dependency<Health>) -> Result<Text, ApiError> {
    Ok(Text(runtime::ops::live(&health)))
}

/// Whether the role may take work.
pub(crate) async fn readyz(Dependency(health): Dependency<Health>) -> Result<Text, ApiError> {
    Ok(Text(runtime::ops::ready(&health)))
}
