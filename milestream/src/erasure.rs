//! The job `erase` of the role `timers`: people who have asked for it are taken out of every store, one after the other. Each step may be
//! repeated; a run that is cut off begins with the same person again.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt as _;
use ingest::PhotoStore;
use ingest::erasure::{self, Due};
use processors::chain_submission::ledger::publish::Publisher;
use processors::chain_submission::operate::{self, Order, Refused};
use runtime::timers::{JobError, Ran, portions};
use schemas::ids::{Micros, UserId};
use serde_json::json;
use sinks::mongo::{MongoConfig, MongoLogs};
use sqlx::PgPool;
use uuid::Uuid;

use crate::audit::{Action, audit};

/// For so long what came late is taken away: records on `activity.logs` are kept for 7 days, and a sink may be a day behind.
const AFTERCARE: Duration = Duration::from_secs(9 * 86_400);
/// How long an erasure waits for payouts that are ready: payments may be paused. Those in flight are waited for without a limit.
const PATIENCE: TimeDelta = TimeDelta::days(7);
/// Why their payouts are cancelled, as drivers and budgets are told.
const REASON: &str = "account_erased";

/// What the job works with.
#[derive(Clone)]
pub struct Eraser {
    /// Every table.
    pub pool: PgPool,
    /// Every photo.
    pub photos: PhotoStore,
    /// The log documents.
    pub mongo: MongoConfig,
    /// Publishes what becomes of payouts.
    pub publisher: Publisher,
    /// The registry's ids of `UserErased` and of `OdometerRead`.
    pub schemas: (u32, u32),
}

impl Eraser {
    /// Erases everybody who is due at `now`, and says how many were erased. One of whom that fails keeps no other waiting.
    ///
    /// # Errors
    /// Where the database is away.
    pub async fn run(&self, now: Micros) -> Result<Ran, JobError> {
        let (mut ran, mut logs) = (Ran::default(), None);
        let mut people = portions(|behind| erasure::due(&self.pool, now, AFTERCARE, behind));
        while let Some(due) = people.try_next().await? {
            let logs = match &mut logs {
                Some(logs) => logs,
                none => none.insert(self.mongo.logs().await?),
            };
            for person in due {
                let erased = self.erase(logs, person, now).await;
                ran.count(&self.pool, format!("erasure of {}", person.user_id), erased.map(u64::from))
                    .await?;
            }
        }
        Ok(ran)
    }

    async fn erase(&self, logs: &MongoLogs, due: Due, now: Micros) -> Result<bool, JobError> {
        let user = UserId(due.user_id);
        if !self.settle(user, due, now.to_utc()).await? {
            tracing::info!(%user, "an erasure waits for payments that are on their way");
            return Ok(false);
        }
        // Rows go last: by them documents and photos are found.
        let (uploads, wallets) = erasure::traces(&self.pool, user).await?;
        logs.erase(user, &uploads, &wallets).await?;
        self.photos.erase(user).await?;
        let first = erasure::erase(&self.pool, self.schemas, user, now).await?;
        if first {
            tracing::info!(%user, "a person was erased");
        }
        Ok(first)
    }

    /// What is owed to them is paid first or cancelled; false while it is being paid. Nobody could be paid later: the address goes.
    async fn settle(&self, user: UserId, due: Due, now: DateTime<Utc>) -> Result<bool, JobError> {
        let owed = erasure::owed(&self.pool, user).await?;
        let patient = due.erased_at.is_none() && now < due.due_at + PATIENCE;
        let waits =
            |state: &str| due.erased_at.is_none() && state == "in_flight" || patient && state == "ready";
        if owed.iter().any(|(_, state)| waits(state)) {
            return Ok(false);
        }
        for (reward, _) in owed {
            self.cancel(reward, now).await?;
        }
        Ok(true)
    }

    async fn cancel(&self, reward: Uuid, now: DateTime<Utc>) -> Result<(), JobError> {
        let mut tx = self.pool.begin().await?;
        let order = Order::Cancel { settled: false };
        match operate::carry_out(&mut tx, &self.publisher, reward, (&order, REASON), now).await {
            Ok(done) => {
                let what = Action { module: "chain", action: "payout.cancel", severity: "warning" };
                let mut after = done.after;
                after["why"] = json!(REASON);
                audit(&mut tx, what, &reward.to_string(), Some(done.before), after).await?;
                tx.commit().await?;
            }
            // A transaction that did otherwise than planned is an operator's, who needs nothing of the person for it.
            Err(refused @ (Refused::Live { .. } | Refused::State { .. })) => {
                tracing::warn!(%reward, %refused, "the payout of an erased person is left as it is");
            }
            Err(refused) => return Err(refused.into()),
        }
        Ok(())
    }
}
