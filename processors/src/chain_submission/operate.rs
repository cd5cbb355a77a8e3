//! What an operator may do with a payout, by the table of [`super::ledger::machine`]: each order changes the row and publishes it in the
//! caller's database transaction, and is refused where the reward could be paid twice or a transaction's end is still open.

use chrono::{DateTime, Utc};
use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::{AttemptState, PayoutState};
use schemas::reason::Reason;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::ledger::machine::{self, Outcome, PayoutEvent};
use super::ledger::outbox::Outbox;
use super::ledger::publish::Publisher;
use super::ledger::rows::{self, Payout, Transaction, Which};
use super::ledger::snapshot;

/// What to do with a payout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Plan it with the next transaction, without the pause after a failure.
    Retry,
    /// It is quarantined and its cause is gone: plan it again.
    Release,
    /// It will not be paid.
    Cancel {
        /// It was settled in another way: its budgets stay charged.
        settled: bool,
    },
    /// Nobody has claimed it in time.
    Expire,
    /// This transaction, which did something else than planned, paid it all the same.
    Paid {
        /// The transaction.
        tx_id: String,
    },
    /// This transaction, which did something else than planned, did not pay it: plan it again.
    Unpaid {
        /// The transaction.
        tx_id: String,
    },
}

/// Why an order is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error("there is no payout of reward {0}")]
    Unknown(Uuid),
    /// A transaction could still pay it.
    #[error("transaction {tx_id} ({state}) could still pay it: {remedy}")]
    Live {
        /// The transaction.
        tx_id: String,
        /// Its state.
        state: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The order does not fit its state.
    #[error("it is {}: {remedy}", state.label())]
    State {
        /// Its state.
        state: PayoutState,
        /// What to do.
        remedy: &'static str,
    },
    /// It was asked for more, and the budgets have not answered yet.
    #[error("an adjustment of it is under way: wait for its end")]
    Adjusting,
    /// The replay has met something else than is owed.
    #[error("{owed} B3TR are owed for it, and the replay has met {met}: replay it again")]
    Amount {
        /// B3TR.
        owed: Decimal,
        /// B3TR.
        met: Decimal,
    },
    /// The transaction says nothing of the reward, or is as planned.
    #[error(
        "transaction {0} is no transaction that did otherwise than planned for this reward: `milestream payouts show` names them"
    )]
    NotStray(String),
    /// Rewards of the transaction are undecided.
    #[error("say of each reward of the transaction whether it was paid, with --reward: {0} is undecided")]
    Undecided(Uuid),
    /// The block of the transaction may still be undone.
    #[error("the transaction's block is not final yet: what it did may still be undone")]
    NotFinal,
    /// There is no open incident of it.
    #[error("transaction {0} has no unresolved incident: `milestream payouts list` shows them")]
    NoIncident(String),
    /// The database, or an event that does not encode.
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Stage(error.into())
    }
}

/// What an order changed, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// State, reason and strikes before.
    pub before: Value,
    /// The same after.
    pub after: Value,
}

fn summary(payout: &Payout) -> Value {
    json!({ "state": payout.state.label(), "reason": payout.reason, "strikes": payout.strikes })
}

/// Whether an order fits a payout, and the state that follows. `live` is the transaction that could still pay it, with its state.
///
/// # Errors
/// [`Refused`].
pub fn permit(state: PayoutState, live: Option<(&str, &str)>, order: &Order) -> Result<PayoutState, Refused> {
    let stray = AttemptState::Stray.label();
    if let Some((tx_id, of)) = live {
        let named =
            matches!(order, Order::Paid { tx_id: named } | Order::Unpaid { tx_id: named } if named == tx_id);
        if !(named && of == stray) {
            let remedy = if of == stray {
                "look whether it paid, then `milestream payouts resolve`"
            } else {
                "wait for its end; it goes on by itself once it is in a final block or proven dead"
            };
            return Err(Refused::Live { tx_id: tx_id.to_owned(), state: of.to_owned(), remedy });
        }
    }
    let event = match order {
        Order::Retry if state == PayoutState::Ready => return Ok(state),
        Order::Retry => {
            let remedy = if state == PayoutState::Quarantined {
                "`milestream payouts release` plans it again"
            } else {
                "only one that is ready is planned"
            };
            return Err(Refused::State { state, remedy });
        }
        Order::Expire if state != PayoutState::Waiting => {
            return Err(Refused::State { state, remedy: "only one that waits for its claim expires" });
        }
        Order::Release | Order::Unpaid { .. } => PayoutEvent::Release,
        Order::Cancel { .. } | Order::Expire => PayoutEvent::Cancel,
        Order::Paid { .. } => PayoutEvent::ResolvePaid,
    };
    match machine::payout(state, event) {
        Outcome::To(next) => Ok(next),
        Outcome::Stay | Outcome::Incident(_) => {
            Err(Refused::State { state, remedy: "`milestream payouts show` says where it stands" })
        }
    }
}

