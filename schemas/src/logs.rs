//! The documents of the 21 log collections, with their lifetime and indexes beside them: what a producer may write is
//! a struct here, and what the Mongo sink creates is [`COLLECTIONS`].
//!
//! `_id` and `timestamp` are not fields: the sink derives them from the event ([`document_id`]) and its `occurred_at`.

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::events::ActivityLogged;
use crate::ids::{EventId, Micros};

/// How a field is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A UTF-8 string.
    Text,
    /// A 64-bit integer.
    Integer,
    /// A double: milliseconds and shares.
    Double,
    /// A Decimal128: money and confidences, from a decimal string in the event.
    Decimal,
    /// A boolean.
    Boolean,
    /// A document.
    Object,
    /// An array.
    Array,
    /// An array of what happened: in each object `at` is an instant, an RFC 3339 text in the event.
    History,
}

/// What happened to something so far, the oldest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct History(pub Vec<Value>);

/// A Rust type that a field may have.
trait Field {
    const KIND: Kind;

    /// Whether JSON would hold null: such a field is left out of the document, as the map's coverage counts it.
    fn is_absent(&self) -> bool {
        false
    }
}

impl<T: Field> Field for Option<T> {
    const KIND: Kind = T::KIND;

    fn is_absent(&self) -> bool {
        self.as_ref().is_none_or(T::is_absent)
    }
}

macro_rules! kinds {
    ($($type:ty => $kind:ident;)*) => {
        $(impl Field for $type { const KIND: Kind = Kind::$kind; })*
    };
}

kinds! {
    String => Text;
    i64 => Integer;
    Decimal => Decimal;
    bool => Boolean;
    Vec<Value> => Array;
    History => History;
}

impl Field for f64 {
    const KIND: Kind = Kind::Double;

    /// JSON has no infinity and no NaN.
    fn is_absent(&self) -> bool {
        !self.is_finite()
    }
}

impl Field for Value {
    const KIND: Kind = Kind::Object;

    fn is_absent(&self) -> bool {
        self.is_null()
    }
}

/// What the Mongo sink must know of a collection.
#[derive(Debug)]
pub struct Collection {
    /// Its name.
    pub name: &'static str,
    /// Days from `timestamp` until the TTL index removes a document.
    pub ttl_days: u32,
    /// Fields of each further index, in order; a leading `-` is descending.
    pub indexes: &'static [&'static [&'static str]],
    /// Name and kind of every field but `_id` and `timestamp`.
    pub fields: &'static [(&'static str, Kind)],
}

/// A document type.
pub trait LogDocument: Serialize {
    /// Its collection.
    const COLLECTION: &'static Collection;

    /// The record on `activity.logs` that carries the `ordinal`-th document of an event in this collection.
    ///
    /// # Errors
    /// Never in practice: the types are plain JSON.
    fn activity(
        &self,
        event_id: EventId,
        ordinal: i32,
        occurred_at: Micros,
    ) -> Result<ActivityLogged, serde_json::Error> {
        Ok(ActivityLogged {
            event_id,
            collection: Self::COLLECTION.name.to_owned(),
            ordinal,
            occurred_at,
            document: serde_json::to_string(self)?,
        })
    }
}

macro_rules! log_documents {
    ($($(#[$doc:meta])* $type:ident in $name:literal for $days:literal days by $indexes:tt {
        $($field:ident: $kind:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Serialize)]
            pub struct $type {
                $(
                    #[doc = concat!("`", $name, ".", stringify!($field), "` of the data map; absent where `None`.")]
                    #[serde(skip_serializing_if = "Field::is_absent")]
                    pub $field: $kind,
                )*
            }

            impl LogDocument for $type {
                const COLLECTION: &'static Collection = &Collection {
                    name: $name,
                    ttl_days: $days,
                    indexes: &$indexes,
                    fields: &[$((stringify!($field), <$kind as Field>::KIND),)*],
                };
            }
        )*

        /// Every collection.
        pub const COLLECTIONS: &[&Collection] = &[$(<$type as LogDocument>::COLLECTION,)*];
    };
}

