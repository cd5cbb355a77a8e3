//! `ai_models` from `models.deployed`.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use runtime::{Sink as _, SinkError};
use schemas::events::{ModelDeployed, ModelType};
use schemas::ids::{EventId, Micros, natural};
use serde_json::{Value, json};
use sinks::postgres::{PostgresConfig, PostgresSink, UploadEvent};

use crate::stories::DAY;
use crate::support::{Schema, envelopes};

/// A deployment on a day of 2024; the version was first deployed on another.
fn deployed(name: &str, version: &str, day: i64, first: i64) -> ModelDeployed {
    let at = |day: i64| Micros(1_704_067_200_000_000 + day * DAY);
    ModelDeployed {
        event_id: EventId(natural(&format!("{name}/{version}/{day}"))),
        occurred_at: at(day),
        model_name: name.into(),
        model_version: version.into(),
        model_type: if name.ends_with("det") { ModelType::ObjectDetection } else { ModelType::Ocr },
        accuracy: "0.9166666667".parse().unwrap(),
        cpu_ms: i32::try_from(500 + day).unwrap(),
        file_size: 4_740_548,
        sha256: "ab".repeat(32),
        built_at: at(0),
        first_deployed_at: at(first),
    }
}

/// A detector; a recogniser that is replaced by a newer one and comes back.
pub fn deployments() -> impl Iterator<Item = ModelDeployed> {
    let (old, new) = ("v5-01234567", "v6-89abcdef");
    [
        deployed("a_det", "v5-62f0e797", 1, 1),
        deployed("a_rec", old, 1, 1),
        deployed("a_rec", new, 2, 2),
        deployed("a_rec", old, 3, 1),
    ]
    .into_iter()
}

fn events(deployments: impl IntoIterator<Item = ModelDeployed>) -> Vec<UploadEvent> {
    deployments.into_iter().map(|event| UploadEvent::Deployed(Box::new(event))).collect()
}

fn sink(schema: &Schema) -> PostgresSink {
    PostgresSink::new(schema.pool.clone(), PostgresConfig::default())
}

/// Name, version, whether active, milliseconds, first deployment and newest event.
async fn rows(schema: &Schema) -> Vec<(String, String, bool, i32, String, String)> {
    sqlx::query_as(
        "select model_name, model_version, is_active, processing_speed, (deployment_date at time zone 'UTC')::date::text,
            (last_updated at time zone 'UTC')::date::text
         from ai_models order by model_name, model_version",
    )
    .fetch_all(&schema.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn every_column_of_a_model_is_filled_as_the_lineage_says() {
    let schema = Schema::new().await;
    sink(&schema).write(&envelopes(events([deployed("a_det", "v5-62f0e797", 2, 1)]))).await.unwrap();
    let model = json!({
        "id": natural("ai_models/a_det/v5-62f0e797"), "model_name": "a_det", "model_version": "v5-62f0e797",
        "model_type": "object_detection", "accuracy_score": 0.91, "processing_speed": 502, "model_size": 5,
        "is_active": true, "deployment_date": "2024-01-02T00:00:00+00:00",
        "last_updated": "2024-01-03T00:00:00+00:00", "created_at": "2024-01-01T00:00:00+00:00",
    });
    assert_eq!(schema.rows("ai_models").await, Value::Array(vec![model]));
    schema.drop().await;
}

#[tokio::test]
async fn a_version_that_comes_back_is_active_again_since_its_first_deployment() {
    let schema = Schema::new().await;
    let sink = sink(&schema);
    let row = |version: &str, active, ms, first: &str, newest: &str| {
        ("a_rec".to_owned(), version.to_owned(), active, ms, first.to_owned(), newest.to_owned())
    };
    let all: Vec<_> = deployments().filter(|event| event.model_name == "a_rec").collect();
    sink.write(&envelopes(events(all[..2].to_vec()))).await.unwrap();
    let before = [
        row("v5-01234567", false, 501, "2024-01-02", "2024-01-02"),
        row("v6-89abcdef", true, 502, "2024-01-03", "2024-01-03"),
    ];
    assert_eq!(rows(&schema).await, before);
    sink.write(&envelopes(events(all[2..].to_vec()))).await.unwrap();
    let after = [
        row("v5-01234567", true, 503, "2024-01-02", "2024-01-04"),
        row("v6-89abcdef", false, 502, "2024-01-03", "2024-01-03"),
    ];
    assert_eq!(rows(&schema).await, after);
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_any_repeats_and_what_compaction_leaves_give_the_same_rows() {
    let schema = Schema::new().await;
    let sink = sink(&schema);
    sink.write(&envelopes(events(deployments()))).await.unwrap();
    let expected = schema.rows("ai_models").await;
    let runtime = tokio::runtime::Handle::current();
    // Compaction keeps the newest record of a key: the first of the four recognisers may be gone.
    let all: Vec<ModelDeployed> = deployments().collect();
    let repeated = prop::sample::subsequence(all.clone(), 0..=all.len());
    let order = (repeated, any::<bool>()).prop_flat_map(move |(repeated, compacted)| {
        let kept =
            all.iter().enumerate().filter(|(n, _)| !(compacted && *n == 1)).map(|(_, event)| event.clone());
        let repeated = repeated.into_iter().filter(|event| !compacted || *event != all[1]);
        Just(kept.chain(repeated).collect::<Vec<_>>()).prop_shuffle()
    });
    let config = ProptestConfig { cases: 16, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(order, 1_usize..4), |(order, size)| {
            let found = tokio::task::block_in_place(|| {
                runtime.block_on(async {
                    schema.empty().await;
                    for batch in order.chunks(size) {
                        sink.write(&envelopes(events(batch.to_vec()))).await.unwrap();
                    }
                    schema.rows("ai_models").await
                })
            });
            prop_assert_eq!(found, expected.clone());
            Ok(())
        })
        .unwrap();
    schema.drop().await;
}

#[tokio::test]
async fn what_a_column_cannot_hold_is_a_bad_row_that_names_it() {
    let schema = Schema::new().await;
    let mut long = deployed("a_det", "a version of over twenty characters", 1, 1);
    let written = sink(&schema).write(&envelopes(events([long.clone()]))).await;
    assert!(matches!(written, Err(SinkError::BadRow(_))), "{written:?}");
    (long.model_version, long.accuracy) = ("v5".into(), 2.into());
    let written = sink(&schema).write(&envelopes(events([long]))).await;
    let Err(SinkError::BadRow(why)) = written else { panic!("{written:?}") };
    assert!(why.contains("accuracy_score"), "{why}");
    assert_eq!(rows(&schema).await, []);
    schema.drop().await;
}
