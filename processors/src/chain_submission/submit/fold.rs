//! Takes a transaction of ours back into the books that the chain shows and they do not know, whole or not at all.

use std::collections::{HashMap, HashSet};

use chain::node::{ExpandedBlock, Revision};
use chain::{Address, BlockId, Node, SignedTx, Wei};
use runtime::{Clock, StageError};
use schemas::events::PayoutState;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::RoundError;
use super::lease::Lease;
use super::obstacle::Obstacle;
use super::plan::PlanError;
use super::restore::{Restored, restore};
use super::terms::Terms;
use crate::chain_submission::blocks::adopted;
use crate::chain_submission::ledger::machine::{self, PayoutEvent};
use crate::chain_submission::ledger::outbox::{Outbox, Schemas};
use crate::chain_submission::ledger::rows::{self, IncidentCause, Payout, Which};
use crate::chain_submission::ledger::transition::wei;
use crate::chain_submission::metrics::PayoutMetrics;
use crate::chain_submission::network::Network;
use crate::chain_submission::payments::{PayingTransaction, Payment};

/// How far revisions leap: what the lost commits had published already must not win over what is published now.
pub const LEAP: i64 = 1_000;

/// What the books know of a reward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// Where its payout stands.
    pub state: PayoutState,
    /// What is owed, wei.
    pub amount: Wei,
    /// Another transaction that was signed for it and could pay it.
    pub signed: Option<String>,
    /// Wallets of the reward's driver.
    pub wallets: Vec<Address>,
}

/// What became of a payment that the books did not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// It is in the books now, or none of their business.
    Explained,
    /// It is an incident.
    Unexplained,
}

/// A transaction that the books do not know.
#[derive(Clone, Copy)]
pub struct Lost<'a> {
    /// What it paid.
    pub transaction: &'a PayingTransaction,
    /// The distributors of this deployment, the present one and earlier ones.
    pub ours: &'a HashSet<Address>,
}

/// Why a payment that the books do not know cannot be taken back into them; nothing where it can.
///
/// # Errors
/// What is wrong, for a person.
pub fn explain(payment: &Payment, booked: Option<&Booked>) -> Result<(), String> {
    let Payment { clause, receiver, amount, .. } = payment;
    let Some(reward) = payment.reward_id else {
        return Err(format!("clause {clause} pays {receiver} and names no reward"));
    };
    let Some(booked) = booked else {
        return Err(format!("clause {clause} pays reward {reward}, which the books do not know"));
    };
    if booked.amount != *amount {
        let owed = booked.amount;
        return Err(format!("clause {clause} pays {amount} wei for reward {reward}, and {owed} are owed"));
    }
    if !booked.wallets.contains(receiver) {
        return Err(format!("clause {clause} pays reward {reward} to {receiver}, no wallet of its driver"));
    }
    if let Some(other) = &booked.signed {
        return Err(format!("clause {clause} pays reward {reward}, for which {other} is signed"));
    }
    let restored = machine::payout(booked.state, PayoutEvent::Restore).to();
    if restored.is_none() && booked.state != PayoutState::InFlight {
        let state = booked.state.label();
        return Err(format!("clause {clause} pays reward {reward}, which is {state} already"));
    }
    Ok(())
}

/// The books, and how changes of them are published.
pub struct Books<'a> {
    /// The stage's database.
    pub pool: &'a PgPool,
    /// The network that is paid on.
    pub genesis: BlockId,
    /// How transactions are made.
    pub terms: &'a Terms,
    /// Of what is published.
    pub schemas: Schemas,
    /// The clock.
    pub clock: &'a dyn Clock,
    /// The catalogue.
    pub metrics: &'a PayoutMetrics,
}

