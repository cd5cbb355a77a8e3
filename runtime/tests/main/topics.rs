//! `topics apply` on a real broker.

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use runtime::settings::{self, SettingError};
use runtime::topics::{self, Layout, TopicsError};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::{address, kafka, registry, unique_prefix};

type Admin = AdminClient<DefaultClientContext>;

async fn set(topic: &str, settings: &[(&str, &str)]) {
    let admin: Admin = kafka().create().unwrap();
    let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
    config.entries.extend(settings.iter().copied());
    admin.alter_configs([&config], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

async fn setting(topic: &str, name: &str) -> String {
    let admin: Admin = kafka().create().unwrap();
    let asked = ResourceSpecifier::Topic(topic);
    let response = admin.describe_configs([&asked], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    response.get(name).unwrap().value.clone().unwrap()
}

#[tokio::test]
async fn settings_of_an_existing_topic_are_made_as_specified_and_what_operators_set_besides_stays() {
    let layout = Layout::local(&unique_prefix());
    assert_eq!(topics::apply(&kafka(), &registry(), &layout).await.unwrap(), []);
    topics::compare_all(&kafka(), &layout).await.unwrap();
    let topic = format!("{}uploads.decided", layout.prefix);
    set(&topic, &[("retention.ms", "1000"), ("cleanup.policy", "compact"), ("segment.bytes", "7000000")])
        .await;

    let Err(TopicsError::Different(differences)) = topics::compare_all(&kafka(), &layout).await else {
        panic!("a difference")
    };
    let reported: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        reported,
        [
            format!("topic {topic}: cleanup.policy is compact, specified is delete"),
            format!("topic {topic}: retention.ms is 1000, specified is -1"),
        ]
    );
    let set = topics::apply(&kafka(), &registry(), &layout).await.unwrap();
    assert_eq!(set.iter().map(ToString::to_string).collect::<Vec<_>>(), reported);
    assert_eq!(setting(&topic, "retention.ms").await, "-1");
    assert_eq!(setting(&topic, "cleanup.policy").await, "delete");
    assert_eq!(setting(&topic, "segment.bytes").await, "7000000");
    assert_eq!(topics::apply(&kafka(), &registry(), &layout).await.unwrap(), []);
}

#[tokio::test]
async fn another_partition_or_replica_count_is_refused_and_nothing_is_changed() {
    let layout = Layout { partitions: 2, ..Layout::local(&unique_prefix()) };
    topics::apply(&kafka(), &registry(), &layout).await.unwrap();
    let more = Layout { partitions: 3, ..layout.clone() };
    for refused in
        [topics::check(&kafka(), &more).await, topics::apply(&kafka(), &registry(), &more).await.map(drop)]
    {
        let error = refused.unwrap_err();
        assert!(matches!(error, TopicsError::PartitionCount { expected: 3, found: 2, .. }), "{error}");
        assert!(error.to_string().contains("has 2 partitions, and kafka.partitions asks for 3"), "{error}");
    }
    let copies = Layout { replication: 2, ..layout.clone() };
    let error = topics::check(&kafka(), &copies).await.unwrap_err();
    assert!(matches!(error, TopicsError::Replication { expected: 2, found: 1, .. }), "{error}");
    topics::check(&kafka(), &layout).await.unwrap();
}

async fn own_schema() -> PgPool {
    let name = format!("settings_{}", Uuid::now_v7().simple());
    let options: PgConnectOptions = address("DATABASE_URL").parse().unwrap();
    let options = options.options([("search_path", &name)]);
    let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create schema {name}"))).execute(&pool).await.unwrap();
    pool
}

#[tokio::test]
async fn a_setting_of_a_deployment_is_chosen_once_and_another_value_is_refused_ever_after() {
    let pool = own_schema().await;
    let unready = settings::choose(&pool, "kafka.partitions", "4".into()).await.unwrap_err();
    assert!(unready.to_string().contains("milestream migrate"), "{unready}");
    let table = include_str!("../../../migrations/0020_deployment_settings.sql");
    sqlx::raw_sql(table).execute(&pool).await.unwrap();
    for _ in 0..2 {
        settings::choose(&pool, "kafka.partitions", "4".into()).await.unwrap();
    }
    let changed = settings::choose(&pool, "kafka.partitions", "8".into()).await.unwrap_err();
    assert!(matches!(changed, SettingError::Changed { .. }), "{changed}");
    assert!(changed.to_string().contains("kafka.partitions is 8, and this deployment was set up with 4"));
    settings::choose(&pool, "kafka.partitions", "4".into()).await.unwrap();
}
