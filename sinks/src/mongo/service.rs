//! Talks to MongoDB: inserts that can be repeated, collections and indexes that can be ensured again.

use std::time::Duration;

use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};
use runtime::{SinkError, StageError};
use schemas::logs::{COLLECTIONS, Collection, notes_field};

/// The collection or database exists already.
const NAMESPACE_EXISTS: i32 = 48;
/// A document with this `_id` exists already.
const DUPLICATE_KEY: i32 = 11000;
/// What a server responds for a document while it steps down, shuts down or loses its peers: the retryable codes of the
/// drivers' "Retryable Writes" specification.
const PASSING: [i32; 11] = [6, 7, 89, 91, 189, 262, 9001, 10107, 11600, 11602, 13435];
/// The name of every lifetime index.
const TTL_INDEX: &str = "ttl";
/// Seconds of a day.
const DAY: u32 = 24 * 60 * 60;

/// Whether an error passes by itself. Only documents that the server or BSON refuses never do; a missing permission is
/// for an operator and shows as lag, never as dead letters.
#[must_use]
pub fn is_retryable(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::InsertMany(failure) => {
            failure.write_errors.iter().flatten().all(|error| PASSING.contains(&error.code))
        }
        ErrorKind::Write(WriteFailure::WriteError(_))
        | ErrorKind::Bson(_)
        | ErrorKind::BsonSerialization(_)
        | ErrorKind::InvalidArgument { .. } => false,
        _ => true,
    }
}

/// Writes documents, each once however often it comes.
pub(super) async fn store(
    database: &Database,
    collection: &Collection,
    documents: &[Document],
) -> Result<(), SinkError> {
    if notes_field(collection).is_none() {
        return insert(database, collection, documents).await;
    }
    for document in documents {
        merge(database, collection, document).await?;
    }
    Ok(())
}

/// Writes a document of two records, what was found and what was said of it later, in whichever order they come: each sets its own
/// fields, and what was found is unresolved only where nothing says otherwise.
async fn merge(database: &Database, collection: &Collection, document: &Document) -> Result<(), SinkError> {
    let (mut fields, mut new) = (document.clone(), Document::new());
    let id = fields.remove("_id");
    if !fields.get_bool("resolved").is_ok_and(|resolved| resolved) {
        fields.remove("resolved");
        new.insert("resolved", false);
    }
    let mut update = doc! { "$set": fields };
    if !new.is_empty() {
        update.insert("$setOnInsert", new);
    }
    let documents = database.collection::<Document>(collection.name);
    let merged = documents.update_one(doc! { "_id": id }, update).upsert(true).await;
    merged.map(drop).or_else(|error| outcome(collection, error))
}

/// Inserts documents that are not there yet; the others are done already.
async fn insert(
    database: &Database,
    collection: &Collection,
    documents: &[Document],
) -> Result<(), SinkError> {
    match database.collection::<Document>(collection.name).insert_many(documents).ordered(false).await {
        Ok(_) => Ok(()),
        Err(error) => outcome(collection, error),
    }
}

fn outcome(collection: &Collection, error: Error) -> Result<(), SinkError> {
    let ErrorKind::InsertMany(failure) = error.kind.as_ref() else {
        return Err(if is_retryable(&error) {
            StageError::new("mongodb", error).into()
        } else {
            SinkError::BadRow(format!("{}: {error}", collection.name))
        });
    };
    let mut codes: Vec<i32> = failure.write_errors.iter().flatten().map(|error| error.code).collect();
    codes.retain(|code| *code != DUPLICATE_KEY);
    // The messages would quote the documents.
    if let Some(code) = codes.iter().find(|code| !PASSING.contains(code)) {
        let detail = format!("{}: the server refuses a document with code {code}", collection.name);
        return Err(SinkError::BadRow(detail));
    }
    match (codes.first(), &failure.write_concern_error) {
        (None, None) if failure.write_errors.is_some() => Ok(()),
        // Not written, or not yet kept by the majority: again, and what is there by then is a duplicate.
        (code, concern) => {
            let concern = concern.as_ref().map_or("none", |concern| concern.message.as_str());
            Err(StageError::new("mongodb", format!("write error {code:?}, write concern error: {concern}"))
                .into())
        }
    }
}

