//! Rebuilds the books of payments after the database was lost: `payouts` from the grants and claims of their topic and from what
//! `payouts.updated` says of them, the transactions from the chain's own logs, heads and the watcher's place from `chain.events`.
//!
//! While it runs payments are paused, and they stay so where it ends in the middle. Nothing is paid by it. What the topics call paid and
//! the chain does not show is quarantined: a person decides.

mod sources;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use chain::node::{NodeError, Revision};
use chain::{Address, BlockId, Node};
use runtime::source::RawRecord;
use runtime::{Clock, Sink as _, SinkError, StageError};
use schemas::events::{PayoutState, PayoutUpdated};
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

pub use self::sources::{EachRecord, Take, Topics};

use super::consume::{PayoutConsumer, PayoutInput};
use super::ledger::outbox::{Outbox, Schemas};
use super::ledger::publish::Publisher;
use super::ledger::rows::{self, Payout};
use super::ledger::transition::owed;
use super::metrics::PayoutMetrics;
use super::network::{Network, NetworkError};
use super::payments::paying_transactions;
use super::reconcile::start_anew;
use super::submit::RoundError;
use super::submit::fold::{Books, Folded, LEAP, Lost};
use super::submit::guard::{GuardTopic, Payer};
use super::submit::lease::{Lease, LeaseError};
use super::submit::plan::PlanError;
use super::submit::terms::Terms;

/// Why payments are paused while a rebuild runs; it is found again where one has ended in the middle.
const UNDER_WAY: &str = "milestream restore payouts has not come to its end: run it again";
/// Steps of the chain that are read again: more than the blocks that a watcher remembers, and that a payout's consumer does.
const STEPS: usize = 2_000;
/// Records of a batch.
const BATCH: usize = 500;

/// Why the books were not rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// There is something to lose.
    #[error(
        "the database holds {payouts} payouts and {transactions} transactions: it is not lost. What it lacks it takes from the chain when \
         chain_submission starts; `milestream offsets reset chain_submission --reason TEXT` lets it consume its topics again before"
    )]
    NotLost {
        /// Payouts.
        payouts: i64,
        /// Transactions.
        transactions: i64,
    },
    /// An operator has paused payments, and would find them going on.
    #[error("payments are paused: {0}; `milestream payouts resume` first")]
    Paused(String),
    /// A submitter is at work.
    #[error("a process signs for {0}: stop every chain_submission first")]
    AtWork(String),
    /// The network's rows.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The node.
    #[error("the node: {0}")]
    Node(#[from] NodeError),
    /// A topic, the registry or the database.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A record does not become rows.
    #[error(transparent)]
    Row(#[from] SinkError),
    /// The lease was lost on the way.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A payment was not taken back.
    #[error("a payment was not taken back: {0}")]
    Payment(#[from] RoundError),
}

impl From<sqlx::Error> for RebuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Stage(error.into())
    }
}

/// What a rebuild has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Payouts, by state.
    pub payouts: BTreeMap<String, i64>,
    /// Transactions that were taken back into the books from the chain.
    pub transactions: usize,
    /// Transactions on the chain that the books cannot explain: `milestream payouts list`.
    pub unexplained: usize,
    /// Payouts that the topics call paid and the chain does not show: quarantined.
    pub unproven: usize,
    /// Payouts whose wallet is not in the database.
    pub without_wallet: i64,
    /// Block that must be final before anything is signed, since signatures may have been lost with the topics' last records.
    pub signs_after: Option<u32>,
}

/// What is rebuilt, and from what.
pub struct Rebuild<'a> {
    /// The database, with its accounts, wallets, nodes and contracts.
    pub pool: &'a PgPool,
    /// The network that is paid on.
    pub genesis: BlockId,
    /// How transactions are made.
    pub terms: &'a Terms,
    /// The topics.
    pub topics: &'a Topics,
    /// What is kept outside of the database.
    pub guard: &'a GuardTopic,
    /// Of what is published.
    pub schemas: Schemas,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The catalogue.
    pub metrics: PayoutMetrics,
    /// Kafka has lost nothing: every signature is announced there.
    pub topics_whole: bool,
}