/// Carries out an order on a reward's payout.
///
/// # Errors
/// [`Refused`]; nothing has changed then.
pub async fn carry_out(
    tx: &mut PgConnection,
    publisher: &Publisher,
    reward_id: Uuid,
    (order, reason): (&Order, &str),
    now: DateTime<Utc>,
) -> Result<Done, Refused> {
    let mut payout = rows::payout(tx, reward_id).await?.ok_or(Refused::Unknown(reward_id))?;
    let live = live(tx, reward_id).await?;
    let next = permit(payout.state, live.as_ref().map(|(id, state)| (id.as_str(), state.as_str())), order)?;
    let stray = match order {
        Order::Paid { tx_id } | Order::Unpaid { tx_id } => Some(stray(tx, tx_id, reward_id).await?),
        Order::Retry | Order::Release | Order::Cancel { .. } | Order::Expire => None,
    };
    let before = summary(&payout);
    payout.state = next;
    payout.revision += 1;
    payout.ready_at = (next == PayoutState::Ready).then_some(now);
    let code = if *order == Order::Expire { Reason::ClaimExpired } else { Reason::Cancelled };
    payout.reason = (next == PayoutState::Cancelled).then(|| format!("{}: {reason}", code.label()));
    if matches!(order, Order::Release | Order::Unpaid { .. }) {
        payout.strikes = 0;
    }
    let mut outbox = Outbox::default();
    match (&stray, order) {
        (Some((transaction, clause)), Order::Paid { .. }) => {
            payout.paid_at = transaction.attempt.block_timestamp;
            payout.tx_id = Some(transaction.attempt.tx_id.clone());
            let event = snapshot::updated(&payout, Some((transaction, *clause)), now.into());
            outbox.payout(publisher.schemas, &event)?;
        }
        (Some((transaction, _)), _) => {
            sqlx::query("update payout_attempt_rewards set live = false where tx_id = $1 and reward_id = $2")
                .bind(&transaction.attempt.tx_id)
                .bind(reward_id)
                .execute(&mut *tx)
                .await?;
            publisher.payout(&payout, now, &mut outbox)?;
        }
        (None, _) => publisher.payout(&payout, now, &mut outbox)?,
    }
    if matches!(order, Order::Cancel { settled: false } | Order::Expire) {
        outbox.cancelled(publisher.schemas, &snapshot::cancelled(&payout, reason, now.into()))?;
    }
    rows::update_payout(tx, &payout).await?;
    outbox.store(tx).await?;
    Ok(Done { before, after: summary(&payout) })
}

/// The transaction that could still pay a reward, with its state.
///
/// # Errors
/// Postgres'.
pub(super) async fn live(tx: &mut PgConnection, reward_id: Uuid) -> sqlx::Result<Option<(String, String)>> {
    sqlx::query_as(
        "select a.tx_id, a.state from payout_attempt_rewards r join payout_attempts a using (tx_id)
         where r.reward_id = $1 and r.live",
    )
    .bind(reward_id)
    .fetch_optional(tx)
    .await
}

