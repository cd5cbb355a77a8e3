//! The catalogue: every metric, its labels, its meaning, and when to act. No id, path or error text is a label.

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Bounds for work from a database round trip (1 ms) to a hard photo (10 s).
const SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Bounds for steps of a payment, from a batch's wait (1 s) to a window of validity (30 min).
const MINUTES: &[f64] = &[0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 1_800.0];

/// Every metric of a role.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Records taken from Kafka.
    pub consumed: IntCounterVec,
    /// How each record ended: `emit`, `drop`, `dead_letter`, `write`, `republish`. The sum equals `consumed` when idle.
    pub outcomes: IntCounterVec,
    /// Time of one call of the stage's own code (a batch for deciders and sinks); of a photo with its wait for a core.
    pub stage_seconds: HistogramVec,
    /// Calls repeated after a retryable error. Act when it keeps growing: a dependency is down.
    pub retries: IntCounterVec,
    /// Records behind the end of the partition. Act when it grows for 10 minutes.
    pub lag: IntGaugeVec,
    /// 1 while a partition waits for an operator (unknown record name, missing outcome). Act at once.
    pub halted: IntGaugeVec,
    /// HTTP requests by route and status.
    pub http_requests: IntCounterVec,
    /// Seconds from the request's head to the response's head.
    pub http_seconds: HistogramVec,
    /// 1 with the release as label.
    pub build: GaugeVec,
    /// Payouts by state; `quarantined` waits for a person.
    pub payouts: IntGaugeVec,
    /// 1 while nothing is signed for this cause. Act: it names what is missing (funds, VTHO, a node, a role).
    pub payout_obstacle: IntGaugeVec,
    /// `signed`, `sent`, `included`, `undone`, `confirmed`, `reverted`, `final`, `quarantined`, `abandoned`, `incident`. Act on the last.
    pub payout_steps: IntCounterVec,
    /// Seconds from the step before: `signed` (after the grant), `included` (after signing), `confirmed` (after inclusion).
    pub payout_step_seconds: HistogramVec,
    /// `taken`, `known`, `refused`, `malformed`, `unavailable`.
    pub broadcasts: IntCounterVec,
    /// `head` and `finalized`, as chain.events tells them; `watched` and `watched_finalized`, as the watcher told them. Act when the head stands still for a minute.
    pub chain_block: IntGaugeVec,
    /// Steps that the gateway took of this watcher: `adopted`, `undone`.
    pub watch_steps: IntCounterVec,
    /// 1 while the watcher's node answers as it should. Act when no node does.
    pub watch_node_up: IntGaugeVec,
    /// Unix time of the newest block that the watcher told. Act when it stands still for a minute.
    pub watch_block_timestamp: IntGaugeVec,
    /// Steps that watchers told the gateway: `accepted`, `duplicate`, `refused`. Act when the last keeps growing.
    pub chain_steps: IntCounterVec,
}

/// Name, labels and help of every metric, for the documentation and for checks of dashboards.
pub const CATALOGUE: &[(&str, &[&str], &str)] = &[
    ("milestream_records_consumed_total", &["stage", "topic"], "Records taken from Kafka"),
    ("milestream_record_outcomes_total", &["stage", "outcome", "reason"], "How each record ended"),
    ("milestream_stage_seconds", &["stage"], "Time of one call of the stage"),
    ("milestream_stage_retries_total", &["stage", "cause"], "Calls repeated after a retryable error"),
    (
        "milestream_partition_lag_records",
        &["stage", "topic", "partition"],
        "Records behind the partition's end",
    ),
    (
        "milestream_partition_halted",
        &["stage", "topic", "partition"],
        "1 while a partition waits for an operator",
    ),
    ("milestream_http_requests_total", &["route", "status"], "HTTP requests"),
    ("milestream_http_request_seconds", &["route"], "Seconds to the response's head"),
    ("milestream_build_info", &["version"], "1"),
    ("milestream_payouts", &["state"], "Payouts by state"),
    ("milestream_payout_obstacle", &["cause"], "1 while nothing is signed for this cause"),
    ("milestream_payout_steps_total", &["step"], "Steps of payouts and their transactions"),
    ("milestream_payout_step_seconds", &["step"], "Seconds from the step before to this one"),
    ("milestream_broadcasts_total", &["result"], "Posts of signed transactions to nodes"),
    ("milestream_chain_block_number", &["block"], "Height of the chain as payouts see it"),
    ("milestream_watch_steps_total", &["step"], "Steps that the gateway took of this watcher"),
    ("milestream_watch_node_up", &["node"], "1 while the node answers as it should"),
    ("milestream_watch_block_timestamp", &[], "Unix time of the newest block that was told"),
    ("milestream_chain_steps_total", &["outcome"], "Steps of the chain that watchers told the gateway"),
];

