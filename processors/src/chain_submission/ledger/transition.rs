//! What grants, claims and blocks do to payouts and transactions: functions of the rows and the event alone.
//!
//! ```text
//! payout       waiting ─ claim ─▶ ready ─ plan ─▶ in_flight ─ 12 confirmations ─▶ paid ─ final block ─▶ final
//! transaction  signed ─ posted ─▶ sent ─ in a block ─▶ included ─ 12 ─▶ confirmed | reverted ─▶ final | reverted_final
//!                                   ▲────── block undone ───────┴──────────────┘
//! ```
//!
//! A transaction that is in no block goes on being posted, the same bytes each time; nothing takes its place here.

use chain::Wei;
use chain::abi::ContractEvent;
use chain::node::Event as Log;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::{
    AttemptState, BlockAdopted, ChainTransaction, PayoutState, RewardClaimed, RewardGranted,
};
use serde_json::json;
use sqlx::types::Json;
use uuid::Uuid;

use super::rows::{Payout, Transaction};

/// Blocks on top of its own after which a payment counts as made: the advice of the Thor wiki, two minutes.
pub const CONFIRMATIONS: i64 = 12;

/// Entries of a transaction's history that are kept.
const HISTORY: usize = 64;

/// What happened to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its bytes are stored.
    Signed,
    /// It was posted for the first time.
    Sent,
    /// It is in a block.
    Included,
    /// It has another confirmation.
    Deeper,
    /// Its block does not count any more.
    Undone,
    /// 12 confirmations, and it paid what was planned.
    Confirmed,
    /// 12 confirmations, and all its clauses failed.
    Reverted,
    /// Its block is final.
    Final,
    /// No block can hold it any more, and none is known to.
    Expired,
    /// 12 confirmations, and it did something else than planned: a person must look.
    Incident,
}

impl Change {
    /// Metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Sent => "sent",
            Self::Included => "included",
            Self::Deeper => "deeper",
            Self::Undone => "undone",
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
            Self::Final => "final",
            Self::Expired => "expired",
            Self::Incident => "incident",
        }
    }

    /// The name in `transaction_monitoring_logs.monitoring_stage`; none for a mere confirmation.
    #[must_use]
    pub fn stage(self) -> Option<&'static str> {
        match self {
            Self::Signed => Some("signed"),
            Self::Sent => Some("submitted"),
            Self::Included => Some("pending"),
            Self::Deeper | Self::Expired => None,
            Self::Undone => Some("undone"),
            Self::Confirmed => Some("confirmed"),
            Self::Reverted => Some("reverted"),
            Self::Final => Some("finalized"),
            Self::Incident => Some("stray"),
        }
    }
}

/// A stored claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The wallet to be paid.
    pub wallet_id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
}

impl From<&RewardClaimed> for Claim {
    fn from(event: &RewardClaimed) -> Self {
        Self { wallet_id: event.wallet_id, at: event.occurred_at.to_utc() }
    }
}

/// The payout of a grant; none where nothing is granted. An amount off the grid of 1e-8 B3TR is refused.
///
/// # Errors
/// What is wrong with the amount.
pub fn granted(
    event: &RewardGranted,
    claim: Option<Claim>,
    now: DateTime<Utc>,
) -> Result<Option<Payout>, String> {
    if event.granted.is_zero() {
        return Ok(None);
    }
    let wei = Wei::from_b3tr(event.granted).map_err(|error| format!("{}: {error}", event.reward_id))?;
    let mut payout = Payout {
        reward_id: event.reward_id.0,
        user_id: event.header.user_id.0,
        wallet_id: event.stamp.wallet_id,
        amount_wei: decimal(wei).ok_or_else(|| format!("{}: {wei} does not fit", event.reward_id))?,
        state: PayoutState::Waiting,
        strikes: 0,
        max_retries: 3,
        claimed_at: event.stamp.auto_claim.then(|| event.header.occurred_at.to_utc()),
        reason: None,
        revision: 0,
        header: Json(event.header.clone()),
        stamp: Json(event.stamp.clone()),
        ready_at: None,
        paid_at: None,
        tx_id: None,
    };
    if let Some(claim) = claim {
        payout.take(claim);
    }
    payout.settle_wait(now);
    Ok(Some(payout))
}

impl Payout {
    /// Applies a claim; false where it changes nothing (claimed before, or past waiting).
    pub fn claimed(&mut self, claim: Claim, now: DateTime<Utc>) -> bool {
        if self.state != PayoutState::Waiting {
            return false;
        }
        self.take(claim);
        self.settle_wait(now);
        self.revision += 1;
        true
    }

    fn take(&mut self, claim: Claim) {
        self.claimed_at = Some(self.claimed_at.unwrap_or(claim.at));
        // What was stamped at acceptance stays; a claim supplies a missing wallet.
        self.wallet_id = self.wallet_id.or(Some(claim.wallet_id));
    }