/// A transaction that did otherwise than planned, and its clause for the reward.
async fn stray(tx: &mut PgConnection, tx_id: &str, reward_id: Uuid) -> Result<(Transaction, usize), Refused> {
    let ids = [tx_id.to_owned()];
    let found = rows::transactions(tx, Which::Ids(&ids)).await?.pop();
    found
        .filter(|transaction| transaction.attempt.state == AttemptState::Stray)
        .and_then(|transaction| {
            let clause = transaction.clauses.iter().position(|clause| clause.reward_id == reward_id)?;
            Some((transaction, clause))
        })
        .ok_or_else(|| Refused::NotStray(tx_id.to_owned()))
}

/// Resolves the incidents of a transaction: planning and signing go on once none is left. Refused while a reward of the transaction is
/// undecided or its block may still be undone. Returns how many were resolved.
///
/// # Errors
/// [`Refused`].
pub async fn resolve(
    tx: &mut PgConnection,
    tx_id: &str,
    resolution: &str,
    now: DateTime<Utc>,
) -> Result<u64, Refused> {
    let state: Option<String> =
        sqlx::query_scalar("select state from payout_attempts where tx_id = $1 for update")
            .bind(tx_id)
            .fetch_optional(&mut *tx)
            .await?;
    if state.as_deref() == Some(AttemptState::Included.label()) {
        return Err(Refused::NotFinal);
    }
    let undecided: Option<Uuid> = sqlx::query_scalar(
        "select r.reward_id from payout_attempt_rewards r join payouts p using (reward_id)
         where r.tx_id = $1 and p.state = 'quarantined' order by r.clause_index limit 1",
    )
    .bind(tx_id)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(undecided) = undecided.filter(|_| state.as_deref() == Some(AttemptState::Stray.label())) {
        return Err(Refused::Undecided(undecided));
    }
    let done = sqlx::query(
        "update payout_incidents set resolved_at = $2, resolution = $3 where tx_id = $1 and resolved_at is null",
    )
    .bind(tx_id)
    .bind(now)
    .bind(resolution)
    .execute(tx)
    .await?
    .rows_affected();
    if done == 0 { Err(Refused::NoIncident(tx_id.to_owned())) } else { Ok(done) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TX: &str = "0x01";

    fn orders() -> [Order; 6] {
        let tx_id = TX.to_owned();
        [
            Order::Retry,
            Order::Release,
            Order::Cancel { settled: false },
            Order::Expire,
            Order::Paid { tx_id: tx_id.clone() },
            Order::Unpaid { tx_id },
        ]
    }

    #[test]
    fn beside_a_transaction_that_could_still_pay_no_order_is_carried_out() {
        for order in orders() {
            for state in PayoutState::ALL {
                for of in ["planned", "signed", "sent", "included", "confirmed", "reverted", "final"] {
                    let refused = permit(state, Some((TX, of)), &order);
                    assert!(
                        matches!(refused, Err(Refused::Live { .. })),
                        "{order:?} {state:?} {of}: {refused:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_paid_or_in_flight_is_neither_cancelled_nor_planned_again() {
        for order in orders() {
            for state in
                [PayoutState::InFlight, PayoutState::Paid, PayoutState::Final, PayoutState::Cancelled]
            {
                assert!(permit(state, None, &order).is_err(), "{order:?} {state:?}");
            }
        }
    }

    #[test]
    fn a_quarantined_payout_is_released_cancelled_or_resolved() {
        let of = |order: &Order| permit(PayoutState::Quarantined, None, order).unwrap();
        let [_, release, cancel, expire, paid, unpaid] = orders();
        assert_eq!((of(&release), of(&unpaid)), (PayoutState::Ready, PayoutState::Ready));
        assert_eq!((of(&cancel), of(&paid)), (PayoutState::Cancelled, PayoutState::Final));
        assert!(permit(PayoutState::Quarantined, None, &expire).is_err(), "it was claimed");
        assert_eq!(permit(PayoutState::Waiting, None, &expire).unwrap(), PayoutState::Cancelled);
        let stray = Some((TX, "stray"));
        assert!(permit(PayoutState::Quarantined, stray, &release).is_err(), "it may have been paid");
        assert_eq!(permit(PayoutState::Quarantined, stray, &unpaid).unwrap(), PayoutState::Ready);
        assert!(
            permit(PayoutState::Quarantined, Some(("0x02", "stray")), &unpaid).is_err(),
            "of another one"
        );
    }
}
