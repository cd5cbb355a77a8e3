//! Every problem that a client can meet, as one table. A row is written once; the problem document (RFC 9457), the status and headers of
//! the HTTP response and the responses of the OpenAPI document follow from it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use serde::Serialize;
use serde_json::Value;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use warp::reply::Response;

/// A source that is logged and never shown.
pub type Source = Box<dyn Error + Send + Sync>;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What programs distinguish problems by; never changes.
    pub code: &'static str,
    /// A title for people.
    pub title: &'static str,
    /// A sentence, where the refusal has none of its own.
    pub detail: &'static str,
    /// Seconds after which to try again, where the refusal has none of its own.
    pub retry_after: Option<u64>,
    /// `WWW-Authenticate` of a 401.
    pub challenge: Option<&'static str>,
}

/// The challenge of everything that a token opens.
const BEARER: &str = "Bearer";
/// The challenge of what a wallet's signature or a refresh token opens.
const WALLET: &str = "Milestream-Wallet";
/// The challenge of the watcher's batches.
const HMAC: &str = "Milestream-HMAC-SHA256";

macro_rules! problems {
    ($($name:ident = $status:literal, $code:literal, $title:literal, $detail:literal $(, $extra:ident: $value:expr)*;)*) => {
        $(
            #[doc = $detail]
            pub const $name: Problem = Problem {
                $($extra: Some($value),)*
                ..Problem { status: $status, code: $code, title: $title, detail: $detail, retry_after: None, challenge: None }
            };
        )*
        /// The table.
        pub const PROBLEMS: &[Problem] = &[$($name),*];
    };
}

