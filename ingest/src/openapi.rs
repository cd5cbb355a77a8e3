//! `/openapi.json`: the contract that clients generate from, written by hand and held true by the tests below.

mod payments;

use serde_json::{Value, json};

use crate::config::GatewayConfig;
use crate::error::CODES;

/// The document (OpenAPI 3.1.0).
#[must_use]
pub fn document(config: &GatewayConfig) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Milestream",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Send a photo of an odometer; follow what becomes of it.",
        },
        "servers": [{ "url": config.base_url }],
        "security": [{ "bearer": [] }],
        "paths": paths(config),
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT (EdDSA)" } },
            "schemas": schemas(),
            "responses": { "Problem": {
                "description": "Why the request was not served (RFC 9457)",
                "content": { "application/problem+json": { "schema": reference("Problem") } },
            }},
        },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn answers(good: &[(&str, &str, Value)], problems: &[u16]) -> Value {
    let mut answers = json!({});
    for (status, description, content) in good {
        answers[*status] = json!({ "description": description });
        if !content.is_null() {
            answers[*status]["content"] = content.clone();
        }
    }
    for status in problems {
        answers[status.to_string()] = json!({ "$ref": "#/components/responses/Problem" });
    }
    answers
}

fn json_of(name: &str) -> Value {
    json!({ "application/json": { "schema": reference(name) } })
}

fn paths(config: &GatewayConfig) -> Value {
    let id = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "format": "uuid" } });
    let common = [401, 403, 429, 500, 503];
    let text = json!({ "text/plain": { "schema": { "type": "string" } } });
    let probe = |summary: &str| {
        let responses = answers(&[("200", "Yes", text.clone())], &[]);
        json!({ "get": { "summary": summary, "security": [], "responses": responses } })
    };
    json!({
        "/v1/uploads": {
            "post": post_upload(config),
            "get": {
                "summary": "Your uploads, newest first",
                "parameters": page_parameters(),
                "responses": answers(&[("200", "A page", json_of("Page"))], &[&[400][..], &common].concat()),
            },
        },
        "/v1/uploads/{id}": { "get": {
            "summary": "What became of an upload",
            "parameters": [id],
            "responses": answers(&[("200", "Its state", json_of("Upload"))], &[&[400, 404][..], &common].concat()),
        }},
        "/v1/uploads/{id}/events": { "get": {
            "summary": "An upload's progress as server-sent events: stage, decided, reward, and payout with each confirmation until the reward is settled; data is an Upload",
            "parameters": [id, {
                "name": "Last-Event-ID", "in": "header", "schema": { "type": "integer" },
                "description": "Resumes after this event",
            }],
            "responses": answers(&[
                ("200", "Events until the final one", json!({ "text/event-stream": { "schema": { "type": "string" } } })),
                ("204", "The final event was seen: do not come again", Value::Null),
            ], &[&[400, 404][..], &common].concat()),
        }},
        "/v1/rewards": { "get": {
            "summary": "Your rewards, newest first",
            "parameters": page_parameters(),
            "responses": answers(&[("200", "A page", json_of("RewardPage"))], &[&[400][..], &common].concat()),
        }},
        "/v1/rewards/{id}/claim": { "post": payments::post_claim(&id, &common) },
        "/v1/chain/events": { "post": payments::post_batch() },
        "/openapi.json": { "get": {
            "summary": "This document",
            "security": [],
            "responses": answers(&[("200", "OpenAPI 3.1", json!({ "application/json": { "schema": { "type": "object" } } }))], &[]),
        }},
        "/livez": probe("Whether every loop makes progress or idles"),
        "/readyz": probe("Whether the role may take work"),
        "/metrics": probe("Prometheus metrics"),
    })
}

fn page_parameters() -> Value {
    json!([
        { "name": "limit", "in": "query", "schema": { "type": "integer", "minimum": 1, "maximum": 100, "default": 20 } },
        { "name": "cursor", "in": "query", "schema": { "type": "string" }, "description": "next_cursor of the page before" },
    ])
}

