//! What grants, claims and blocks do to payouts and transactions: functions of the rows and the event alone, by the tables of
//! [`machine`].
//!
//! ```text
//! payout       waiting ─ claim ─▶ ready ─ plan ─▶ in_flight ─ 12 confirmations ─▶ paid ─ final block ─▶ final
//! transaction  signed ─ posted ─▶ sent ─ in a block ─▶ included ─ 12 ─▶ confirmed | reverted ─▶ final | reverted_final
//!                                   ▲────── block undone ───────┴──────────────┘
//! ```
//!
//! A transaction that is in no block goes on being posted, the same bytes each time. Another one takes its place only once it is dead
//! or reverted on the final chain, by the word of two nodes where there are two.

use chain::Wei;
use chain::abi::{ContractEvent, Refusal};
use chain::node::Event as Log;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::{
    AttemptState, BlockAdopted, ChainTransaction, PayoutState, RewardClaimed, RewardGranted,
};
use serde_json::json;
use sqlx::types::Json;
use uuid::Uuid;

pub use super::amounts::{decimal, share, wei};
pub use super::change::Change;
use super::machine::{self, Outcome, PayoutEvent, TxEvent, TxState};
use super::rows::{Payout, Transaction};

/// Blocks on top of its own after which a payment counts as made: the advice of the Thor wiki, two minutes.
pub const CONFIRMATIONS: i64 = 12;

/// Wei of a B3TR.
const WEI: Decimal = Decimal::from_parts(2_808_348_672, 232_830_643, 0, false, 0);

/// Entries of a transaction's history that are kept.
const HISTORY: usize = 64;

/// How the error of a transaction begins that a person must look at.
const INCIDENT: &str = "incident: ";

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

