//! Every error that a client can meet, and the one table of their answers (RFC 9457 problem documents).

use std::borrow::Cow;
use std::error::Error as _;

use schemas::events::Fault;
use schemas::ids::UploadId;
use schemas::reason::Reason;
use serde_json::{Value, json};
use warp::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use warp::http::{StatusCode, header::WWW_AUTHENTICATE};
use warp::reply::Response;

/// A source that is logged and never shown.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's sentence stands in its error attribute")]
pub enum ApiError {
    #[error("there is no such route")]
    RouteNotFound,
    #[error("the route does not take this method")]
    MethodNotAllowed,
    #[error("the query parameter {0:?} is not known")]
    UnknownParameter(String),
    #[error("the query parameter {name} is not usable: {detail}")]
    InvalidParameter { name: &'static str, detail: String },
    #[error("send a bearer token in the Authorization header")]
    TokenMissing,
    #[error("the token is not valid: {0}")]
    TokenInvalid(&'static str),
    #[error("the token has expired: ask for a new one")]
    TokenExpired,
    #[error("the account is locked: contact support")]
    AccountLocked,
    #[error("too many requests: wait {retry_after} s")]
    RateLimited { retry_after: u64 },
    #[error("uploads are paused for maintenance")]
    Maintenance,
    #[error("the gateway is busy: try again in {retry_after} s")]
    Busy { retry_after: u64 },
    #[error("send the photo as multipart/form-data")]
    UnsupportedMediaType,
    #[error("the body is not a well-formed multipart form: {0}")]
    MalformedForm(String),
    #[error("the body ended before the form did")]
    IncompleteBody,
    #[error("the body came too slowly: {0}")]
    BodyTimeout(&'static str),
    #[error("a photo may have at most {limit} bytes")]
    PhotoTooLarge { limit: u64 },
    #[error("the form has no field {0:?}")]
    UnknownField(String),
    #[error("the field {0} is missing")]
    MissingField(&'static str),
    #[error("the field {0} is there more than once")]
    RepeatedField(&'static str),
    #[error("the field {name} may have at most {limit} bytes")]
    FieldTooLong { name: &'static str, limit: usize },
    #[error("the field {name} is not usable: {detail}")]
    InvalidField { name: &'static str, detail: String },
    #[error("the photo is an empty file")]
    EmptyFile,
    #[error("{}", .0.detail)]
    Photo(Fault),
    #[error("an Idempotency-Key is 1 to 255 visible ASCII characters")]
    IdempotencyKeyInvalid,
    #[error("this Idempotency-Key was used with another photo")]
    IdempotencyKeyReused,
    #[error("there is no such vehicle of yours")]
    VehicleNotFound,
    #[error("there is no such upload of yours")]
    UploadNotFound,
    #[error("a claim takes no body, or an empty JSON object")]
    UnexpectedBody,
    #[error("there is no such reward of yours")]
    RewardNotFound,
    #[error("the reward is {status} already: there is nothing to claim")]
    RewardSettled { status: String },
    #[error("you have no wallet to be paid to: link one, then claim again")]
    NoWallet,
    #[error("no chain is watched here: set chain.genesis_id and chain.watch_secret")]
    ChainDisabled,
    #[error("the batch is not signed with the secret that this gateway knows")]
    SignatureInvalid,
    #[error("the batch was signed more than {seconds} s from now: put the clocks right, or sign it anew")]
    StaleBatch { seconds: u64 },
    #[error("the batch is about another network than the one that is watched here")]
    WrongNetwork,
    #[error("a batch may have at most {limit} bytes")]
    BatchTooLarge { limit: u64 },
    #[error("the batch does not read: {0}")]
    MalformedBatch(String),
    #[error("step {seq}: {detail}")]
    InvalidStep { seq: i64, detail: &'static str },
    #[error("step {expected} is next, the batch begins with {found}: ask where to go on with an empty batch")]
    ChainGap { expected: i64, found: i64 },
    #[error(
        "the photo is stored, but could not be queued: send it again in {retry_after} s for the same upload"
    )]
    NotPublished { upload_id: UploadId, retry_after: u64, source: Source },
    #[error("a database does not answer: try again in {retry_after} s")]
    DatabaseUnavailable { retry_after: u64, source: Source },
    #[error("the photo store does not answer: try again in {retry_after} s")]
    PhotoStoreUnavailable { retry_after: u64, source: Source },
    #[error("something went wrong on our side")]
    Internal { source: Source },
}

/// Every problem code, for the OpenAPI document and its test.
pub const CODES: &[&str] = &[
    "not_found",
    "method_not_allowed",
    "unknown_parameter",
    "invalid_parameter",
    "token_missing",
    "token_invalid",
    "token_expired",
    "account_locked",
    "rate_limited",
    "maintenance",
    "busy",
    "unsupported_media_type",
    "malformed_form",
    "incomplete_body",
    "header_timeout",
    "body_timeout",
    "photo_too_large",
    "unknown_field",
    "missing_field",
    "repeated_field",
    "field_too_long",
    "invalid_field",
    "empty_file",
    "unsupported_format",
    "truncated_image",
    "low_resolution",
    "photo_refused",
    "idempotency_key_invalid",
    "idempotency_key_reused",
    "vehicle_not_found",
    "upload_not_found",
    "unexpected_body",
    "reward_not_found",
    "reward_settled",
    "no_wallet",
    "chain_disabled",
    "bad_signature",
    "stale_batch",
    "wrong_network",
    "batch_too_large",
    "malformed_batch",
    "invalid_step",
    "chain_gap",
    "not_published",
    "database_unavailable",
    "photo_store_unavailable",
    "internal",
];

impl ApiError {
    /// Status, code and title: the one table.
    #[must_use]
    pub fn answer(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::RouteNotFound => (404, "not_found", "Not found"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "Method not allowed"),
            Self::UnknownParameter(_) => (400, "unknown_parameter", "Unknown query parameter"),
            Self::InvalidParameter { .. } => (400, "invalid_parameter", "Unusable query parameter"),
            Self::TokenMissing => (401, "token_missing", "Token missing"),
            Self::TokenInvalid(_) => (401, "token_invalid", "Token not valid"),
            Self::TokenExpired => (401, "token_expired", "Token expired"),
            Self::AccountLocked => (403, "account_locked", "Account locked"),
            Self::RateLimited { .. } => (429, "rate_limited", "Too many requests"),
            Self::Maintenance => (503, "maintenance", "Maintenance"),
            Self::Busy { .. } => (503, "busy", "Busy"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type", "Not a multipart form"),
            Self::MalformedForm(_) => (400, "malformed_form", "Malformed form"),
            Self::IncompleteBody => (400, "incomplete_body", "Incomplete body"),
            Self::BodyTimeout(_) => (408, "body_timeout", "Body too slow"),
            Self::PhotoTooLarge { .. } => (413, "photo_too_large", "Photo too large"),
            Self::UnknownField(_) => (400, "unknown_field", "Unknown field"),
            Self::MissingField(_) => (400, "missing_field", "Missing field"),
            Self::RepeatedField(_) => (400, "repeated_field", "Repeated field"),
            Self::FieldTooLong { .. } => (400, "field_too_long", "Field too long"),
            Self::InvalidField { .. } => (422, "invalid_field", "Unusable field"),
            Self::EmptyFile => (400, "empty_file", "Empty file"),
            Self::Photo(fault) => match fault.reason {
                Reason::UnsupportedFormat if is_bomb(fault) => {
                    (422, "unsupported_format", "Photo too big to open")
                }
                Reason::UnsupportedFormat => (415, "unsupported_format", "Not a photo"),
                Reason::TruncatedImage => (422, "truncated_image", "Photo cut off"),
                Reason::LowResolution => (422, "low_resolution", "Photo too small"),
                _ => (422, "photo_refused", "Photo refused"),
            },
            Self::IdempotencyKeyInvalid => (400, "idempotency_key_invalid", "Unusable Idempotency-Key"),
            Self::IdempotencyKeyReused => (422, "idempotency_key_reused", "Idempotency-Key reused"),
            Self::VehicleNotFound => (404, "vehicle_not_found", "Vehicle not found"),
            Self::UploadNotFound => (404, "upload_not_found", "Upload not found"),
            Self::UnexpectedBody => (400, "unexpected_body", "Unexpected body"),
            Self::RewardNotFound => (404, "reward_not_found", "Reward not found"),
            Self::RewardSettled { .. } => (409, "reward_settled", "Nothing to claim"),
            Self::NoWallet => (409, "no_wallet", "No wallet"),
            Self::ChainDisabled => (404, "chain_disabled", "No chain is watched"),
            Self::SignatureInvalid => (401, "bad_signature", "Signature not valid"),
            Self::StaleBatch { .. } => (401, "stale_batch", "Batch too old"),
            Self::WrongNetwork => (422, "wrong_network", "Another network"),
            Self::BatchTooLarge { .. } => (413, "batch_too_large", "Batch too large"),
            Self::MalformedBatch(_) => (400, "malformed_batch", "Malformed batch"),
            Self::InvalidStep { .. } => (422, "invalid_step", "Unusable step"),
            Self::ChainGap { .. } => (409, "chain_gap", "Steps are missing"),
            Self::NotPublished { .. } => (503, "not_published", "Not queued yet"),
            Self::DatabaseUnavailable { .. } => (503, "database_unavailable", "Database unavailable"),
            Self::PhotoStoreUnavailable { .. } => (503, "photo_store_unavailable", "Photo store unavailable"),
            Self::Internal { .. } => (500, "internal", "Internal error"),
        }
    }

    /// The field, parameter or step (its `seq`) at fault, the upload and the seconds to wait, where they apply.
    fn extras(&self) -> (Option<Cow<'_, str>>, Option<UploadId>, Option<u64>) {
        match self {
            Self::UnknownParameter(name) | Self::UnknownField(name) => (Some(name.into()), None, None),
            Self::InvalidParameter { name, .. }
            | Self::InvalidField { name, .. }
            | Self::FieldTooLong { name, .. }
            | Self::MissingField(name)
            | Self::RepeatedField(name) => (Some((*name).into()), None, None),
            Self::EmptyFile | Self::Photo(_) | Self::PhotoTooLarge { .. } => {
                (Some("photo".into()), None, None)
            }
            Self::VehicleNotFound => (Some("vehicle_id".into()), None, None),
            Self::InvalidStep { seq, .. } => (Some(seq.to_string().into()), None, None),
            Self::RateLimited { retry_after }
            | Self::Busy { retry_after }
            | Self::DatabaseUnavailable { retry_after, .. }
            | Self::PhotoStoreUnavailable { retry_after, .. } => (None, None, Some(*retry_after)),
            // Long enough for an operator's switch; clients poll this, so not shorter.
            Self::Maintenance => (None, None, Some(120)),
            Self::NotPublished { upload_id, retry_after, .. } => (None, Some(*upload_id), Some(*retry_after)),
            _ => (None, None, None),
        }
    }

    /// The problem document.
    #[must_use]
    pub fn document(&self) -> Value {
        let (status, code, title) = self.answer();
        let mut document = problem(status, code, title, &self.to_string());
        let (field, upload_id, retry_after) = self.extras();
        if let Some(field) = field {
            document["field"] = json!(field);
        }
        if let Some(upload_id) = upload_id {
            document["upload_id"] = json!(upload_id);
        }
        if let Some(seconds) = retry_after {
            document["retry_after"] = json!(seconds);
        }
        document
    }

    /// The answer.
    #[must_use]
    pub fn into_response(self) -> Response {
        let mut response = Response::new(self.document().to_string().into());
        *response.status_mut() =
            StatusCode::from_u16(self.answer().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.extras().2 {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self {
            Self::SignatureInvalid | Self::StaleBatch { .. } => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Milestream-HMAC-SHA256"));
            }
            _ if self.answer().0 == 401 => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }

    /// The chain of causes behind a 5xx, for logs only.
    #[must_use]
    pub fn causes(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

/// A problem document's common members.
#[must_use]
pub fn problem(status: u16, code: &str, title: &str, detail: &str) -> Value {
    json!({
        "type": format!("/problems/{code}"),
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    })
}

/// A picture that would unpack beyond the pixel cap is a picture all the same: 422, not 415. `reading::inspect` says so
/// in the detail, as `schemas` has no reason of its own for it.
fn is_bomb(fault: &Fault) -> bool {
    fault.detail.contains("pixel")
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
        // Class 57: the server is going down or starting; 53: out of a resource; 08: connection.
        let passing = match &error {
            Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
            sqlx::Error::Database(database) => database
                .code()
                .is_some_and(|code| ["57", "53", "08"].iter().any(|class| code.starts_with(class))),
            _ => false,
        };
        if passing {
            Self::DatabaseUnavailable { retry_after: 5, source: error.into() }
        } else {
            Self::Internal { source: error.into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_code_and_what_applies_and_hides_its_cause() {
        let source = "password=secret".into();
        let error = ApiError::DatabaseUnavailable { retry_after: 5, source };
        let document = error.document();
        assert_eq!(document["code"], "database_unavailable");
        assert_eq!(document["retry_after"], 5);
        assert!(!document.to_string().contains("secret"));
        assert!(error.causes().contains("secret"), "the log keeps the cause");
        assert_eq!(ApiError::MissingField("photo").document()["field"], "photo");
    }

    #[test]
    fn a_picture_too_big_to_open_is_unprocessable_and_no_picture_is_an_unsupported_type() {
        let fault = |detail: &str| Fault { reason: Reason::UnsupportedFormat, detail: detail.into() };
        assert_eq!(ApiError::Photo(fault("60000 x 60000 is above the pixel cap")).answer().0, 422);
        assert_eq!(ApiError::Photo(fault("neither JPEG, PNG nor WebP")).answer().0, 415);
    }
}
