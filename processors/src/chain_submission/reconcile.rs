//! The chain's own logs against the books: every token that left the app's purse is explained by exactly one reward, and every payment
//! of the books is on the chain.

mod checkpoint;

pub use self::checkpoint::{reconcile_on, start_anew};

use std::collections::{BTreeMap, HashSet};

use chain::node::{NodeError, Revision};
use chain::{Address, Node, Wei};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::ledger::amounts::decimal;
use super::ledger::rows::resolved_by_a_person;
use super::network::Network;
use super::payments::{PayingTransaction, paying_transactions};

/// Blocks whose payments are compared at a time: a day, at most 28 rewards a second.
const WINDOW: u32 = 8_640;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The books hold a payment that the chain does not show.
    Missing,
    /// The chain shows a second payment of a reward.
    Double,
    /// The chain shows a payment that the books do not hold.
    Unknown,
    /// Another amount was paid than the books hold.
    WrongAmount,
    /// Somebody else was paid than the books hold.
    WrongReceiver,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Missing, Self::Double, Self::Unknown, Self::WrongAmount, Self::WrongReceiver];

    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Double => "double",
            Self::Unknown => "unknown",
            Self::WrongAmount => "wrong_amount",
            Self::WrongReceiver => "wrong_receiver",
        }
    }
}

runtime::metrics! {
    /// What the last comparison of this process found.
    pub struct ReconcileMetrics {
        /// `missing`, `double`, `unknown`, `wrong_amount`, `wrong_receiver`. Act on any above 0.
        differences: Gauge["kind"] = "milestream_reconcile_differences", "Payments in which chain and books differed when this process last compared them";
        /// Act when it is hours ago.
        compared: Gauge[] = "milestream_reconcile_timestamp_seconds", "Unix time at which this process last compared chain and books";
    }
}

impl ReconcileMetrics {
    /// Shows what a comparison at `now`, in seconds since 1970, found.
    pub fn show(&self, report: &Report, now: i64) {
        for kind in Kind::ALL {
            let count = report.findings.iter().filter(|finding| finding.kind == kind).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.differences.with_label_values(&[kind.label()]).set(count);
        }
        self.compared.with_label_values(&[]).set(now);
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// The transaction.
    pub tx_id: String,
    /// Its clause, from 0.
    pub clause: u32,
    /// The reward, where the proof or the books name one.
    pub reward_id: Option<Uuid>,
    /// By chain and books, for a person.
    pub detail: String,
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// First block.
    pub from: u32,
    /// Last block: known to the books, and final by the node unless another was asked for.
    pub to: u32,
    /// Payments that the chain shows.
    pub payments: usize,
    /// Wei of B3TR that they paid.
    pub paid_wei: Wei,
    /// Payments of which an operator has said what they are: `milestream payouts resolve`.
    pub resolved: usize,
    /// Differences, by block.
    pub findings: Vec<Finding>,
    /// The last block of those at the beginning in which nothing differs; none where the first ones already differ, or none were compared.
    pub equal_upto: Option<u32>,
}

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The database.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
}

/// A clause of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// The reward.
    pub reward_id: Uuid,
    /// Whom it pays.
    pub receiver: Address,
    /// Wei of B3TR.
    pub amount: Decimal,
    /// Whether the books have seen it paid by a block of the range.
    pub paid: bool,
}

/// Clauses of the books by transaction and index.
pub type Books = BTreeMap<(String, u32), Booked>;