impl Books<'_> {
    /// Takes a transaction that the books do not know into them, or stores it as an incident where they cannot explain it.
    ///
    /// # Errors
    /// [`RoundError`]; nothing is changed then.
    pub async fn fold(
        &self,
        node: &Node,
        network: &Network,
        lease: &Lease,
        Lost { transaction, ours }: Lost<'_>,
    ) -> Result<Folded, RoundError> {
        let rewards = transaction.rewards();
        let ours = transaction.payments.iter().all(|payment| ours.contains(&payment.distributor));
        if !ours && !self.owes(&rewards).await? {
            // Another distributor may pay rewards of the same app.
            return Ok(Folded::Explained);
        }
        let raw = node.raw_transaction(transaction.tx_id).await.map_err(Obstacle::from)?;
        let block = node.expanded_block(Revision::Id(transaction.block)).await.map_err(Obstacle::from)?;
        // Where the branch has changed since, the next look finds it where it is then.
        let (Some(raw), Some(block)) = (raw, block) else { return Err(PlanError::Moved.into()) };
        let signed =
            SignedTx::decode(&raw).map_err(|error| format!("its bytes are not as they should be: {error}"));
        let mut tx = self.pool.begin().await?;
        lease.hold(&mut tx).await?;
        let payouts = rows::payouts(&mut tx, &rewards).await?;
        let explained = match &signed {
            Ok(signed) if ours => {
                let booked = booked(&mut tx, &payouts, transaction).await?;
                explain_all(transaction, signed, &booked).map(|()| signed)
            }
            Ok(_) => Err("another distributor pays rewards of the books".to_owned()),
            Err(why) => Err(why.clone()),
        };
        let signed = match explained {
            Ok(signed) => signed,
            Err(why) => {
                self.doubt(&mut tx, transaction, payouts, &why).await?;
                tx.commit().await?;
                return Ok(Folded::Unexplained);
            }
        };
        let terms = self.terms;
        let restored = Restored { transaction, signed, raw: &raw, block: &block, network };
        restore(&mut tx, &restored, &payouts, (lease, terms)).await?;
        self.include(&mut tx, transaction, &block).await?;
        tx.commit().await?;
        tracing::warn!(tx = %transaction.tx_id, rewards = rewards.len(), "the chain paid what the books had lost");
        self.metrics.payout_steps.with_label_values(&["restored"]).inc();
        Ok(Folded::Explained)
    }

    /// Whether the books know any of the rewards.
    async fn owes(&self, rewards: &[Uuid]) -> Result<bool, RoundError> {
        let known = sqlx::query_scalar("select exists (select 1 from payouts where reward_id = any($1))");
        Ok(known.bind(rewards).fetch_one(self.pool).await?)
    }

    /// Stores an incident, and keeps what the transaction names from being paid until a person has looked.
    async fn doubt(
        &self,
        tx: &mut PgConnection,
        transaction: &PayingTransaction,
        payouts: Vec<Payout>,
        why: &str,
    ) -> Result<(), RoundError> {
        let (genesis, id) = (self.genesis.to_string(), transaction.tx_id.to_string());
        let what = format!("a payment that the books do not know: {why}");
        let now = self.clock.now().to_utc();
        let cause = IncidentCause::UnknownPayment;
        let new = rows::incident(tx, (&genesis, &id), (cause, &what), now).await?;
        let mut outbox = Outbox::default();
        for mut payout in payouts {
            if payout.moves(PayoutEvent::Doubt) {
                payout.ready_at = None;
                payout.revision += 1;
                payout.reason = Some(format!("unknown_payment: {id} names it"));
                rows::update_payout(tx, &payout).await?;
                self.terms.publisher(self.schemas).payout(&payout, now, &mut outbox)?;
            }
        }
        outbox.store(tx).await?;
        if new {
            tracing::error!(tx = id, what, "nothing more is signed");
            self.metrics.payout_steps.with_label_values(&[cause.label()]).inc();
        }
        Ok(())
    }

    /// Puts the restored transaction into its block, publishes it, and ends its incidents.
    async fn include(
        &self,
        tx: &mut PgConnection,
        transaction: &PayingTransaction,
        block: &ExpandedBlock,
    ) -> Result<(), RoundError> {
        let now = self.clock.now();
        let (adopted, id) = (adopted(block, &self.genesis, now), transaction.tx_id.to_string());
        let found = adopted.transactions.iter().find(|found| found.id == id);
        let found = found.ok_or_else(|| StageError::new("chain", "the block lacks the transaction"))?;
        let mut outbox = Outbox::default();
        for mut restored in rows::transactions(tx, Which::Ids(std::slice::from_ref(&id))).await? {
            restored.attempt.revision += LEAP;
            for payout in &mut restored.payouts {
                payout.revision += LEAP;
            }
            if let Some(change) = restored.included(&adopted, found) {
                rows::update_transaction(tx, &restored).await?;
                let publisher = self.terms.publisher(self.schemas);
                publisher.transaction(&restored, change, now.to_utc(), &mut outbox)?;
            }
        }
        sqlx::query(
            "update payout_incidents set resolved_at = $3, resolution = $4
             where genesis_id = $1 and tx_id = $2 and resolved_at is null",
        )
        .bind(self.genesis.to_string())
        .bind(&id)
        .bind(now.to_utc())
        .bind(rows::TAKEN_BACK)
        .execute(&mut *tx)
        .await?;
        outbox.store(tx).await?;
        Ok(())
    }
}

