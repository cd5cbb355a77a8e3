//! The Kafka producer: idempotent, acks=all, bounded. A client that has failed for good or is frozen is built anew, and what it had not
//! delivered is sent again by its successor, in order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig};

pub use crate::outbound::{Ack, DeliveryTimeout, Message, NotTaken, Outbound, send, send_and_wait};
use crate::polled::Polled;
use crate::probe::{Probe, drop_aside};
use crate::publish::{Delivered, PublishError};
use crate::stored::StoredRecord;
use crate::watchdog::{Pulse, Remedy, Watchdog};

/// Between two looks of the watch.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the records of a client that is given up: they come back at once, unless it hangs.
const SALVAGE: Duration = Duration::from_secs(5);

/// What a producer reports of itself.
pub trait ProducerObserver: Send + Sync + 'static {
    /// The client was built anew, because of `cause`.
    fn rebuilt(&self, cause: &'static str);
    /// Whether building it anew has not helped.
    fn hopeless(&self, is_hopeless: bool);
}

/// Nobody to report to: a command's producer.
impl ProducerObserver for () {
    fn rebuilt(&self, _: &'static str) {}
    fn hopeless(&self, _: bool) {}
}

/// librdkafka behind [`Outbound`].
pub struct KafkaProducer(Arc<Shared>);

type Client = Polled<Delivery>;

struct Shared {
    config: ClientConfig,
    /// None while it is being built anew.
    client: RwLock<Option<Client>>,
    sent: AtomicU64,
    delivered: Arc<AtomicU64>,
    /// Deliveries that failed and might work with another client.
    failed: AtomicU64,
    /// The client has failed for good.
    is_broken: AtomicBool,
    /// The producer is dropped: nothing is sent any more.
    is_closed: AtomicBool,
    /// What a client that is given up had not delivered.
    salvaged: Mutex<Vec<(Pending, StoredRecord)>>,
}

/// A record on its way: its number in the order of sending, and who waits for it.
struct Pending {
    number: u64,
    ack: Ack,
}

struct Delivery {
    shared: Weak<Shared>,
    /// Beside the rest, so that a delivery costs one addition.
    delivered: Arc<AtomicU64>,
}

impl ClientContext for Delivery {}

impl ProducerContext for Delivery {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        match result {
            Ok(message) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                pending
                    .ack
                    .settle(Ok(Delivered { partition: message.partition(), offset: message.offset() }));
            }
            Err((error, message)) => self.failed(error, message, *pending),
        }
    }
}

impl Delivery {
    fn failed(&self, error: &KafkaError, message: &BorrowedMessage<'_>, pending: Pending) {
        let error = publish_error(error);
        let open = self.shared.upgrade().filter(|shared| !shared.is_closed.load(Ordering::SeqCst));
        let Some(shared) = open else { return pending.ack.settle(Err(error)) };
        match error {
            PublishError::Fatal(_) => shared.salvage(pending, stored(message)),
            PublishError::Timeout(_) => {
                shared.failed.fetch_add(1, Ordering::Relaxed);
                pending.ack.settle(Err(error));
            }
            PublishError::Refused(_) | PublishError::Denied(_) => pending.ack.settle(Err(error)),
        }
    }
}

