//! A role that does nothing but to have every metric of the catalogue, ever growing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use ingest::metrics::GatewayMetrics;
use processors::chain_submission::metrics::PayoutMetrics;
use processors::chain_submission::obstacle::Obstacle;
use processors::chain_submission::reconcile::{ReconcileMetrics, Report};
use runtime::health::Health;
use runtime::metrics::Metrics;
use runtime::timers::TimerMetrics;
use sinks::notices::NoticeMetrics;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use watch::metrics::WatchMetrics;

/// Every outcome that the engine counts.
const OUTCOMES: [(&str, &str); 5] = [
    ("emit", "none"),
    ("drop", "duplicate_event"),
    ("dead_letter", "bad_datum"),
    ("write", "none"),
    ("republish", "none"),
];

/// The sets of every role in one process.
struct Sets {
    engine: Metrics,
    gateway: GatewayMetrics,
    payouts: PayoutMetrics,
    watch: WatchMetrics,
    timers: TimerMetrics,
    reconcile: ReconcileMetrics,
    notices: NoticeMetrics,
}

/// Serves `/metrics` until the task is aborted.
pub async fn serve() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let engine = Metrics::new().unwrap();
    let exporter = engine.exporter.clone();
    let sets = Sets {
        gateway: GatewayMetrics::register(&exporter).unwrap(),
        payouts: PayoutMetrics::register(&exporter).unwrap(),
        watch: WatchMetrics::register(&exporter).unwrap(),
        timers: TimerMetrics::register(&exporter).unwrap(),
        reconcile: ReconcileMetrics::register(&exporter).unwrap(),
        notices: NoticeMetrics::register(&exporter).unwrap(),
        engine,
    };
    let server = warp::serve(runtime::ops::routes(Health::default(), exporter.clone())).incoming(listener);
    let task = tokio::spawn(async move {
        let grow = async {
            // A quantile needs new observations between two scrapes, which are 2 s apart.
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            loop {
                ticks.tick().await;
                sets.count_with_values_that_panels_ask_for();
                exporter.use_what_is_unused();
            }
        };
        tokio::select! { () = server.run() => {}, () = grow => {} }
    });
    (address, task)
}

impl Sets {
    /// Only what a panel asks for by a value of a label, or draws a rate or quantile of, needs a line here.
    fn count_with_values_that_panels_ask_for(&self) {
        let Self { engine, gateway, payouts, watch, timers, reconcile, notices } = self;
        for row in processors::pipeline::STAGES {
            let topic = row.inputs[0].name();
            engine.consumed.with_label_values(&[row.name, topic]).inc();
            for (outcome, reason) in OUTCOMES {
                engine.outcomes.with_label_values(&[row.name, outcome, reason]).inc();
            }
            engine.stage_seconds.with_label_values(&[row.name]).observe(0.02);
        }
        timers.seconds.with_label_values(&["review_time_out"]).observe(0.02);
        timers.runs.with_label_values(&["review_time_out", "done"]).inc();
        timers.acted.with_label_values(&["review_time_out"]).inc();
        for outcome in ["delivered", "failed", "given_up"] {
            notices.notices.with_label_values(&["email", outcome]).inc();
        }
        notices.disabled.with_label_values(&["webhook"]).inc();
        reconcile.show(&Report::default(), 1_700_000_000);
        gateway.http_requests.with_label_values(&["/v1/uploads", "202"]).inc();
        gateway.http_seconds.with_label_values(&["/v1/uploads"]).observe(0.02);
        for state in ["waiting", "ready", "in_flight", "quarantined"] {
            payouts.payouts.with_label_values(&[state]).set(1);
        }
        for cause in Obstacle::LABELS {
            payouts.payout_obstacle.with_label_values(&[cause]).set(0);
        }
        for step in ["signed", "sent", "included", "confirmed", "final", "incident"] {
            payouts.payout_steps.with_label_values(&[step]).inc();
            payouts.payout_step_seconds.with_label_values(&[step]).observe(20.0);
        }
        for (block, number) in [("watched", 400), ("head", 399), ("finalized", 20)] {
            watch.chain_block.with_label_values(&[block]).set(number);
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        watch.block_timestamp.with_label_values(&[]).set(now.try_into().unwrap());
    }
}
