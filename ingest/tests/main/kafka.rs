//! Real Kafka, out of reach at first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use runtime::producer::{DeliveryTimeout, KafkaProducer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::support::{Bench, Form, jpeg};

const LIMIT: Duration = Duration::from_secs(180);

fn client(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

async fn create_topic(servers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = client(servers).create().unwrap();
    let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap();
}

/// Everything on a topic of one partition.
fn payloads(servers: &str, topic: &str) -> Vec<Vec<u8>> {
    let consumer: BaseConsumer = client(servers).set("group.id", "reads-alone").create().unwrap();
    let mut partition = TopicPartitionList::new();
    partition.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partition).unwrap();
    let (_, end) = consumer.fetch_watermarks(topic, 0, LIMIT).unwrap();
    let next = || consumer.poll(LIMIT).unwrap().unwrap().payload().unwrap().to_vec();
    (0..end).map(|_| next()).collect()
}

/// Opens a port that was closed, and passes its connections on to the broker.
async fn open(port: SocketAddr, broker: String) {
    let listener = TcpListener::bind(port).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&broker).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
}

async fn until_ready(bench: &Bench, status: u16) {
    let asked = async {
        while bench.get("/readyz", "").await.status != status {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, asked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_photo_reserved_while_kafka_was_out_of_reach_is_published_with_its_bytes_when_it_is_back() {
    let broker = std::env::var("KAFKA_BROKERS").expect("set KAFKA_BROKERS (devstack does)");
    let prefix = format!("ingest-{}.", Uuid::now_v7().simple());
    let topic = format!("{prefix}uploads.received");
    create_topic(&broker, &topic).await;
    create_topic(&broker, &format!("{prefix}activity.logs")).await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let timeout = DeliveryTimeout::After(Duration::from_millis(500));
    let producer = KafkaProducer::new(&client(&port.to_string()), timeout).unwrap();
    let bench = Bench::start_on(Arc::new(producer), |config| {
        config.topic_prefix.clone_from(&prefix);
        config.timeouts.publish = Duration::from_secs(1);
        config.timeouts.sweep = Duration::from_millis(100);
        config.timeouts.unpublished = Duration::from_secs(1);
    })
    .await;
    let (_, token) = bench.driver().await;
    bench.post(&token, &Form::photo(&jpeg(1))).await.assert_problem(503, "not_published");
    let reserved: Vec<u8> =
        sqlx::query_scalar("select event from photo_hashes").fetch_one(&bench.pool).await.unwrap();
    until_ready(&bench, 503).await;
    open(port, broker.clone()).await;
    until_ready(&bench, 200).await;
    let published = tokio::task::spawn_blocking(move || payloads(&broker, &topic)).await.unwrap();
    // One that was given up on its way may have arrived all the same: consumers drop it by its event id.
    assert!(!published.is_empty() && published.iter().all(|payload| *payload == reserved), "{published:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn photos_that_kafka_refuses_for_good_keep_no_other_unpublished_however_many_they_are() {
    let broker = std::env::var("KAFKA_BROKERS").expect("set KAFKA_BROKERS (devstack does)");
    let prefix = format!("ingest-{}.", Uuid::now_v7().simple());
    let topic = format!("{prefix}uploads.received");
    create_topic(&broker, &topic).await;
    create_topic(&broker, &format!("{prefix}activity.logs")).await;
    let mut config = client(&broker);
    config.set("message.max.bytes", "10000");
    let producer = KafkaProducer::new(&config, DeliveryTimeout::After(Duration::from_secs(60))).unwrap();
    let bench = Bench::start_on(Arc::new(producer), |config| {
        config.topic_prefix.clone_from(&prefix);
        config.timeouts.publish = Duration::from_secs(60);
        config.timeouts.sweep = Duration::from_millis(100);
    })
    .await;
    let (_, token) = bench.driver().await;
    let until = async |what: &'static str| {
        let met =
            async { while !sqlx::query_scalar::<_, bool>(what).fetch_one(&bench.pool).await.unwrap() {} };
        tokio::time::timeout(LIMIT, met).await.unwrap();
    };
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(1))).await.status, 202);
    until("select published_at is not null from photo_hashes").await;
    // More than are looked for at a time, older than one that was left behind.
    sqlx::raw_sql(
        "insert into photo_hashes (user_id, image_hash, upload_id, event_id, event, reserved_at, vehicle_id)
         select user_id, md5(n::text), gen_random_uuid(), gen_random_uuid(), decode(repeat('00', 20000), 'hex'),
           now() - interval '1 hour', vehicle_id from photo_hashes, generate_series(1, 120) n;
         update photo_hashes set published_at = null, reserved_at = now() - interval '30 minutes' where published_at is not null",
    )
    .execute(&bench.pool)
    .await
    .unwrap();
    until("select count(*) = 120 from photo_hashes where published_at is null").await;
    let refused = async {
        while !bench.metrics().contains("milestream_reserved_uploads_refused 120") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, refused).await.unwrap();
    // Nor is their driver kept from sending.
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(2))).await.status, 202);
    let published = tokio::task::spawn_blocking(move || payloads(&broker, &topic)).await.unwrap();
    assert!(
        published.len() >= 3 && published[1] == published[0],
        "what was left goes out as it was reserved"
    );
}
