//! Lists, newest first, a page at a time.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;
use warp::reply::Response;

use crate::http::operation::Operation;
use crate::http::problem::{ApiError, INVALID_PARAMETER, UNKNOWN_PARAMETER};
use crate::http::reply::{Json, Reply};
use crate::http::request::{Extract, Request, unknown_parameter};

/// Items of a page that asks for none, and the most that one may ask for (100 x about 500 bytes = 50 KiB).
const LIMIT: (usize, usize) = (20, 100);

/// The latest instant that a list begins with and the earliest: the year 3000, and 1970. Postgres has both.
const ENDS: (i64, i64) = (32_503_680_000_000_000, 0);

/// A place in a list: an item's instant and id.
pub(crate) type Place = (DateTime<Utc>, Uuid);

/// A page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Page<T: ToSchema> {
    items: Vec<T>,
    /// Asks for the next page; null at the end.
    next_cursor: Option<String>,
}

// Derived, the pages of all kinds of items would share one name, and the description would have one of them for all.
impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }
}

impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let items = ArrayBuilder::new().items(Ref::from_schema_name(T::name()));
        let cursor = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("Asks for the next page; null at the end"));
        let page = ObjectBuilder::new().description(Some("A page of a list."));
        page.property("items", items)
            .required("items")
            .property("next_cursor", cursor)
            .required("next_cursor")
            .into()
    }
}

impl<T: Serialize + ToSchema> Reply for Page<T> {
    fn into_response(self) -> Result<Response, ApiError> {
        Json(self).into_response()
    }

    fn describe(operation: &mut Operation) {
        // The page's own schema refers to its items' and does not bring it.
        operation.schema::<T>();
        Json::<Self>::describe(operation);
    }
}

/// A page as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageQuery {
    limit: usize,
    pub(crate) after: Place,
}

impl PageQuery {
    /// Reads the query; other parameters are refused by name.
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        let end = DateTime::from_timestamp_micros(ENDS.0).unwrap_or_default();
        let mut parsed = Self { limit: LIMIT.0, after: (end, Uuid::max()) };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "limit" => parsed.limit = limit(&value)?,
                "cursor" => parsed.after = read_cursor(&value)?,
                _ => return Err(unknown_parameter(&name)),
            }
        }
        Ok(parsed)
    }

    /// Where a list that is oldest first goes on: its first page begins with the earliest.
    pub(crate) fn after_oldest(&self) -> Place {
        if self.after.0.timestamp_micros() == ENDS.0 {
            (DateTime::UNIX_EPOCH, Uuid::nil())
        } else {
            self.after
        }
    }

    /// Rows to read: one more than asked for shows whether there is a next page.
    pub(crate) fn rows(&self) -> i64 {
        i64::try_from(self.limit + 1).unwrap_or(i64::MAX)
    }

    /// The page of the rows that were read.
    pub(crate) fn page<R, T: ToSchema>(
        &self,
        rows: &[R],
        place: impl Fn(&R) -> Place,
        document: impl Fn(&R) -> T,
    ) -> Page<T> {
        let shown = &rows[..rows.len().min(self.limit)];
        let next_cursor = shown.last().filter(|_| rows.len() > self.limit).map(|row| cursor(place(row)));
        Page { items: shown.iter().map(document).collect(), next_cursor }
    }
}

impl<S: Sync> Extract<S> for PageQuery {
    async fn extract(_state: &S, request: &mut Request) -> Result<Self, ApiError> {
        Self::parse(&request.query)
    }

    fn describe(operation: &mut Operation) {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": LIMIT.1, "default": LIMIT.0 });
        operation.parameter("query", "limit", limit, "");
        operation.parameter("query", "cursor", json!({ "type": "string" }), "next_cursor of the page before");
        operation.problems(&[UNKNOWN_PARAMETER, INVALID_PARAMETER]);
    }
}

fn limit(value: &str) -> Result<usize, ApiError> {
    let limit = value.parse().ok().filter(|limit| (1..=LIMIT.1).contains(limit));
    limit.ok_or_else(|| {
        let detail = format!(
            "the query parameter limit is not usable: a whole number from 1 to {} is wanted",
            LIMIT.1
        );
        INVALID_PARAMETER.because(detail).field("limit")
    })
}

/// The place behind an item: its microseconds and id, so that items of one instant are not skipped.
fn cursor((at, id): Place) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{id}", at.timestamp_micros()))
}

fn read_cursor(value: &str) -> Result<Place, ApiError> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
        let (at, id) = text.split_once('/')?;
        let at = at.parse().ok().filter(|at| (ENDS.1..=ENDS.0).contains(at))?;
        Some((DateTime::from_timestamp_micros(at)?, id.parse().ok()?))
    };
    read().ok_or_else(|| {
        let detail = "the query parameter cursor is not usable: it is not a next_cursor of this list";
        INVALID_PARAMETER.because(detail).field("cursor")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queries::status::tests::received;

    #[test]
    fn a_cursor_names_the_place_behind_its_item() {
        let status = received();
        let query =
            PageQuery::parse(&format!("limit=100&cursor={}", cursor((status.accepted_at, status.id))))
                .unwrap();
        assert_eq!((query.limit, query.after), (100, (status.accepted_at, status.id)));
    }

    #[test]
    fn unknown_parameters_and_bad_values_are_named() {
        let code = |query: &str| PageQuery::parse(query).unwrap_err().code();
        assert_eq!(code("page=2"), "unknown_parameter");
        for bad in ["limit=0", "limit=101", "limit=x", "cursor=x"] {
            assert_eq!(code(bad), "invalid_parameter", "{bad}");
        }
    }

    #[test]
    fn a_cursor_beyond_what_postgres_has_is_refused() {
        for at in [i64::MAX, i64::MIN, ENDS.0 + 1, -1] {
            let made = URL_SAFE_NO_PAD.encode(format!("{at}/{}", Uuid::nil()));
            assert_eq!(read_cursor(&made).unwrap_err().code(), "invalid_parameter", "{at}");
        }
    }
}
