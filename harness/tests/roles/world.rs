//! Roles of a test's own on the shared parts: own topics, own database, own log database, own photos.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use devstack::{Part, Stack};
use harness::client::{Client, Photo, Posted, UploadView};
use harness::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, open_rates, sibling_binary};
use harness::local_chain::{LocalChain, wallet_of};
use harness::payments::{self, Paid};
use harness::photos::with_comment;
use harness::scenario::{Sample, Scenario, driver_id, vehicle_id};
use harness::topics::lag;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::registry::{Registry, RegistryConfig, SchemaSource as _, subject};
use runtime::snapshot;
use schemas::codec;
use schemas::events::{Event, registry_subjects};
use schemas::topic::Topic;
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Longest wait for anything; a role starts in two seconds and a photo takes under one.
const LIMIT: Duration = Duration::from_secs(300);

/// What the driver's requests are made with.
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// One world at a time: six processes each are enough for two cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub struct World {
    _turn: MutexGuard<'static, ()>,
    pub kafka: ClientConfig,
    pub deployment: Deployment,
    prefix: String,
    client: Client,
    user: Uuid,
    token: String,
    runtime: Runtime,
    database: String,
    registry: Registry,
    /// Schemas that this world registered, by subject and text.
    ids: RefCell<HashMap<(String, String), u32>>,
    producer: FutureProducer,
    /// None in a world that pays nothing.
    chain: Option<LocalChain>,
    // Kept until the end: the parts that the environment does not name are its own.
    stack: Stack,
}

impl World {
    /// Roles up to the granted reward.
    pub fn start(name: &str, roles: &[RoleSpec], registry: Option<&str>) -> Self {
        let settings = registry.map(|registry| ("SCHEMA_REGISTRY_URL", registry));
        Self::start_on(name, roles, settings.as_slice(), &[])
    }

    /// Every role, with contracts of its own on the node: the driver has a wallet and is paid.
    pub fn start_paying(name: &str) -> Self {
        Self::start_paying_with(name, &[])
    }

    /// The same with further settings.
    pub fn start_paying_with(name: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_on(name, &RoleSpec::every_role(), settings, &[Part::Thor])
    }

    fn start_on(name: &str, roles: &[RoleSpec], more_settings: &[(&str, &str)], more: &[Part]) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local");
        let stack = Stack::start_with(&root, more, &|line| eprintln!("{line}")).unwrap();
        let unique = format!("{name}-{}", Uuid::now_v7().simple());
        let logs = stack.logs().join(name);
        let folder = make_folder(&stack.folder().join(&unique)).unwrap();
        let database = unique.replace('-', "_");
        let url = runtime.block_on(own_database(stack.database_url(), &database));
        let prefix = format!("{unique}.");
        let mut settings = open_rates();
        settings.push(("DATABASE_URL".into(), url.clone()));
        settings.push(("MILESTREAM_MONGODB__DATABASE".into(), database));
        settings.push(("MILESTREAM_KAFKA__TOPIC_PREFIX".into(), prefix.clone()));
        settings.extend(more_settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let chain = more.contains(&Part::Thor).then(|| {
            let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contracts");
            runtime.block_on(LocalChain::deploy(&stack, &work, &folder)).unwrap()
        });
        settings.extend(chain.iter().flat_map(LocalChain::settings));
        let program = sibling_binary("milestream").unwrap();
        let mut deployment =
            Deployment::prepare(&stack, DeploymentConfig { program, folder, logs, settings }).unwrap();
        let user = driver_id(&unique);
        if let Some(chain) = &chain {
            chain.register(&deployment).unwrap();
            let (id, address) = (user.to_string(), wallet_of(user).to_string());
            deployment.command(&["wallet", "add", "--user", &id, "--address", &address]).unwrap();
        }
        for role in roles {
            deployment.start(role.clone()).unwrap();
        }
        deployment.wait_ready().unwrap();
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", stack.kafka_brokers());
        let producer = kafka.create().unwrap();
        let registry = Registry::new(&RegistryConfig::open(stack.schema_registry_url())).unwrap();
        let client = Client::new(&deployment.gateway_url()).unwrap();
        let token = deployment.token(user).unwrap();
        Self {
            _turn: turn,
            kafka,
            deployment,
            prefix,
            client,
            user,
            token,
            runtime,
            database: url,
            registry,
            ids: RefCell::default(),
            producer,
            chain,
            stack,
        }
    }

