//! The watch over a consumer, on a thread of its own: asks the brokers where partitions end, and has a client built anew that does not
//! get on while the brokers respond to others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use tokio_util::sync::CancellationToken;

use crate::lanes::{Context, Key, Observer, Status};
use crate::probe::Probe;
use crate::watchdog::{Pulse, Remedy, Watchdog};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Statistics that are older than this do not come any more: they come every 5 s.
const SILENT: Duration = Duration::from_secs(20);
/// Between two looks at whether the watch is to end; nobody waits for its end.
const TICK: Duration = Duration::from_secs(1);

/// What consumer and watch share.
#[derive(Default)]
pub(crate) struct Watched {
    client: Mutex<Option<Arc<Context>>>,
    order: Mutex<Option<&'static str>>,
}

impl Watched {
    /// The client at present; none between two.
    pub(crate) fn client(&self) -> MutexGuard<'_, Option<Arc<Context>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the client is to be built anew, once.
    pub(crate) fn take_order(&self) -> Option<&'static str> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn order(&self, cause: &'static str) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }
}

/// Watches until `stop`.
pub(crate) fn watch(
    base: &ClientConfig,
    (group, topic): (&str, &str),
    watched: &Watched,
    observer: &dyn Observer,
    stop: &CancellationToken,
) {
    let mut probe = Probe::new(base, Some(group));
    let (mut dog, mut before) = (Watchdog::default(), HashMap::new());
    let mut born = Instant::now();
    let mut known: Option<Arc<Context>> = None;
    while !stop.is_cancelled() {
        let until = Instant::now() + LOOK_EVERY;
        while Instant::now() < until && !stop.is_cancelled() {
            std::thread::park_timeout(TICK);
        }
        let Some(client) = watched.client().clone() else { continue };
        if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &client)) {
            (born, known) = (Instant::now(), Some(client.clone()));
            before.clear();
        }
        let (now, status) = (Instant::now(), client.status());
        let ends = report_lag(&mut probe, &client, observer);
        let stands_still = stands_still(&client, &status, &before);
        let fresh = now.saturating_duration_since(status.at.unwrap_or(born)) < SILENT;
        let (pulse, cause) = match (fresh && status.is_member, stands_still) {
            (true, false) => (Pulse::Well, ""),
            (true, true) => (Pulse::Unwell, "not_fetching"),
            (false, _) => (Pulse::Unwell, "not_a_member"),
        };
        before = seen(&status, &ends);
        if dog.look(now, pulse, || probe.coordinator_responds(topic)) == Remedy::Rebuild {
            watched.order(cause);
        }
        observer.hopeless(dog.is_hopeless(now));
    }
}

/// Per partition the next offset to fetch and the end, at the look before.
type Seen = HashMap<Key, (i64, i64)>;

fn seen(status: &Status, ends: &HashMap<Key, i64>) -> Seen {
    let both = |(key, end): (&Key, &i64)| Some((key.clone(), (status.fetching.get(key)?.0, *end)));
    ends.iter().filter_map(both).collect()
}

/// Whether a partition has had records since the look before, has none waiting, and has fetched none.
fn stands_still(client: &Context, status: &Status, before: &Seen) -> bool {
    client.frontiers().iter().any(|(key, _)| match (before.get(key), status.fetching.get(key)) {
        (Some((next, end)), Some((next_now, queue_is_empty))) => {
            *queue_is_empty && next == next_now && next < end
        }
        _ => false,
    })
}

/// Asks the brokers where the client's partitions end, and reports how far behind it is.
fn report_lag(probe: &mut Probe, client: &Context, observer: &dyn Observer) -> HashMap<Key, i64> {
    let lanes = client.frontiers();
    if lanes.is_empty() {
        return HashMap::new();
    }
    let partitions: Vec<(&str, i32)> = lanes.iter().map(|((topic, at), ..)| (topic.as_ref(), *at)).collect();
    match probe.ends(&partitions) {
        Ok(ends) => {
            for (((topic, partition), frontier), end) in lanes.iter().zip(&ends) {
                observer.lag(topic, *partition, (end - frontier).max(0));
            }
            lanes.iter().map(|(key, ..)| key.clone()).zip(ends).collect()
        }
        Err(error) => {
            tracing::debug!(error = %error, "the ends of partitions are not known");
            HashMap::new()
        }
    }
}
