//! The consumer of grants, claims, corrections and blocks: each record changes rows and publishes the change in one transaction, and the
//! same record again changes nothing. What it remembers stands in the tables alone.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use runtime::retry::database_responds;
use runtime::{Clock, Envelope, FromRecord, Sink, SinkError, StageError};
use schemas::codec::{CodecError, RecordSchema};
use schemas::events::{BlockAdopted, BlockUndone, Event as _, RewardClaimed, RewardGranted, UploadDecided};
use schemas::topic::Topic;
use sqlx::{PgConnection, PgPool};

use super::adjust::{Applied, End};
use super::ledger::outbox::{Outbox, Schemas};
use super::ledger::publish::Publisher;
use super::ledger::rows::{self, IncidentCause, Transaction, Which};
use super::ledger::transition::{CONFIRMATIONS, Change, Claim, gathered, granted};
use super::metrics::PayoutMetrics;
use super::{adjust, corrected};

/// A record of the topics.
#[derive(Clone, Debug)]
pub enum PayoutInput {
    /// A reward was granted.
    Granted(Box<RewardGranted>),
    /// A driver claims a reward.
    Claimed(RewardClaimed),
    /// An upload was decided: of it only what a correction says of its reward is taken.
    Decided(Box<UploadDecided>),
    /// The chain grew.
    Adopted(Box<BlockAdopted>),
    /// A block does not count any more.
    Undone(BlockUndone),
}

impl FromRecord for PayoutInput {
    fn from_record(schema: &RecordSchema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>> {
        match schema.name() {
            RewardGranted::NAME => {
                RewardGranted::from_record(schema, id, datum).map(|r| r.map(|e| Self::Granted(Box::new(e))))
            }
            RewardClaimed::NAME => {
                RewardClaimed::from_record(schema, id, datum).map(|r| r.map(Self::Claimed))
            }
            UploadDecided::NAME => {
                UploadDecided::from_record(schema, id, datum).map(|r| r.map(|e| Self::Decided(Box::new(e))))
            }
            BlockAdopted::NAME => {
                BlockAdopted::from_record(schema, id, datum).map(|r| r.map(|e| Self::Adopted(Box::new(e))))
            }
            BlockUndone::NAME => BlockUndone::from_record(schema, id, datum).map(|r| r.map(Self::Undone)),
            _ => None,
        }
    }
}

/// Applies records to the tables.
pub struct PayoutConsumer {
    /// The stage's database.
    pub pool: PgPool,
    /// Of what is published.
    pub schemas: Schemas,
    /// The network that is paid on; blocks of others are passed over.
    pub genesis_id: String,
    /// Gas that a transaction may ask for, for the comparison in `gas_optimization_logs`.
    pub gas_ceiling: i64,
    /// The clock; stamps times and is no input of a decision.
    pub clock: Arc<dyn Clock>,
    /// The catalogue.
    pub metrics: PayoutMetrics,
}

impl Sink for PayoutConsumer {
    const NAME: &'static str = "chain_submission";
    const TOPICS: &'static [Topic] = &[Topic::RewardsGranted, Topic::UploadsDecided, Topic::ChainEvents];
    type In = PayoutInput;

    async fn write(&self, batch: &[Envelope<PayoutInput>]) -> Result<(), SinkError> {
        let mut tx = self.pool.begin().await.map_err(StageError::from)?;
        let (mut outbox, mut changes, mut ends) = (Outbox::default(), Vec::new(), Vec::new());
        let newest = batch.iter().rposition(|record| matches!(record.payload, PayoutInput::Adopted(_)));
        for (at, record) in batch.iter().enumerate() {
            match &record.payload {
                PayoutInput::Granted(event) => ends.extend(self.grant(&mut tx, event, &mut outbox).await?),
                PayoutInput::Claimed(event) => self.claim(&mut tx, event, &mut outbox).await?,
                PayoutInput::Decided(event) => {
                    corrected::note(&mut tx, event).await.map_err(StageError::from)?
                }
                PayoutInput::Adopted(event) => {
                    self.adopt(&mut tx, (event, newest == Some(at)), &mut outbox, &mut changes).await?;
                }
                PayoutInput::Undone(event) => self.undo(&mut tx, event, &mut outbox, &mut changes).await?,
            }
        }
        outbox.store(&mut tx).await.map_err(StageError::from)?;
        tx.commit().await.map_err(StageError::from)?;
        self.count(&changes);
        for end in ends {
            self.metrics.adjustments.with_label_values(&[end.label()]).inc();
        }
        Ok(())
    }