fn post_upload(config: &GatewayConfig) -> Value {
    let description = format!(
        "The photo ({} bytes at most, JPEG, PNG or WebP) is kept as received. The same photo of the same user again gives the first \
         answer, unless that upload failed.",
        config.limits.photo_bytes
    );
    json!({
        "summary": "Send a photo of an odometer",
        "description": description,
        "parameters": [{
            "name": "Idempotency-Key", "in": "header", "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
            "description": "The same key with the same photo gives the first answer, with another photo 422; kept 30 days",
        }],
        "requestBody": { "required": true, "content": { "multipart/form-data": {
            "schema": reference("UploadForm"),
            "encoding": { "photo": { "contentType": "image/jpeg, image/png, image/webp" } },
        }}},
        "responses": answers(&[
            ("202", "Accepted: the photo is durable and queued", json_of("Accepted")),
            ("200", "This photo was accepted before: the first answer", json_of("Accepted")),
        ], &[400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503]),
    })
}

fn schemas() -> Value {
    let decimal = json!({ "type": ["string", "null"], "pattern": "^[0-9]+(\\.[0-9]+)?$" });
    json!({
        "UploadForm": {
            "type": "object", "required": ["photo"], "additionalProperties": false,
            "properties": {
                "photo": { "type": "string", "format": "binary" },
                "claimed_mileage": { "type": "string", "pattern": "^[0-9]{1,7}(\\.[0-9]{1,2})?$" },
                "unit": { "enum": ["km", "miles"] },
                "vehicle_id": { "type": "string", "format": "uuid", "description":
                    "A vehicle of yours; the first use of a random (v4) or time-ordered (v7) id registers it. None: your default vehicle" },
                "captured_at": { "type": "string", "format": "date-time", "description": "At most 5 minutes in the future" },
            },
        },
        "Accepted": {
            "type": "object", "required": ["upload_id", "status", "status_url", "events_url"],
            "properties": {
                "upload_id": { "type": "string", "format": "uuid" },
                "status": { "const": "uploaded" },
                "status_url": { "type": "string", "format": "uri" },
                "events_url": { "type": "string", "format": "uri" },
            },
        },
        "Upload": upload(&decimal),
        "Reward": {
            "type": "object",
            "properties": {
                "id": { "type": "string", "format": "uuid" },
                "base": decimal, "bonus": decimal, "total": decimal,
                "status": reward_status(),
                "claimed_at": payments::claimed_at(),
            },
        },
        "Claim": payments::claim(),
        "RewardItem": reward_item(&decimal),
        "RewardPage": {
            "type": "object", "required": ["items", "next_cursor"],
            "properties": {
                "items": { "type": "array", "items": reference("RewardItem") },
                "next_cursor": { "type": ["string", "null"] },
            },
        },
        "Payout": payments::payout(&decimal),
        "ChainBatch": payments::chain_batch(),
        "ChainAnswer": payments::chain_answer(),
        "Page": {
            "type": "object", "required": ["items", "next_cursor"],
            "properties": {
                "items": { "type": "array", "items": reference("Upload") },
                "next_cursor": { "type": ["string", "null"] },
            },
        },
        "Problem": {
            "type": "object", "required": ["type", "title", "status", "detail", "code"],
            "properties": {
                "type": { "type": "string" }, "title": { "type": "string" }, "status": { "type": "integer" },
                "detail": { "type": "string" }, "code": { "enum": CODES },
                "field": { "type": "string", "description": "The field, parameter or step (its seq) at fault" }, "upload_id": { "type": "string", "format": "uuid" },
                "retry_after": { "type": "integer", "description": "seconds" },
            },
        },
    })
}

fn reward_status() -> Value {
    json!({ "enum": ["calculated", "pending", "distributed", "failed", "cancelled", null] })
}

fn reward_item(decimal: &Value) -> Value {
    json!({
        "type": "object",
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "upload_id": { "type": "string", "format": "uuid" },
            "base": decimal, "bonus": decimal, "rate": decimal, "distance_km": decimal,
            "granted": { "type": decimal["type"], "pattern": decimal["pattern"], "description":
                "What of base and bonus the budgets of day, week and month hold; null until that is decided" },
            "total": { "type": decimal["type"], "pattern": decimal["pattern"], "description": "What is owed, B3TR" },
            "factors": { "type": ["object", "null"], "description": "The tariff's version and every part, with its amount" },
            "status": reward_status(),
            "reason": { "type": ["string", "null"], "description": "Why less than base and bonus is owed, e.g. over_limit" },
            "detail": { "type": ["string", "null"], "description": "A sentence with the budget that ran out" },
            "claimed_at": payments::claimed_at(),
            "payout": { "oneOf": [reference("Payout"), { "type": "null" }] },
            "created_at": { "type": "string", "format": "date-time" },
            "updated_at": { "type": "string", "format": "date-time" },
        },
    })
}