    /// Ready with a claim and a wallet, else waiting with the reason.
    fn settle_wait(&mut self, now: DateTime<Utc>) {
        let missing = match (self.claimed_at, self.wallet_id) {
            (Some(_), Some(_)) => None,
            (None, _) => Some("unclaimed: the driver has not asked for the reward yet"),
            (_, None) => Some("no_wallet: the driver has no wallet yet"),
        };
        self.state = if missing.is_none() { PayoutState::Ready } else { PayoutState::Waiting };
        self.ready_at = missing.is_none().then_some(now);
        self.reason = missing.map(str::to_owned);
    }
}

impl Transaction {
    /// Notes a change: the transaction and each of its payouts change by one revision.
    pub fn note(&mut self, change: Change, at: DateTime<Utc>) {
        let attempt = &mut self.attempt;
        attempt.revision += 1;
        if let Some(stage) = change.stage() {
            let entry = json!({
                "stage": stage, "at": at, "block_number": attempt.block_number,
                "confirmations": attempt.confirmations, "reason": attempt.error,
            });
            attempt.history.0.push(entry);
            let excess = attempt.history.0.len().saturating_sub(HISTORY);
            attempt.history.0.drain(..excess);
        }
        for payout in &mut self.payouts {
            payout.revision += 1;
        }
    }

    /// A node was given the bytes; whatever it responded, from now on they may be anywhere. None where that was known.
    pub fn sent(&mut self, at: DateTime<Utc>) -> Option<Change> {
        let attempt = &mut self.attempt;
        attempt.broadcast_count += 1;
        if attempt.state != AttemptState::Signed {
            return None;
        }
        attempt.state = AttemptState::Sent;
        attempt.sent_at = Some(at);
        self.note(Change::Sent, at);
        Some(Change::Sent)
    }

    /// The chain has passed the last block that could hold it, and it was seen in none: it stays pending and visible, since only a
    /// proof on the final chain shows that it is dead. None where that is noted already.
    pub fn expired(&mut self, at: DateTime<Utc>) -> Option<Change> {
        let attempt = &mut self.attempt;
        let waiting = matches!(attempt.state, AttemptState::Signed | AttemptState::Sent);
        if !waiting || attempt.error.is_some() {
            return None;
        }
        attempt.error = Some(format!("expired at {}: pending until it is proven dead", attempt.last_valid));
        for payout in &mut self.payouts {
            payout.reason.clone_from(&self.attempt.error);
        }
        self.note(Change::Expired, at);
        Some(Change::Expired)
    }

    /// It is in a block that was adopted. None where it is in a block already.
    pub fn included(&mut self, block: &BlockAdopted, found: &ChainTransaction) -> Option<Change> {
        if !matches!(self.attempt.state, AttemptState::Signed | AttemptState::Sent) {
            return None;
        }
        let difference = self.difference(found);
        let attempt = &mut self.attempt;
        attempt.state = AttemptState::Included;
        attempt.block_id = Some(block.block.id.clone());
        attempt.block_number = Some(block.block.number);
        attempt.block_timestamp = Some(block.block.timestamp.to_utc());
        attempt.reverted = Some(found.reverted);
        attempt.gas_used = Some(found.gas_used);
        attempt.paid_wei = found.paid_wei.parse().ok();
        attempt.confirmations = 0;
        attempt.error = difference;
        for payout in &mut self.payouts {
            payout.reason = None;
        }
        self.note(Change::Included, block.occurred_at.to_utc());
        Some(Change::Included)
    }

    /// What it did otherwise than planned; a transaction that failed as a whole did nothing.
    fn difference(&self, found: &ChainTransaction) -> Option<String> {
        let attempt = &self.attempt;
        if found.origin != attempt.signer {
            return Some(format!("incident: signed by {} instead of {}", found.origin, attempt.signer));
        }
        if found.reverted {
            return Some("reverted: a clause failed, so that none took effect".to_owned());
        }
        self.clauses.iter().find_map(|clause| {
            let paid: Vec<ContractEvent> = found
                .logs
                .iter()
                .filter(|log| log.clause_index == clause.clause_index && log.address == attempt.contract)
                .filter_map(|log| {
                    ContractEvent::decode(&Log::from_hex(&log.address, &log.topics, &log.data)?)
                })
                .filter(|event| matches!(event, ContractEvent::RewardDistributed { .. }))
                .collect();
            let equal = |event: &ContractEvent| match event {
                ContractEvent::RewardDistributed { amount, receiver, proof, distributor, .. } => {
                    decimal(*amount) == Some(clause.amount_wei)
                        && receiver.to_string() == clause.receiver
                        && distributor.to_string() == attempt.signer
                        && proof.contains(&clause.reward_id.to_string())
                }
                _ => false,
            };
            let good = matches!(paid.as_slice(), [event] if equal(event));
            (!good).then(|| {
                format!(
                    "incident: clause {} did not pay reward {} as planned",
                    clause.clause_index, clause.reward_id
                )
            })
        })
    }