    pub fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// Schema id of the record type on a topic.
    pub fn schema_id(&self, topic: Topic) -> u32 {
        let (_, name, text) = registry_subjects().into_iter().find(|(on, ..)| *on == topic).unwrap();
        let subject = subject(&self.prefix, topic, name);
        self.register_under(subject, text)
    }

    /// The id of a schema of a record type; the registry takes it only under the topic's rule.
    pub fn register<E: Event>(&self, schema: &str) -> u32 {
        self.register_under(subject(&self.prefix, E::TOPIC, E::NAME), schema)
    }

    fn register_under(&self, subject: String, schema: &str) -> u32 {
        let key = (subject, schema.to_owned());
        if let Some(id) = self.ids.borrow().get(&key) {
            return *id;
        }
        let id = self.runtime.block_on(self.registry.register(&key.0, schema)).unwrap();
        self.ids.borrow_mut().insert(key, id);
        id
    }

    /// Every record of a type on its topic, in whichever release's schema.
    pub fn records<E: Event>(&self) -> Vec<E> {
        let records = snapshot::read(&self.kafka, &self.topic(E::TOPIC)).unwrap();
        let schemas = |id| self.runtime.block_on(self.registry.schema(id)).unwrap();
        let decoded = records.iter().filter_map(|record| {
            let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
            let schema = schemas(id);
            (schema.name() == E::NAME).then(|| codec::decode(&schema, id, datum).unwrap())
        });
        decoded.collect()
    }

    /// A role's consumer group.
    pub fn group(&self, role: &str) -> String {
        format!("{}{role}", self.prefix)
    }