fn upload(decimal: &Value) -> Value {
    let reasons: Vec<&str> = schemas::reason::Reason::ALL.iter().map(|reason| reason.label()).collect();
    let text = json!({ "type": ["string", "null"] });
    json!({
        "type": "object",
        "properties": {
            "upload_id": { "type": "string", "format": "uuid" },
            "status": { "enum": ["uploaded", "processing", "verified", "rejected", "failed"] },
            "stage": { "enum": [
                "quality_check", "odometer_reading", "fraud_check", "review", "decided", "reward", "payout", "paid"
            ]},
            "verdict": { "enum": ["verified", "rejected", "failed", "review", null] },
            "reason": { "oneOf": [{ "enum": reasons }, { "type": "null" }] },
            "advice": text,
            "reading": decimal,
            "unit": { "enum": ["km", "miles", null] },
            "confidence": decimal,
            "distance_km": decimal,
            "reward": { "oneOf": [reference("Reward"), { "type": "null" }] },
            "payout": { "oneOf": [reference("Payout"), { "type": "null" }] },
            "accepted_at": { "type": "string", "format": "date-time" },
            "updated_at": { "type": "string", "format": "date-time" },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;
    use crate::form::FIELDS;
    use crate::rewards::tests::cut;
    use crate::routes::ROUTES;
    use crate::status::tests::{paid, verified};

    fn names(value: &Value) -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn every_route_field_member_and_code_is_described() {
        let document = document(&GatewayConfig::new("http://localhost"));
        for (method, path) in ROUTES {
            assert!(document["paths"][path][method].is_object(), "{method} {path}");
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            assert!(document["paths"][path]["get"].is_object(), "{path}");
        }
        let schemas = &document["components"]["schemas"];
        let mut fields = FIELDS.map(str::to_owned);
        fields.sort();
        assert_eq!(names(&schemas["UploadForm"]["properties"]), fields);
        assert_eq!(names(&schemas["Upload"]["properties"]), names(&verified().document()));
        assert_eq!(names(&schemas["RewardItem"]["properties"]), names(&cut().document()));
        let paid = paid(1).document();
        assert_eq!(names(&schemas["Payout"]["properties"]), names(&paid["payout"]));
        assert_eq!(names(&schemas["Reward"]["properties"]), names(&paid["reward"]));
        let source = include_str!("error.rs");
        for code in CODES.iter().filter(|code| **code != "header_timeout") {
            assert!(source.contains(&format!(", \"{code}\", \"")), "no error answers with {code}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            if let Some(target) = value["$ref"].as_str() {
                assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
            }
            let children = value.as_object().map(|map| map.values().collect::<Vec<_>>());
            for child in
                children.or_else(|| value.as_array().map(|list| list.iter().collect())).unwrap_or_default()
            {
                walk(child, document);
            }
        }
        let document = document(&GatewayConfig::new("http://localhost"));
        walk(&document, &document);
    }

    #[test]
    fn every_answer_has_a_code_of_the_closed_set() {
        for error in
            [ApiError::RouteNotFound, ApiError::TokenExpired, ApiError::Maintenance, ApiError::EmptyFile]
        {
            assert!(CODES.contains(&error.answer().1));
        }
        // The table's codes are read from its source, so that a new row cannot be left out of the closed set.
        let table = include_str!("error.rs").split("pub fn answer").nth(1).unwrap();
        let table = table.split("fn extras").next().unwrap();
        for row in table.lines().filter(|line| line.contains("=> (")) {
            let code = row.split('"').nth(1).unwrap();
            assert!(CODES.contains(&code), "{code} is missing in CODES");
        }
    }
}
