//! The `mongo` sink on a MongoDB server.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt as _;
use mongodb::bson::spec::ElementType;
use mongodb::bson::{Bson, Document, doc, oid::ObjectId};
use mongodb::{Database, IndexModel};
use runtime::{Sink as _, SinkError};
use schemas::events::ActivityLogged;
use schemas::ids::{EventId, Micros, UserId};
use schemas::logs::{COLLECTIONS, Collection, Kind, document_id};
use serde_json::{Value, json};
use sinks::mongo::{MongoConfig, MongoSink};
use uuid::Uuid;

use crate::support::{address, envelopes};

async fn fresh() -> (MongoConfig, MongoSink, Database) {
    let config = MongoConfig {
        uri: address("MONGODB_URI").into(),
        database: format!("sinks_{}", Uuid::now_v7().simple()),
        timeout: Duration::from_secs(20),
    };
    (config.clone(), config.build().await.unwrap(), config.database().await.unwrap())
}

async fn indexes(database: &Database, collection: &str) -> Vec<IndexModel> {
    database.collection::<Document>(collection).list_indexes().await.unwrap().try_collect().await.unwrap()
}

async fn lifetime(database: &Database, collection: &str) -> Vec<Duration> {
    let indexes = indexes(database, collection).await;
    indexes.into_iter().filter_map(|index| index.options?.expire_after).collect()
}

fn event(collection: &str, n: u128, document: &Value) -> ActivityLogged {
    ActivityLogged {
        event_id: EventId(Uuid::from_u128(n)),
        collection: collection.to_owned(),
        ordinal: 0,
        occurred_at: Micros(1_700_000_000_123_000),
        document: document.to_string(),
    }
}

/// A document with a value of its kind in every field.
fn sample(collection: &Collection) -> Value {
    let value = |kind| match kind {
        Kind::Text => json!("text"),
        Kind::Integer => json!(3),
        Kind::Double => json!(1.5),
        Kind::Decimal => json!("0.0000105"),
        Kind::Boolean => json!(true),
        Kind::Object => json!({ "n": 1 }),
        Kind::Array => json!([{ "n": 1 }]),
        Kind::History => json!([{ "at": "2026-11-28T13:46:00Z" }]),
    };
    collection.fields.iter().map(|(name, kind)| ((*name).to_owned(), value(*kind))).collect()
}

#[tokio::test]
async fn every_collection_exists_with_its_lifetime_and_its_query_indexes_also_after_a_second_start() {
    let (config, _, database) = fresh().await;
    config.build().await.unwrap();
    let mut names = database.list_collection_names().await.unwrap();
    names.sort();
    let mut wanted: Vec<&str> = COLLECTIONS.iter().map(|collection| collection.name).collect();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    for collection in COLLECTIONS {
        let days = Duration::from_secs(u64::from(collection.ttl_days) * 86_400);
        assert_eq!(lifetime(&database, collection.name).await, [days], "{}", collection.name);
        let found: Vec<Vec<String>> = indexes(&database, collection.name)
            .await
            .into_iter()
            .map(|index| index.keys.keys().cloned().collect())
            .collect();
        for fields in collection.indexes {
            let fields: Vec<String> = fields.iter().map(|f| f.trim_start_matches('-').to_owned()).collect();
            assert!(found.contains(&fields), "{}: {fields:?} not in {found:?}", collection.name);
        }
        // _id, the lifetime, and nothing twice.
        assert_eq!(found.len(), collection.indexes.len() + 2, "{}: {found:?}", collection.name);
    }
    database.drop().await.unwrap();
}

#[tokio::test]
async fn a_lifetime_that_changed_since_the_last_start_is_changed_and_documents_stay() {
    let (config, sink, database) = fresh().await;
    sink.write(&envelopes([event("error_logs", 1, &json!({ "module": "m" }))])).await.unwrap();
    let old = doc! { "collMod": "error_logs", "index": { "keyPattern": { "timestamp": 1 }, "expireAfterSeconds": 60_i64 } };
    if database.run_command(old).await.is_err() {
        let collection = database.collection::<Document>("error_logs");
        collection.drop_index("ttl").await.unwrap();
        let options = mongodb::options::IndexOptions::builder()
            .expire_after(Duration::from_secs(4_000_000_000))
            .build();
        let index = IndexModel::builder().keys(doc! { "timestamp": 1 }).options(options).build();
        collection.create_index(index).await.unwrap();
    }
    let days = Duration::from_secs(90 * 86_400);
    assert_ne!(lifetime(&database, "error_logs").await, [days]);
    config.build().await.unwrap();
    assert_eq!(lifetime(&database, "error_logs").await, [days]);
    database.drop().await.unwrap();
}

