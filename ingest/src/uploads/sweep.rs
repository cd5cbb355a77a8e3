//! The sweeper beside every gateway: reservations that were not published, and what else is left behind.

use std::sync::Arc;

use runtime::backoff::Backoff;
use runtime::health::Health;
use runtime::prune::{self, Old};
use runtime::timers::Ran;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::publish::Publisher;
use super::store::PhotoStore;
use crate::config::Timeouts;
use crate::metrics::GatewayMetrics;

/// What is not ready while reservations stay unpublished.
const COMPONENT: &str = "reserved uploads";
/// Rounds between two sweeps of the photo store, of old keys and origins, and of what signing in leaves: 60 x 5 s = 5 minutes.
const HOUSEKEEPING: u64 = 60;
/// An `Idempotency-Key` is kept this long, and up to a day more. At 20 uploads per day, 600 rows per user.
const KEY_DAYS: i64 = 30;
/// Parts of the table of keys, of which a look goes through one: 288 x 5 minutes are a day. Of ten million keys, 1 GB, one has 4 MB. An
/// index on time would be written with every upload, to find once what a look at each block finds as well.
const KEY_PARTS: u32 = 288;

/// What sweeping works with.
pub(crate) struct Sweeper {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) photos: PhotoStore,
    pub(crate) timeouts: Timeouts,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) health: Health,
}

impl Sweeper {
    /// Republishes reservations at start and every few seconds, and removes old incoming photos and idempotency keys, until
    /// stopped. [`crate::serve`] runs it.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let grace = self.timeouts.publish * 2;
        let mut backoff = Backoff::default();
        let mut round: u64 = 0;
        // Another one after each start: gateways that are restarted every day come to every part all the same.
        let mut part =
            u32::try_from(self.publisher.clock.now().0 / 1_000_000 % i64::from(KEY_PARTS)).unwrap_or(0);
        let mut ready = true;
        self.health.ready(COMPONENT);
        while !stop.is_cancelled() {
            if round.is_multiple_of(HOUSEKEEPING) {
                self.housekeeping(part).await;
                part = (part + 1) % KEY_PARTS;
            }
            round += 1;
            let published = tokio::select! {
                published = self.publisher.republish_reserved(grace) => published,
                // However many there are: it is told meanwhile how they stand, and a stop leaves the rest as a crash would.
                () = self.keep_judging(&mut ready) => break,
                () = stop.cancelled() => break,
            };
            ready = self.judge(ready).await;
            match published {
                Ok(ran) => {
                    if let Some(Ran { done, failed }) = ran {
                        self.metrics
                            .refused
                            .with_label_values(&[])
                            .set(failed.try_into().unwrap_or(i64::MAX));
                        if done > 0 {
                            tracing::info!(count = done, "reserved uploads were published");
                        }
                    }
                    backoff = Backoff::default();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(self.timeouts.sweep) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %error.causes(), "reserved uploads wait");
                    backoff.wait(&stop).await;
                }
            }
        }
    }

    async fn keep_judging(&self, ready: &mut bool) {
        loop {
            sleep(self.timeouts.sweep).await;
            *ready = self.judge(*ready).await;
        }
    }

    /// Whether this gateway should be given uploads: not while reservations wait for longer than the bound and its own producer fails, as
    /// each further upload would only join them.
    async fn judge(&self, ready: bool) -> bool {
        let now_ready = match self.publisher.overdue(self.timeouts.unpublished).await {
            Ok(overdue) => {
                self.metrics.overdue.with_label_values(&[]).set(overdue);
                !(overdue > 0 && self.publisher.fails())
            }
            // The database is another matter: uploads are refused for it one by one.
            Err(_) => ready,
        };
        match (ready, now_ready) {
            (true, false) => {
                let bound_s = self.timeouts.unpublished.as_secs();
                tracing::error!(
                    bound_s,
                    "not ready: reserved uploads are overdue and the producer publishes none"
                );
            }
            (false, true) => {
                tracing::info!("ready again: no reserved upload is overdue, or one was published");
            }
            _ => {}
        }
        if now_ready {
            self.health.ready(COMPONENT)
        } else {
            self.health.unready(COMPONENT)
        }
        now_ready
    }

    async fn housekeeping(&self, part: u32) {
        // Twice the longest body: what is older belongs to no upload.
        let age = self.timeouts.body_total * 2;
        match self.photos.sweep(age).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "incoming photos without an upload were removed"),
            Err(error) => tracing::warn!(error = %error, "the photo store was not swept"),
        }
        let now = self.publisher.clock.now().to_utc();
        if let Err(error) = crate::login::prune(&self.publisher.pool, now).await {
            tracing::warn!(error = %error, "what signing in left behind was not removed");
        }
        if let Err(error) = super::origin::prune(&self.publisher.pool, now).await {
            tracing::warn!(error = %error, "old origins of uploads were not removed");
        }
        let oldest = now - chrono::TimeDelta::days(KEY_DAYS);
        let removed =
            prune::part(&self.publisher.pool, Old::IdempotencyKeys, oldest, (part, KEY_PARTS)).await;
        if let Err(error) = removed {
            tracing::warn!(error = %error, "old idempotency keys were not removed");
        }
    }
}
