//! A role that does nothing but to have every metric of the catalogue, ever growing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use processors::chain_submission::obstacle::Obstacle;
use runtime::health::Health;
use runtime::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Every outcome that the engine counts.
const OUTCOMES: [(&str, &str); 5] = [
    ("emit", "none"),
    ("drop", "duplicate_event"),
    ("dead_letter", "bad_datum"),
    ("write", "none"),
    ("republish", "none"),
];

/// Serves `/metrics` until the task is aborted.
pub async fn serve() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Metrics::new().unwrap();
    let server = warp::serve(runtime::ops::routes(Health::default(), metrics.clone())).incoming(listener);
    let task = tokio::spawn(async move {
        let grow = async {
            // A quantile needs new observations between two scrapes, which are 2 s apart.
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            loop {
                ticks.tick().await;
                use_every_metric(&metrics);
            }
        };
        tokio::select! { () = server.run() => {}, () = grow => {} }
    });
    (address, task)
}

fn use_every_metric(metrics: &Metrics) {
    for row in processors::pipeline::STAGES {
        let topic = row.inputs[0].name();
        metrics.consumed.with_label_values(&[row.name, topic]).inc();
        for (outcome, reason) in OUTCOMES {
            metrics.outcomes.with_label_values(&[row.name, outcome, reason]).inc();
        }
        metrics.stage_seconds.with_label_values(&[row.name]).observe(0.02);
        metrics.retries.with_label_values(&[row.name, "postgres"]).inc();
        metrics.lag.with_label_values(&[row.name, topic, "0"]).set(3);
        metrics.halted.with_label_values(&[row.name, topic, "0"]).set(0);
    }
    use_payments(metrics);
    metrics.http_requests.with_label_values(&["/v1/uploads", "202"]).inc();
    metrics.http_seconds.with_label_values(&["/v1/uploads"]).observe(0.02);
}

fn use_payments(metrics: &Metrics) {
    for state in ["waiting", "ready", "in_flight", "quarantined"] {
        metrics.payouts.with_label_values(&[state]).set(1);
    }
    for cause in Obstacle::LABELS {
        metrics.payout_obstacle.with_label_values(&[cause]).set(0);
    }
    for step in ["signed", "sent", "included", "confirmed", "final", "incident"] {
        metrics.payout_steps.with_label_values(&[step]).inc();
        metrics.payout_step_seconds.with_label_values(&[step]).observe(20.0);
    }
    metrics.broadcasts.with_label_values(&["taken"]).inc();
    for (block, number) in [("watched", 400), ("head", 399), ("finalized", 20)] {
        metrics.chain_block.with_label_values(&[block]).set(number);
    }
    metrics.watch_steps.with_label_values(&["adopted"]).inc();
    metrics.watch_node_up.with_label_values(&["0"]).set(1);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    metrics.watch_block_timestamp.with_label_values::<&str>(&[]).set(now.try_into().unwrap());
    metrics.chain_steps.with_label_values(&["accepted"]).inc();
}
