//! `/openapi.json`: the contract that clients generate from. Everything in it follows from the table of routes, the types of its handlers
//! and the table of problems.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::handler::Route;
use super::problem::PROBLEMS;

/// What the document says beside its routes.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) title: &'static str,
    pub(crate) description: String,
    /// Where clients reach the gateway.
    pub(crate) server: String,
}

/// The document (OpenAPI 3.1.0).
pub(crate) fn document<S>(about: &About, table: &[Route<S>]) -> Value {
    let (mut paths, mut schemas) = (json!({}), BTreeMap::new());
    schemas.insert("Problem".to_owned(), problem());
    for route in table {
        let operation = route.operation();
        operation.components(&mut schemas);
        let mut described = operation.document(route.summary, route.description);
        name_parameters(&mut described, route.path);
        paths[route.path][route.method.as_str().to_ascii_lowercase()] = described;
    }
    let bearer = json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT (EdDSA)" });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": about.title,
            "version": env!("CARGO_PKG_VERSION"),
            "description": about.description,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": about.server }],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": { "securitySchemes": { "bearer": bearer }, "schemas": schemas },
    })
}

/// Gives path parameters the names of the template, in order.
fn name_parameters(operation: &mut Value, template: &str) {
    let mut names = template.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
    for parameter in parameters.filter(|parameter| parameter["in"] == "path") {
        parameter["name"] = json!(names.next());
    }
}

fn problem() -> Value {
    let codes: BTreeSet<&str> = PROBLEMS.iter().map(|problem| problem.code).collect();
    json!({
        "type": "object",
        "description": "Why the request was not served (RFC 9457)",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "code": { "type": "string", "enum": codes },
            "field": { "type": "string", "description": "The field, parameter or step (its seq) at fault" },
            "upload_id": { "type": "string", "format": "uuid" },
            "retry_after": { "type": "integer", "description": "Seconds" },
        },
    })
}
