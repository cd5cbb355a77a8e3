//! A gateway on a schema of its own, and a client that writes bytes.

use std::io::Cursor;
use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use ingest::metrics::GatewayMetrics;
use ingest::token::issue;
use ingest::{
    Dependencies, Gateway, GatewayConfig, HeaderCheck, KeySet, PhotoStore, Role, SchemaIds, SigningKey,
    TokenSigner, serve,
};
use runtime::clock::{Clock, SystemClock};
use runtime::health::Health;
use runtime::producer::{Ack, Message, NotTaken, Outbound};
use runtime::publish::PublishError;
use runtime::stored::StoredRecord;
use runtime::testing::{MemoryOutbound, MemorySchemas};
use schemas::codec;
use schemas::events::{
    AccountChanged, ActivityLogged, BlockAdopted, BlockUndone, Event as _, OdometerRead, RewardClaimed,
    UploadReceived,
};
use schemas::ids::{Micros, UserId};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Kafka in memory, with a switch.
#[derive(Debug, Default)]
pub struct Kafka {
    memory: MemoryOutbound,
    silent: AtomicBool,
}

impl Kafka {
    /// Whether it stops taking records.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    /// Records on a topic.
    pub fn records(&self, topic: &str) -> Vec<StoredRecord> {
        self.memory.sent().into_iter().filter(|record| record.topic == topic).collect()
    }

    /// Records on `uploads.received`.
    pub fn uploads(&self) -> Vec<StoredRecord> {
        self.records("uploads.received")
    }

    /// The events on it.
    pub fn events(&self) -> Vec<UploadReceived> {
        self.uploads().iter().map(|record| decode(record.payload.as_deref().unwrap())).collect()
    }

    /// Documents for the log collections.
    pub fn documents(&self, collection: &str) -> Vec<Value> {
        let records = self.memory.sent().into_iter().filter(|record| record.topic == "activity.logs");
        let events = records.map(|record| {
            let payload = record.payload.unwrap();
            let (id, datum) = codec::unframe(&payload).unwrap();
            codec::decode::<ActivityLogged>(ActivityLogged::schema(), id, datum).unwrap()
        });
        let ours = events.filter(|event| event.collection == collection);
        ours.map(|event| serde_json::from_str(&event.document).unwrap()).collect()
    }
}

pub fn decode(bytes: &[u8]) -> UploadReceived {
    let (id, datum) = codec::unframe(bytes).unwrap();
    codec::decode(UploadReceived::schema(), id, datum).unwrap()
}

impl Outbound for Kafka {
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken> {
        if self.silent.load(Ordering::SeqCst) {
            return Err(NotTaken::Never(PublishError::Timeout("broker 10.0.0.9 is silent".into())));
        }
        self.memory.send(message, ack)
    }
}

pub const SCHEMAS: fn() -> SchemaIds = || SchemaIds {
    upload_received: MemorySchemas::id_of::<UploadReceived>(),
    activity_logged: MemorySchemas::id_of::<ActivityLogged>(),
    account_changed: MemorySchemas::id_of::<AccountChanged>(),
    reward_claimed: MemorySchemas::id_of::<RewardClaimed>(),
    odometer_read: MemorySchemas::id_of::<OdometerRead>(),
    block_adopted: MemorySchemas::id_of::<BlockAdopted>(),
    block_undone: MemorySchemas::id_of::<BlockUndone>(),
};

/// A running gateway.
pub struct Bench {
    pub gateway: Gateway,
    pub pool: PgPool,
    pub kafka: Arc<Kafka>,
    pub key: SigningKey,
    pub address: SocketAddr,
    pub folder: tempfile::TempDir,
    pub stop: CancellationToken,
    metrics: GatewayMetrics,
}

