//! What the contract says of claims, payments and the watcher's batches.

use serde_json::{Value, json};

use super::{answers, json_of};

/// `POST /v1/rewards/{id}/claim`.
pub(super) fn post_claim(id: &Value, common: &[u16]) -> Value {
    json!({
        "summary": "Ask for a reward to be paid to your wallet; asking again gives the first answer again",
        "description": "A reward may be claimed before it shows: as soon as its upload was accepted, unless that was rejected or failed.",
        "parameters": [id],
        "requestBody": { "required": false, "content": { "application/json": {
            "schema": { "type": "object", "maxProperties": 0 },
        }}},
        "responses": answers(&[
            ("202", "Claimed", json_of("Claim")),
            ("200", "Claimed before: the first answer", json_of("Claim")),
        ], &[&[400, 404, 408, 409][..], common].concat()),
    })
}

/// `POST /v1/chain/events`.
pub(super) fn post_batch() -> Value {
    json!({
        "summary": "For the watcher of the chain: blocks as they are adopted and undone, signed (HMAC-SHA256 over time and body)",
        "security": [],
        "parameters": [
            { "name": "x-milestream-time", "in": "header", "required": true, "schema": { "type": "string" },
              "description": "Seconds since 1970 at which the batch was signed; at most 300 s from now" },
            { "name": "x-milestream-signature", "in": "header", "required": true, "schema": { "type": "string" },
              "description": "sha256= and the hex digits of HMAC-SHA256(secret, time + \".\" + body)" },
        ],
        "requestBody": { "required": true, "content": json_of("ChainBatch") },
        "responses": answers(&[
            ("200", "Taken, or taken before: a result a step, and where to go on", json_of("ChainAnswer")),
        ], &[400, 401, 404, 408, 409, 413, 422, 500, 503]),
    })
}

pub(super) fn claim() -> Value {
    json!({
        "type": "object", "required": ["reward_id", "status", "wallet_id", "claimed_at"],
        "properties": {
            "reward_id": { "type": "string", "format": "uuid" },
            "status": { "const": "claimed" },
            "wallet_id": { "type": "string", "format": "uuid" },
            "claimed_at": { "type": "string", "format": "date-time" },
        },
    })
}

pub(super) fn payout(decimal: &Value) -> Value {
    json!({
        "type": "object", "description": "The newest transaction that pays the reward",
        "properties": {
            "tx_id": { "type": "string", "pattern": "^0x[0-9a-f]{64}$" },
            "status": { "enum": ["pending", "confirmed", "failed", "reverted", null] },
            "confirmations": { "type": "integer", "minimum": 0, "description": "Blocks on top of its own; 12 are enough" },
            "block_number": { "type": ["integer", "null"] },
            "confirmed_at": { "type": ["string", "null"], "format": "date-time" },
            "amount": { "type": decimal["type"], "pattern": decimal["pattern"], "description": "B3TR" },
        },
    })
}

pub(super) fn chain_batch() -> Value {
    json!({
        "type": "object", "required": ["genesis_id", "steps", "checkpoint"], "additionalProperties": false,
        "properties": {
            "genesis_id": { "type": "string", "pattern": "^0x[0-9a-f]{64}$" },
            "steps": {
                "type": "array", "maxItems": 512,
                "description": "Steps with seq rising by one; none to ask where to go on, which changes nothing",
                "items": {
                    "type": "object", "required": ["type", "event_id", "occurred_at", "seq", "genesis_id", "adoption"],
                    "properties": {
                        "type": { "enum": ["adopted", "undone"] },
                        "event_id": { "type": "string", "format": "uuid" },
                        "occurred_at": { "type": "integer", "description": "Microseconds since 1970" },
                        "seq": { "type": "integer", "minimum": 1 },
                        "genesis_id": { "type": "string" },
                        "adoption": { "type": "integer", "minimum": 1 },
                    },
                },
            },
            "checkpoint": { "description": "Kept as it is and given back with the highest step; null without steps" },
        },
    })
}

pub(super) fn chain_answer() -> Value {
    json!({
        "type": "object", "required": ["results", "highest_seq", "checkpoint"],
        "properties": {
            "results": { "type": "array", "items": {
                "type": "object", "required": ["seq", "outcome"],
                "properties": { "seq": { "type": "integer" }, "outcome": { "enum": ["accepted", "duplicate"] } },
            }},
            "highest_seq": { "type": "integer", "minimum": 0 },
            "checkpoint": { "description": "The one that came with the highest step; null before the first" },
        },
    })
}

pub(super) fn claimed_at() -> Value {
    json!({ "type": ["string", "null"], "format": "date-time", "description": "By you, or by itself where you prefer that" })
}