fn explain_all(
    transaction: &PayingTransaction,
    signed: &SignedTx,
    booked: &HashMap<Uuid, Booked>,
) -> Result<(), String> {
    let payments = &transaction.payments;
    for payment in payments {
        explain(payment, payment.reward_id.and_then(|reward| booked.get(&reward)))?;
    }
    let distinct: HashSet<Uuid> = transaction.rewards().into_iter().collect();
    if distinct.len() < payments.len() {
        return Err("it pays a reward twice".to_owned());
    }
    if signed.id() != transaction.tx_id || signed.unsigned().clauses.len() != payments.len() {
        return Err("it does more than pay rewards".to_owned());
    }
    Ok(())
}

/// What the books know of the rewards of a transaction.
async fn booked(
    tx: &mut PgConnection,
    payouts: &[Payout],
    transaction: &PayingTransaction,
) -> Result<HashMap<Uuid, Booked>, RoundError> {
    let ids: Vec<Uuid> = payouts.iter().map(|payout| payout.reward_id).collect();
    let users: Vec<Uuid> = payouts.iter().map(|payout| payout.user_id).collect();
    let live: Vec<(Uuid, String)> = sqlx::query_as(
        "select r.reward_id, a.tx_id || ' (' || a.state || ')' from payout_attempt_rewards r join payout_attempts a using (tx_id)
         where r.reward_id = any($1) and r.live and a.tx_id <> $2",
    )
    .bind(&ids)
    .bind(transaction.tx_id.to_string())
    .fetch_all(&mut *tx)
    .await?;
    let wallets: Vec<(Uuid, String)> =
        sqlx::query_as("select user_id, wallet_address from user_wallets where user_id = any($1)")
            .bind(&users)
            .fetch_all(tx)
            .await?;
    let of = |payout: &Payout| Booked {
        state: payout.state,
        amount: wei(payout.amount_wei).unwrap_or_default(),
        signed: live.iter().find(|(reward, _)| *reward == payout.reward_id).map(|(_, other)| other.clone()),
        wallets: wallets
            .iter()
            .filter(|(user, _)| *user == payout.user_id)
            .filter_map(|(_, address)| address.parse().ok())
            .collect(),
    };
    Ok(payouts.iter().map(|payout| (payout.reward_id, of(payout))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REWARD: Uuid = Uuid::from_u128(7);
    const WALLET: Address = Address([1; 20]);

    fn payment() -> Payment {
        let distributor = Address([2; 20]);
        Payment { clause: 0, reward_id: Some(REWARD), amount: Wei::from(5), receiver: WALLET, distributor }
    }

    fn booked(state: PayoutState) -> Booked {
        Booked { state, amount: Wei::from(5), signed: None, wallets: vec![WALLET] }
    }

    #[test]
    fn a_payment_of_a_reward_that_is_owed_is_taken_back_and_any_other_is_an_incident() {
        use PayoutState::{Cancelled, Final, InFlight, Paid, Quarantined, Ready, Waiting};
        for state in [Waiting, Ready, InFlight, Quarantined] {
            assert_eq!(explain(&payment(), Some(&booked(state))), Ok(()));
        }
        for state in [Paid, Final, Cancelled] {
            let wrong = explain(&payment(), Some(&booked(state))).unwrap_err();
            assert!(wrong.contains(state.label()), "{wrong}");
        }
        let wrong =
            |payment: &Payment, booked: Option<Booked>| explain(payment, booked.as_ref()).unwrap_err();
        assert!(wrong(&payment(), None).contains("the books do not know"));
        let other = Booked { signed: Some("0x09".into()), ..booked(InFlight) };
        assert!(wrong(&payment(), Some(other)).contains("for which 0x09 is signed"));
        let more = Booked { amount: Wei::from(4), ..booked(Ready) };
        assert!(wrong(&payment(), Some(more)).contains("5 wei"));
        let stranger = Booked { wallets: vec![Address([3; 20])], ..booked(Ready) };
        assert!(wrong(&payment(), Some(stranger)).contains("no wallet of its driver"));
        assert!(wrong(&Payment { reward_id: None, ..payment() }, None).contains("no reward"));
    }
}
