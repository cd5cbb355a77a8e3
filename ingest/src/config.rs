//! Settings of the gateway: caps, timeouts and rates, each with its arithmetic.

use std::time::Duration;

use chain::node::Node;
use secrecy::SecretString;

pub use crate::auth::address::{ForwardedBy, Proxies, ProxyError};
pub use crate::auth::rates::{LIMITS, Limit, Rate, Rates};
pub use crate::login::development::{DevelopmentWallet, WalletsError};

/// One mebibyte.
const MIB: u64 = 1024 * 1024;

/// Settings of the gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where clients reach the gateway, without a slash at the end; `status_url` and `events_url` begin with it.
    pub base_url: String,
    /// The environment's prefix of topic names; often empty.
    pub topic_prefix: String,
    /// The rules in force, stamped into every event.
    pub rules_version: String,
    /// Sizes and counts.
    pub limits: Limits,
    /// Times.
    pub timeouts: Timeouts,
    /// Requests in time, where `system_config.rate_limits` does not say otherwise.
    pub rates: Rates,
    /// Proxies that are believed; the address of any other peer is the peer's own.
    pub trusted_proxies: Proxies,
    /// Whether each connection begins with a PROXY header of one of those proxies; all others are closed.
    pub proxy_protocol: bool,
    /// Origins whose pages may read the gateway's responses (`https://app.example`); its own need not be named.
    pub cors_origins: Vec<String>,
    /// Who decides what is in doubt.
    pub reviews: ReviewRules,
    /// Whether the stream of a verified upload stays open until its reward is paid; false ends it at the verdict.
    pub follow_rewards: bool,
    /// Who may report steps of the chain; none where no chain is watched.
    pub chain: Option<ChainAccess>,
    /// Whether a photo may name only a vehicle that its owner has registered; otherwise the first photo of a vehicle registers it.
    pub vehicles_must_be_registered: bool,
    /// Wallets that the gateway signs for, for whoever asks: on a developer's machine alone. [`crate::Gateway`] has none on mainnet.
    pub development_wallets: Vec<DevelopmentWallet>,
    /// The node that is asked about wallets that are contracts (EIP-1271); none where only keys sign.
    pub contract_wallets: Option<Node>,
    /// From a person's asking to be erased until it is done; they may take it back.
    pub erasure_grace: Duration,
    /// From a person's asking for another wallet to be paid to until it is; they may take it back.
    pub wallet_cooling: Duration,
}

/// How the watcher of a chain is known.
#[derive(Clone, Debug)]
pub struct ChainAccess {
    /// The network that is watched.
    pub genesis_id: String,
    /// Shared with the watcher.
    pub secret: SecretString,
}

impl GatewayConfig {
    /// The defaults under a base URL.
    #[must_use]
    pub fn new(base_url: &str) -> Self {
        Self {
            base_url: base_url.trim_end_matches('/').to_owned(),
            topic_prefix: String::new(),
            rules_version: "1".to_owned(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            rates: Rates::default(),
            trusted_proxies: Proxies::default(),
            proxy_protocol: false,
            cors_origins: Vec::new(),
            reviews: ReviewRules::default(),
            follow_rewards: true,
            chain: None,
            vehicles_must_be_registered: true,
            development_wallets: Vec::new(),
            contract_wallets: None,
            erasure_grace: Duration::from_secs(14 * 86_400),
            wallet_cooling: Duration::from_secs(86_400),
        }
    }
}

/// Who decides what is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReviewRules {
    /// How long an item is the person's who has claimed it: far longer than the hardest photo takes, and no long wait for the next person.
    pub claim: Duration,
    /// Kilometres since the vehicle's last verified reading beyond which nobody approves alone. 1,000 km are two weeks of a commuter, and
    /// 10 B3TR at the first tariff: the gateway does not know rewards, which follow from the distance.
    pub second_person_above_km: u32,
}

impl Default for ReviewRules {
    fn default() -> Self {
        Self { claim: Duration::from_secs(600), second_person_above_km: 1_000 }
    }
}