    /// Writes bytes to a topic; returns their offset.
    pub fn produce(
        &self,
        topic: Topic,
        partition: i32,
        key: &[u8],
        payload: &[u8],
        headers: &[(&str, Option<&str>)],
    ) -> i64 {
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: *value });
        }
        let name = self.topic(topic);
        let record = FutureRecord::to(&name).partition(partition).key(key).payload(payload).headers(owned);
        self.runtime.block_on(self.producer.send(record, LIMIT)).unwrap().offset
    }

    /// Posts a photo that is read with certainty, with bytes of its own.
    pub fn post_sample(&mut self) -> Uuid {
        self.post_claimed(None)
    }

    /// The same with a mileage that the driver typed.
    pub fn post_claimed(&mut self, claimed: Option<&str>) -> Uuid {
        self.post_named("", claimed)
    }

    /// The same under a file's name; the sample's own where it is empty.
    pub fn post_named(&mut self, name: &str, claimed: Option<&str>) -> Uuid {
        let mut photo = unique_sample();
        photo.claimed_mileage = claimed.map(str::to_owned);
        if !name.is_empty() {
            name.clone_into(&mut photo.file_name);
        }
        self.post(&photo)
    }

    /// Posts a photo that is accepted.
    pub fn post(&self, photo: &Photo) -> Uuid {
        match self.runtime.block_on(self.client.post(&self.token, photo)).unwrap() {
            Posted::Accepted { upload_id, .. } => upload_id,
            Posted::Refused { status, code, detail } => {
                panic!("{}: refused with {status} {code}: {detail}", photo.file_name)
            }
        }
    }

    /// Posts a photo that is refused: status and code.
    pub fn refused_sample(&self) -> (u16, String) {
        self.refused(&unique_sample())
    }

    /// The same of this photo.
    pub fn refused(&self, photo: &Photo) -> (u16, String) {
        match self.runtime.block_on(self.client.post(&self.token, photo)).unwrap() {
            Posted::Accepted { upload_id, .. } => panic!("{upload_id} was accepted"),
            Posted::Refused { status, code, .. } => (status, code),
        }
    }

    /// Posts three photos of one vehicle in the order in which they were taken, of which the second and third earn.
    pub fn post_series(&mut self) -> Vec<Uuid> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos");
        // Not of the vehicle whose photo `post_sample` takes.
        let series = Scenario::read(&folder).unwrap().series(&folder, 3).unwrap().swap_remove(1);
        let vehicle = vehicle_id(&format!("{}/earns", self.user));
        let posted = (0_i64..).zip(&series).map(|(turn, bytes)| {
            let captured = chrono::Utc::now() - chrono::Duration::days(9 - turn);
            let photo = Photo {
                file_name: "series.jpg".into(),
                bytes: with_comment(bytes, &Uuid::now_v7().to_string()).unwrap(),
                vehicle_id: Some(vehicle),
                captured_at: Some(captured.to_rfc3339()),
                ..Photo::default()
            };
            self.post(&photo)
        });
        posted.collect()
    }

    /// A folder that goes with the stack.
    pub fn folder(&self) -> &Path {
        self.stack.folder()
    }

    /// The driver.
    pub fn user(&self) -> Uuid {
        self.user
    }

    /// A request of the driver's: status and body.
    pub fn http(&self, method: &str, path: &str, body: Option<&serde_json::Value>) -> (u16, String) {
        self.http_as(&self.token, method, path, body)
    }

    /// The same of whoever has a token.
    pub fn http_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> (u16, String) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}{path}", self.deployment.gateway_url());
        let mut request =
            reqwest::Client::new().request(method, url).bearer_auth(token).header("user-agent", AGENT);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    }

    /// The first column of a query's rows, which is a text.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.database).await.unwrap();
            let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()));
            rows.fetch_all(&mut connection).await.unwrap()
        })
    }

    /// Runs a statement.
    pub fn execute(&self, sql: &'static str) {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.database).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        });
    }

    /// The server of the log database, and the database's name.
    pub fn mongodb(&self) -> (String, String) {
        let name = self.database.rsplit('/').next().unwrap().split('?').next().unwrap();
        (self.stack.mongodb_uri().to_owned(), name.to_owned())
    }

    /// Waits for what comes of it.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn view(&self, id: Uuid) -> Option<UploadView> {
        self.runtime.block_on(self.client.upload(&self.token, id)).unwrap()
    }

    /// What waits for a person, as a reviewer sees it.
    pub fn waiting(&self, token: &str) -> Vec<Uuid> {
        self.runtime
            .block_on(self.client.reviews(token))
            .unwrap()
            .into_iter()
            .map(|item| item.upload_id)
            .collect()
    }

    /// The status of a reviewer's decision.
    pub fn decide(&self, token: &str, upload: Uuid, decision: &serde_json::Value) -> u16 {
        self.runtime.block_on(self.client.decide(token, upload, decision)).unwrap()
    }

    /// What the node's own logs say was paid by this world's app.
    pub fn paid(&self) -> Vec<Paid> {
        let chain = self.chain.as_ref().unwrap();
        let contracts = chain.contracts();
        let node = chain.node().unwrap();
        self.runtime.block_on(payments::on_chain(&node, contracts.rewards_pool, contracts.app_id)).unwrap()
    }

    /// Every way in which the tables say otherwise than the node's logs.
    pub fn payment_differences(&self) -> Vec<String> {
        let paid = self.paid();
        self.runtime.block_on(async {
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1);
            let pool = pool.connect(&self.database).await.unwrap();
            payments::differences(&pool, &paid).await.unwrap()
        })
    }

    /// A photo posted and decided.
    pub fn decided_upload(&mut self) -> UploadView {
        let id = self.post_sample();
        self.until("a verdict", |world| world.view(id).filter(|view| view.verdict.is_some()))
    }

    pub fn until<T>(&mut self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let until = Instant::now() + LIMIT;
        loop {
            self.deployment.tend().unwrap();
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < until, "waited {LIMIT:?} for {what}:\n{}", self.standing());
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// What each reader has still to consume, and how each role's log ends.
    fn standing(&self) -> String {
        let behind = crate::READERS.iter().map(|(role, topic)| {
            let left = lag(&self.kafka, &self.group(role), &self.topic(*topic));
            format!("{role} has {left:?} records of {} to consume", topic.name())
        });
        let roles = self.deployment.roles();
        let logs = roles.iter().map(|(role, ..)| format!("{role}:\n{}", self.deployment.log_tail(role)));
        behind.chain(logs).collect::<Vec<_>>().join("\n")
    }

    pub fn finish(self) {
        assert!(!self.user.is_nil());
        self.deployment.stop();
        self.stack.stop();
    }
}

/// A photo that is read with certainty, with bytes of its own.
fn unique_sample() -> Photo {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos");
    let photo = readable(&folder).photo(&folder, chrono::Utc::now()).unwrap();
    let bytes = with_comment(&photo.bytes, &Uuid::now_v7().to_string()).unwrap();
    Photo { bytes, vehicle_id: None, captured_at: None, ..photo }
}

fn readable(folder: &Path) -> Sample {
    let scenario = Scenario::read(folder).unwrap();
    scenario.verified_jpegs().next().expect("a verified JPEG in the scenario").clone()
}

async fn own_database(url: &str, name: &str) -> String {
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect(url).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&pool).await.unwrap();
    let mut url = url::Url::parse(url).unwrap();
    url.set_path(name);
    url.to_string()
}
