//! The loop that plans, signs and posts, under the signer's lease. It decides nothing about what was paid: that is told by
//! `chain.events` alone.

mod audit;
mod blame;
mod ceilings;
mod fate;
pub mod fold;
mod gate;
pub mod guard;
mod journal;
pub mod lease;
#[cfg(test)]
mod model;
mod nodes;
pub mod obstacle;
pub mod plan;
mod planner;
pub mod policy;
pub mod pool;
mod predecessors;
mod preflight;
pub mod proof;
mod restore;
mod rounds;
mod settle;
mod sign;
mod standing;
pub mod terms;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chain::health::Health;
use chain::node::{Advice, NodeError, Rejection};
use chain::{BlockId, Observer, TransactionSigner};
use runtime::failpoint::{self, Step};
use runtime::timers::Ran;
use runtime::worker::ErrorReport;
use runtime::{Clock, StageError};
use schemas::events::AttemptState;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::guard::{GuardTopic, Guarded, Payer};
use self::journal::Journal;
use self::lease::{LIFE, Lease, LeaseError};
use self::nodes::Known;
use self::obstacle::Obstacle;
use self::plan::PlanError;
use self::policy::Policy;
use self::predecessors::Unfinished;
use self::sign::{Planned, Signing};
use self::terms::Terms;
use super::corrected;
use super::ledger::outbox::{Outbox, Schemas};
use super::ledger::rows::{self, Which};
use super::ledger::transition::Change;
use super::metrics::PayoutMetrics;

/// Pause between two rounds: short beside a block, so that batches leave soon after they are due.
const ROUND: Duration = Duration::from_millis(250);
/// Pause after an obstacle.
const OBSTACLE_PAUSE: Duration = Duration::from_secs(2);
/// How often the same bytes are posted again: half a block of a public network.
const POST_AGAIN: Duration = Duration::from_secs(5);
/// Transactions that are in no block yet, at most: a node pools 128 of one account.
const IN_FLIGHT: i64 = 32;
/// How often payouts are counted for the metric.
const COUNT: Duration = Duration::from_secs(5);
/// How often corrected readings are looked at: nothing plans their rewards meanwhile.
const CORRECTED: Duration = Duration::from_secs(5);

/// How the loop works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The network that is paid on.
    pub genesis: BlockId,
    /// Rewards of one transaction at most.
    pub batch_rewards: usize,
    /// How long a reward waits for company.
    pub batch_wait: Duration,
    /// How transactions are made.
    pub terms: Terms,
    /// What may be signed.
    pub policy: Policy,
    /// Where the pages are that show what was paid for, without a slash at the end; payments link none where it is none.
    pub proofs: Option<String>,
    /// Who this process is, for operators.
    pub owner: String,
}

/// The loop.
pub struct Submitter {
    /// The stage's database.
    pub pool: PgPool,
    /// How.
    pub settings: Settings,
    /// The distributor.
    pub signer: Arc<dyn TransactionSigner>,
    /// Who pays the gas, where it is not the distributor (VIP-191).
    pub gas_payer: Option<Arc<dyn TransactionSigner>>,
    /// What is kept outside of the database.
    pub guard: GuardTopic,
    /// Of what is published.
    pub schemas: Schemas,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The catalogue.
    pub metrics: PayoutMetrics,
    /// Is told of each request to a node.
    pub observer: Option<Observer>,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// Something stands in the way.
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    /// Nothing was planned, signed or taken back.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl From<sqlx::Error> for RoundError {
    fn from(error: sqlx::Error) -> Self {
        Self::Plan(error.into())
    }
}

impl From<StageError> for RoundError {
    fn from(error: StageError) -> Self {
        Self::Plan(error.into())
    }
}

impl From<LeaseError> for RoundError {
    fn from(error: LeaseError) -> Self {
        Self::Plan(error.into())
    }
}

