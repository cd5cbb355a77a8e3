//! `/livez`, `/readyz` and `/metrics` of every role.

use std::time::Instant;

use warp::Filter;
use warp::http::StatusCode;
use warp::reply::{Response, with_status};

use crate::health::Health;
use crate::metrics::Exporter;

/// The routes; they are served by the process itself and call nothing else.
pub fn routes(
    health: Health,
    exporter: Exporter,
) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let (for_live, for_ready) = (health.clone(), health);
    let livez = warp::path!("livez").map(move || live(&for_live));
    let readyz = warp::path!("readyz").map(move || ready(&for_ready));
    let metrics = warp::path!("metrics").map(move || render(&exporter));
    warp::get().and(livez.or(readyz).unify().or(metrics).unify())
}

/// `/livez`: 200, or 503 with the names of what stands still.
#[must_use]
pub fn live(health: &Health) -> Response {
    let stalled = health.stalled(Instant::now());
    respond(stalled.is_empty(), &format!("stalled: {}", stalled.join(", ")))
}

/// `/readyz`: 200, or 503 where the role may take no work.
#[must_use]
pub fn ready(health: &Health) -> Response {
    respond(health.is_ready(), "not ready")
}

/// `/metrics`: everything that is counted, in Prometheus' text format.
#[must_use]
pub fn render(exporter: &Exporter) -> Response {
    warp::reply::Reply::into_response(exporter.render())
}

fn respond(good: bool, complaint: &str) -> Response {
    let (text, status) = if good {
        ("ok".to_owned(), StatusCode::OK)
    } else {
        (complaint.to_owned(), StatusCode::SERVICE_UNAVAILABLE)
    };
    warp::reply::Reply::into_response(with_status(text, status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn readiness_follows_the_components_and_metrics_are_text() {
        let (health, metrics) = (Health::default(), Metrics::new().unwrap());
        metrics.build.with_label_values(&["0.0.0"]).set(1);
        let routes = routes(health.clone(), metrics.exporter);
        let ask = async |path: &str| warp::test::request().path(path).reply(&routes).await;
        assert_eq!(ask("/livez").await.status(), 200);
        assert_eq!(ask("/readyz").await.status(), 503);
        health.ready("sink");
        assert_eq!(ask("/readyz").await.status(), 200);
        let metrics = ask("/metrics").await;
        assert!(String::from_utf8_lossy(metrics.body()).contains("milestream_build_info"));
    }
}