    /// A block that is left out would let a payment look unpaid.
    fn gives_up(&self, event: &PayoutInput) -> bool {
        matches!(event, PayoutInput::Granted(_) | PayoutInput::Claimed(_))
    }

    async fn dependencies_respond(&self) -> bool {
        database_responds(&self.pool).await
    }
}

/// A change and the seconds since the one before, for metrics once it is committed.
type Taken = (Change, Option<f64>);

impl PayoutConsumer {
    fn publisher(&self) -> Publisher {
        Publisher { schemas: self.schemas, gas_ceiling: self.gas_ceiling }
    }

    /// Takes a grant, and returns how the adjustment has ended that it answers.
    async fn grant(
        &self,
        tx: &mut PgConnection,
        event: &RewardGranted,
        outbox: &mut Outbox,
    ) -> Result<Option<End>, SinkError> {
        let at = self.clock.now().to_utc();
        if event.adjustment.is_some()
            && let Applied::Ended(ended) =
                adjust::apply(tx, event, &self.publisher(), (at, &mut *outbox)).await?
        {
            return Ok(ended);
        }
        let ended = adjust::end(tx, event, None, at).await?;
        let claim = sqlx::query_as::<_, (uuid::Uuid, DateTime<Utc>)>(
            "select wallet_id, claimed_at from payout_claims where reward_id = $1",
        )
        .bind(event.reward_id.0)
        .fetch_optional(&mut *tx)
        .await
        .map_err(StageError::from)?;
        let claim = claim.map(|(wallet_id, at)| Claim { wallet_id, at });
        let now = self.clock.now();
        let Some(mut payout) = granted(event, claim, now.to_utc()).map_err(SinkError::BadRow)? else {
            return Ok(ended);
        };
        payout.genesis_id = Some(self.genesis_id.clone());
        let mut gathering = if event.stamp.auto_claim {
            let of = (payout.user_id, self.genesis_id.as_str());
            rows::gathering(tx, of).await.map_err(StageError::from)?
        } else {
            Vec::new()
        };
        let together = gathered(&mut payout, &mut gathering, now.to_utc());
        // Granted again it changes nothing, for itself and for the others.
        if rows::insert_payout(tx, &payout).await.map_err(StageError::from)? {
            self.publisher().payout(&payout, now.to_utc(), outbox)?;
            if together && !gathering.is_empty() {
                rows::update_payouts(tx, &gathering).await.map_err(StageError::from)?;
                for other in &gathering {
                    self.publisher().payout(other, now.to_utc(), outbox)?;
                }
            }
        }
        Ok(ended)
    }

    async fn claim(
        &self,
        tx: &mut PgConnection,
        event: &RewardClaimed,
        outbox: &mut Outbox,
    ) -> Result<(), StageError> {
        let claim = Claim::from(event);
        sqlx::query(
            "insert into payout_claims (reward_id, wallet_id, claimed_at) values ($1, $2, $3)
             on conflict (reward_id) do nothing",
        )
        .bind(event.reward_id.0)
        .bind(claim.wallet_id)
        .bind(claim.at)
        .execute(&mut *tx)
        .await?;
        let Some(mut payout) = rows::payout(tx, event.reward_id.0).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        // A claim of another user's reward is none: the gateway asks first, and this asks again.
        if payout.user_id == event.user_id.0 && payout.claimed(claim, now.to_utc()) {
            rows::update_payout(tx, &payout).await?;
            self.publisher().payout(&payout, now.to_utc(), outbox)?;
        }
        Ok(())
    }