/// Compares what was paid from block `from` to block `to`, as far as the books have followed the chain. Without `from` since the
/// deployment's first payment, without `to` as far as the chain is final.
///
/// # Errors
/// [`ReconcileError`].
pub async fn reconcile(
    pool: &PgPool,
    node: &Node,
    network: &Network,
    (from, to): (Option<u32>, Option<u32>),
) -> Result<Report, ReconcileError> {
    let genesis = network.genesis.to_string();
    let to = match to {
        Some(to) => to,
        None => node.block(Revision::Finalized).await?.ok_or(NodeError::UnknownBlock)?.number,
    };
    let (began_at, head): (Option<i64>, Option<i64>) = sqlx::query_as(
        "select (select min(began_at) from payout_checkpoints where genesis_id = $1),
            (select number from payout_heads where genesis_id = $1)",
    )
    .bind(&genesis)
    .fetch_one(pool)
    .await?;
    let height = |number: i64| u32::try_from(number).unwrap_or(0);
    let from = from.unwrap_or_else(|| began_at.map_or(0, height).saturating_add(1));
    let to = to.min(head.map_or(0, height));
    let mut report = Report { from, to, ..Report::default() };
    let (mut next, mut seen) = (from, HashSet::new());
    let before = i64::from(from);
    while next <= to {
        let last = to.min(next.saturating_add(WINDOW - 1));
        let shown = paying_transactions(node, network, (next, last)).await?;
        let ids: Vec<String> = shown.iter().map(|transaction| transaction.tx_id.to_string()).collect();
        let books = books(pool, &genesis, &ids, (next, last)).await?;
        let resolved = resolved_by_a_person(pool, &genesis, &ids).await?.into_iter().collect();
        let rewards: Vec<Uuid> = shown.iter().flat_map(PayingTransaction::rewards).collect();
        seen.extend(paid_before(pool, &genesis, &rewards, before).await?);
        compare(&shown, &books, &resolved, &mut seen, &mut report);
        if report.findings.is_empty() {
            report.equal_upto = Some(last);
        }
        next = last.saturating_add(1);
    }
    Ok(report)
}

/// Clauses of transactions that are in these blocks by the books, or that the chain shows there.
async fn books(pool: &PgPool, genesis: &str, ids: &[String], (from, to): (u32, u32)) -> sqlx::Result<Books> {
    let rows: Vec<(String, i32, Uuid, String, Decimal, bool)> = sqlx::query_as(
        "select tx_id, clause_index, reward_id, receiver, r.amount_wei,
            coalesce(block_number between $3 and $4 and not reverted, false)
         from payout_attempts join payout_attempt_rewards r using (tx_id)
         where genesis_id = $1 and state not in ('planned', 'abandoned')
            and (tx_id = any($2) or (block_number between $3 and $4 and not reverted))",
    )
    .bind(genesis)
    .bind(ids)
    .bind(i64::from(from))
    .bind(i64::from(to))
    .fetch_all(pool)
    .await?;
    let booked = rows.into_iter().filter_map(|(tx_id, clause, reward_id, receiver, amount, paid)| {
        let receiver = receiver.parse().ok()?;
        Some(((tx_id, u32::try_from(clause).ok()?), Booked { reward_id, receiver, amount, paid }))
    });
    Ok(booked.collect())
}

/// Those of the rewards that a block before this one has paid by the books.
async fn paid_before(pool: &PgPool, genesis: &str, rewards: &[Uuid], before: i64) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "select distinct reward_id from payout_attempts join payout_attempt_rewards r using (tx_id)
         where genesis_id = $1 and state not in ('planned', 'abandoned') and reward_id = any($2)
            and block_number < $3 and not reverted",
    )
    .bind(genesis)
    .bind(rewards)
    .bind(before)
    .fetch_all(pool)
    .await
}

/// Adds to the report what a range of blocks shows. `seen` are the rewards that were paid before it.
pub fn compare(
    shown: &[PayingTransaction],
    books: &Books,
    resolved: &HashSet<String>,
    seen: &mut HashSet<Uuid>,
    report: &mut Report,
) {
    let mut paid: HashSet<(String, u32)> = HashSet::new();
    for transaction in shown {
        let tx_id = transaction.tx_id.to_string();
        for payment in &transaction.payments {
            let at = (tx_id.clone(), payment.clause);
            let booked = books.get(&at);
            paid.insert(at);
            report.payments += 1;
            report.paid_wei = report.paid_wei.checked_add(payment.amount).unwrap_or(Wei::MAX);
            if booked.is_none() && resolved.contains(&tx_id) {
                report.resolved += 1;
                continue;
            }
            let mut find = |kind, detail: String| {
                let (clause, reward_id) = (payment.clause, payment.reward_id);
                report.findings.push(Finding { kind, tx_id: tx_id.clone(), clause, reward_id, detail });
            };
            match booked.filter(|booked| Some(booked.reward_id) == payment.reward_id) {
                None => find(Kind::Unknown, format!("{} wei to {}", payment.amount, payment.receiver)),
                Some(booked) if !booked.paid => {
                    find(Kind::Unknown, "the books hold it in no block of the range".to_owned());
                }
                Some(booked) => {
                    if decimal(payment.amount) != Some(booked.amount) {
                        let detail = format!("{} wei, and {} by the books", payment.amount, booked.amount);
                        find(Kind::WrongAmount, detail);
                    }
                    if payment.receiver != booked.receiver {
                        let detail = format!("{}, and {} by the books", payment.receiver, booked.receiver);
                        find(Kind::WrongReceiver, detail);
                    }
                }
            }
            if payment.reward_id.is_some_and(|reward| !seen.insert(reward)) {
                find(Kind::Double, format!("{} wei to {}", payment.amount, payment.receiver));
            }
        }
    }
    for ((tx_id, clause), booked) in books {
        if booked.paid && !paid.contains(&(tx_id.clone(), *clause)) {
            let detail = format!("{} wei to {}", booked.amount, booked.receiver);
            let (tx_id, clause, reward_id) = (tx_id.clone(), *clause, Some(booked.reward_id));
            report.findings.push(Finding { kind: Kind::Missing, tx_id, clause, reward_id, detail });
        }
    }
}

