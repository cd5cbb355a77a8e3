//! `/livez`, `/readyz` and `/metrics`, beside the gateway's own routes.

use runtime::health::Health;
use runtime::metrics::Exporter;
use serde_json::json;
use warp::reply::Response;

use crate::http::operation::Operation;
use crate::http::problem::ApiError;
use crate::http::reply::Reply;
use crate::http::request::State;

/// An answer in plain text.
pub(crate) struct Text(Response);

impl Reply for Text {
    fn into_response(self) -> Result<Response, ApiError> {
        Ok(self.0)
    }

    fn describe(operation: &mut Operation) {
        let text = json!({ "text/plain": { "schema": { "type": "string" } } });
        operation.answer(200, "Yes", text.clone());
        operation.answer(503, "No", text);
    }
}

/// Whether every loop makes progress.
pub(crate) async fn livez(State(health): State<Health>) -> Result<Text, ApiError> {
    Ok(Text(runtime::ops::live(&health)))
}

/// Whether the role may take work.
pub(crate) async fn readyz(State(health): State<Health>) -> Result<Text, ApiError> {
    Ok(Text(runtime::ops::ready(&health)))
}

/// Prometheus metrics.
pub(crate) async fn metrics(State(exporter): State<Exporter>) -> Result<Text, ApiError> {
    Ok(Text(runtime::ops::render(&exporter)))
}
