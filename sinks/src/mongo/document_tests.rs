use mongodb::bson::spec::ElementType;
use schemas::ids::{EventId, Micros};
use serde_json::json;
use uuid::Uuid;

use super::*;

fn event(collection: &str, fields: &Value) -> ActivityLogged {
    ActivityLogged {
        event_id: EventId(Uuid::from_u128(7)),
        collection: collection.to_owned(),
        ordinal: 0,
        occurred_at: Micros(1_700_000_000_123_999),
        document: fields.to_string(),
    }
}

fn converted(collection: &str, fields: &Value) -> Result<Document, BadDocument> {
    document(&event(collection, fields)).map(|(_, document)| document)
}

#[test]
fn kinds_of_the_collection_decide_the_types() {
    let document = converted(
        "ai_processing_logs",
        &json!({
            "upload_id": "u", "processing_time": 12, "success": true, "cost_incurred": "0.001500",
            "response_payload": { "n": 3, "x": 0.5, "d": "1.20", "none": null, "list": [1] },
        }),
    )
    .unwrap();
    assert_eq!(document.get_str("upload_id").unwrap(), "u");
    assert_eq!(document.get_f64("processing_time").unwrap(), 12.0);
    assert_eq!(document.get("cost_incurred").unwrap().element_type(), ElementType::Decimal128);
    assert_eq!(document.get("cost_incurred").unwrap().to_string(), "0.001500");
    let inner = document.get_document("response_payload").unwrap();
    assert_eq!(*inner, doc! { "n": 3_i64, "x": 0.5, "d": "1.20", "none": null, "list": [1_i64] });
}

#[test]
fn what_happened_to_a_transaction_has_its_instants_and_what_is_none_stays_as_it_is() {
    let history = json!([
        { "stage": "planned", "at": "2026-11-28T13:46:00.228393Z", "block_number": null, "confirmations": 0 },
        { "stage": "signed", "at": "soon" },
    ]);
    let document = converted("transaction_monitoring_logs", &json!({ "status_updates": history })).unwrap();
    let updates = document.get_array("status_updates").unwrap();
    let first = updates[0].as_document().unwrap();
    assert_eq!(first.get_datetime("at").unwrap().timestamp_millis(), 1_795_873_560_228);
    assert_eq!((first.get_str("stage").unwrap(), first.get_i64("confirmations").unwrap()), ("planned", 0));
    assert_eq!(updates[1].as_document().unwrap().get_str("at").unwrap(), "soon");
}

#[test]
fn id_time_and_event_come_from_the_event() {
    let document = converted("error_logs", &json!({ "module": "ingest" })).unwrap();
    let id = logs::document_id(EventId(Uuid::from_u128(7)), "error_logs", 0);
    assert_eq!(document.get_object_id("_id").unwrap().bytes(), id);
    // BSON has milliseconds: cut, never rounded up.
    assert_eq!(document.get_datetime("timestamp").unwrap().timestamp_millis(), 1_700_000_000_123);
    assert_eq!(document.get_str("event_id").unwrap(), Uuid::from_u128(7).to_string());
}

#[test]
fn a_value_of_another_kind_an_unknown_field_and_an_unknown_collection_are_refused_by_name() {
    let refused = |collection: &str, fields: Value| converted(collection, &fields).unwrap_err().to_string();
    assert_eq!(
        refused("error_logs", json!({ "resolved": "yes" })),
        "error_logs.resolved should be of kind Boolean"
    );
    assert_eq!(
        refused("cache_performance_logs", json!({ "cache_size": 1.5 })),
        "cache_performance_logs.cache_size should be of kind Integer"
    );
    assert_eq!(
        refused("gas_optimization_logs", json!({ "gas_price_used": 0.1 })),
        "gas_optimization_logs.gas_price_used should be of kind Decimal"
    );
    assert_eq!(
        refused("error_logs", json!({ "colour": "red" })),
        "error_logs.colour is not a field of the collection"
    );
    assert_eq!(
        refused("error_logs", json!({ "timestamp": "2023" })),
        "error_logs.timestamp is not a field of the collection"
    );
    assert_eq!(refused("diaries", json!({})), "collection diaries is not known");
    assert_eq!(refused("error_logs", json!([])), "error_logs: the document is not a JSON object");
}

#[test]
fn absent_and_null_fields_are_left_out_and_the_two_extra_ids_are_taken() {
    let document = converted("fallback_logs", &json!({ "user_id": "u", "primary_error": null })).unwrap();
    assert_eq!(document.keys().collect::<Vec<_>>(), ["_id", "timestamp", "event_id", "user_id"]);
}

#[test]
fn an_object_over_16_kib_becomes_its_size_and_hash_and_an_array_stays_an_array() {
    let long = "x".repeat(OBJECT_BYTES);
    let object = json!({ "text": long });
    let bytes = object.to_string();
    let document = converted("image_quality_logs", &json!({ "quality_metrics": object })).unwrap();
    let marker = doc! {
        "truncated": true,
        "bytes": i64::try_from(bytes.len()).unwrap(),
        "sha256": hex::encode(Sha256::digest(&bytes)),
    };
    assert_eq!(*document.get_document("quality_metrics").unwrap(), marker);
    let document = converted("image_quality_logs", &json!({ "detected_issues": [long] })).unwrap();
    let array = document.get_array("detected_issues").unwrap();
    assert_eq!(array.len(), 1);
    assert!(array[0].as_document().unwrap().get_bool("truncated").unwrap());
}

#[test]
fn of_objects_that_are_too_large_together_the_largest_goes_first() {
    let object = |bytes: usize| json!({ "text": "x".repeat(bytes) });
    let fields = json!({ "quality_metrics": object(9_000), "original_file_info": object(10_000) });
    let document = converted("image_quality_logs", &fields).unwrap();
    assert!(document.get_document("original_file_info").unwrap().contains_key("truncated"));
    assert!(document.get_document("quality_metrics").unwrap().contains_key("text"));
}

#[test]
fn a_text_over_2_kib_is_cut_between_characters() {
    let document = converted("error_logs", &json!({ "stack_trace": "é".repeat(2_000) })).unwrap();
    let text = document.get_str("stack_trace").unwrap();
    assert!(text.len() <= TEXT_BYTES && text.len() > TEXT_BYTES - 4, "{}", text.len());
    assert!(text.ends_with("é…"));
}
