//! What this process records of its requests to nodes: `integration_logs`.

use std::borrow::Cow;
use std::sync::Arc;

use chain::{Asked, Observer};
use runtime::journal::{Integration, Journal, Outside};
use serde_json::json;

/// Has the requests to nodes recorded in a journal.
pub fn of_nodes(journal: Arc<Journal>) -> Observer {
    Arc::new(move |asked: &Asked<'_>| journal.outside(of_node(asked)))
}

/// The request to a node as it is recorded: of the URL neither query nor credentials.
fn of_node<'a>(asked: &Asked<'a>) -> Outside<'a> {
    Outside {
        kind: Integration::Blockchain,
        service: Cow::Borrowed(asked.service),
        request: json!({
            "method": asked.method,
            "url": format!("{}/{}", asked.service, asked.path),
            "bytes": asked.sent,
            "summary": asked.path.split('/').next(),
        }),
        response: asked
            .status
            .map_or(json!({}), |status| json!({ "status": status, "bytes": asked.received })),
        took: asked.took,
        error: asked.error.map(ToString::to_string),
        changes: asked.changes,
    }
}