/// What an amount of B3TR is in wei.
///
/// # Errors
/// What is wrong with the amount: it is off the grid of 1e-8 B3TR, or does not fit.
pub fn owed(amount: Decimal) -> Result<Decimal, String> {
    let wei = Wei::from_b3tr(amount).map_err(|error| error.to_string())?;
    decimal(wei).ok_or_else(|| format!("{wei} does not fit"))
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
    let amount_wei = owed(event.granted).map_err(|error| format!("{}: {error}", event.reward_id))?;
    let mut payout = Payout {
        reward_id: event.reward_id.0,
        user_id: event.header.user_id.0,
        wallet_id: event.stamp.wallet_id,
        amount_wei,
        adjustment: event.adjustment.as_ref().map_or(0, |adjustment| adjustment.number),
        state: PayoutState::Waiting,
        strikes: 0,
        max_retries: 3,
        claimed_at: claims_itself(event).then(|| event.header.occurred_at.to_utc()),
        reason: None,
        revision: 0,
        splits: 0,
        genesis_id: None,
        distance_km: event.distance_km,
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

/// Whether a grant alone comes to what the driver wants to be claimed by itself.
fn claims_itself(event: &RewardGranted) -> bool {
    event.stamp.auto_claim && event.stamp.min_claim.is_none_or(|least| event.granted >= least)
}

/// Claims a new payout and those that gather, where they come together to what was stamped into the new one; false where they do not. What
/// was stamped into the others does not count: a driver who lowers it is paid by the next photo.
pub fn gathered(newest: &mut Payout, gathering: &mut [Payout], now: DateTime<Utc>) -> bool {
    let at = newest.header.occurred_at.to_utc();
    let sum: Decimal = gathering.iter().map(|payout| payout.amount_wei).sum();
    let least = newest.stamp.min_claim.unwrap_or_default();
    let enough = least.checked_mul(WEI).is_some_and(|least| newest.amount_wei + sum >= least);
    if !newest.stamp.auto_claim || !enough {
        return false;
    }
    newest.claim_by_itself(at, now);
    for payout in gathering {
        payout.claim_by_itself(at, now);
        payout.revision += 1;
    }
    true
}

impl Payout {
    /// Moves it as the table says; false where the event changes nothing.
    pub fn moves(&mut self, event: PayoutEvent) -> bool {
        let Outcome::To(state) = machine::payout(self.state, event) else { return false };
        self.state = state;
        true
    }

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

    fn claim_by_itself(&mut self, at: DateTime<Utc>, now: DateTime<Utc>) {
        self.claimed_at = Some(self.claimed_at.unwrap_or(at));
        self.settle_wait(now);
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
            (None, _) if self.stamp.auto_claim => Some(
                "below_min_claim: what waits does not come to what the driver wants to be claimed by itself",
            ),
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

    /// The table's word on an event.
    fn outcome(&self, event: TxEvent) -> Outcome<TxState> {
        let differs = self.attempt.error.as_deref().is_some_and(|error| error.starts_with(INCIDENT));
        machine::transaction(TxState::Signed(self.attempt.state), event, differs)
    }

    /// The next state where the table has one.
    fn next(&self, event: TxEvent) -> Option<AttemptState> {
        match self.outcome(event).to() {
            Some(TxState::Signed(state)) => Some(state),
            _ => None,
        }
    }

    /// Applies an event to each payout as far as the table moves it.
    fn move_payouts(&mut self, event: PayoutEvent, and: impl Fn(&mut Payout)) {
        for payout in &mut self.payouts {
            if payout.moves(event) {
                and(payout);
            }
        }
    }

    /// Notes what must not happen; the rows stay as they are but for the transaction's error.
    fn incident(&mut self, what: String, at: DateTime<Utc>) -> Option<Change> {
        let error = Some(format!("{INCIDENT}{what}"));
        if self.attempt.error == error {
            return None;
        }
        self.attempt.error = error;
        self.note(Change::Incident, at);
        Some(Change::Incident)
    }

    /// A node was given the bytes; whatever it responded, from now on they may be anywhere. None where that was known.
    pub fn sent(&mut self, at: DateTime<Utc>) -> Option<Change> {
        self.attempt.broadcast_count += 1;
        self.attempt.state = self.next(TxEvent::Post)?;
        self.attempt.sent_at = Some(at);
        self.note(Change::Sent, at);
        Some(Change::Sent)
    }

    /// The chain has passed the last block that could hold it, and it was seen in none: it stays pending and visible, since only a
    /// proof on the final chain shows that it is dead. None where that is noted already.
    pub fn expired(&mut self, at: DateTime<Utc>) -> Option<Change> {
        let waiting = self.next(TxEvent::ProveDead).is_some();
        let attempt = &mut self.attempt;
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

    /// It is proven dead: its payouts are ready again. None where it is in a block, or dead already.
    pub fn dead(&mut self, at: DateTime<Utc>) -> Option<Change> {
        self.attempt.state = self.next(TxEvent::ProveDead)?;
        self.attempt.error =
            Some(format!("dead: no block up to {} holds it, and that is final", self.attempt.last_valid));
        self.move_payouts(PayoutEvent::Free, |payout| {
            payout.ready_at = Some(at);
            payout.reason = None;
        });
        self.note(Change::Dead, at);
        Some(Change::Dead)
    }

    /// It is reverted for good: the payout of the `culprit` (clause and the contract's reason) is quarantined, the others are ready
    /// again. Without a culprit they go in smaller batches from then on, and one that was alone has failed once. None where it is
    /// not reverted for good.
    pub fn replanned(&mut self, culprit: Option<(usize, &Refusal)>, at: DateTime<Utc>) -> Option<Change> {
        if self.attempt.state != AttemptState::RevertedFinal {
            return None;
        }
        let alone = self.payouts.len() == 1;
        for (clause, payout) in self.payouts.iter_mut().enumerate() {
            let refusal = culprit.filter(|(at, _)| *at == clause).map(|(_, refusal)| refusal);
            payout.splits += i32::from(culprit.is_none());
            payout.strikes += i32::from(culprit.is_none() && alone);
            let exhausted = payout.strikes > payout.max_retries;
            let event = if refusal.is_some() || exhausted { PayoutEvent::Refuse } else { PayoutEvent::Free };
            let Outcome::To(state) = machine::payout(payout.state, event) else { continue };
            payout.state = state;
            let free = state == PayoutState::Ready;
            payout.ready_at = free.then_some(at);
            payout.reason = match refusal {
                Some(refusal) => Some(format!("poisoned_clause: {refusal}")),
                None if exhausted => Some("poisoned_clause: it is reverted each time, alone too".to_owned()),
                None => None,
            };
        }
        self.note(Change::Replanned, at);
        Some(Change::Replanned)
    }

    /// It is in a block that was adopted. None where it is in a block already.
    pub fn included(&mut self, block: &BlockAdopted, found: &ChainTransaction) -> Option<Change> {
        let at = block.occurred_at.to_utc();
        let (state, dead) = match self.outcome(TxEvent::Include) {
            Outcome::To(TxState::Signed(state)) => (state, false),
            Outcome::Incident(Some(TxState::Signed(state))) => (state, true),
            _ => return None,
        };
        let difference = self.difference(found);
        let attempt = &mut self.attempt;
        attempt.state = state;
        attempt.block_id = Some(block.block.id.clone());
        attempt.block_number = Some(block.block.number);
        attempt.block_timestamp = Some(block.block.timestamp.to_utc());
        attempt.reverted = Some(found.reverted);
        attempt.gas_used = Some(found.gas_used);
        attempt.paid_wei = found.paid_wei.parse().ok();
        attempt.confirmations = 0;
        if dead {
            let what = format!("proven dead, and in block {}", block.block.id);
            // What is not in a successor yet waits for a person.
            for payout in self.payouts.iter_mut().filter(|payout| payout.state == PayoutState::Ready) {
                payout.state = PayoutState::Quarantined;
                payout.ready_at = None;
                payout.reason = Some(format!("{INCIDENT}{what}"));
            }
            return self.incident(what, at);
        }
        attempt.error = difference;
        for payout in &mut self.payouts {
            payout.reason = None;
        }
        self.note(Change::Included, at);
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
        let event = match (depth == CONFIRMATIONS, attempt.reverted == Some(true), &attempt.error) {
            (false, ..) => {
                self.note(Change::Deeper, at);
                return Some(Change::Deeper);
            }
            (true, true, _) => TxEvent::Revert,
            (true, false, None) => TxEvent::Confirm,
            (true, false, Some(_)) => TxEvent::Differ,
        };
        let change = match self.next(event) {
            Some(AttemptState::Confirmed) => {
                self.attempt.state = AttemptState::Confirmed;
                self.attempt.confirmed_at = Some(at);
                self.move_payouts(PayoutEvent::Confirm, |payout| {
                    payout.paid_at = Some(at);
                    payout.reason = None;
                });
                Change::Confirmed
            }
            Some(state) => {
                self.attempt.state = state;
                for payout in &mut self.payouts {
                    payout.reason.clone_from(&self.attempt.error);
                }
                Change::Reverted
            }
            None => Change::Incident,
        };
        self.note(change, at);
        Some(change)
    }

    /// Blocks up to `finalized` can no longer be undone. None where nothing changes.
    pub fn finalized(&mut self, finalized: i64, at: DateTime<Utc>) -> Option<Change> {
        if self.attempt.block_number.is_none_or(|number| number > finalized) {
            return None;
        }
        let state = self.next(TxEvent::Finalize)?;
        self.attempt.state = state;
        match state {
            AttemptState::Final => self.move_payouts(PayoutEvent::Finalize, |_| {}),
            // It took effect for good, but not as planned: whether a payout of it was paid, a person decides.
            AttemptState::Stray => {
                let reason = self.attempt.error.clone();
                self.move_payouts(PayoutEvent::Stray, |payout| payout.reason.clone_from(&reason));
            }
            // Planned again once two nodes agree that it is so, by the half that asks nodes.
            _ => {}
        }
        self.attempt.finalized_at = Some(at);
        self.note(Change::Final, at);
        Some(Change::Final)
    }

    /// Its block does not count any more: the same bytes are posted again. None where it is in another block; an incident where the
    /// block was final.
    pub fn undone(&mut self, block_id: &str, at: DateTime<Utc>) -> Option<Change> {
        if self.attempt.block_id.as_deref() != Some(block_id) {
            return None;
        }
        let state = match self.outcome(TxEvent::Undo) {
            Outcome::To(TxState::Signed(state)) => state,
            Outcome::Incident(_) => {
                return self.incident(format!("block {block_id} was final, and was undone"), at);
            }
            _ => return None,
        };
        let attempt = &mut self.attempt;
        attempt.state = state;
        attempt.block_id = None;
        attempt.block_number = None;
        attempt.block_timestamp = None;
        attempt.reverted = None;
        attempt.gas_used = None;
        attempt.paid_wei = None;
        attempt.confirmations = 0;
        attempt.confirmed_at = None;
        attempt.error = None;
        self.move_payouts(PayoutEvent::Undo, |payout| payout.paid_at = None);
        for payout in &mut self.payouts {
            payout.reason = None;
        }
        self.note(Change::Undone, at);
        Some(Change::Undone)
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