#[cfg(test)]
mod tests {
    use chain::{BlockId, TxId};

    use super::super::payments::Payment;
    use super::*;

    const REWARD: Uuid = Uuid::from_u128(7);

    fn shown(tx: u8, reward: Uuid, amount: u128, receiver: u8) -> PayingTransaction {
        let payment = Payment {
            clause: 0,
            reward_id: Some(reward),
            amount: Wei::from(amount),
            receiver: Address([receiver; 20]),
            distributor: Address([9; 20]),
        };
        PayingTransaction { tx_id: TxId([tx; 32]), block: BlockId([0; 32]), payments: vec![payment] }
    }

    fn books(tx: u8, reward: Uuid, amount: i64, paid: bool) -> Books {
        let booked = Booked { reward_id: reward, receiver: Address([1; 20]), amount: amount.into(), paid };
        BTreeMap::from([((TxId([tx; 32]).to_string(), 0), booked)])
    }

    fn kinds(shown: &[PayingTransaction], books: &Books, resolved: &[TxId]) -> Vec<Kind> {
        let resolved = resolved.iter().map(ToString::to_string).collect();
        let mut report = Report::default();
        compare(shown, books, &resolved, &mut HashSet::new(), &mut report);
        assert_eq!(report.payments, shown.len());
        report.findings.iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_comparison_shows_a_number_for_each_kind_and_when_it_was_made() {
        let metrics = ReconcileMetrics::new().unwrap();
        let finding =
            |kind| Finding { kind, tx_id: String::new(), clause: 0, reward_id: None, detail: String::new() };
        let report =
            Report { findings: vec![finding(Kind::Double), finding(Kind::Double)], ..Report::default() };
        metrics.show(&report, 1_700_000_000);
        let shown = |kind: Kind| metrics.differences.with_label_values(&[kind.label()]).get();
        assert_eq!(Kind::ALL.map(shown), [0, 2, 0, 0, 0]);
        assert_eq!(metrics.compared.with_label_values(&[]).get(), 1_700_000_000);
        metrics.show(&Report::default(), 1_700_003_600);
        assert_eq!(Kind::ALL.map(shown), [0; 5]);
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.label());
        }
    }

    #[test]
    fn each_difference_between_chain_and_books_has_its_kind() {
        let booked = books(1, REWARD, 5, true);
        let equal = shown(1, REWARD, 5, 1);
        assert_eq!(kinds(std::slice::from_ref(&equal), &booked, &[]), []);
        assert_eq!(kinds(&[], &booked, &[]), [Kind::Missing]);
        assert_eq!(kinds(&[], &books(1, REWARD, 5, false), &[]), [], "it is in no block by the books");
        assert_eq!(kinds(&[shown(1, REWARD, 6, 1)], &booked, &[]), [Kind::WrongAmount]);
        assert_eq!(kinds(&[shown(1, REWARD, 5, 2)], &booked, &[]), [Kind::WrongReceiver]);
        assert_eq!(kinds(&[shown(1, Uuid::nil(), 5, 1)], &booked, &[]), [Kind::Unknown]);
        assert_eq!(kinds(&[shown(1, REWARD, 5, 1)], &books(1, REWARD, 5, false), &[]), [Kind::Unknown]);
        let again = [equal.clone(), shown(2, REWARD, 5, 1)];
        assert_eq!(kinds(&again, &booked, &[]), [Kind::Unknown, Kind::Double]);
        assert_eq!(kinds(&again, &booked, &[TxId([2; 32])]), [], "a person has said what it is");
    }
}