    /// The chain has grown to `head`. None where nothing changes.
    pub fn deeper(&mut self, head: i64, at: DateTime<Utc>) -> Option<Change> {
        let attempt = &mut self.attempt;
        let (AttemptState::Included, Some(number)) = (attempt.state, attempt.block_number) else {
            return None;
        };
        let depth = (head - number).clamp(0, CONFIRMATIONS);
        // Fits: at most 12. A branch that was cut back adds nothing until it is longer than it was.
        let confirmations = i32::try_from(depth).unwrap_or(0);
        if confirmations <= attempt.confirmations {
            return None;
        }
        attempt.confirmations = confirmations;
        let change = match (depth == CONFIRMATIONS, attempt.reverted == Some(true), &attempt.error) {
            (false, ..) => Change::Deeper,
            (true, true, _) => Change::Reverted,
            (true, false, None) => Change::Confirmed,
            (true, false, Some(_)) => Change::Incident,
        };
        match change {
            Change::Confirmed => {
                attempt.state = AttemptState::Confirmed;
                attempt.confirmed_at = Some(at);
                for payout in &mut self.payouts {
                    payout.state = PayoutState::Paid;
                    payout.paid_at = Some(at);
                    payout.reason = None;
                }
            }
            Change::Reverted => {
                attempt.state = AttemptState::Reverted;
                for payout in &mut self.payouts {
                    payout.reason.clone_from(&attempt.error);
                }
            }
            _ => {}
        }
        self.note(change, at);
        Some(change)
    }

    /// Blocks up to `finalized` can no longer be undone. None where nothing changes.
    pub fn finalized(&mut self, finalized: i64, at: DateTime<Utc>) -> Option<Change> {
        let attempt = &mut self.attempt;
        if attempt.block_number.is_none_or(|number| number > finalized) {
            return None;
        }
        match attempt.state {
            AttemptState::Confirmed => {
                attempt.state = AttemptState::Final;
                for payout in &mut self.payouts {
                    payout.state = PayoutState::Final;
                }
            }
            AttemptState::Reverted => attempt.state = AttemptState::RevertedFinal,
            _ => return None,
        }
        attempt.finalized_at = Some(at);
        self.note(Change::Final, at);
        Some(Change::Final)
    }

    /// Its block does not count any more: the same bytes are posted again. None where it is in another block, or final.
    pub fn undone(&mut self, block_id: &str, at: DateTime<Utc>) -> Option<Change> {
        let attempt = &mut self.attempt;
        let movable = matches!(
            attempt.state,
            AttemptState::Included | AttemptState::Confirmed | AttemptState::Reverted
        );
        if !movable || attempt.block_id.as_deref() != Some(block_id) {
            return None;
        }
        attempt.state = AttemptState::Sent;
        attempt.block_id = None;
        attempt.block_number = None;
        attempt.block_timestamp = None;
        attempt.reverted = None;
        attempt.gas_used = None;
        attempt.paid_wei = None;
        attempt.confirmations = 0;
        attempt.confirmed_at = None;
        attempt.error = None;
        for payout in &mut self.payouts {
            payout.state = PayoutState::InFlight;
            payout.paid_at = None;
            payout.reason = None;
        }
        self.note(Change::Undone, at);
        Some(Change::Undone)
    }
}

/// Wei as the tables hold them; none beyond 28 digits, more than all B3TR there will ever be.
#[must_use]
pub fn decimal(wei: Wei) -> Option<Decimal> {
    Decimal::try_from_i128_with_scale(i128::try_from(wei.to_u128()?).ok()?, 0).ok()
}

/// Wei of the tables.
#[must_use]
pub fn wei(amount: Decimal) -> Option<Wei> {
    amount.normalize().to_string().parse().ok()
}

/// The share of `total` that falls to the clause with index `at`, by the gas that each was simulated with:
/// floor(T·Cᵢ/C) − floor(T·Cᵢ₋₁/C) with C cumulated. The shares sum to `total`.
#[must_use]
pub fn share(total: u128, weights: &[i64], at: usize) -> u128 {
    let weight = |weight: &i64| u128::from(weight.unsigned_abs());
    let all: u128 = weights.iter().map(weight).sum::<u128>().max(1);
    let upto = |count: usize| {
        let cumulated: u128 = weights.iter().take(count).map(weight).sum();
        // A fee of 10^27 wei in units of 10^10 is below 2^60, gas below 2^26: the product stays below 2^128.
        total.saturating_mul(cumulated) / all
    };
    upto(at + 1) - upto(at)
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
