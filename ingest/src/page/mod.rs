//! `/review`: the reviewers' page. Its files are part of the binary, and all that it shows it asks for by the routes below `/v1`, with
//! a token that is pasted into it. The page itself says nothing of anybody, so that whoever can reach the gateway may load it.

use sha2::{Digest as _, Sha256};
use warp::http::StatusCode;
use warp::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use warp::reply::Response;

use crate::http::operation::Operation;
use crate::http::problem::{ApiError, INTERNAL};
use crate::http::reply::Reply;
use crate::http::request::{Headers, text};

/// Only these files and this gateway: no other origin, no script or style in the page, no frame around it. The photo is drawn on a canvas.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

const HTML: &str = include_str!("review.html");
const STYLE: &str = include_str!("review.css");
const SCRIPT: &str = include_str!("review.js");

/// A file of the page, or that the browser's copy is the same.
pub(crate) struct File {
    kind: &'static str,
    content: &'static str,
    known: Option<String>,
}

/// `GET /review`.
pub(crate) async fn html(headers: Headers) -> Result<File, ApiError> {
    Ok(file("text/html; charset=utf-8", HTML, &headers))
}

/// `GET /review/review.css`.
pub(crate) async fn style(headers: Headers) -> Result<File, ApiError> {
    Ok(file("text/css; charset=utf-8", STYLE, &headers))
}

/// `GET /review/review.js`.
pub(crate) async fn script(headers: Headers) -> Result<File, ApiError> {
    Ok(file("text/javascript; charset=utf-8", SCRIPT, &headers))
}

fn file(kind: &'static str, content: &'static str, Headers(headers): &Headers) -> File {
    File { kind, content, known: text(headers, IF_NONE_MATCH.as_str()).map(str::to_owned) }
}

impl Reply for File {
    fn into_response(self) -> Result<Response, ApiError> {
        let tag = format!("\"{}\"", hex::encode(&Sha256::digest(self.content)[..16]));
        let same = self.known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag));
        let mut response = Response::new(if same { "" } else { self.content }.into());
        *response.status_mut() = if same { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        // Asked for anew each time and sent where it has changed: page, style and script are of one release.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(ETAG, HeaderValue::from_str(&tag).map_err(|error| INTERNAL.caused_by(error))?);
        headers.insert(CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        operation.response(200, "A file of the page", serde_json::json!({}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reviews::REASONS;

    /// What stands between two marks, each time.
    fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
        text.split(begin).skip(1).filter_map(|rest| rest.split(end).next()).collect()
    }

    #[test]
    fn nothing_on_the_page_needs_what_its_policy_forbids() {
        for (name, content) in [("html", HTML), ("css", STYLE), ("js", SCRIPT)] {
            for forbidden in [
                "http:",
                "https:",
                "style=",
                "onclick",
                "onload",
                "innerHTML",
                "outerHTML",
                "eval(",
                "@import",
                "url(",
            ] {
                assert!(!content.contains(forbidden), "{name} has {forbidden}");
            }
        }
        assert_eq!(between(HTML, "<script", "</script>"), [r#" type="module" src="/review/review.js">"#]);
        assert!(!HTML.contains("<style"));
    }

    #[test]
    fn the_script_finds_every_part_of_the_page_that_it_names_and_offers_every_reason() {
        for id in between(SCRIPT, "by(\"", "\")") {
            assert!(HTML.contains(&format!("id=\"{id}\"")), "{id} is not on the page");
        }
        let offered = between(SCRIPT, "const REASONS = [", "];")[0];
        let labels: Vec<&str> =
            between(offered, "\"", "\"").into_iter().filter(|text| !text.contains(',')).collect();
        assert_eq!(labels, REASONS.map(schemas::reason::Reason::label));
    }
}