log_documents! {
    /// A login, logout or change of an account's proofs.
    AuthLog in "auth_logs" for 180 days by [&["user_id", "timestamp"], &["ip_address", "timestamp"]] {
        user_id: Option<String>, action: String, wallet_address: Option<String>, ip_address: Option<String>,
        user_agent: Option<String>, success: bool, error_message: Option<String>, session_duration: Option<i64>,
        metadata: Value,
    }
    /// Something that a person of security should see.
    SecurityEvent in "security_events" for 365 days
        by [&["user_id", "timestamp"], &["resolved", "severity", "timestamp"]] {
        user_id: Option<String>, event_type: String, severity: String, ip_address: Option<String>,
        location_data: Value, device_info: Value, resolved: bool, admin_notes: Option<String>,
    }
    /// One stage of one upload.
    UploadProcessingLog in "upload_processing_logs" for 30 days
        by [&["upload_id", "timestamp"], &["processing_stage", "timestamp"]] {
        upload_id: String, user_id: String, processing_stage: String, stage_duration: f64, success: bool,
        error_message: Option<String>, file_size: i64, image_dimensions: Option<Value>, processing_metadata: Value,
        retry_count: i64,
    }
    /// One reading service that was tried for an upload: business view.
    AiProcessingLog in "ai_processing_logs" for 30 days by [&["upload_id"], &["ai_service_name", "timestamp"]] {
        upload_id: String, ai_service_name: String, service_endpoint: String, request_payload: Value,
        response_payload: Option<Value>, processing_time: f64, success: bool, confidence_score: Option<Decimal>,
        error_details: Option<String>, fallback_used: bool, cost_incurred: Decimal, service_metadata: Value,
    }
    /// Measured quality of a frame or of the reading's box.
    ImageQualityLog in "image_quality_logs" for 90 days by [&["upload_id"], &["detected_issues", "timestamp"]] {
        upload_id: String, quality_metrics: Value, detected_issues: Vec<Value>, preprocessing_applied: Vec<Value>,
        original_file_info: Value, processed_file_info: Option<Value>,
    }
    /// How a reward was worked out.
    RewardCalculationLog in "reward_calculation_logs" for 400 days
        by [&["reward_id"], &["user_id", "timestamp"], &["upload_id"]] {
        reward_id: Option<String>, user_id: String, upload_id: String, calculation_input: Value,
        calculation_steps: Vec<Value>, calculation_result: Option<Value>, calculation_duration: f64, success: bool,
        error_message: Option<String>,
    }
    /// A status change of a reward's transaction.
    BlockchainTransactionLog in "blockchain_transaction_logs" for 400 days by [&["reward_id"], &["tx_hash"]] {
        transaction_id: String, reward_id: Option<String>, user_id: Option<String>, transaction_type: String,
        blockchain_network: String, tx_hash: String, gas_estimation: Value, transaction_status: String,
        confirmation_blocks: i64, error_details: Option<String>, retry_attempts: i64, blockchain_metadata: Value,
    }
    /// Gas saved by one method.
    GasOptimizationLog in "gas_optimization_logs" for 180 days
        by [&["transaction_id"], &["optimization_method", "timestamp"]] {
        transaction_id: String, gas_strategy: String, estimated_gas: i64, actual_gas: i64, gas_price_used: Decimal,
        gas_savings: i64, optimization_method: String,
    }
    /// One call of a reading service: wire view.
    AiServiceLog in "ai_service_logs" for 30 days
        by [&["request_id"], &["upload_id"], &["service_name", "timestamp"]] {
        service_name: String, request_id: String, upload_id: Option<String>, request_type: String,
        request_payload: Value, response_payload: Option<Value>, processing_time: f64, success: bool,
        error_code: Option<String>, error_message: Option<String>, cost_incurred: Decimal, service_metadata: Value,
    }
    /// One model version over one closed hour.
    ModelPerformanceLog in "model_performance_logs" for 365 days
        by [&["model_name", "model_version", "timestamp"]] {
        model_name: String, model_version: String, accuracy_metrics: Value, speed_metrics: Value,
        resource_usage: Value, error_rates: Value, sample_size: i64,
    }
    /// One switch to the next reading service.
    FallbackLog in "fallback_logs" for 90 days by [&["primary_service", "timestamp"], &["upload_id"]] {
        upload_id: String, primary_service: String, fallback_service: String, trigger_reason: String,
        primary_error: String, fallback_success: bool, fallback_result: Value,
    }
    /// A connection to a node changed, or was probed.
    BlockchainConnectionLog in "blockchain_connection_logs" for 30 days by [&["network_name", "timestamp"]] {
        network_name: String, connection_type: String, connection_status: String, response_time: Option<f64>,
        error_message: Option<String>, retry_count: i64, node: String,
    }
    /// A stage of a transaction's life, with its history so far.
    TransactionMonitoringLog in "transaction_monitoring_logs" for 180 days by [&["tx_hash", "timestamp"]] {
        tx_hash: String, transaction_type: String, monitoring_stage: String, confirmation_blocks: i64,
        gas_used: Option<i64>, gas_price: Option<Decimal>, block_number: Option<i64>, status_updates: History,
    }
    /// A call of a contract.
    ContractInteractionLog in "contract_interaction_logs" for 90 days
        by [&["contract_address", "timestamp"], &["tx_hash"]] {
        contract_address: String, contract_name: String, method_name: String, parameters: Value,
        gas_estimated: Option<i64>, gas_used: Option<i64>, success: bool, return_value: Option<Value>,
        error_message: Option<String>, call_kind: String, tx_hash: Option<String>,
    }
    /// One metric's folding at the close of an hour.
    AnalyticsProcessingLog in "analytics_processing_logs" for 30 days
        by [&["metric_name", "timestamp"], &["success", "timestamp"]] {
        metric_type: String, metric_name: String, processing_stage: String, processing_duration: f64,
        data_points_processed: i64, success: bool, error_message: Option<String>, processing_metadata: Value,
    }
    /// One stage of making a report.
    ReportGenerationLog in "report_generation_logs" for 180 days
        by [&["report_id", "timestamp"], &["report_type", "timestamp"]] {
        report_id: String, report_type: String, generation_stage: String, generation_duration: f64,
        file_size: Option<i64>, success: bool, error_message: Option<String>, report_metadata: Value,
    }
    /// One candidate for an insight.
    InsightGenerationLog in "insight_generation_logs" for 180 days
        by [&["insight_id", "timestamp"], &["insight_type", "timestamp"]] {
        insight_id: String, insight_type: String, generation_method: String, confidence_score: Decimal,
        data_sources: Vec<Value>, generation_duration: f64, insight_metadata: Value,
    }
    /// One operation on the cache of answers.
    CachePerformanceLog in "cache_performance_logs" for 7 days
        by [&["cache_type", "operation", "timestamp"], &["cache_key", "timestamp"]] {
        cache_key: String, cache_type: String, operation: String, hit_miss: Option<String>, response_time: f64,
        cache_size: i64,
    }
    /// A slow, failed or sampled call.
    SystemPerformanceLog in "system_performance_logs" for 14 days
        by [&["module_name", "operation", "timestamp"], &["success", "timestamp"]] {
        module_name: String, operation: String, response_time: f64, success: bool, error_message: Option<String>,
        resource_usage: Value, metadata: Value,
    }
    /// An error that somebody must act on.
    ErrorLog in "error_logs" for 90 days by [&["error_code", "timestamp"], &["resolved", "severity", "timestamp"]] {
        error_type: String, error_code: String, error_message: String, stack_trace: String, user_id: Option<String>,
        module: String, severity: String, resolved: bool, resolution_notes: Option<String>,
    }
    /// A call to a service outside.
    IntegrationLog in "integration_logs" for 30 days by [&["service_name", "timestamp"], &["request_id", "timestamp"]] {
        integration_type: String, service_name: String, request_id: String, request_data: Value,
        response_data: Value, response_time: f64, success: bool, error_details: Option<String>, retry_count: i64,
    }
}