fn stored(message: &BorrowedMessage<'_>) -> StoredRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    StoredRecord {
        topic: message.topic().to_owned(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

fn publish_error(error: &KafkaError) -> PublishError {
    use RDKafkaErrorCode as Code;
    let text = error.to_string();
    match error.rdkafka_error_code() {
        Some(
            Code::MessageSizeTooLarge | Code::InvalidMessage | Code::InvalidMessageSize | Code::InvalidRecord,
        ) => PublishError::Refused(text),
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication,
        ) => PublishError::Denied(text),
        // The client was given up, or an idempotent producer's sequence is broken: only another client can send it.
        Some(
            Code::Fatal
            | Code::PurgeQueue
            | Code::PurgeInflight
            | Code::OutOfOrderSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
            | Code::ProducerFenced,
        ) => PublishError::Fatal(text),
        // Brokers away, no leader, too few replicas, a topic that is not there yet.
        _ => PublishError::Timeout(text),
    }
}

impl KafkaProducer {
    /// Connects (lazily) to the cluster that `base` names.
    ///
    /// # Errors
    /// [`PublishError::Fatal`] for settings that librdkafka refuses.
    pub fn new(base: &ClientConfig, timeout: DeliveryTimeout) -> Result<Self, PublishError> {
        Self::observed(base, timeout, Arc::new(()))
    }

    /// The same, reporting to `observer`.
    ///
    /// # Errors
    /// [`PublishError::Fatal`] for settings that librdkafka refuses.
    pub fn observed(
        base: &ClientConfig,
        timeout: DeliveryTimeout,
        observer: Arc<dyn ProducerObserver>,
    ) -> Result<Self, PublishError> {
        let shared = Arc::new(Shared {
            config: client_config(base, timeout),
            client: RwLock::new(None),
            sent: AtomicU64::new(0),
            delivered: Arc::default(),
            failed: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            salvaged: Mutex::default(),
        });
        let fatal = |error: String| PublishError::Fatal(error);
        let client = shared.create().map_err(|error| fatal(error.to_string()))?;
        shared.install(client);
        let (watched, base) = (Arc::downgrade(&shared), base.clone());
        std::thread::Builder::new()
            .name("watch-producer".to_owned())
            .spawn(move || watch(&watched, &base, observer.as_ref()))
            .map_err(|error| fatal(error.to_string()))?;
        Ok(Self(shared))
    }

    /// Waits for outstanding acknowledgements, at most `limit`. Blocks the thread.
    pub fn flush(&self, limit: Duration) {
        let client = self.0.client.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = client.as_ref().map(|client| client.flush(limit)) {
            tracing::warn!(error = %error, "records were not acknowledged before the end; they are not lost: their offsets did not move");
        }
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
        // Here, and never on the client's own thread, which an acknowledgement could be on.
        drop(self.0.client.write().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn client_config(base: &ClientConfig, timeout: DeliveryTimeout) -> ClientConfig {
    let timeout_ms = match timeout {
        DeliveryTimeout::Unlimited => 0,
        DeliveryTimeout::After(limit) => limit.as_millis(),
    };
    let mut config = base.clone();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // The clients of every language agree on this one; librdkafka's default differs.
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", timeout_ms.to_string())
        // 5 ms gather a batch under load and cost one upload nothing a person could see.
        .set("linger.ms", "5")
        // The quickest level: with a few dozen records a batch the tables of the default one cost more than they save.
        .set("compression.type", "zstd")
        .set("compression.level", "1")
        // 16 MiB: about 10,000 events of 1.5 kB, a second of the fastest stage.
        .set("queue.buffering.max.kbytes", "16384")
        .set("queue.buffering.max.messages", "20000");
    config
}

impl Shared {
    fn create(self: &Arc<Self>) -> Result<Client, KafkaError> {
        let (shared, delivered) = (Arc::downgrade(self), self.delivered.clone());
        Polled::start(&self.config, Delivery { shared, delivered })
    }

    fn install(&self, client: Client) {
        let mut place = self.client.write().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed.load(Ordering::SeqCst) {
            drop_aside(client);
        } else {
            *place = Some(client);
        }
    }

    fn salvage(&self, pending: Pending, record: StoredRecord) {
        self.is_broken.store(true, Ordering::SeqCst);
        self.lock_salvaged().push((pending, record));
    }

    fn lock_salvaged(&self) -> MutexGuard<'_, Vec<(Pending, StoredRecord)>> {
        self.salvaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_flight(&self) -> bool {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        client.as_ref().is_some_and(|client| client.in_flight_count() > 0)
    }

    /// Replaces the client: senders wait meanwhile, so that what the old one had not delivered keeps its place.
    fn rebuild(self: &Arc<Self>) {
        let old = self.client.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(old) = old {
            old.purge(PurgeConfig::default().queue().inflight());
            let until = Instant::now() + SALVAGE;
            while old.in_flight_count() > 0 && Instant::now() < until {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            drop_aside(old);
        }
        self.is_broken.store(false, Ordering::SeqCst);
        match self.create() {
            Ok(client) => {
                self.resend(&client);
                self.install(client);
            }
            // Out of threads or memory: the next look tries again.
            Err(error) => {
                tracing::error!(error = %error, "a kafka producer cannot be made");
                self.is_broken.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Sends what was salvaged, in the order in which it was sent at first. A record that had arrived all the same is on its topic twice,
    /// under one event id.
    fn resend(&self, client: &Client) {
        let mut salvaged = std::mem::take(&mut *self.lock_salvaged());
        salvaged.sort_by_key(|(pending, _)| pending.number);
        for (pending, record) in salvaged {
            let headers = record.header_refs();
            match hand_over(client, &record.message(&headers), Box::new(pending)) {
                Ok(()) => {}
                // The queues of both clients have one size: this does not happen to any number of records.
                Err((error, pending)) => pending.ack.settle(Err(PublishError::Timeout(error.to_string()))),
            }
        }
    }
}

fn hand_over(
    client: &Client,
    message: &Message<'_>,
    pending: Box<Pending>,
) -> Result<(), (KafkaError, Box<Pending>)> {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
    for (key, value) in message.headers {
        headers = headers.insert(Header { key, value: *value });
    }
    let mut record: BaseRecord<'_, [u8], [u8], Box<Pending>> =
        BaseRecord::with_opaque_to(message.topic, pending).headers(headers);
    record.key = message.key;
    record.payload = message.payload;
    client.send(record).map_err(|(error, record)| (error, record.delivery_opaque))
}

impl Outbound for KafkaProducer {
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken> {
        let client = self.0.client.read().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = client.as_ref() else { return Err(NotTaken::Full(ack)) };
        let number = self.0.sent.fetch_add(1, Ordering::Relaxed);
        hand_over(client, message, Box::new(Pending { number, ack })).map_err(|(error, pending)| {
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                return NotTaken::Full(pending.ack);
            }
            match publish_error(&error) {
                PublishError::Fatal(_) => {
                    self.0.is_broken.store(true, Ordering::SeqCst);
                    NotTaken::Full(pending.ack)
                }
                error => NotTaken::Never(error),
            }
        })
    }
}

/// Watches until the producer is dropped.
fn watch(producer: &Weak<Shared>, base: &ClientConfig, observer: &dyn ProducerObserver) {
    let mut probe = Probe::new(base, None);
    let mut dog = Watchdog::default();
    let (mut delivered, mut failed) = (0, 0);
    loop {
        std::thread::park_timeout(LOOK_EVERY);
        let Some(shared) = producer.upgrade() else { return };
        let now = Instant::now();
        let (delivered_now, failed_now) =
            (shared.delivered.load(Ordering::Relaxed), shared.failed.load(Ordering::Relaxed));
        let pulse = match (delivered_now != delivered, shared.in_flight() || failed_now != failed) {
            (true, _) => Pulse::Well,
            (false, true) => Pulse::Unwell,
            (false, false) => Pulse::Idle,
        };
        if pulse == Pulse::Well {
            (delivered, failed) = (delivered_now, failed_now);
        }
        let is_broken = shared.is_broken.load(Ordering::SeqCst);
        let is_frozen = dog.look(now, pulse, || probe.brokers_respond()) == Remedy::Rebuild;
        if is_broken || is_frozen {
            let cause = if is_broken { "fatal" } else { "frozen" };
            tracing::warn!(cause, "the producer is built anew");
            shared.rebuild();
            failed = failed_now;
            observer.rebuilt(cause);
        }
        observer.hopeless(dog.is_hopeless(now));
    }
}