problems! {
    NOT_FOUND = 404, "not_found", "Not found", "there is no such route";
    FILE_NOT_FOUND = 404, "file_not_found", "File not found", "the pages have no such file";
    METHOD_NOT_ALLOWED = 405, "method_not_allowed", "Method not allowed", "the route does not take this method";
    HEADER_TIMEOUT = 408, "header_timeout", "Head too slow", "the request's head did not end in time";
    UNKNOWN_PARAMETER = 400, "unknown_parameter", "Unknown query parameter", "the query parameter is not known";
    INVALID_PARAMETER = 400, "invalid_parameter", "Unusable query parameter", "the parameter is not usable";
    TOKEN_MISSING = 401, "token_missing", "Token missing", "send a bearer token in the Authorization header", challenge: BEARER;
    TOKEN_INVALID = 401, "token_invalid", "Token not valid", "the token is not valid", challenge: BEARER;
    TOKEN_EXPIRED = 401, "token_expired", "Token expired", "the token has expired: ask for a new one", challenge: BEARER;
    ACCOUNT_LOCKED = 403, "account_locked", "Account locked", "the account is locked: contact support";
    RATE_LIMITED = 429, "rate_limited", "Too many requests", "too many requests";
    SIGN_IN_UNAVAILABLE = 503, "sign_in_unavailable", "Nobody signs in here", "nobody signs in here: the gateway has no signing key or no network";
    INVALID_ADDRESS = 422, "invalid_address", "Unusable address", "the address is not usable";
    UNKNOWN_DOMAIN = 422, "unknown_domain", "Unknown domain", "nobody signs in for this domain here: it is neither the gateway's nor that of a configured origin";
    CHALLENGE_EXPIRED = 401, "challenge_expired", "Challenge expired", "there is no such challenge, or it has expired: ask for a new one", challenge: WALLET;
    CHALLENGE_USED = 401, "challenge_used", "Challenge used", "the challenge was used already: ask for a new one", challenge: WALLET;
    WRONG_DOMAIN = 401, "wrong_domain", "Another domain", "the certificate is for another domain", challenge: WALLET;
    STALE_CERTIFICATE = 401, "stale_certificate", "Certificate too old", "the certificate was signed before the challenge or in the future: look at the device's clock", challenge: WALLET;
    SIGNATURE_REFUSED = 401, "signature_refused", "Signature not valid", "the signature is not the wallet's under this challenge", challenge: WALLET;
    CONTRACT_WALLET_UNSUPPORTED = 422, "contract_wallet_unsupported", "Contracts do not sign here", "the signature is not that of a key, and wallets that are contracts (EIP-1271) are not served here: sign with another wallet";
    NODE_UNAVAILABLE = 503, "node_unavailable", "No node responds", "the node that knows wallets which are contracts does not respond", retry_after: 5;
    REGISTRATIONS_CLOSED = 403, "registrations_closed", "No new accounts", "no new account is made at the moment: only wallets that have one sign in";
    SIGN_IN_DELAYED = 429, "sign_in_delayed", "Too many attempts", "too many attempts in vain";
    REFRESH_INVALID = 401, "refresh_invalid", "Refresh token not valid", "the refresh token is not valid: sign in again", challenge: WALLET;
    REFRESH_REUSED = 401, "refresh_reused", "Refresh token used before", "the refresh token was used before, so that its session has ended: sign in again", challenge: WALLET;
    SESSION_NOT_FOUND = 404, "session_not_found", "Session not found", "there is no such session of yours";
    WALLET_TAKEN = 409, "wallet_taken", "Another account's wallet", "the wallet is another account's";
    WALLET_NOT_FOUND = 404, "wallet_not_found", "Wallet not found", "there is no such wallet of yours";
    WALLET_UNPROVEN = 409, "wallet_unproven", "Wallet has not signed", "the wallet has never signed: add it by its signature first";
    WALLET_IS_PRIMARY = 409, "wallet_is_primary", "The primary wallet", "rewards are paid to this wallet: have another one become the primary wallet first";
    WALLET_IN_USE = 409, "wallet_in_use", "Payments wait", "payments to this wallet are on their way: remove it when they have arrived";
    LAST_WALLET = 409, "last_wallet", "The last wallet", "this is the wallet that you sign in with: add another one first";
    EMAIL_TAKEN = 409, "email_taken", "Address taken", "the e-mail address is another account's";
    NO_EMAIL = 409, "no_email", "No e-mail address", "your account has no e-mail address: put one in first";
    EMAIL_PROVEN = 409, "email_proven", "Proven already", "your e-mail address is proven already";
    EMAIL_CODE_EXPIRED = 409, "email_code_expired", "No code is good", "no code is good now: it was used, tried five times, sent ten minutes ago or to another address; ask for a new one";
    EMAIL_CODE_WRONG = 422, "email_code_wrong", "Another code", "the code is not the one that was sent";
    ERASURE_DUE = 410, "erasure_due", "Too late", "the time to keep the account is over: it is being erased";
    VEHICLE_LIMIT = 409, "vehicle_limit", "Too many vehicles", "an account has 50 vehicles at most: retire one that is driven no more";
    TRANSFER_NOT_FOUND = 404, "transfer_not_found", "Transfer not found", "there is no such offer of yours or to you";
    TRANSFER_OPEN = 409, "transfer_open", "Offered already", "the vehicle is offered to somebody already: take that back first";
    TRANSFER_OVER = 409, "transfer_over", "The offer is over", "the offer was answered or taken back, or has expired: its owner may offer the vehicle again";
    VEHICLE_UNDECIDED = 409, "vehicle_undecided", "A photo is not decided", "a photo of the vehicle is not decided yet: accept it when that is";
    DEFAULT_VEHICLE = 409, "default_vehicle", "The account's own vehicle", "photos that name no vehicle belong to this one, which stays with its account";
    // Long enough for an operator's switch; clients poll this, so not shorter.
    MAINTENANCE = 503, "maintenance", "Maintenance", "changes are paused for maintenance", retry_after: 120;
    LIVE_UPDATES_OFF = 503, "live_updates_off", "No live updates", "no event stream is served at the moment: ask for the upload's status", retry_after: 60;
    BUSY = 503, "busy", "Busy", "the gateway is busy", retry_after: 5;
    UNSUPPORTED_MEDIA_TYPE = 415, "unsupported_media_type", "Not a multipart form", "send the photo as multipart/form-data";
    ENCODED_BODY = 415, "unsupported_content_encoding", "Encoded body", "send the body as it is: no Content-Encoding is understood";
    MALFORMED_FORM = 400, "malformed_form", "Malformed form", "the body is not a well-formed multipart form";
    INCOMPLETE_BODY = 400, "incomplete_body", "Incomplete body", "the body ended before it was whole";
    BODY_TIMEOUT = 408, "body_timeout", "Body too slow", "the body came too slowly";
    BODY_TOO_LARGE = 413, "body_too_large", "Body too large", "the body is larger than the route takes";
    PHOTO_TOO_LARGE = 413, "photo_too_large", "Photo too large", "the photo has too many bytes";
    UNKNOWN_FIELD = 400, "unknown_field", "Unknown field", "the form has no such field";
    MISSING_FIELD = 400, "missing_field", "Missing field", "a field is missing";
    REPEATED_FIELD = 400, "repeated_field", "Repeated field", "a field is there more than once";
    FIELD_TOO_LONG = 400, "field_too_long", "Field too long", "a field has too many bytes";
    INVALID_FIELD = 422, "invalid_field", "Unusable field", "a field is not usable";
    EMPTY_FILE = 400, "empty_file", "Empty file", "the photo is an empty file";
    UNSUPPORTED_FORMAT = 415, "unsupported_format", "Not a photo", "the photo is no JPEG, PNG, WebP or HEIC";
    // A picture that would unpack beyond the pixel cap is a picture all the same: 422, not 415.
    TOO_MANY_PIXELS = 422, "unsupported_format", "Photo too big to open", "the photo has too many pixels";
    TRUNCATED_IMAGE = 422, "truncated_image", "Photo cut off", "the photo is cut off";
    LOW_RESOLUTION = 422, "low_resolution", "Photo too small", "the photo has too few pixels";
    PHOTO_REFUSED = 422, "photo_refused", "Photo refused", "the photo is not usable";
    IDEMPOTENCY_KEY_INVALID = 400, "idempotency_key_invalid", "Unusable Idempotency-Key", "an Idempotency-Key is 1 to 255 visible ASCII characters";
    DEVICE_ID_INVALID = 400, "device_id_invalid", "Unusable X-Device-Id", "an X-Device-Id is 1 to 128 visible ASCII characters";
    IDEMPOTENCY_KEY_REUSED = 422, "idempotency_key_reused", "Idempotency-Key reused", "this Idempotency-Key was used with another photo";
    VEHICLE_NOT_FOUND = 404, "vehicle_not_found", "Vehicle not found", "there is no such vehicle of yours";
    VEHICLE_RETIRED = 409, "vehicle_retired", "Vehicle retired", "the vehicle is retired: bring it back first";
    NO_DEVELOPMENT_WALLET = 404, "no_development_wallet", "No development wallet", "the gateway signs for no such wallet: it does so on a developer's machine alone";
    NOTICE_NOT_FOUND = 404, "notice_not_found", "Notice not found", "there is no such notice to you";
    UPLOAD_NOT_FOUND = 404, "upload_not_found", "Upload not found", "there is no such upload of yours";
    UNEXPECTED_BODY = 400, "unexpected_body", "Unexpected body", "a claim takes no body, or an empty JSON object";
    REWARD_NOT_FOUND = 404, "reward_not_found", "Reward not found", "there is no such reward of yours";
    REWARD_SETTLED = 409, "reward_settled", "Nothing to claim", "the reward is paid or cancelled: there is nothing to claim";
    NO_WALLET = 409, "no_wallet", "No wallet", "you have no wallet to be paid to: link one, then claim again";
    ROLE_MISSING = 403, "role_missing", "Another role", "the token's role may not do this";
    SCOPE_MISSING = 403, "scope_missing", "Another scope", "the key's scopes do not allow this: ask an operator for another key";
    REVIEW_NOT_FOUND = 404, "review_not_found", "Review not found", "nobody was asked to review this upload";
    NO_LOOK_ALIKE = 404, "no_look_alike", "No photo looks like it", "no photo that looks like this one is known";
    REVIEW_DECIDED = 409, "review_decided", "Decided already", "this review is decided already: look at the decision";
    REVIEW_EXPIRED = 410, "review_expired", "Too late", "nobody has decided this review in time: the driver was asked for a new photo";
    NOT_APPEALABLE = 409, "not_appealable", "Nothing to appeal against", "only what a rule has turned down, and a person may read otherwise, can be appealed";
    APPEAL_TOO_LATE = 410, "appeal_too_late", "Too late", "it was turned down more than 14 days ago: send a new photo";
    REVIEW_HELD = 409, "review_held", "Somebody works on it", "another person works on this review: take another one";
    ANOTHER_PERSON = 409, "another_person_needed", "Another person is asked", "you have looked at this photo: another person has to";
    OPERATOR_NEEDED = 403, "operator_needed", "An operator is asked", "two people have seen different things: an operator decides";
    OWN_UPLOAD = 403, "own_upload", "Your own upload", "nobody decides about a photo of their own";
    MALFORMED_DOCUMENT = 400, "malformed_document", "Malformed document", "the body is not the JSON document that the route takes";
    INVALID_DECISION = 422, "invalid_decision", "Unusable decision", "a value of the decision is not usable";
    CHAIN_DISABLED = 404, "chain_disabled", "No chain is watched", "no chain is watched here: set chain.genesis_id and chain.watch_secret";
    BAD_SIGNATURE = 401, "bad_signature", "Signature not valid", "the batch is not signed with the secret that this gateway knows", challenge: HMAC;
    STALE_BATCH = 401, "stale_batch", "Batch too old", "the batch was signed too long ago or in the future", challenge: HMAC;
    WRONG_NETWORK = 422, "wrong_network", "Another network", "the batch is about another network than the one that is watched here";
    BATCH_TOO_LARGE = 413, "batch_too_large", "Batch too large", "the batch has too many bytes";
    MALFORMED_BATCH = 400, "malformed_batch", "Malformed batch", "the batch does not read";
    INVALID_STEP = 422, "invalid_step", "Unusable step", "a step cannot be true";
    CHAIN_GAP = 409, "chain_gap", "Steps are missing", "the batch does not begin with the next step: ask where to go on with an empty batch";
    NOT_PUBLISHED = 503, "not_published", "Not queued yet", "the photo is stored, but could not be queued: send it again for the same upload", retry_after: 5;
    DATABASE_UNAVAILABLE = 503, "database_unavailable", "Database unavailable", "a database does not respond", retry_after: 5;
    PHOTO_STORE_UNAVAILABLE = 503, "photo_store_unavailable", "Photo store unavailable", "the photo store does not respond", retry_after: 5;
    INTERNAL = 500, "internal", "Internal error", "something went wrong on our side";
}

