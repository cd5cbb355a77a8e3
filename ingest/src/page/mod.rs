//! The pages: `/` for drivers and `/review` for reviewers. All that they show they ask for by the routes below `/v1`, with the token of
//! whoever has signed in there. A page itself says nothing of anybody, so that whoever can reach the gateway may load it.

mod files;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use serde_json::{Value, json};
use warp::http::StatusCode;
use warp::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use warp::reply::Response;

pub(crate) use self::files::of_release;
use self::files::{DRIVERS_READY, RELEASE, REVIEWERS_READY, Ready, find};
use crate::http::operation::Operation;
use crate::http::problem::{ApiError, FILE_NOT_FOUND, INTERNAL, Problem};
use crate::http::reply::Reply;
use crate::http::request::{Headers, Path, PathParameter, text};

/// Only these files and this gateway: no other origin, no script or style in the page, no frame around it, and no text that becomes
/// markup. Photos are read with a token, and shown from memory (`blob:`).
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
);

/// What goes with every page and its files, beside a policy.
const SHELL: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    // A photo is taken by the device's own camera program, which asks for itself.
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=()"),
    ),
];

/// Asked for anew each time and sent where it has changed.
const ANEW: HeaderValue = HeaderValue::from_static("no-cache");
/// What a release names never changes.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A file of the pages, or that the browser's copy is the same.
pub(crate) struct File {
    ready: &'static Ready,
    caching: HeaderValue,
    known: Option<String>,
    zipped: bool,
}

/// A release in a path.
pub(crate) struct Release(String);

impl FromStr for Release {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl PathParameter for Release {
    const MISSING: Problem = FILE_NOT_FOUND;

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-f]{16}$" })
    }
}

/// A file's name in a path.
pub(crate) struct Named(&'static Ready);

impl FromStr for Named {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        find(text).map(Self).ok_or(())
    }
}

impl PathParameter for Named {
    const MISSING: Problem = FILE_NOT_FOUND;

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

/// `GET /`.
pub(crate) async fn drivers(headers: Headers) -> Result<File, ApiError> {
    Ok(file(&DRIVERS_READY, ANEW, &headers))
}

/// `GET /review`.
pub(crate) async fn reviewers(headers: Headers) -> Result<File, ApiError> {
    Ok(file(&REVIEWERS_READY, ANEW, &headers))
}

/// `GET /pages/{release}/{file}`. While one release follows another, a page of one may ask a gateway of the other: it gets what is there,
/// but does not keep it.
pub(crate) async fn file_of_release(
    Path(Release(release)): Path<Release>,
    Path(Named(ready)): Path<Named>,
    headers: Headers,
) -> Result<File, ApiError> {
    Ok(file(ready, if release == *RELEASE { FOR_EVER } else { ANEW }, &headers))
}

fn file(ready: &'static Ready, caching: HeaderValue, Headers(headers): &Headers) -> File {
    let accepted = text(headers, ACCEPT_ENCODING.as_str()).unwrap_or_default();
    File {
        ready,
        caching,
        known: text(headers, IF_NONE_MATCH.as_str()).map(str::to_owned),
        zipped: accepts_gzip(accepted) && !ready.zipped.is_empty(),
    }
}

/// Whether `Accept-Encoding` names gzip, and not with the weight 0.
fn accepts_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|weight| weight > 0.0)
    })
}

/// Whether a client's `If-None-Match` names what has this tag: it holds the same (RFC 9110, 13.1.2). A proxy that encodes by itself makes a
/// tag a weak one; for a browser's copy that is as good.
pub(crate) fn is_known(known: Option<&str>, tag: &str) -> bool {
    let same = |one: &str| one.trim().trim_start_matches("W/") == tag;
    known.is_some_and(|known| known.trim() == "*" || known.split(',').any(same))
}

/// What a browser is told of every page, with the policy of this one.
pub(crate) fn protect(headers: &mut HeaderMap, policy: HeaderValue) {
    headers.extend(SHELL);
    headers.insert(CONTENT_SECURITY_POLICY, policy);
}

impl Reply for File {
    fn into_response(self) -> Result<Response, ApiError> {
        // Each form of a file is a representation of its own, with a tag of its own.
        let form = if self.zipped { "-gzip" } else { "" };
        let tag = format!("\"{}{form}\"", self.ready.hash);
        let unchanged = is_known(self.known.as_deref(), &tag);
        let body = match (unchanged, self.zipped) {
            (true, _) => bytes::Bytes::new(),
            (false, true) => self.ready.zipped.clone(),
            (false, false) => self.ready.plain.clone(),
        };
        let mut response = Response::new(body.into());
        *response.status_mut() = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let headers = response.headers_mut();
        protect(headers, POLICY);
        headers.insert(CACHE_CONTROL, self.caching);
        headers.insert(ETAG, HeaderValue::from_str(&tag).map_err(|error| INTERNAL.caused_by(error))?);
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
        if !unchanged {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.ready.kind));
            if self.zipped {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        operation.response(200, "A file of the pages", json!({}));
        operation.response(304, "The browser's copy is the same", Value::Null);
    }
}