/// Makes every collection with its indexes; what is there stays, except a lifetime that differs.
pub(super) async fn ensure_collections(database: &Database) -> Result<(), Error> {
    for collection in COLLECTIONS {
        match database.create_collection(collection.name).await {
            Err(error) if code(&error) == Some(NAMESPACE_EXISTS) => {}
            result => result?,
        }
        ensure_indexes(database, collection).await?;
    }
    Ok(())
}

async fn ensure_indexes(database: &Database, wanted: &Collection) -> Result<(), Error> {
    let collection = database.collection::<Document>(wanted.name);
    let there: Vec<IndexModel> = collection.list_indexes().await?.try_collect().await?;
    let ttl = ttl_index(wanted);
    let mut missing: Vec<IndexModel> = wanted.indexes.iter().map(|fields| query_index(fields)).collect();
    missing.push(ttl.clone());
    missing.retain(|index| !there.iter().any(|old| old.keys == index.keys));
    if let Some(old) = there.iter().find(|old| old.keys == ttl.keys && lifetime(old) != lifetime(&ttl)) {
        let name = old.options.as_ref().and_then(|options| options.name.clone()).unwrap_or_default();
        let seconds = i64::from(wanted.ttl_days) * i64::from(DAY);
        tracing::info!(collection = wanted.name, days = wanted.ttl_days, "the documents' lifetime changes");
        let index = doc! { "name": &name, "expireAfterSeconds": seconds };
        // A server that cannot change an index in place gets a new one.
        if let Err(error) = database.run_command(doc! { "collMod": wanted.name, "index": index }).await {
            tracing::info!(collection = wanted.name, error = %error, "the lifetime index is made anew");
            collection.drop_index(name).await?;
            missing.push(ttl);
        }
    }
    if !missing.is_empty() {
        collection.create_indexes(missing).await?;
    }
    Ok(())
}

fn lifetime(index: &IndexModel) -> Option<Duration> {
    index.options.as_ref().and_then(|options| options.expire_after)
}

fn ttl_index(collection: &Collection) -> IndexModel {
    let lifetime = Duration::from_secs(u64::from(collection.ttl_days) * u64::from(DAY));
    let options = IndexOptions::builder().name(TTL_INDEX.to_owned()).expire_after(lifetime).build();
    IndexModel::builder().keys(doc! { "timestamp": 1 }).options(options).build()
}

fn query_index(fields: &[&str]) -> IndexModel {
    let keys: Document = fields
        .iter()
        .map(|field| match field.strip_prefix('-') {
            Some(field) => (field.to_owned(), (-1).into()),
            None => ((*field).to_owned(), 1.into()),
        })
        .collect();
    IndexModel::builder().keys(keys).build()
}

fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => Some(error.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::error::InsertManyError;

    use super::*;

    fn reported(codes: &[i32], concern: bool) -> Result<(), SinkError> {
        let errors: Vec<_> = codes
            .iter()
            .map(|code| serde_json::json!({ "index": 0, "code": code, "errmsg": "holds a document" }))
            .collect();
        let concern =
            concern.then(|| serde_json::json!({ "code": 64, "codeName": "", "errmsg": "timed out" }));
        let failure = serde_json::json!({ "writeErrors": errors, "writeConcernError": concern });
        let failure: InsertManyError = serde_json::from_value(failure).unwrap();
        outcome(COLLECTIONS[0], ErrorKind::InsertMany(failure).into())
    }

    #[test]
    fn duplicates_are_done_a_retryable_error_is_retried_and_only_a_refused_document_is_a_bad_row() {
        assert!(reported(&[DUPLICATE_KEY, DUPLICATE_KEY], false).is_ok());
        assert!(matches!(reported(&[DUPLICATE_KEY, 11600], false), Err(SinkError::Retry(_))));
        assert!(matches!(reported(&[DUPLICATE_KEY], true), Err(SinkError::Retry(_))));
        let Err(SinkError::BadRow(detail)) = reported(&[DUPLICATE_KEY, 11600, 121], false) else {
            panic!("a bad row")
        };
        assert_eq!(detail, "auth_logs: the server refuses a document with code 121");
    }
}