/// Sizes and counts. Memory of a full gateway: 1,024 connections x 64 KiB read buffer = 64 MiB, 256 MiB of bodies in memory with up to
/// 1 MiB of multipart look-ahead each, 4 batches x (8 MiB body + its parsed form of about twice that) = 96 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a photo. 16 MiB: twice the largest JPEG of a 50-megapixel phone.
    pub photo_bytes: u64,
    /// Bytes of any other form field. 1 KiB: four times the longest sensible value.
    pub field_bytes: usize,
    /// Bytes of a form around the photo: five fields and their headers.
    pub form_overhead_bytes: u64,
    /// Open connections; more wait in the listener's backlog.
    pub connections: usize,
    /// Bytes of uploads in memory, from the first byte of a body until its photo is kept; each counts with the length that it announces,
    /// or with the longest. 16 of the longest photos, or 2,300 of 116 kB; those that come after wait.
    pub upload_memory_bytes: u64,
    /// Open event streams of a user: every upload that one has in work, on two devices. Nobody can take all of them.
    pub streams_per_user: usize,
    /// Share of [`Self::upload_memory_bytes`] that a user's bodies may take together, in hundredths.
    pub upload_memory_percent_per_user: u64,
    /// Open event streams. 256 x 2 polls a second = 512 reads of three keys a second at most.
    pub streams: usize,
    /// Exports in the making. Each keeps one core busy at 50 MB a second of photos, and has about 256 KiB and 200 rows in memory.
    pub exports: usize,
    /// Bytes of a batch of chain events. 8 MiB: 64 blocks full of payments stay below 4 MiB.
    pub chain_bytes: u64,
    /// Batches of chain events being read and stored, of those whose head is signed: the watcher sends one at a time, and a second watcher
    /// may run. As many again for those whose head is not.
    pub batches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            photo_bytes: 16 * MIB,
            field_bytes: 1024,
            form_overhead_bytes: MIB / 16,
            connections: 1024,
            upload_memory_bytes: 16 * 16 * MIB,
            streams: 256,
            exports: 2,
            streams_per_user: 8,
            upload_memory_percent_per_user: 25,
            chain_bytes: 8 * MIB,
            batches: 2,
        }
    }
}

/// Times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request's head to its end; from the beginning of a connection to the end of its first head.
    pub header: Duration,
    /// From the end of a response to the next request of the connection, at least [`Self::header`]. Longer than a proxy keeps idle
    /// connections (60 s at nginx and AWS), so that it is the proxy that closes them: one closed here may just have been given a request.
    pub keep_alive: Duration,
    /// Longest silence inside a body.
    pub body_idle: Duration,
    /// A whole body. 16 MiB in 120 s is 1.1 Mbit/s, a poor mobile uplink.
    pub body_total: Duration,
    /// Longest time in which a client takes nothing of a response.
    pub write_stall: Duration,
    /// A whole batch of chain events. Places are few, so that it is short: 8 MiB in 15 s is 4.5 Mbit/s.
    pub batch: Duration,
    /// Longest wait for Kafka's acknowledgement; the producer's own `message.timeout.ms` should not be above it.
    pub publish: Duration,
    /// How long the rest of a refused body is read and thrown away, so that the client sees the response.
    pub drain: Duration,
    /// Longest wait for a free place or for memory before 503.
    pub place: Duration,
    /// Time between two rounds of the sweeper.
    pub sweep: Duration,
    /// A reservation that stays unpublished for longer, while the producer publishes nothing, takes the gateway's readiness. Three times
    /// the age at which the sweeper takes it up.
    pub unpublished: Duration,
    /// Time between two looks at the tables for an event stream.
    pub poll: Duration,
    /// An event stream ends after this time; the client resumes with `Last-Event-ID`.
    pub stream: Duration,
    /// Time for open requests to end when the gateway stops.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body_idle: Duration::from_secs(15),
            body_total: Duration::from_secs(120),
            batch: Duration::from_secs(15),
            write_stall: Duration::from_secs(30),
            publish: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            place: Duration::from_secs(5),
            sweep: Duration::from_secs(5),
            unpublished: Duration::from_secs(60),
            poll: Duration::from_millis(500),
            stream: Duration::from_secs(600),
            shutdown: Duration::from_secs(20),
        }
    }
}
