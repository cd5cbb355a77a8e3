//! Real stages on topics and a database of a test's own, and the days of drivers whom they decide about.

#![allow(dead_code, reason = "each test uses some of it")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use devstack::Stack;
use harness::deployment::{Deployment, RoleSpec};
use rdkafka::config::ClientConfig;
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::registry::{Registry, RegistryConfig};
use runtime::{offsets, snapshot};
use rust_decimal::Decimal;
use schemas::codec;
use schemas::events::{Event, OdometerRead, Review, Root, UploadReceived};
use schemas::ids::{EventId, Micros, UploadId, UserId, VehicleId, derived};
use schemas::topic::Topic;
use serde_json::Value;
use sqlx::PgPool;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::own::Own;

/// Longest wait for anything.
pub const TIMEOUT: Duration = Duration::from_secs(180);
/// The stages that decide, and the one between them.
pub const STAGES: [&str; 3] = ["fraud_check", "reward_calculation", "limit_check"];
/// Topics, a database and roles of the test's own.
pub struct World {
    pub runtime: Runtime,
    pub stack: Stack,
    pub deployment: Deployment,
    pub prefix: String,
    pub pool: PgPool,
    pub registry: Registry,
}

impl World {
    pub fn new(name: &str) -> Self {
        Self::of(Own::prepare(name))
    }

    pub fn of(own: Own) -> Self {
        let Own { runtime, stack, deployment, prefix, pool } = own;
        let registry = Registry::new(&RegistryConfig::open(stack.schema_registry_url())).unwrap();
        Self { runtime, stack, deployment, prefix, pool, registry }
    }

    pub fn kafka(&self) -> ClientConfig {
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", self.stack.kafka_brokers());
        kafka.set("partitioner", "murmur2_random");
        kafka
    }

    pub fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// Publishes events in order, as a stage does.
    pub fn publish<E: Event>(&self, events: &[E]) {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        self.publish_at(events, |_| now);
    }

    /// Publishes events in order, each as if at a time of its own, milliseconds; returns where they stand.
    pub fn publish_at<E: Event>(&self, events: &[E], at: impl Fn(&E) -> i64) -> Vec<Root> {
        let (topic, id) =
            (self.name(E::TOPIC), self.runtime.block_on(self.registry.id_of::<E>(&self.prefix)).unwrap());
        self.runtime.block_on(async {
            let producer: FutureProducer = self.kafka().create().unwrap();
            let mut places = Vec::with_capacity(events.len());
            for event in events {
                let (key, payload) = (event.key(), codec::encode(id, event).unwrap());
                let record = FutureRecord::to(&topic).key(&key).payload(&payload).timestamp(at(event));
                let Delivery { partition, offset, .. } = producer.send(record, TIMEOUT).await.unwrap();
                places.push(Root { partition, offset });
            }
            places
        })
    }

    /// Has photos accepted, each at its time, and gives them as they were read: they name the place of their acceptance.
    pub fn accept(&self, mut photos: Vec<OdometerRead>) -> Vec<OdometerRead> {
        let received: Vec<UploadReceived> = photos
            .iter()
            .map(|photo| {
                let mut header = photo.header.clone();
                header.root = None;
                UploadReceived { header, stamp: photo.stamp.clone() }
            })
            .collect();
        let roots = self.publish_at(&received, |event| event.header.accepted_at.0 / 1_000);
        for (photo, root) in photos.iter_mut().zip(roots) {
            photo.header.root = Some(root);
        }
        photos
    }

    /// What stands on a topic, of one type.
    pub fn events<E: Event>(&self) -> Vec<E> {
        let records = snapshot::read(&self.kafka(), &self.name(E::TOPIC)).unwrap();
        let decoded = records.iter().filter_map(|record| {
            let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
            codec::decode(E::schema(), id, datum).ok()
        });
        decoded.collect()
    }

    pub fn start(&mut self) {
        for stage in STAGES {
            self.deployment.start(RoleSpec::stage(stage, "a")).unwrap();
        }
    }

