//! `/proofs/{id}`: the page that a payment links on the chain, for whoever wants to know what was paid for. It shows the verified reading
//! and the payment, and nothing of the person: no name, no wallet, no photo, no upload and no vehicle by its id. The id is the reward's,
//! which stands beside the link on the chain and is a hash of the upload's id that nobody can turn back.

mod row;

use std::convert::Infallible;
use std::str::FromStr;

use schemas::ids::RewardId;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use warp::reply::Response;

use self::row::Proven;
use crate::auth::admission::Visitor;
use crate::http::operation::Operation;
use crate::http::problem::{ApiError, DATABASE_UNAVAILABLE, INTERNAL, Problem};
use crate::http::reply::Reply;
use crate::http::request::{Dependency, Headers, Path, PathParameter, text, uuid_schema};
use crate::page::{is_known, of_release, protect};

/// One style of this gateway; no script, no form, no other origin, no frame around it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const PAGE: &str = include_str!("proof.html");
const MISSING: &str = include_str!("missing.html");

/// What is final does not change any more, but for a word on the page: an hour.
const FINAL: &str = "public, max-age=3600";
/// What is on its way changes with every block, which come each ten seconds.
const MOVING: &str = "public, max-age=10";

/// What the route itself refuses.
pub(crate) const REFUSALS: &[Problem] = &[DATABASE_UNAVAILABLE];

/// The id in a link; text that is none leads to the page that says so.
pub(crate) struct ProofId(Option<RewardId>);

impl FromStr for ProofId {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.parse().ok().map(RewardId)))
    }
}

impl PathParameter for ProofId {
    const MISSING: Problem = crate::http::problem::NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// A page, or that the reader's copy is the same.
pub(crate) struct Page {
    status: StatusCode,
    caching: &'static str,
    body: String,
    known: Option<String>,
}

/// `GET /proofs/{id}`.
pub(crate) async fn show(
    Visitor(_): Visitor,
    Path(ProofId(id)): Path<ProofId>,
    Dependency(pool): Dependency<PgPool>,
    Headers(headers): Headers,
) -> Result<Page, ApiError> {
    let proven = match id {
        Some(id) => row::find(&pool, id).await.map_err(|error| DATABASE_UNAVAILABLE.caused_by(error))?,
        None => None,
    };
    let known = text(&headers, IF_NONE_MATCH.as_str()).map(str::to_owned);
    Ok(match proven {
        Some(proven) => Page {
            status: StatusCode::OK,
            caching: if proven.is_final() { FINAL } else { MOVING },
            body: filled(&proven),
            known,
        },
        None => {
            Page { status: StatusCode::NOT_FOUND, caching: MOVING, body: of_release(MISSING), known: None }
        }
    })
}

/// The page with the values in their places, each escaped.
fn filled(proven: &Proven) -> String {
    proven.values().into_iter().fold(of_release(PAGE), |page, (name, value)| {
        page.replace(&format!("{{{{{name}}}}}"), &escaped(&value))
    })
}

/// Text as it stands in HTML; braces too, so that no value is taken for a place of the page.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '{' => safe.push_str("&#123;"),
            letter => safe.push(letter),
        }
    }
    safe
}

impl Reply for Page {
    fn into_response(self) -> Result<Response, ApiError> {
        let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&self.body)[..16]));
        let same = is_known(self.known.as_deref(), &tag);
        let mut response = Response::new(if same { String::new() } else { self.body }.into());
        *response.status_mut() = if same { StatusCode::NOT_MODIFIED } else { self.status };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(self.caching));
        headers.insert(ETAG, HeaderValue::from_str(&tag).map_err(|error| INTERNAL.caused_by(error))?);
        protect(headers, POLICY);
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        operation.response(200, "A page for people: the reading and the payment", json!({}));
        operation.response(404, "A page for people: there is no such payment", json!({}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_on_the_pages_needs_what_their_policy_forbids() {
        for (name, content) in [("page", PAGE), ("missing", MISSING)] {
            for forbidden in [
                "http:", "https:", "<script", "<style", "style=", "onclick", "@import", "url(", "<img",
                "<form",
            ] {
                assert!(!content.contains(forbidden), "{name} has {forbidden}");
            }
        }
    }

    #[test]
    fn every_place_of_the_page_is_filled_and_values_stay_text() {
        let proven = row::tests::read_by("<b>{{amount}}\"'&");
        let page = filled(&proven);
        assert!(!page.contains("{{"), "{page}");
        assert!(page.contains("&lt;b&gt;&#123;&#123;amount}}&quot;&#39;&amp;"), "{page}");
        for shown in ["123,789 km", "333 km", "26,640 g", "3.33 B3TR", "2026-03-02", "electric"] {
            assert!(page.contains(shown), "{shown} is missing: {page}");
        }
    }
}
