//! What one call of an external service needs and brings, whatever protocol it speaks, and what the protocols share.

use reading::{Jpeg, Line};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use schemas::events::ImageSize;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;

use crate::CallError;

/// Characters that are kept of what a service calls its model or a request.
const NAME_MAX: usize = 64;

/// What a service outside is sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The photo upright, without metadata.
    pub jpeg: Jpeg,
    /// The upright photo's own size; pixels. Boxes are given in its pixels.
    pub photo: ImageSize,
}

/// What a service read: quads as shares of width and height, each line with the service's own confidence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub lines: Vec<Line>,
    /// `name@version`.
    pub model: String,
}

/// What a call brought.
#[derive(Debug)]
pub(crate) struct Call {
    pub http_status: Option<u16>,
    pub request_id: Option<String>,
    pub answer: Result<Answer, CallError>,
}

/// What is sent, and where the answer has the call's name.
pub(crate) struct Request {
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// What an HTTP status other than success says.
pub(crate) fn refusal(status: StatusCode) -> CallError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CallError::Unauthorized,
        StatusCode::TOO_MANY_REQUESTS => CallError::RateLimited("the service's quota is used up"),
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => CallError::Http(status.as_u16()),
        status => CallError::Http(status.as_u16()),
    }
}

/// A name that a service gave, fit for a log: letters, digits and `-_.:/`, at most 64.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.:/".contains(*c)).take(NAME_MAX).collect()
}

/// Parses JSON. What is wrong with it may quote what stands in the photo, so only the kind is reported.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|error| {
        CallError::BadResponse(match error.classify() {
            serde_json::error::Category::Data => "the answer is JSON of another shape than documented",
            _ if body.is_empty() => "the answer is empty",
            _ => "the answer is no JSON",
        })
    })
}

/// A header whose value is a secret: HTTP clients and logs leave it out.
pub(crate) fn secret_header(
    headers: &mut HeaderMap,
    name: &'static str,
    before: &str,
    secret: &SecretString,
) -> Result<(), CallError> {
    let text = zeroize::Zeroizing::new(format!("{before}{}", secret.expose_secret()));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| CallError::Internal("the key holds characters that no header may"))?;
    value.set_sensitive(true);
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}

/// A point as a share of width and height; what lies beyond an edge is put on it.
pub(crate) fn share(x: f32, y: f32) -> Option<[f32; 2]> {
    (x.is_finite() && y.is_finite()).then(|| [x.clamp(0.0, 1.0), y.clamp(0.0, 1.0)])
}