/// The collection of a name.
#[must_use]
pub fn collection(name: &str) -> Option<&'static Collection> {
    COLLECTIONS.iter().copied().find(|collection| collection.name == name)
}

/// The field for what an operator says of a document that somebody has to act on; `None` where documents of a collection are not resolved.
#[must_use]
pub fn notes_field(collection: &Collection) -> Option<&'static str> {
    let has = |field: &str| collection.fields.iter().any(|(name, _)| *name == field);
    ["resolution_notes", "admin_notes"].into_iter().find(|field| has(field))
}

/// A document's ObjectId: the first 12 bytes of SHA-256(event id's 16 bytes, collection, then `/n` for the n-th document
/// of the event, n > 0): a redelivery gives the same id again.
#[must_use]
pub fn document_id(event_id: EventId, collection: &str, ordinal: i32) -> [u8; 12] {
    let mut hasher = Sha256::new();
    hasher.update(event_id.0.as_bytes());
    hasher.update(collection);
    if ordinal > 0 {
        hasher.update(format!("/{ordinal}"));
    }
    let mut id = [0; 12];
    id.copy_from_slice(&hasher.finalize()[..12]);
    id
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn every_collection_of_the_data_map_has_a_document_type_with_its_fields_and_kinds() {
        let map: Value = serde_json::from_str(include_str!("../data-map.json")).unwrap();
        let wanted: BTreeMap<String, BTreeMap<String, String>> =
            serde_json::from_value(map["collections"].clone()).unwrap();
        let names: BTreeSet<&str> = COLLECTIONS.iter().map(|collection| collection.name).collect();
        assert_eq!(names, wanted.keys().map(String::as_str).collect());
        for (name, fields) in &wanted {
            let ours: BTreeMap<_, _> = collection(name).unwrap().fields.iter().copied().collect();
            for (field, kind) in
                fields.iter().filter(|(field, _)| !["_id", "timestamp"].contains(&field.as_str()))
            {
                let fits = match ours.get(field.as_str()) {
                    Some(Kind::Text) => kind == "String",
                    Some(Kind::Integer | Kind::Double | Kind::Decimal) => kind == "Number",
                    Some(Kind::Boolean) => kind == "Boolean",
                    Some(Kind::Object) => kind == "Object",
                    Some(Kind::Array | Kind::History) => kind == "Array",
                    None => false,
                };
                assert!(fits, "{name}.{field} should be {kind}");
            }
        }
    }

    #[test]
    fn an_absent_field_is_left_out_and_a_decimal_is_a_string() {
        let log = GasOptimizationLog {
            transaction_id: "t".into(),
            gas_strategy: "low".into(),
            estimated_gas: 2,
            actual_gas: 1,
            gas_price_used: Decimal::new(105, 7),
            gas_savings: 1,
            optimization_method: "batch_processing".into(),
        };
        let record = log.activity(EventId(uuid::Uuid::nil()), 0, Micros(5)).unwrap();
        assert!(record.document.contains(r#""gas_price_used":"0.0000105""#), "{}", record.document);
        assert_eq!((record.collection.as_str(), record.occurred_at), ("gas_optimization_logs", Micros(5)));
    }

    #[test]
    fn the_same_event_collection_and_ordinal_give_the_same_id_and_any_difference_another() {
        let event = EventId(uuid::Uuid::from_u128(7));
        assert_eq!(document_id(event, "error_logs", 0), document_id(event, "error_logs", 0));
        assert_ne!(document_id(event, "error_logs", 0), document_id(event, "error_logs", 1));
        assert_ne!(document_id(event, "error_logs", 0), document_id(event, "auth_logs", 0));
    }
}