impl Metrics {
    /// Registers the catalogue.
    ///
    /// # Errors
    /// When two entries have one name; a unit test holds that they have not.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |at: usize| {
            let (name, labels, help) = CATALOGUE[at];
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let gauge = |at: usize| {
            let (name, labels, help) = CATALOGUE[at];
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let bounded = |at: usize, bounds: &[f64]| {
            let (name, labels, help) = CATALOGUE[at];
            let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            let vec = HistogramVec::new(options, labels)?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let histogram = |at: usize| bounded(at, SECONDS);
        let steps = |at: usize| bounded(at, MINUTES);
        let (name, labels, help) = CATALOGUE[8];
        let build = GaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        Ok(Self {
            consumed: counter(0)?,
            outcomes: counter(1)?,
            stage_seconds: histogram(2)?,
            retries: counter(3)?,
            lag: gauge(4)?,
            halted: gauge(5)?,
            http_requests: counter(6)?,
            http_seconds: histogram(7)?,
            build,
            payouts: gauge(9)?,
            payout_obstacle: gauge(10)?,
            payout_steps: counter(11)?,
            payout_step_seconds: steps(12)?,
            broadcasts: counter(13)?,
            chain_block: gauge(14)?,
            watch_steps: counter(15)?,
            watch_node_up: gauge(16)?,
            watch_block_timestamp: gauge(17)?,
            chain_steps: counter(18)?,
            registry,
        })
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        let mut buffer = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut buffer) {
            tracing::error!(error = %error, "metrics do not render");
        }
        String::from_utf8_lossy(&buffer).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_catalogue_is_registered_and_rendered_once_used() {
        let metrics = Metrics::new().unwrap();
        metrics.consumed.with_label_values(&["a", "b"]).inc();
        metrics.outcomes.with_label_values(&["a", "b", "c"]).inc();
        metrics.stage_seconds.with_label_values(&["a"]).observe(0.1);
        metrics.retries.with_label_values(&["a", "b"]).inc();
        metrics.lag.with_label_values(&["a", "b", "0"]).set(3);
        metrics.halted.with_label_values(&["a", "b", "0"]).set(0);
        metrics.http_requests.with_label_values(&["a", "200"]).inc();
        metrics.http_seconds.with_label_values(&["a"]).observe(0.1);
        metrics.payouts.with_label_values(&["ready"]).set(1);
        metrics.payout_obstacle.with_label_values(&["no_funds"]).set(1);
        metrics.payout_steps.with_label_values(&["signed"]).inc();
        metrics.payout_step_seconds.with_label_values(&["signed"]).observe(1.0);
        metrics.broadcasts.with_label_values(&["taken"]).inc();
        metrics.chain_block.with_label_values(&["head"]).set(1);
        metrics.watch_steps.with_label_values(&["adopted"]).inc();
        metrics.watch_node_up.with_label_values(&["0"]).set(1);
        metrics.watch_block_timestamp.with_label_values::<&str>(&[]).set(1);
        metrics.chain_steps.with_label_values(&["accepted"]).inc();
        let text = metrics.render();
        for (name, _, _) in CATALOGUE {
            assert!(text.contains(name), "{name} is missing");
        }
    }
}