    /// Takes a block that was adopted. Confirmations that settle nothing yet are counted by the `newest` of a batch alone, and of
    /// [`SHOWN`] transactions: written and published for each, 11 of 12 would be most of the work, and for nobody once there are many.
    async fn adopt(
        &self,
        tx: &mut PgConnection,
        (block, newest): (&BlockAdopted, bool),
        outbox: &mut Outbox,
        changes: &mut Vec<Taken>,
    ) -> Result<(), StageError> {
        let before = Some(block.parent_id.as_str()).filter(|_| !block.retold);
        if block.genesis_id != self.genesis_id || !self.next(tx, block.seq, before).await? {
            return Ok(());
        }
        if block.retold {
            // The branch stays as it is. What of its transactions was not known before is deep already: the next block confirms it.
            self.pass(tx, block.seq).await?;
            return self.include(tx, block, outbox, changes).await;
        }
        self.head(tx, (block.seq, &block.block.id, block.block.number), block.finalized_number).await?;
        self.remember(tx, block).await?;
        self.include(tx, block, outbox, changes).await?;
        let at = block.occurred_at.to_utc();
        let (genesis_id, settled) = (self.genesis_id.as_str(), block.block.number - CONFIRMATIONS);
        let which = Which::Settled { genesis_id, finalized: block.finalized_number, settled };
        let mut concerned = rows::transactions(tx, which).await?;
        if newest {
            concerned
                .extend(rows::transactions(tx, Which::Shallow { genesis_id, settled, limit: SHOWN }).await?);
        }
        for mut transaction in concerned {
            let included = transaction.attempt.block_timestamp;
            if let Some(change) = transaction.deeper(block.block.number, at) {
                changes.push((change, included.and_then(|included| seconds(included, at))));
                self.store(tx, &transaction, change, at, outbox).await?;
            }
            if let Some(change) = transaction.finalized(block.finalized_number, at) {
                changes.push((change, None));
                self.store(tx, &transaction, change, at, outbox).await?;
            }
        }
        Ok(())
    }

    /// Moves the transactions of ours that the block holds.
    async fn include(
        &self,
        tx: &mut PgConnection,
        block: &BlockAdopted,
        outbox: &mut Outbox,
        changes: &mut Vec<Taken>,
    ) -> Result<(), StageError> {
        let ids: Vec<String> = block.transactions.iter().map(|found| found.id.clone()).collect();
        for mut transaction in rows::transactions(tx, Which::Ids(&ids)).await? {
            let found = block.transactions.iter().find(|found| found.id == transaction.attempt.tx_id);
            let signed = transaction.attempt.signed_at;
            if let Some(change) = found.and_then(|found| transaction.included(block, found)) {
                let waited = seconds(signed, block.occurred_at.to_utc());
                changes.push((change, waited));
                self.store(tx, &transaction, change, block.occurred_at.to_utc(), outbox).await?;
            }
        }
        Ok(())
    }

    async fn undo(
        &self,
        tx: &mut PgConnection,
        undone: &BlockUndone,
        outbox: &mut Outbox,
        changes: &mut Vec<Taken>,
    ) -> Result<(), StageError> {
        if undone.genesis_id != self.genesis_id || !self.next(tx, undone.seq, None).await? {
            return Ok(());
        }
        let parent: Option<String> = sqlx::query_scalar(
            "update payout_blocks b set adopted = false, seq = $3
             from payout_heads h
             where b.genesis_id = $1 and b.block_id = $2 and h.genesis_id = $1 and h.block_id = $2
             returning b.parent_id",
        )
        .bind(&self.genesis_id)
        .bind(&undone.block_id)
        .bind(undone.seq)
        .fetch_optional(&mut *tx)
        .await?;
        let parent = parent.ok_or_else(|| {
            StageError::new(
                "chain.events",
                format!("step {} undoes a block that is not the newest", undone.seq),
            )
        })?;
        self.head(tx, (undone.seq, &parent, undone.number - 1), 0).await?;
        let at = undone.occurred_at.to_utc();
        for mut transaction in rows::transactions(tx, Which::InBlock(&undone.block_id)).await? {
            if let Some(change) = transaction.undone(&undone.block_id, at) {
                changes.push((change, None));
                self.store(tx, &transaction, change, at, outbox).await?;
            }
        }
        Ok(())
    }

    /// Whether a step is the next one; false for one that was taken before.
    ///
    /// The stream has no gaps, and each adopted block follows the newest: anything else means that records are missing, and
    /// going on would lose sight of payments. It is tried again until an operator has looked, and shows as lag.
    async fn next(&self, tx: &mut PgConnection, seq: i64, parent: Option<&str>) -> Result<bool, StageError> {
        let head: Option<(i64, String)> =
            sqlx::query_as("select seq, block_id from payout_heads where genesis_id = $1 for update")
                .bind(&self.genesis_id)
                .fetch_optional(tx)
                .await?;
        let Some((at, block_id)) = head else { return Ok(true) };
        if seq <= at {
            return Ok(false);
        }
        if seq != at + 1 || parent.is_some_and(|parent| parent != block_id) {
            let detail = format!("step {seq} does not follow step {at} at block {block_id}");
            return Err(StageError::new("chain.events", detail));
        }
        Ok(true)
    }