impl Problem {
    /// A refusal with the row's own sentence.
    #[must_use]
    pub fn error(self) -> ApiError {
        let detail = Cow::Borrowed(self.detail);
        ApiError(Box::new(Refusal {
            problem: self,
            detail,
            field: None,
            upload_id: None,
            retry_after: self.retry_after,
            source: None,
        }))
    }

    /// A refusal with a sentence of its own.
    #[must_use]
    pub fn because(self, detail: impl Into<Cow<'static, str>>) -> ApiError {
        let mut error = self.error();
        error.0.detail = detail.into();
        error
    }

    /// A fault of ours: its source is logged and never shown.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Source>) -> ApiError {
        let mut error = self.error();
        error.0.source = Some(source.into());
        error
    }

    /// The documents' `type`.
    fn kind(self) -> String {
        format!("/problems/{}", self.code)
    }
}

/// Why a request was not served.
#[derive(Debug)]
pub struct ApiError(Box<Refusal>);

#[derive(Debug)]
struct Refusal {
    problem: Problem,
    detail: Cow<'static, str>,
    field: Option<String>,
    upload_id: Option<String>,
    retry_after: Option<u64>,
    source: Option<Source>,
}

/// A problem document.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl ApiError {
    /// Names the field, parameter or step (its `seq`) at fault.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>) -> Self {
        self.0.field = Some(name.into());
        self
    }

    /// Names the upload that is stored all the same.
    #[must_use]
    pub fn upload(mut self, id: impl ToString) -> Self {
        self.0.upload_id = Some(id.to_string());
        self
    }

    /// Says when to try again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// The row of the table.
    #[must_use]
    pub fn problem(&self) -> Problem {
        self.0.problem
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.problem.status
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.problem.code
    }

    /// The problem document.
    #[must_use]
    pub fn document(&self) -> Value {
        let Refusal { problem, detail, field, upload_id, retry_after, .. } = &*self.0;
        let document = Document {
            kind: problem.kind(),
            title: problem.title,
            status: problem.status,
            detail,
            code: problem.code,
            field: field.as_deref(),
            upload_id: upload_id.as_deref(),
            retry_after: *retry_after,
        };
        // Text and numbers always encode.
        serde_json::to_value(&document).unwrap_or_default()
    }

    /// The response.
    #[must_use]
    pub fn into_response(self) -> Response {
        let mut response = Response::new(self.document().to_string().into());
        let status = StatusCode::from_u16(self.status());
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.0.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.0.problem.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }

    /// The error with its causes, for logs only.
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

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
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
        if passing { DATABASE_UNAVAILABLE.caused_by(error) } else { INTERNAL.caused_by(error) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_problem_names_its_code_and_what_applies_and_hides_its_cause() {
        let error = DATABASE_UNAVAILABLE.caused_by("password=secret");
        let document = error.document();
        assert_eq!(document["code"], "database_unavailable");
        assert_eq!(document["retry_after"], 5);
        assert!(!document.to_string().contains("secret"));
        assert!(error.causes().contains("secret"), "the log keeps the cause");
        assert_eq!(MISSING_FIELD.error().field("photo").document()["field"], "photo");
    }

    #[test]
    fn no_two_rows_have_a_status_and_a_code_in_common_and_every_401_has_a_challenge() {
        let rows: BTreeSet<_> = PROBLEMS.iter().map(|problem| (problem.status, problem.code)).collect();
        assert_eq!(rows.len(), PROBLEMS.len());
        assert!(PROBLEMS.iter().all(|problem| (problem.status == 401) == problem.challenge.is_some()));
    }
}