impl Rebuild<'_> {
    /// Rebuilds the books.
    ///
    /// # Errors
    /// [`RebuildError`]; payments stay paused where it ends in the middle, and it may be run again.
    pub async fn run(&self) -> Result<Rebuilt, RebuildError> {
        let genesis_id = self.genesis.to_string();
        let paused: Option<String> =
            sqlx::query_scalar("select reason from payout_pauses where genesis_id = $1")
                .bind(&genesis_id)
                .fetch_optional(self.pool)
                .await?;
        if let Some(reason) = paused.clone().filter(|reason| reason != UNDER_WAY) {
            return Err(RebuildError::Paused(reason));
        }
        self.refuse_what_is_not_lost(paused.is_some()).await?;
        start_anew(self.pool, &genesis_id).await?;
        let network = Network::load(self.pool, self.genesis, chain::node::Limits::default()).await?;
        let (node, best) = self.node(&network).await?;
        let guarded = self.guard.load(&genesis_id).await?;
        let told = self.topics.newest_payouts(&genesis_id).await?;
        let signers = signers(&guarded.signers, told.values());
        let leases = self.leases(&signers).await?;
        if paused.is_none() {
            sqlx::query("insert into payout_pauses (genesis_id, reason) values ($1, $2)")
                .bind(&genesis_id)
                .bind(UNDER_WAY)
                .execute(self.pool)
                .await?;
        }
        let consumer = self.consumer();
        self.consume_grants(&consumer).await?;
        self.overlay(&told).await?;
        let mut rebuilt = Rebuilt::default();
        let from = guarded.checkpoint.map_or(0, |checkpoint| checkpoint.began_at).saturating_add(1);
        self.fold_all((&node, &network), &leases, (from, best), &mut rebuilt).await?;
        self.consume_steps(&consumer).await?;
        if !self.topics_whole {
            rebuilt.signs_after = self.wait_for_signatures(&signers, best).await?;
        }
        self.end(&leases, rebuilt).await
    }

    /// What a rebuild before has left in the middle is no loss.
    async fn refuse_what_is_not_lost(&self, under_way: bool) -> Result<(), RebuildError> {
        let (payouts, transactions): (i64, i64) =
            sqlx::query_as("select (select count(*) from payouts), (select count(*) from payout_attempts)")
                .fetch_one(self.pool)
                .await?;
        if payouts + transactions > 0 && !under_way {
            return Err(RebuildError::NotLost { payouts, transactions });
        }
        Ok(())
    }

    /// The first node that responds, with its height.
    async fn node(&self, network: &Network) -> Result<(Node, u32), RebuildError> {
        let mut failure = NodeError::UnknownBlock;
        for node in &network.nodes {
            match node.block(Revision::Best).await {
                Ok(Some(best)) => return Ok((node.clone(), best.number)),
                Ok(None) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure.into())
    }

    /// The leases of all who have ever signed: no process of theirs is at work.
    async fn leases(&self, signers: &BTreeSet<String>) -> Result<Vec<Lease>, RebuildError> {
        let mut leases = Vec::new();
        for signer in signers {
            match Lease::take(self.pool, signer, "milestream restore payouts").await? {
                Some(lease) => leases.push(lease),
                None => return Err(RebuildError::AtWork(signer.clone())),
            }
        }
        Ok(leases)
    }

    fn consumer(&self) -> PayoutConsumer {
        PayoutConsumer {
            pool: self.pool.clone(),
            schemas: self.schemas,
            genesis_id: self.genesis.to_string(),
            gas_ceiling: i64::try_from(self.terms.gas_ceiling).unwrap_or(i64::MAX),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Every grant, claim and correction, through the consumer that has taken them the first time.
    async fn consume_grants(&self, consumer: &PayoutConsumer) -> Result<(), RebuildError> {
        for mut records in [self.topics.grants(), self.topics.decisions()] {
            while let Some(batch) = next_batch(&mut records).await {
                consumer.write(&self.topics.inputs(&batch?).await?).await?;
            }
        }
        Ok(())
    }

    /// What the topics say of a payout beyond its grant: who was cancelled or quarantined stays so, and what was paid must be shown by the
    /// chain.
    async fn overlay(&self, told: &BTreeMap<Uuid, PayoutUpdated>) -> Result<(), RebuildError> {
        let publisher = Publisher { schemas: self.schemas, gas_ceiling: 0 };
        let now = self.clock.now().to_utc();
        let rewards: Vec<Uuid> = told.keys().copied().collect();
        for some in rewards.chunks(BATCH) {
            let mut tx = self.pool.begin().await?;
            let mut outbox = Outbox::default();
            for mut payout in rows::payouts(&mut tx, some).await? {
                let Some(told) = told.get(&payout.reward_id) else { continue };
                payout.revision = payout.revision.max(told.revision.saturating_add(LEAP));
                (payout.strikes, payout.max_retries) = (told.strikes, told.max_retries);
                payout.wallet_id = told.wallet_id.or(payout.wallet_id);
                owed_as_told(&mut payout, told);
                let state = match told.state {
                    PayoutState::Cancelled => Some((PayoutState::Cancelled, told.reason.clone())),
                    PayoutState::Quarantined => Some((PayoutState::Quarantined, told.reason.clone())),
                    PayoutState::Paid | PayoutState::Final => {
                        Some((PayoutState::Quarantined, Some(unproven(told))))
                    }
                    PayoutState::Waiting | PayoutState::Ready | PayoutState::InFlight => None,
                };
                if let Some((state, reason)) = state {
                    (payout.state, payout.reason, payout.ready_at) = (state, reason, None);
                }
                rows::update_payout(&mut tx, &payout).await?;
                publisher.payout(&payout, now, &mut outbox)?;
            }
            outbox.store(&mut tx).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Takes what the chain shows back into the books.
    async fn fold_all(
        &self,
        (node, network): (&Node, &Network),
        leases: &[Lease],
        (from, to): (u32, u32),
        rebuilt: &mut Rebuilt,
    ) -> Result<(), RebuildError> {
        let Some(lease) = leases.first() else { return Ok(()) };
        let books = Books {
            pool: self.pool,
            genesis: self.genesis,
            terms: self.terms,
            schemas: self.schemas,
            clock: self.clock.as_ref(),
            metrics: &self.metrics,
        };
        let ours: HashSet<Address> = leases.iter().filter_map(|lease| lease.signer.parse().ok()).collect();
        for transaction in paying_transactions(node, network, (from, to)).await? {
            let id = transaction.tx_id.to_string();
            let known: bool =
                sqlx::query_scalar("select exists (select 1 from payout_attempts where tx_id = $1)")
                    .bind(&id)
                    .fetch_one(self.pool)
                    .await?;
            if known {
                rebuilt.transactions += 1;
                continue;
            }
            for lease in leases {
                lease.renew(self.pool).await?;
            }
            match books.fold(node, network, lease, Lost { transaction: &transaction, ours: &ours }).await? {
                Folded::Explained => rebuilt.transactions += 1,
                Folded::Unexplained => rebuilt.unexplained += 1,
            }
        }
        Ok(())
    }

    /// The chain's last steps, through the consumer that has taken them the first time, and the watcher's place behind them.
    async fn consume_steps(&self, consumer: &PayoutConsumer) -> Result<(), RebuildError> {
        let steps = self.topics.last_steps(&self.genesis.to_string(), STEPS).await?;
        for batch in steps.chunks(BATCH) {
            consumer.write(batch).await?;
        }
        let Some((highest, checkpoint)) = sources::place(steps.iter().map(|step| &step.payload)) else {
            return Ok(());
        };
        let checkpoint = serde_json::to_value(checkpoint)
            .map_err(|error| StageError::new("store the watcher's place", error))?;
        sqlx::query(
            "insert into chain_cursors as c (genesis_id, highest_seq, checkpoint, updated_at) values ($1, $2, $3, $4)
             on conflict (genesis_id) do update set highest_seq = excluded.highest_seq, checkpoint = excluded.checkpoint
             where c.highest_seq < excluded.highest_seq",
        )
        .bind(self.genesis.to_string())
        .bind(highest)
        .bind(checkpoint)
        .bind(self.clock.now().to_utc())
        .execute(self.pool)
        .await?;
        Ok(())
    }

    /// Announces a signature that nobody knows: whatever was signed before now is valid up to that block at the latest.
    async fn wait_for_signatures(
        &self,
        signers: &BTreeSet<String>,
        best: u32,
    ) -> Result<Option<u32>, RebuildError> {
        let Some(signer) = signers.first() else { return Ok(None) };
        let last_valid = best.saturating_add(self.terms.expiration);
        let (genesis_id, unknown) = (self.genesis.to_string(), format!("0x{}", "0".repeat(64)));
        let payer = Payer { genesis_id: &genesis_id, signer };
        self.guard.announce(payer, self.clock.as_ref(), (&unknown, last_valid.into())).await?;
        Ok(Some(last_valid))
    }

    /// Counts what there is, lets the leases go and ends the pause.
    async fn end(&self, leases: &[Lease], mut rebuilt: Rebuilt) -> Result<Rebuilt, RebuildError> {
        let counts: Vec<(String, i64)> =
            sqlx::query_as("select state, count(*) from payouts group by state").fetch_all(self.pool).await?;
        rebuilt.payouts = counts.into_iter().collect();
        let (unproven, without_wallet): (i64, i64) = sqlx::query_as(
            "select count(*) filter (where state = 'quarantined' and reason like $1),
                count(*) filter (where wallet_id is not null and not exists (
                    select 1 from user_wallets w where w.id = p.wallet_id)) from payouts p",
        )
        .bind(format!("{UNPROVEN}%"))
        .fetch_one(self.pool)
        .await?;
        rebuilt.unproven = usize::try_from(unproven).unwrap_or(usize::MAX);
        rebuilt.without_wallet = without_wallet;
        for lease in leases {
            lease.release(self.pool).await?;
        }
        sqlx::query("delete from payout_pauses where genesis_id = $1 and reason = $2")
            .bind(self.genesis.to_string())
            .bind(UNDER_WAY)
            .execute(self.pool)
            .await?;
        Ok(rebuilt)
    }
}

/// How the reason of a payout begins that the topics call paid and the chain does not show.
const UNPROVEN: &str = "unproven: ";

fn unproven(told: &PayoutUpdated) -> String {
    let by = told.transaction.as_ref().map_or("no transaction", |transaction| transaction.tx_id.as_str());
    format!("{UNPROVEN}it was {} by {by}, which the chain does not show", told.state.label())
}

/// What is owed is what the newest adjustment says, whether the grants or the payouts know it; beside a transaction it is what that pays.
fn owed_as_told(payout: &mut Payout, told: &PayoutUpdated) {
    let told_of = told.adjustment.unwrap_or_default();
    let in_transaction = matches!(told.state, PayoutState::InFlight | PayoutState::Paid | PayoutState::Final);
    if (told_of >= payout.adjustment || in_transaction)
        && let Ok(amount) = owed(told.amount)
    {
        (payout.amount_wei, payout.adjustment) = (amount, told_of.max(payout.adjustment));
    }
}

/// Who has ever signed, by what is kept outside of the database and by the topics.
fn signers<'a>(
    guarded: &BTreeSet<String>,
    told: impl Iterator<Item = &'a PayoutUpdated>,
) -> BTreeSet<String> {
    let told = told.filter_map(|payout| Some(payout.transaction.as_ref()?.signer.clone()));
    guarded.iter().cloned().chain(told).collect()
}

/// The next records, up to a batch of them; none at the end.
async fn next_batch(records: &mut sources::Records) -> Option<Result<Vec<RawRecord>, StageError>> {
    let mut batch = Vec::new();
    while batch.len() < BATCH {
        match records.recv().await {
            Some(Ok(record)) => batch.push(record),
            Some(Err(error)) => return Some(Err(error)),
            None => break,
        }
    }
    (!batch.is_empty()).then_some(Ok(batch))
}

impl From<PlanError> for RebuildError {
    fn from(error: PlanError) -> Self {
        Self::Payment(error.into())
    }
}

/// A record as the consumer takes it.
pub(crate) type Input = runtime::Envelope<PayoutInput>;