/// A pool on a new schema with every table.
pub async fn database() -> PgPool {
    let url = std::env::var("DATABASE_URL").expect("set DATABASE_URL to a PostgreSQL server (devstack does)");
    let schema = format!("ingest_{}", Uuid::now_v7().simple());
    let options = PgConnectOptions::from_str(&url).unwrap();
    let admin = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("create schema {schema}"))).execute(&admin).await.unwrap();
    admin.close().await;
    let options = options.application_name(&schema).options([("search_path", schema.as_str())]);
    let pool = PgPoolOptions::new().max_connections(12).connect_with(options).await.unwrap();
    migrations::MIGRATIONS.run(&pool).await.unwrap();
    pool
}

impl Bench {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a gateway with changed settings.
    pub async fn start_with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let kafka = Arc::new(Kafka::default());
        let mut bench = Self::start_on(kafka.clone(), change).await;
        bench.kafka = kafka;
        bench
    }

    /// The same with another producer; `kafka` stays empty.
    pub async fn start_on(outbound: Arc<dyn Outbound>, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let (pool, key) = (database().await, SigningKey::generate().unwrap());
        Self::start_beside(outbound, (pool, key, Arc::new(SystemClock)), change).await
    }

    /// Another gateway of the same deployment.
    pub async fn another(&self, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        self.another_with(Arc::new(SystemClock), change).await
    }

    /// The same with a clock of its own.
    pub async fn another_with(&self, clock: Arc<dyn Clock>, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let known = (self.pool.clone(), self.key.clone(), clock);
        let mut bench = Self::start_beside(self.kafka.clone(), known, change).await;
        bench.kafka = self.kafka.clone();
        bench
    }

    /// The same with a way of its own to the database.
    pub async fn another_by(&self, pool: PgPool) -> Self {
        let known = (pool, self.key.clone(), Arc::new(SystemClock) as Arc<dyn Clock>);
        let mut bench = Self::start_beside(self.kafka.clone(), known, |_| {}).await;
        bench.kafka = self.kafka.clone();
        bench
    }

    async fn start_beside(
        outbound: Arc<dyn Outbound>,
        (pool, key, clock): (PgPool, SigningKey, Arc<dyn Clock>),
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(folder.path()).unwrap();
        let mut config = GatewayConfig::new("http://gateway.test/");
        config.rates.uploads_per_user.requests = 1000;
        config.rates.uploads_per_user.burst = 1000;
        config.rates.uploads_per_vehicle = config.rates.uploads_per_user;
        config.timeouts.publish = Duration::from_secs(2);
        config.timeouts.poll = Duration::from_millis(20);
        // Tests sweep by hand, but for the one of the sweeper.
        config.timeouts.sweep = Duration::from_secs(86_400);
        // Few tests are about vehicles.
        config.vehicles_must_be_registered = false;
        change(&mut config);
        let metrics = GatewayMetrics::new().unwrap();
        let gateway = Gateway::new(
            config,
            Dependencies {
                pool: pool.clone(),
                outbound,
                photos: PhotoStore::open(url.as_str(), true, []).unwrap(),
                check: Arc::new(HeaderCheck),
                keys: KeySet::from_jwks(&key.jwks()).unwrap(),
                signer: TokenSigner::new(Some(key.clone())),
                clock,
                metrics: metrics.clone(),
                health: Health::default(),
                schemas: SCHEMAS(),
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, gateway.clone(), stop.clone()));
        Self { gateway, pool, kafka: Arc::default(), key, address, folder, stop, metrics }
    }

    /// What Prometheus would scrape of it.
    pub fn metrics(&self) -> String {
        self.metrics.exporter.render()
    }

    /// A token of a new driver.
    pub async fn driver(&self) -> (UserId, String) {
        let user = UserId(Uuid::now_v7());
        (user, self.token(user, SystemClock.now()).await)
    }

    /// A token that expired a minute ago.
    pub async fn old_token(&self, user: UserId) -> String {
        self.token(user, Micros(SystemClock.now().0 - 120_000_000)).await
    }

    /// A token of an hour, or of a minute where it is issued in the past.
    async fn token(&self, user: UserId, at: Micros) -> String {
        let past = at < Micros(SystemClock.now().0 - 60_000_000);
        let ttl = Duration::from_secs(if past { 60 } else { 3600 });
        issue(&self.pool, &self.key, SCHEMAS(), (user, Role::Driver), ttl, at).await.unwrap()
    }

    /// Sends a whole request and reads the response.
    pub async fn send(&self, head: &str, body: &[u8]) -> Response {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{head}\r\nhost: gateway.test\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        Response::read(stream).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nauthorization: Bearer {token}"), b"").await
    }

    /// Sends a JSON document; without a token where it is empty.
    pub async fn json(&self, method: &str, path: &str, token: &str, document: &Value) -> Response {
        let body = document.to_string();
        let bearer =
            if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        let head = format!("{method} {path} HTTP/1.1\r\n{bearer}content-length: {}", body.len());
        self.send(&head, body.as_bytes()).await
    }

    /// Posts a form.
    pub async fn post(&self, token: &str, form: &Form) -> Response {
        self.post_with(token, form, "").await
    }

    /// Posts a form with further headers, each ended by CRLF.
    pub async fn post_with(&self, token: &str, form: &Form, headers: &str) -> Response {
        let body = form.body();
        let head = format!(
            "POST /v1/uploads HTTP/1.1\r\nauthorization: Bearer {token}\r\n{headers}content-type: multipart/form-data; boundary=B\r\ncontent-length: {}",
            body.len()
        );
        self.send(&head, &body).await
    }

    /// Publishes all of the outbox.
    pub async fn relay(&self) {
        while runtime::outbox::round(&self.pool, self.kafka.as_ref(), "").await.unwrap() > 0 {}
    }

    /// Nothing is in Kafka's topic nor under a temporary key.
    pub fn assert_nothing_left(&self) {
        assert!(self.kafka.uploads().is_empty(), "nothing reaches Kafka");
        assert_eq!(self.incoming(), 0, "nothing stays in the store");
    }

    pub fn incoming(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("incoming")).unwrap().count()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// The body as it came.
    pub bytes: Vec<u8>,
}