#[tokio::test]
async fn a_document_of_each_type_comes_back_with_the_types_of_the_data_map() {
    let (_, sink, database) = fresh().await;
    let map: Value = serde_json::from_str(include_str!("../../schemas/data-map.json")).unwrap();
    let map: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_value(map["collections"].clone()).unwrap();
    let events: Vec<ActivityLogged> =
        COLLECTIONS.iter().map(|collection| event(collection.name, 1, &sample(collection))).collect();
    sink.write(&envelopes(events)).await.unwrap();
    for collection in COLLECTIONS {
        let id = ObjectId::from_bytes(document_id(EventId(Uuid::from_u128(1)), collection.name, 0));
        let found =
            database.collection::<Document>(collection.name).find_one(doc! { "_id": id }).await.unwrap();
        let found = found.unwrap_or_else(|| panic!("{} has its document", collection.name));
        assert_eq!(found.get_datetime("timestamp").unwrap().timestamp_millis(), 1_700_000_000_123);
        assert_eq!(found.get_str("event_id").unwrap(), Uuid::from_u128(1).to_string());
        for (field, kind) in &map[collection.name] {
            let found = found.get(field).map(Bson::element_type);
            let own = collection.fields.iter().find(|(name, _)| name == field).map(|(_, kind)| *kind);
            let wanted = match (kind.as_str(), own) {
                ("ObjectId", _) => ElementType::ObjectId,
                ("Date", _) => ElementType::DateTime,
                ("String", _) => ElementType::String,
                ("Boolean", _) => ElementType::Boolean,
                ("Object", _) => ElementType::EmbeddedDocument,
                ("Array", _) => ElementType::Array,
                ("Number", Some(Kind::Integer)) => ElementType::Int64,
                ("Number", Some(Kind::Decimal)) => ElementType::Decimal128,
                ("Number", Some(Kind::Double)) => ElementType::Double,
                (kind, own) => panic!("{}.{field}: {kind} {own:?}", collection.name),
            };
            assert_eq!(found, Some(wanted), "{}.{field}", collection.name);
        }
    }
    database.drop().await.unwrap();
}

#[tokio::test]
async fn written_twice_or_twice_in_one_batch_a_document_is_there_once() {
    let (_, sink, database) = fresh().await;
    let events: Vec<ActivityLogged> =
        (0..50).map(|n| event("error_logs", n, &json!({ "module": "m" }))).collect();
    let collection = database.collection::<Document>("error_logs");
    sink.write(&envelopes(events.clone())).await.unwrap();
    assert_eq!(collection.count_documents(doc! {}).await.unwrap(), 50);
    let more = event("error_logs", 50, &json!({ "module": "m" }));
    sink.write(&envelopes([events, vec![more.clone(), more]].concat())).await.unwrap();
    assert_eq!(collection.count_documents(doc! {}).await.unwrap(), 51);
    database.drop().await.unwrap();
}

#[tokio::test]
async fn what_is_said_of_an_error_stays_said_in_whichever_order_it_comes_and_however_often() {
    let (config, sink, database) = fresh().await;
    let logs = config.logs().await.unwrap();
    let error = |n| event("error_logs", n, &json!({ "module": "m", "resolved": false, "severity": "high" }));
    sink.write(&envelopes([error(1), error(2), error(3)])).await.unwrap();
    let collection = schemas::logs::collection("error_logs").unwrap();
    let unresolved = logs.unresolved(collection, 10).await.unwrap();
    assert_eq!(unresolved.len(), 3);
    let records: Vec<ActivityLogged> = unresolved[..2]
        .iter()
        .map(|finding| finding.resolution(collection, "the disk was full").unwrap())
        .collect();
    sink.write(&envelopes(records.clone())).await.unwrap();
    let resolved =
        |of: Vec<sinks::mongo::Finding>| of.into_iter().map(|finding| finding.id).collect::<Vec<_>>();
    let left = [unresolved[2].id.clone()];
    assert_eq!(resolved(logs.unresolved(collection, 10).await.unwrap()), left);
    // Everything once more, and into an empty database the other way round.
    sink.write(&envelopes([error(1), error(2), error(3)])).await.unwrap();
    let again = logs.finding(collection, &unresolved[0].id).await.unwrap().unwrap();
    let mut expected = unresolved[0].fields.clone();
    (expected["resolved"], expected["resolution_notes"]) = (json!(true), json!("the disk was full"));
    assert_eq!(again.fields, expected);
    database.collection::<Document>("error_logs").delete_many(doc! {}).await.unwrap();
    sink.write(&envelopes(records)).await.unwrap();
    sink.write(&envelopes([error(1), error(2), error(3)])).await.unwrap();
    assert_eq!(logs.finding(collection, &again.id).await.unwrap().unwrap().fields, expected);
    assert_eq!(resolved(logs.unresolved(collection, 10).await.unwrap()), left);
    assert!(logs.finding(collection, "no id").await.unwrap().is_none());
    database.drop().await.unwrap();
}

