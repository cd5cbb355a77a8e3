//! `POST /v1/uploads/{id}/appeal`: a driver asks for a person to look at a photo that a rule has turned down. Once per upload: what a
//! person has decided stands.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::ids::UploadId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::desk::Desk;
use crate::auth::admission::Caller;
use crate::http::operation::Operation;
use crate::http::problem::{
    APPEAL_TOO_LATE, ApiError, BODY_TOO_LARGE, INVALID_FIELD, MALFORMED_DOCUMENT, NOT_APPEALABLE, Problem,
    UPLOAD_NOT_FOUND,
};
use crate::http::reply::Taken;
use crate::http::request::{Dependency, Extract, Path, Request, RequestBody, document};
use crate::queries::appeal::DAYS;
use crate::queries::payout::instant;

/// What the route itself refuses.
pub(crate) const APPEAL_REFUSALS: &[Problem] = &[NOT_APPEALABLE, APPEAL_TOO_LATE];
/// Characters of what a driver says: a page of text, which a person reads in half a minute.
const TEXT_MAX: usize = 1_000;

/// What a driver says, if anything.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAppeal)]
pub(crate) struct Said {
    /// Why the photo is right, for the person who looks at it; 1,000 characters at most
    text: Option<String>,
}

impl Said {
    /// From a body, which may be empty.
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let said: Self = document(body)?;
        let text = said.text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        if let Some(text) = &text {
            let refuse = |detail: String| Err(INVALID_FIELD.because(detail).field("text"));
            if text.chars().count() > TEXT_MAX {
                return refuse(format!("an appeal has at most {TEXT_MAX} characters"));
            }
            if text.chars().any(|one| one.is_control() && !matches!(one, '\n' | '\r' | '\t')) {
                return refuse("an appeal has no control characters".into());
            }
        }
        Ok(Self { text })
    }
}

impl<S: Sync> Extract<S> for Said {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        let RequestBody(mut body) = RequestBody::extract(dependencies, request).await?;
        Self::read(&body.whole().await?)
    }

    fn describe(operation: &mut Operation) {
        <RequestBody as Extract<S>>::describe(operation);
        let schema = operation.schema::<Self>();
        operation.body(false, json!({ "application/json": { "schema": schema } }));
        operation.problems(&[BODY_TOO_LARGE, INVALID_FIELD, MALFORMED_DOCUMENT]);
    }
}

/// An appeal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Appeal {
    upload_id: Uuid,
    #[schema(format = DateTime)]
    appealed_at: String,
}

/// The route: 202 for the first appeal, 200 for every other.
pub(crate) async fn appeal(
    Dependency(desk): Dependency<Arc<Desk>>,
    caller: Caller,
    Path(upload): Path<UploadId>,
    said: Said,
) -> Result<Taken<Appeal>, ApiError> {
    let mut tx = desk.pool.begin().await?;
    // Of two appeals at one moment the second waits here, and then finds the review that the first has opened.
    let rejected: Option<DateTime<Utc>> = sqlx::query_scalar(
        "select rejected_at from rejections where upload_id = $1 and user_id = $2 for update",
    )
    .bind(upload.0)
    .bind(caller.user.0)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(before) = before(&mut tx, &caller, upload).await? {
        return Ok(response(false, upload, before));
    }
    let Some(rejected) = rejected else { return Err(refusal(&mut tx, &caller, upload).await?) };
    let now = desk.clock.now().to_utc();
    if now - rejected > TimeDelta::days(DAYS) {
        return Err(APPEAL_TOO_LATE.error());
    }
    sqlx::query(
        "with appealed as (delete from rejections where upload_id = $1 returning *)
         insert into reviews (upload_id, user_id, accepted_at, opened_at, reason, detail, signals, record, risk, ranked_at, appealed_at,
            appeal_text)
         select upload_id, user_id, accepted_at, $2, reason, detail, signals, record, risk, ranked_at, $2, $3 from appealed",
    )
    .bind(upload.0)
    .bind(now)
    .bind(said.text)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(response(true, upload, now))
}

fn response(now: bool, upload: UploadId, at: DateTime<Utc>) -> Taken<Appeal> {
    let document = Appeal { upload_id: upload.0, appealed_at: instant(at) };
    Taken { now, location: Some(format!("/v1/uploads/{upload}")), document }
}

/// When the driver has appealed before.
async fn before(
    tx: &mut PgConnection,
    caller: &Caller,
    upload: UploadId,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let appealed: Option<Option<DateTime<Utc>>> =
        sqlx::query_scalar("select appealed_at from reviews where upload_id = $1 and user_id = $2")
            .bind(upload.0)
            .bind(caller.user.0)
            .fetch_optional(tx)
            .await?;
    Ok(appealed.flatten())
}

/// Why there is nothing to appeal against: the upload is not the caller's, or was not turned down by a rule that a person may overturn.
async fn refusal(tx: &mut PgConnection, caller: &Caller, upload: UploadId) -> Result<ApiError, sqlx::Error> {
    let own: bool =
        sqlx::query_scalar("select exists (select 1 from odometer_uploads where id = $1 and user_id = $2)")
            .bind(upload.0)
            .bind(caller.user.0)
            .fetch_one(tx)
            .await?;
    Ok(if own { NOT_APPEALABLE.error() } else { UPLOAD_NOT_FOUND.error() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Option<String>, (u16, &'static str)> {
        Said::read(body.as_bytes()).map(|said| said.text).map_err(|error| (error.status(), error.code()))
    }

    #[test]
    fn an_appeal_says_something_or_nothing_and_no_more_than_a_page() {
        for nothing in ["", " \n", "{}", r#"{"text":null}"#, r#"{"text":"  "}"#] {
            assert_eq!(read(nothing), Ok(None), "{nothing}");
        }
        assert_eq!(read(r#"{"text":" it is an 8,\nnot a 3 "}"#), Ok(Some("it is an 8,\nnot a 3".into())));
        let umlauts = "ü".repeat(TEXT_MAX);
        assert_eq!(read(&format!(r#"{{"text":"{umlauts}"}}"#)), Ok(Some(umlauts.clone())));
        assert_eq!(read(&format!(r#"{{"text":"{umlauts}x"}}"#)), Err((422, "invalid_field")));
        assert_eq!(read(r#"{"text":"\u0000"}"#), Err((422, "invalid_field")));
        for malformed in ["null", "[]", "{", r#"{"text":1}"#, r#"{"amount":"5"}"#] {
            assert_eq!(read(malformed), Err((400, "malformed_document")), "{malformed}");
        }
    }
}
