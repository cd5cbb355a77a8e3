//! `accounts.events`: who was erased. What the tables hold of a person in words, and where their photos were, goes when the event comes,
//! and is not written again by what comes after it: an upload on its way, a record that is delivered again, a rebuild. Sealed texts are
//! null by themselves once their key is gone.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use runtime::Envelope;
use schemas::events::UserErased;
use sqlx::{PgConnection, query};
use uuid::Uuid;

use super::event::UploadEvent;
use super::writer::{WriteError, Writer, picked};
use crate::database::{Table, column, erased};

/// Writes who was erased. A rebuild does not empty its table: what was taken away is not shown while it fills the others.
pub(super) struct Erased;

impl Writer for Erased {
    fn tables(&self) -> &'static [Table] {
        &[]
    }

    fn write<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        batch: &'a [Envelope<UploadEvent>],
    ) -> BoxFuture<'a, Result<(), WriteError>> {
        async {
            let events = picked(batch, |event| match event {
                UploadEvent::Erased(event) => Some(event),
                _ => None,
            });
            Ok(erase(tx, &events).await?)
        }
        .boxed()
    }
}

const ERASED: &str = "
insert into erased_users (user_id, erased_at)
select user_id, min(erased_at) from unnest($1::uuid[], $2::timestamptz[]) as r (user_id, erased_at) group by user_id order by user_id
on conflict (user_id) do update set erased_at = least(erased_users.erased_at, excluded.erased_at)";

/// Of the erased among these users; the texts as well, which a batch may have opened just before their key was taken away.
const FORGET: [&str; 3] = [
    "update odometer_uploads o set image_url = null, original_filename = null
     from erased_users e where o.user_id = any($1) and e.user_id = o.user_id
       and num_nonnulls(o.image_url, o.original_filename) > 0",
    "update mileage_data m set manual_review_notes = null
     from odometer_uploads o join erased_users e on e.user_id = o.user_id
     where o.user_id = any($1) and m.upload_id = o.id and m.manual_review_notes is not null",
    "update upload_verifications v set detected_text = null
     from odometer_uploads o join erased_users e on e.user_id = o.user_id
     where o.user_id = any($1) and v.upload_id = o.id and v.detected_text is not null",
];

async fn erase(tx: &mut PgConnection, events: &[&UserErased]) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let users: Vec<Uuid> = column(events, |event| event.user_id.0);
    query(ERASED)
        .bind(&users)
        .bind(column(events, |event| event.occurred_at.to_utc()))
        .execute(&mut *tx)
        .await?;
    // Uploads that are there are locked before their users, as by every writer. Those that another batch inserts meanwhile hold their
    // user against this lock; after it they are there too, and later ones see who is erased.
    forget(tx, &users).await?;
    query("select from users where id = any($1) order by id for update")
        .bind(&users)
        .execute(&mut *tx)
        .await?;
    forget(tx, &users).await
}

async fn forget(tx: &mut PgConnection, users: &[Uuid]) -> sqlx::Result<()> {
    for statement in FORGET {
        query(statement).bind(users).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Takes away what a batch has just written of the erased among its users.
pub(super) async fn keep_away(tx: &mut PgConnection, users: &[Uuid]) -> sqlx::Result<()> {
    let erased = erased(tx, users).await?;
    if erased.is_empty() { Ok(()) } else { forget(tx, &erased).await }
}

/// Takes away what a rebuild has written of the erased.
pub(super) async fn forget_all(tx: &mut PgConnection) -> sqlx::Result<()> {
    let erased: Vec<Uuid> =
        sqlx::query_scalar("select user_id from erased_users").fetch_all(&mut *tx).await?;
    forget(tx, &erased).await
}