#[tokio::test]
async fn a_document_that_does_not_fit_stops_its_batch_by_name_before_anything_is_written() {
    let (_, sink, database) = fresh().await;
    let good = event("error_logs", 1, &json!({ "module": "m" }));
    let bad = event("error_logs", 2, &json!({ "resolved": "yes" }));
    let Err(SinkError::BadRow(detail)) = sink.write(&envelopes([good, bad.clone()])).await else {
        panic!("a bad row")
    };
    assert_eq!(detail, format!("event {}: error_logs.resolved should be of kind Boolean", bad.event_id));
    let count = database.collection::<Document>("error_logs").count_documents(doc! {}).await.unwrap();
    assert_eq!(count, 0);
    database.drop().await.unwrap();
}

#[tokio::test]
async fn without_a_server_a_batch_is_tried_again() {
    let config = MongoConfig {
        uri: "mongodb://127.0.0.1:1/".to_owned().into(),
        database: "nowhere".to_owned(),
        timeout: Duration::from_millis(200),
    };
    let sink = MongoSink::new(config.database().await.unwrap());
    let result = sink.write(&envelopes([event("error_logs", 1, &json!({}))])).await;
    assert!(matches!(result, Err(SinkError::Retry(_))), "{result:?}");
}

#[tokio::test]
async fn documents_about_a_person_are_removed_by_their_ids_uploads_and_wallets_and_nobody_elses() {
    let (config, sink, database) = fresh().await;
    let (user, upload) = (UserId(Uuid::now_v7()), Uuid::now_v7());
    let wallet = format!("0x{}", "ab".repeat(20));
    let attempt = |wallet: &str, user: Option<String>| json!({ "user_id": user, "action": "login", "wallet_address": wallet, "success": true, "metadata": {} });
    let fallback = |upload: &str| {
        json!({
            "upload_id": upload, "primary_service": "a", "fallback_service": "b", "trigger_reason": "c",
            "primary_error": "d", "fallback_success": true, "fallback_result": {},
        })
    };
    let events = [
        event("auth_logs", 1, &attempt("0x1", Some(user.to_string()))),
        // Before anybody knew whose it is.
        event("auth_logs", 2, &attempt(&wallet, None)),
        event("fallback_logs", 3, &fallback(&upload.to_string())),
        event("auth_logs", 4, &attempt("0x2", Some(Uuid::now_v7().to_string()))),
        event("fallback_logs", 5, &fallback(&Uuid::now_v7().to_string())),
    ];
    sink.write(&envelopes(events)).await.unwrap();
    let logs = config.logs().await.unwrap();
    let wallets = std::slice::from_ref(&wallet);
    let found: Vec<(&str, Value)> = logs.about(user, &[upload], wallets).try_collect().await.unwrap();
    let found: Vec<(&str, bool)> = found
        .iter()
        .map(|(name, document)| (*name, document["timestamp"] == "2023-11-14T22:13:20.123Z"))
        .collect();
    assert_eq!(found, [("auth_logs", true), ("auth_logs", true), ("fallback_logs", true)]);
    for removed in [3, 0] {
        assert_eq!(logs.erase(user, &[upload], wallets).await.unwrap(), removed);
    }
    for collection in ["auth_logs", "fallback_logs"] {
        let left = database.collection::<Document>(collection).count_documents(doc! {}).await.unwrap();
        assert_eq!(left, 1, "{collection}");
    }
    database.drop().await.unwrap();
}