impl Response {
    pub async fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A reset after the response is no matter.
        let _ = stream.read_to_end(&mut bytes).await;
        let end =
            bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |end| end + 4);
        let body = bytes.split_off(end);
        let head = String::from_utf8(bytes).unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let text = String::from_utf8_lossy(&body).into_owned();
        Self { status, head: head.trim_end().to_ascii_lowercase(), body: text, bytes: body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Holds that this is a problem document of a code.
    pub fn assert_problem(&self, status: u16, code: &str) -> Value {
        let json = self.json();
        assert_eq!((self.status, json["code"].as_str()), (status, Some(code)), "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        assert_eq!(json["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(json[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {json}");
        }
        json
    }
}

/// A multipart form under the boundary `B`.
#[derive(Clone, Debug, Default)]
pub struct Form(Vec<u8>);

impl Form {
    pub fn photo(bytes: &[u8]) -> Self {
        Self::default().part("photo", "; filename=\"IMG 1.jpg\"", bytes)
    }

    pub fn field(self, name: &str, value: &str) -> Self {
        self.part(name, "", value.as_bytes())
    }

    pub fn part(mut self, name: &str, extra: &str, value: &[u8]) -> Self {
        let head = format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"{extra}\r\n\r\n");
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    pub fn body(&self) -> Vec<u8> {
        [&self.0[..], b"--B--\r\n"].concat()
    }
}

/// A JPEG of 640 x 480; each `seed` gives other bytes.
pub fn jpeg(seed: u32) -> Vec<u8> {
    sized_jpeg(640, 480, seed)
}

pub fn sized_jpeg(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| {
        let mixed = (x ^ y).wrapping_mul(seed.wrapping_mul(2_654_435_761) | 1).to_le_bytes();
        Rgb([mixed[1], mixed[2], mixed[3]])
    };
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_fn(width, height, pixel).write_with_encoder(JpegEncoder::new(&mut bytes)).unwrap();
    bytes.into_inner()
}
