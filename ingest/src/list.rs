//! `GET /v1/uploads`: a user's uploads, newest first, a page at a time.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use schemas::ids::UserId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::status::{Status, page};

/// Items of a page that asks for none, and the most that one may ask for (100 x about 500 bytes = 50 KiB).
const LIMIT: (i64, i64) = (20, 100);

/// A page as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageQuery {
    pub(crate) limit: i64,
    pub(crate) after: (DateTime<Utc>, Uuid),
}

impl PageQuery {
    /// Reads the query; other parameters are refused by name.
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        // A far future, but one that Postgres has.
        let end = DateTime::from_timestamp(32_503_680_000, 0).unwrap_or_default();
        let mut parsed = Self { limit: LIMIT.0, after: (end, Uuid::max()) };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "limit" => parsed.limit = limit(&value)?,
                "cursor" => parsed.after = read_cursor(&value)?,
                _ => return Err(ApiError::UnknownParameter(name.chars().take(64).collect())),
            }
        }
        Ok(parsed)
    }
}

fn limit(value: &str) -> Result<i64, ApiError> {
    let limit = value.parse().ok().filter(|limit| (1..=LIMIT.1).contains(limit));
    limit.ok_or_else(|| ApiError::InvalidParameter {
        name: "limit",
        detail: format!("a whole number from 1 to {} is wanted", LIMIT.1),
    })
}

/// The place behind an item: its microseconds and id, so that items of one instant are not skipped.
pub(crate) fn cursor(at: DateTime<Utc>, id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{id}", at.timestamp_micros()))
}

fn read_cursor(value: &str) -> Result<(DateTime<Utc>, Uuid), ApiError> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
        let (at, id) = text.split_once('/')?;
        Some((DateTime::from_timestamp_micros(at.parse().ok()?)?, id.parse().ok()?))
    };
    read().ok_or_else(|| ApiError::InvalidParameter {
        name: "cursor",
        detail: "it is not a next_cursor of this list".to_owned(),
    })
}

impl Gateway {
    /// The route.
    pub(crate) async fn list(&self, user: UserId, query: PageQuery) -> Result<Value, ApiError> {
        // One more than asked for tells whether there is a next page.
        let wanted = usize::try_from(query.limit).unwrap_or_default();
        let mut rows = page(self.pool(), user, query.after, query.limit + 1).await?;
        let more = rows.len() > wanted;
        rows.truncate(wanted);
        let next_cursor = rows.last().filter(|_| more).map(|row| cursor(row.accepted_at, row.id));
        let items: Vec<Value> = rows.iter().map(Status::document).collect();
        Ok(json!({ "items": items, "next_cursor": next_cursor }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::received;

    #[test]
    fn a_cursor_names_the_place_behind_its_item() {
        let status = received();
        let query =
            PageQuery::parse(&format!("limit=100&cursor={}", cursor(status.accepted_at, status.id))).unwrap();
        assert_eq!((query.limit, query.after), (100, (status.accepted_at, status.id)));
    }

    #[test]
    fn unknown_parameters_and_bad_values_are_named() {
        let code = |query: &str| PageQuery::parse(query).unwrap_err().answer().1;
        assert_eq!(code("page=2"), "unknown_parameter");
        for bad in ["limit=0", "limit=101", "limit=x", "cursor=x"] {
            assert_eq!(code(bad), "invalid_parameter", "{bad}");
        }
    }
}