/// What the loop remembers between rounds: nothing that it could not find again.
#[derive(Default)]
pub struct Memory {
    lease: Option<(Lease, Instant)>,
    /// Leases of earlier distributors whose work is brought to its end.
    predecessors: Vec<Lease>,
    network: Option<Known>,
    /// What contracts said.
    journal: Journal,
    /// What is known of each node.
    nodes: Health,
    /// Address of the node that was asked last.
    chosen: Option<String>,
    /// When bytes were posted last, by signer and transaction.
    posted: HashMap<(String, String), Instant>,
    counted: Option<Instant>,
    corrected: Option<Instant>,
    /// When was asked last what became of a signer's transactions that have ended.
    settled: HashMap<String, Instant>,
    /// What is kept outside of the database; none before it was read under this lease.
    guarded: Option<Guarded>,
    /// The block up to which this branch was asked what was paid; none before the first time and while something is unexplained.
    audited: Option<BlockId>,
    /// Height of the best block that a node gave last; 0 before the first.
    best: u32,
    obstacle: Option<&'static str>,
}

impl Submitter {
    /// Works until stopped, and gives the lease up then.
    pub async fn run(&self, stop: CancellationToken) {
        let mut memory = Memory::default();
        while !stop.is_cancelled() {
            let pause = self.step(&mut memory).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let held = memory.lease.map(|(lease, _)| lease).into_iter().chain(memory.predecessors);
        for lease in held {
            if let Err(error) = lease.release(&self.pool).await {
                tracing::warn!(%error, "the lease lapses by itself");
            }
        }
    }

    /// One round: posts, settles, plans and signs what is due, and says what stands in the way. Returns the pause before the next one.
    /// Dropped at any point it leaves what a crash there would leave.
    pub async fn step(&self, memory: &mut Memory) -> Duration {
        match self.round_renewed(memory).await {
            Ok(more) => {
                if let Some(url) = memory.chosen.take() {
                    memory.nodes.worked(&url);
                }
                self.report(memory, None);
                // Where a whole batch was due, another one may be.
                if more { Duration::ZERO } else { ROUND }
            }
            Err(RoundError::Obstacle(Obstacle::NodeUnavailable(error))) if memory.chosen.is_some() => {
                // It gave its newest block and then failed: another one goes on at once, where there is one.
                tracing::warn!(%error, "the node fails in the middle of a round");
                if let Some(url) = memory.chosen.take() {
                    memory.nodes.failed(&url, Instant::now());
                }
                memory.network = None;
                self.report(memory, Some(&Obstacle::NodeUnavailable(error)));
                ROUND
            }
            Err(RoundError::Obstacle(obstacle)) => {
                // An operator may have mended a row: the next round reads it.
                memory.network = None;
                memory.journal.forget();
                self.report(memory, Some(&obstacle));
                OBSTACLE_PAUSE
            }
            Err(RoundError::Plan(PlanError::Moved)) => ROUND,
            Err(RoundError::Plan(PlanError::Lease(LeaseError::Lost))) => {
                tracing::warn!("another process signs for this distributor");
                (memory.lease, memory.guarded, memory.audited) = (None, None, None);
                ROUND
            }
            Err(RoundError::Plan(PlanError::Guard(error))) => {
                self.report(memory, Some(&Obstacle::Guard(error)));
                OBSTACLE_PAUSE
            }
            Err(RoundError::Plan(PlanError::Signer(error))) => {
                self.report(memory, Some(&error.into()));
                OBSTACLE_PAUSE
            }
            Err(RoundError::Plan(PlanError::Ceiling)) => {
                let obstacle = Obstacle::DailyCeiling(self.settings.terms.daily_ceiling);
                self.report(memory, Some(&obstacle));
                OBSTACLE_PAUSE
            }
            Err(RoundError::Plan(PlanError::Pool(pool))) => {
                self.report(memory, Some(&Obstacle::Pool(pool)));
                OBSTACLE_PAUSE
            }
            Err(RoundError::Plan(error)) => {
                tracing::warn!(error = %ErrorReport(&error), "payouts wait");
                OBSTACLE_PAUSE
            }
        }
    }

    /// A round during which the lease is renewed: a slow node does not make it lapse. Whether more is likely to be due at once.
    async fn round_renewed(&self, memory: &mut Memory) -> Result<bool, RoundError> {
        memory.chosen = None;
        self.count(memory).await?;
        let Some(lease) = self.lease(memory).await? else {
            // Whoever has it says what fails.
            self.metrics.corrections_failing.with_label_values(&[]).set(0);
            return Ok(false);
        };
        let unfinished = self.predecessors(memory, &lease).await?;
        let leases: Vec<Lease> = std::iter::once(&lease).chain(&memory.predecessors).cloned().collect();
        let renewing = async {
            loop {
                tokio::time::sleep(LIFE / 3).await;
                for lease in &leases {
                    if let Err(error) = lease.renew(&self.pool).await {
                        // Every transaction asks for it again, and finds it lost.
                        tracing::debug!(%error, signer = lease.signer, "the lease is not renewed");
                    }
                }
            }
        };
        tokio::select! {
            done = self.round(memory, &lease, unfinished) => done,
            () = renewing => Ok(false),
        }
    }

    async fn round(
        &self,
        memory: &mut Memory,
        lease: &Lease,
        unfinished: Option<Unfinished>,
    ) -> Result<bool, RoundError> {
        self.post_all(memory, lease).await?;
        self.settle_all(memory, lease).await?;
        self.finish(memory, unfinished).await?;
        self.cancel_corrected(memory, lease).await?;
        // Books that a failover or a restore has set back must not sign what is paid: at the start, before each plan, and before a plan
        // is signed that an earlier round has left.
        if memory.audited.is_none() || !sign::unsigned(&self.pool, self.signer.address()).await?.is_empty() {
            self.audit(memory, lease).await?;
        }
        self.gate(lease).await?;
        self.sign_all(memory, lease).await?;
        let now = self.clock.now().to_utc();
        let limit = i64::try_from(self.settings.batch_rewards).unwrap_or(i64::MAX);
        let genesis = self.settings.genesis.to_string();
        let ready = rows::ready(&self.pool, &genesis, now, limit).await?;
        let waited = ready.first().and_then(|payout| payout.ready_at).map(|since| now - since);
        let due = waited
            .is_some_and(|waited| waited.to_std().is_ok_and(|waited| waited >= self.settings.batch_wait));
        let whole = ready.len() >= self.settings.batch_rewards;
        if ready.is_empty() || (!whole && !due) {
            return Ok(false);
        }
        self.audit(memory, lease).await?;
        let planned = self.plan(memory, lease, ready).await?;
        self.sign_all(memory, lease).await?;
        self.post_all(memory, lease).await?;
        Ok(planned && whole)
    }

    /// Cancels the rewards of corrected readings that no transaction pays.
    async fn cancel_corrected(&self, memory: &mut Memory, lease: &Lease) -> Result<(), RoundError> {
        if memory.corrected.is_some_and(|corrected| corrected.elapsed() < CORRECTED) {
            return Ok(());
        }
        let publisher = self.settings.terms.publisher(self.schemas);
        let now = self.clock.now().to_utc();
        let Ran { failed, .. } = corrected::cancel(&self.pool, lease, &publisher, now).await?;
        self.metrics.corrections_failing.with_label_values(&[]).set(failed.try_into().unwrap_or(i64::MAX));
        memory.corrected = Some(Instant::now());
        Ok(())
    }

    /// The lease, taken or renewed when a third of its life is over; none while another process has it.
    async fn lease(&self, memory: &mut Memory) -> Result<Option<Lease>, RoundError> {
        if let Some((lease, renewed)) = &mut memory.lease {
            if renewed.elapsed() >= LIFE / 3 {
                lease.renew(&self.pool).await?;
                *renewed = Instant::now();
            }
            return Ok(Some(lease.clone()));
        }
        let taken = Lease::take(&self.pool, &self.signer.address().to_string(), &self.settings.owner).await?;
        if let Some(lease) = &taken {
            tracing::info!(signer = lease.signer, epoch = lease.epoch, "signing from now on");
            memory.lease = Some((lease.clone(), Instant::now()));
        }
        Ok(taken)
    }

    /// Stores what belongs to no change of rows; takes no connection when there is nothing.
    async fn publish(&self, outbox: Outbox) -> Result<(), RoundError> {
        if !outbox.is_empty() {
            outbox.store(&mut *self.pool.acquire().await?).await?;
        }
        Ok(())
    }

    /// Signs what is planned, also what a process before this one planned. A plan whose window is half over is given up, and one that asks
    /// for a gas payer where there is none any more, or the reverse.
    async fn sign_all(&self, memory: &mut Memory, lease: &Lease) -> Result<(), RoundError> {
        let unsigned = sign::unsigned(&self.pool, self.signer.address()).await?;
        if unsigned.is_empty() {
            return Ok(());
        }
        let (network, _, best) = self.node(memory).await?;
        let network = network.clone();
        for planned in unsigned {
            let now = self.clock.now().to_utc();
            if sign::is_stale(&planned, best) || !planned.fits(self.gas_payer.is_some())? {
                sign::abandon(&self.pool, lease, &planned, self.schemas, now).await?;
                self.metrics.payout_steps.with_label_values(&["abandoned"]).inc();
                continue;
            }
            let Settings { terms, policy, .. } = &self.settings;
            let (signer, gas_payer) = (self.signer.as_ref(), self.gas_payer.as_deref());
            let signing =
                Signing { lease, signer, gas_payer, policy, network: &network, terms, schemas: self.schemas };
            let guarded = self.guarded(memory).await?;
            let announcing = self.announcing(lease, guarded, &planned);
            match sign::sign(&signing, &self.pool, &planned, now, announcing).await {
                Err(PlanError::Policy(violation)) => return self.refuse(lease, &planned, &violation).await,
                signed => signed?,
            }
            self.metrics.payout_steps.with_label_values(&["signed"]).inc();
            self.observe_signed(&planned.tx_id, now).await?;
        }
        Ok(())
    }

    /// Makes a signature known outside of the database, once.
    async fn announcing(
        &self,
        lease: &Lease,
        guarded: &mut Guarded,
        planned: &Planned,
    ) -> Result<(), PlanError> {
        let Planned { tx_id, last_valid, .. } = planned;
        if !guarded.announced.contains_key(tx_id) {
            let genesis_id = self.settings.genesis.to_string();
            let payer = Payer { genesis_id: &genesis_id, signer: &lease.signer };
            let announced = self.guard.announce(payer, self.clock.as_ref(), (tx_id, *last_valid)).await;
            announced.map_err(PlanError::Guard)?;
            guarded.announced.insert(tx_id.clone(), *last_valid);
        }
        Ok(())
    }

    async fn observe_signed(
        &self,
        tx_id: &str,
        now: chrono::DateTime<chrono::Utc>,
    ) -> Result<(), RoundError> {
        let granted: Vec<i64> =
            sqlx::query_scalar("select (header->>'occurred_at')::bigint from payouts where tx_id = $1")
                .bind(tx_id)
                .fetch_all(&self.pool)
                .await?;
        for at in granted {
            let waited = now - schemas::ids::Micros(at).to_utc();
            if let Ok(waited) = waited.to_std() {
                self.metrics.payout_step_seconds.with_label_values(&["signed"]).observe(waited.as_secs_f64());
            }
        }
        Ok(())
    }

    /// Posts what is signed and in no block: the same bytes, to every node, again and again until it is in a block or expired.
    async fn post_all(&self, memory: &mut Memory, lease: &Lease) -> Result<(), RoundError> {
        let waiting: Vec<(String, Vec<u8>, i64, String)> = sqlx::query_as(
            "select tx_id, raw, last_valid, state from payout_attempts
             where signer = $1 and state in ('signed', 'sent') and (last_valid >= $3 or error is null)
             order by planned_at limit $2",
        )
        .bind(&lease.signer)
        .bind(IN_FLIGHT)
        .bind(i64::from(memory.best))
        .fetch_all(&self.pool)
        .await?;
        let key = |id: &String| (lease.signer.clone(), id.clone());
        memory.posted.retain(|(signer, id), _| {
            *signer != lease.signer || waiting.iter().any(|(waiting, ..)| waiting == id)
        });
        let due: Vec<_> = waiting
            .into_iter()
            .filter(|(id, ..)| {
                memory.posted.get(&key(id)).is_none_or(|posted| posted.elapsed() >= POST_AGAIN)
            })
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let (network, _, best) = self.node(memory).await?;
        let nodes = network.nodes.clone();
        for (id, raw, last_valid, state) in due {
            memory.posted.insert(key(&id), Instant::now());
            if i64::from(best) > last_valid {
                self.advance(lease, &id, None, rows::Transaction::expired).await?;
                continue;
            }
            // Noted before the post: from here on the bytes may be anywhere, whatever becomes of this process.
            if state == AttemptState::Signed.label() {
                self.advance(lease, &id, None, rows::Transaction::sent).await?;
            } else {
                sqlx::query(
                    "update payout_attempts set broadcast_count = broadcast_count + 1 where tx_id = $1",
                )
                .bind(&id)
                .execute(&self.pool)
                .await?;
            }
            failpoint::at(Step::PaymentNoted);
            // All at once: a silent node does not keep the bytes from the others.
            let mut posts = JoinSet::new();
            for node in nodes.clone() {
                let raw = raw.clone();
                posts.spawn(async move { node.send(&raw).await.map(|_| ()) });
            }
            let responses = posts.join_all().await;
            failpoint::at(Step::PaymentPosted);
            for response in responses {
                self.metrics.broadcasts.with_label_values(&[posted(response, &id)]).inc();
            }
        }
        Ok(())
    }

    /// Applies a change to a transaction and publishes it. With a proof of its end the rewards are freed for another transaction.
    async fn advance(
        &self,
        lease: &Lease,
        id: &str,
        proof: Option<&serde_json::Value>,
        apply: impl Fn(&mut rows::Transaction, chrono::DateTime<chrono::Utc>) -> Option<Change>,
    ) -> Result<(), RoundError> {
        let at = self.clock.now().to_utc();
        let mut tx = self.pool.begin().await?;
        lease.hold(&mut tx).await?;
        let mut outbox = Outbox::default();
        for mut transaction in rows::transactions(&mut tx, Which::Ids(&[id.to_owned()])).await? {
            if let Some(change) = apply(&mut transaction, at) {
                rows::update_transaction(&mut tx, &transaction).await?;
                if let Some(proof) = proof {
                    rows::free(&mut tx, id, proof).await?;
                }
                self.settings.terms.publisher(self.schemas).transaction(
                    &transaction,
                    change,
                    at,
                    &mut outbox,
                )?;
                self.metrics.payout_steps.with_label_values(&[change.label()]).inc();
            }
        }
        outbox.store(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Says what stands in the way, when it changes: metric and log line.
    fn report(&self, memory: &mut Memory, obstacle: Option<&Obstacle>) {
        let label = obstacle.map(Obstacle::label);
        if memory.obstacle == label {
            return;
        }
        for known in Obstacle::LABELS {
            self.metrics.payout_obstacle.with_label_values(&[known]).set(i64::from(label == Some(known)));
        }
        memory.obstacle = label;
        match obstacle {
            Some(obstacle) => {
                tracing::error!(cause = obstacle.label(), error = %obstacle, "nothing is signed")
            }
            None => tracing::info!("payments go on"),
        }
    }

    /// Counts payouts that are not settled, for the metric.
    async fn count(&self, memory: &mut Memory) -> Result<(), RoundError> {
        if memory.counted.is_some_and(|counted| counted.elapsed() < COUNT) {
            return Ok(());
        }
        memory.counted = Some(Instant::now());
        let counts: HashMap<String, i64> = sqlx::query_as::<_, (String, i64)>(
            "select state, count(*) from payouts where state in ('waiting', 'ready', 'in_flight', 'quarantined') group by state",
        )
        .fetch_all(&self.pool)
        .await?
        .into_iter()
        .collect();
        for state in ["waiting", "ready", "in_flight", "quarantined"] {
            let count = counts.get(state).copied().unwrap_or(0);
            self.metrics.payouts.with_label_values(&[state]).set(count);
        }
        Ok(())
    }
}

/// What a node responded to posted bytes, as a metric label. Nothing is decided by it: a receipt comes from the chain.
fn posted(response: Result<(), NodeError>, id: &str) -> &'static str {
    match response {
        Ok(()) => "taken",
        Err(NodeError::Rejected(Rejection::Known)) => "known",
        Err(NodeError::Rejected(rejection)) => {
            tracing::warn!(tx = id, %rejection, again = rejection.advice() == Advice::Rebroadcast, "a node refuses a payment");
            "refused"
        }
        Err(error @ NodeError::BadTransaction(_)) => {
            tracing::error!(tx = id, %error, "a node calls a payment malformed");
            "malformed"
        }
        Err(error) => {
            tracing::warn!(tx = id, %error, "a payment was not posted");
            "unavailable"
        }
    }
}