    /// Counts a step that leaves the head where it is.
    async fn pass(&self, tx: &mut PgConnection, seq: i64) -> sqlx::Result<()> {
        sqlx::query("update payout_heads set seq = $2 where genesis_id = $1")
            .bind(&self.genesis_id)
            .bind(seq)
            .execute(tx)
            .await
            .map(drop)
    }

    /// Moves the head; a finalized height never falls.
    async fn head(
        &self,
        tx: &mut PgConnection,
        (seq, block_id, number): (i64, &str, i64),
        finalized: i64,
    ) -> Result<(), StageError> {
        let finalized: i64 = sqlx::query_scalar(
            "insert into payout_heads as h (genesis_id, seq, block_id, number, finalized_number)
             values ($1, $2, $3, $4, $5)
             on conflict (genesis_id) do update set seq = excluded.seq, block_id = excluded.block_id,
                number = excluded.number, finalized_number = greatest(h.finalized_number, excluded.finalized_number)
             returning finalized_number",
        )
        .bind(&self.genesis_id)
        .bind(seq)
        .bind(block_id)
        .bind(number)
        .bind(finalized)
        .fetch_one(tx)
        .await?;
        self.metrics.chain_block.with_label_values(&["head"]).set(number);
        self.metrics.chain_block.with_label_values(&["finalized"]).set(finalized);
        Ok(())
    }

    /// Remembers the block's parent, and forgets blocks that are final for long: nothing undoes them.
    async fn remember(&self, tx: &mut PgConnection, block: &BlockAdopted) -> Result<(), StageError> {
        sqlx::query(
            "insert into payout_blocks (genesis_id, block_id, number, parent_id, adopted, seq)
             values ($1, $2, $3, $4, true, $5)
             on conflict (genesis_id, block_id) do update set adopted = true, seq = excluded.seq",
        )
        .bind(&self.genesis_id)
        .bind(&block.block.id)
        .bind(block.block.number)
        .bind(&block.parent_id)
        .bind(block.seq)
        .execute(&mut *tx)
        .await?;
        sqlx::query("delete from payout_blocks where genesis_id = $1 and number < $2")
            .bind(&self.genesis_id)
            .bind(block.block.number - KEPT_BLOCKS)
            .execute(tx)
            .await?;
        Ok(())
    }

    async fn store(
        &self,
        tx: &mut PgConnection,
        transaction: &Transaction,
        change: Change,
        at: DateTime<Utc>,
        outbox: &mut Outbox,
    ) -> Result<(), StageError> {
        rows::update_transaction(&mut *tx, transaction).await?;
        if let (Change::Incident, Some(what)) = (change, &transaction.attempt.error) {
            let id = (self.genesis_id.as_str(), transaction.attempt.tx_id.as_str());
            rows::incident(tx, id, (IncidentCause::Stray, what), at).await?;
        }
        self.publisher().transaction(transaction, change, at, outbox)
    }

    fn count(&self, changes: &[Taken]) {
        for (change, waited) in changes {
            if *change == Change::Incident {
                tracing::error!("a transaction did something else than planned: see payout_attempts.error");
            }
            if *change == Change::Deeper {
                continue;
            }
            self.metrics.payout_steps.with_label_values(&[change.label()]).inc();
            if let (Change::Included | Change::Confirmed, Some(waited)) = (change, waited) {
                self.metrics.payout_step_seconds.with_label_values(&[change.label()]).observe(*waited);
            }
        }
    }
}

/// Transactions whose confirmations a block counts before they settle anything. A public network's block of ten seconds holds four
/// transactions of 40 rewards, and twelve such blocks are 48 transactions: five a block still show each every ten blocks, for a tenth
/// of the work.
const SHOWN: i64 = 5;

/// More than a watcher remembers (400), so that every block that it can undo has its parent here.
const KEPT_BLOCKS: i64 = 1_000;

fn seconds(from: DateTime<Utc>, to: DateTime<Utc>) -> Option<f64> {
    (to - from).to_std().ok().map(|waited| waited.as_secs_f64())
}
