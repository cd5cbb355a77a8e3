//! An appeal as the upload's driver sees it: possible, waiting for a person, or decided.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::payout::instant;
use crate::http::operation::one_of;

/// Days after the rejection in which it may be appealed.
pub(crate) const DAYS: i64 = 14;

/// Columns of [`Appeal`], for a query that joins as [`appeal_joins`] does. What a person decides counts from when the tables show it: rank
/// 3 is a person's verdict, or that nobody has decided in time.
macro_rules! appeal_columns {
    () => {
        "j.rejected_at, w.appealed_at, w.appeal_text,
         case when m.status_rank >= 3 then w.decided_at end as appeal_decided_at"
    };
}
pub(crate) use appeal_columns;

/// Joins to uploads `u` and their mileage `m`, each by its primary key.
macro_rules! appeal_joins {
    () => {
        " left join rejections j on j.upload_id = u.id
          left join reviews w on w.upload_id = u.id and w.appealed_at is not null "
    };
}
pub(crate) use appeal_joins;

/// What is known of an upload's appeal.
#[derive(Clone, Debug, Default, FromRow)]
pub(crate) struct Appeal {
    /// When a rule turned down what a person may read otherwise; none once it is appealed.
    pub(crate) rejected_at: Option<DateTime<Utc>>,
    pub(crate) appealed_at: Option<DateTime<Utc>>,
    pub(crate) appeal_text: Option<String>,
    pub(crate) appeal_decided_at: Option<DateTime<Utc>>,
}

impl Appeal {
    /// Whether a person is still to look at it.
    pub(crate) fn waits(&self) -> bool {
        self.appealed_at.is_some() && self.appeal_decided_at.is_none()
    }

    /// Whether it is decided.
    pub(crate) fn is_decided(&self) -> bool {
        self.appealed_at.is_some() && self.appeal_decided_at.is_some()
    }

    /// The document; none where there is nothing to appeal against. `is_rejected`: whether the tables show the rejection.
    pub(crate) fn document(&self, is_rejected: bool) -> Option<AppealDocument> {
        let state = match (self.appealed_at, self.rejected_at) {
            (Some(_), _) if self.is_decided() => "decided",
            (Some(_), _) => "waiting",
            (None, Some(_)) if is_rejected => "possible",
            (None, _) => return None,
        };
        Some(AppealDocument {
            state,
            until: self.rejected_at.map(|at| instant(at + TimeDelta::days(DAYS))),
            appealed_at: self.appealed_at.map(instant),
            text: self.appeal_text.clone(),
            decided_at: self.appeal_decided_at.map(instant),
        })
    }
}

/// An appeal against a rule's rejection, made or possible.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadAppeal)]
pub(crate) struct AppealDocument {
    /// possible: you may appeal until `until`; waiting: a person will look at it; decided: the upload's verdict is the person's
    #[schema(schema_with = state)]
    state: &'static str,
    /// The last moment for an appeal; null once it is made
    #[schema(format = DateTime)]
    until: Option<String>,
    #[schema(format = DateTime)]
    appealed_at: Option<String>,
    /// What you have said
    text: Option<String>,
    #[schema(format = DateTime)]
    decided_at: Option<String>,
}

fn state() -> Schema {
    one_of(&["possible", "waiting", "decided"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: DateTime<Utc> = DateTime::UNIX_EPOCH;

    #[test]
    fn an_appeal_is_possible_where_a_rejection_shows_then_waits_and_is_decided() {
        assert_eq!(Appeal::default().document(true).map(|appeal| appeal.state), None);
        let possible = Appeal { rejected_at: Some(AT), ..Appeal::default() };
        assert!(possible.document(false).is_none(), "the tables do not show the rejection yet");
        let document = json!(possible.document(true));
        assert_eq!(
            (&document["state"], &document["until"]),
            (&json!("possible"), &json!("1970-01-15T00:00:00.000000Z"))
        );
        let waiting =
            Appeal { appealed_at: Some(AT), appeal_text: Some("it is an 8".into()), ..Appeal::default() };
        let document = json!(waiting.document(true));
        assert_eq!((&document["state"], &document["text"]), (&json!("waiting"), &json!("it is an 8")));
        assert!(waiting.waits() && !waiting.is_decided());
        let decided = Appeal { appeal_decided_at: Some(AT), ..waiting };
        assert_eq!(decided.document(false).map(|appeal| appeal.state), Some("decided"));
        assert!(!decided.waits() && decided.is_decided());
    }
}