    /// Waits until nothing is left to decide.
    pub fn settle(&mut self) {
        let inputs = [Topic::UploadsReadings, Topic::UploadsDecided, Topic::RewardsCalculated];
        let until = Instant::now() + TIMEOUT;
        // Each stage feeds the next: none has anything to do where that holds twice.
        let mut quiet = 0;
        while quiet < 2 {
            assert!(Instant::now() < until, "the stages do not come to an end");
            let idle = STAGES.iter().zip(inputs).all(|(stage, topic)| {
                let (kafka, group) = (self.kafka(), format!("{}{stage}", self.prefix));
                let shown = offsets::show(&kafka, &group, vec![self.name(topic)]);
                let shown = self.runtime.block_on(shown).unwrap();
                shown.iter().all(|place| place.lag() == 0)
            });
            quiet = if idle { quiet + 1 } else { 0 };
            std::thread::park_timeout(Duration::from_millis(300));
        }
    }

    pub fn stop(&mut self) {
        for stage in STAGES {
            self.deployment.terminate(&format!("{stage}-a"), Duration::from_secs(20)).unwrap();
        }
    }

    pub fn execute(&self, sql: String) {
        self.runtime.block_on(sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.pool)).unwrap();
    }

    pub fn number(&self, sql: &'static str) -> i64 {
        self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(&self.pool)).unwrap()
    }
}

/// The `n`-th photo of a driver's car, 40 km and a day after the one before; every fifth is hard to read.
pub fn photo(driver: u128, n: i64) -> OdometerRead {
    let text = include_str!("../../../schemas/examples/uploads.readings/normal-km.json");
    let mut example: Value = serde_json::from_str(text).unwrap();
    let mut event: OdometerRead = serde_json::from_value(example["event"].take()).unwrap();
    let id = Uuid::from_u128(driver * 1_000_000 + u128::try_from(n).unwrap());
    event.header.event_id = EventId(id);
    event.header.upload_id = UploadId(id);
    event.header.user_id = UserId(Uuid::from_u128(driver));
    event.header.vehicle_id = VehicleId(Uuid::from_u128(driver + 500));
    event.header.accepted_at.0 += n * 86_400_000_000;
    (event.stamp.captured_at, event.stamp.claimed_mileage) = (None, None);
    let reading = event.reading.as_mut().unwrap();
    let first = &mut reading.candidates[0];
    first.value = Decimal::from(50_000 + n * 40);
    if n % 5 == 4 {
        first.confidence = Decimal::new(41, 2);
    }
    reading.best = Some(first.clone());
    event
}

/// The photo of an electric car that is driven as far as budgets hold.
pub fn far(driver: u128, n: i64) -> OdometerRead {
    let mut event = photo(driver, n);
    event.stamp.vehicle_kind = "electric".to_owned();
    let reading = event.reading.as_mut().unwrap();
    let first = &mut reading.candidates[0];
    first.value = Decimal::from(50_000 + n * 800);
    reading.best = Some(first.clone());
    event
}

/// Some days' photos of so many drivers of petrol cars, and behind them of one who drives [`far`].
pub fn series(drivers: u128, days: std::ops::Range<i64>) -> Vec<OdometerRead> {
    let of_day = move |n| {
        let petrol = (1..=drivers).map(move |driver| photo(driver, n));
        petrol.chain([far(drivers + 1, n)])
    };
    days.flat_map(of_day).collect()
}

/// Whether a person has to look at a photo.
pub fn is_unsure(photo: &OdometerRead) -> bool {
    photo.reading.as_ref().unwrap().candidates[0].confidence < Decimal::new(5, 1)
}

/// What a person has decided about it.
pub fn reviewed(photo: &OdometerRead) -> OdometerRead {
    let mut record = photo.clone();
    record.header.event_id = derived(record.header.event_id, "review", 0);
    record.review = Some(Review {
        reviewer_id: UserId(Uuid::from_u128(9)),
        decided_at: Micros(photo.header.accepted_at.0 + 1),
        mileage: photo.reading.as_ref().and_then(|reading| Some(reading.best.as_ref()?.value)),
        unit: None,
        reason: None,
        notes: None,
    });
    record
}
