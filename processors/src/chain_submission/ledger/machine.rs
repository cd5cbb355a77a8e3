//! The protocol of payments as two tables: what each event does to a transaction and to a payout in each state. The functions of
//! [`super::transition`] ask here before they change a row, and `docs/paying.md` prints the tables.

use schemas::events::{AttemptState, PayoutState};

/// Where a transaction stands, the unsigned ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TxState {
    /// Its id and body are stored; there is no signature.
    Planned,
    /// A plan that was given up before there was a signature.
    Abandoned,
    /// It was signed.
    Signed(AttemptState),
}

impl TxState {
    /// Every state.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let signed = AttemptState::ALL.into_iter().map(Self::Signed);
        [Self::Planned, Self::Abandoned].into_iter().chain(signed).collect()
    }

    /// The label in `payout_attempts.state`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Abandoned => "abandoned",
            Self::Signed(state) => state.label(),
        }
    }
}

/// What can happen to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxEvent {
    /// Its bytes are made and stored.
    Sign,
    /// It is given up, or another owner of the lease plans.
    Abandon,
    /// A node is given its bytes.
    Post,
    /// The chain has passed the last block that could hold it, and it was seen in none.
    Expire,
    /// A block that holds it is adopted.
    Include,
    /// 12 blocks are on top of its own, and it paid what was planned.
    Confirm,
    /// 12 blocks are on top of its own, and all its clauses failed.
    Revert,
    /// 12 blocks are on top of its own, and it did something else than planned.
    Differ,
    /// Its block does not count any more.
    Undo,
    /// Its block can no longer be undone.
    Finalize,
    /// Two nodes, or the only one, have chains that are final beyond its last valid block and do not hold it.
    ProveDead,
}

impl TxEvent {
    /// Every event.
    pub const ALL: [Self; 11] = [
        Self::Sign,
        Self::Abandon,
        Self::Post,
        Self::Expire,
        Self::Include,
        Self::Confirm,
        Self::Revert,
        Self::Differ,
        Self::Undo,
        Self::Finalize,
        Self::ProveDead,
    ];

    /// Its name in documents.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Abandon => "abandon",
            Self::Post => "post",
            Self::Expire => "expire",
            Self::Include => "in a block",
            Self::Confirm => "12, paid",
            Self::Revert => "12, reverted",
            Self::Differ => "12, differs",
            Self::Undo => "block undone",
            Self::Finalize => "block final",
            Self::ProveDead => "proven dead",
        }
    }
}

/// What comes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<S> {
    /// The next state.
    To(S),
    /// Nothing changes.
    Stay,
    /// It must not happen: the state is kept or, where one is given, changed; signing stops until a person has looked.
    Incident(Option<S>),
}

impl<S: Copy> Outcome<S> {
    /// The next state where the protocol goes on by itself.
    #[must_use]
    pub fn to(self) -> Option<S> {
        match self {
            Self::To(state) => Some(state),
            Self::Stay | Self::Incident(_) => None,
        }
    }
}

/// What an event does to a transaction. A transaction that did something else than planned is final as [`AttemptState::Stray`]:
/// `differs` says that it did.
#[must_use]
pub fn transaction(state: TxState, event: TxEvent, differs: bool) -> Outcome<TxState> {
    use AttemptState as S;
    use Outcome::{Incident, Stay, To};
    use TxEvent as E;
    let signed = TxState::Signed;
    match (state, event) {
        (TxState::Planned, E::Sign) => To(signed(S::Signed)),
        (TxState::Planned, E::Abandon) => To(TxState::Abandoned),
        // No bytes of it exist by our books: the commit of its signature was lost. What the chain holds counts.
        (TxState::Planned | TxState::Abandoned, E::Include) => To(signed(S::Included)),
        (TxState::Signed(S::Signed), E::Post) => To(signed(S::Sent)),
        (TxState::Signed(S::Signed | S::Sent), E::Include) => To(signed(S::Included)),
        (TxState::Signed(S::Signed | S::Sent), E::ProveDead) => To(signed(S::Dead)),
        (TxState::Signed(S::Included), E::Confirm) => To(signed(S::Confirmed)),
        (TxState::Signed(S::Included), E::Revert) => To(signed(S::Reverted)),
        (TxState::Signed(S::Included), E::Differ) => Incident(None),
        // Another branch may hold the same bytes, and there they may succeed.
        (TxState::Signed(S::Included | S::Confirmed | S::Reverted), E::Undo) => To(signed(S::Sent)),
        (TxState::Signed(S::Confirmed), E::Finalize) => To(signed(S::Final)),
        (TxState::Signed(S::Reverted), E::Finalize) => To(signed(S::RevertedFinal)),
        (TxState::Signed(S::Included), E::Finalize) if differs => To(signed(S::Stray)),
        // Finality was broken, or a proof was wrong: what follows from it may have been paid already.
        (TxState::Signed(S::Dead), E::Include) => Incident(Some(signed(S::Stray))),
        (TxState::Signed(S::Final | S::RevertedFinal | S::Stray), E::Undo) => Incident(None),
        _ => Stay,
    }
}

/// What can happen to a payout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayoutEvent {
    /// Its driver claims it and has a wallet.
    Claim,
    /// A transaction that pays it is planned.
    Plan,
    /// Its transaction was given up before it was signed, is proven dead, or is finally reverted for no fault of this payout.
    Free,
    /// The contract refuses it for a fault of its own, for good or too often.
    Refuse,
    /// Its transaction did something else than planned, for good.
    Stray,
    /// Its transaction has 12 blocks on top.
    Confirm,
    /// The block of its transaction does not count any more.
    Undo,
    /// The block of its transaction can no longer be undone.
    Finalize,
    /// An operator releases it, its cause being gone.
    Release,
    /// An operator cancels it.
    Cancel,
    /// An operator has seen that it was paid.
    ResolvePaid,
    /// The chain shows a transaction that pays it, and which the books had lost.
    Restore,
    /// The chain shows a transaction that names it, and which cannot be explained: whether it was paid, a person decides.
    Doubt,
}

impl PayoutEvent {
    /// Every event.
    pub const ALL: [Self; 13] = [
        Self::Claim,
        Self::Plan,
        Self::Free,
        Self::Refuse,
        Self::Stray,
        Self::Confirm,
        Self::Undo,
        Self::Finalize,
        Self::Release,
        Self::Cancel,
        Self::ResolvePaid,
        Self::Restore,
        Self::Doubt,
    ];

    /// Its name in documents.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Plan => "plan",
            Self::Free => "free",
            Self::Refuse => "refuse",
            Self::Stray => "stray",
            Self::Confirm => "12, paid",
            Self::Undo => "block undone",
            Self::Finalize => "block final",
            Self::Release => "release",
            Self::Cancel => "cancel",
            Self::ResolvePaid => "resolve as paid",
            Self::Restore => "lost, on the chain",
            Self::Doubt => "unknown payment",
        }
    }
}

/// What an event does to a payout. [`PayoutEvent::Release`], [`PayoutEvent::Cancel`] and [`PayoutEvent::ResolvePaid`] are refused
/// beside a transaction that could still pay the payout; that is looked up where they are applied.
#[must_use]
pub fn payout(state: PayoutState, event: PayoutEvent) -> Outcome<PayoutState> {
    use Outcome::{Incident, Stay, To};
    use PayoutEvent as E;
    use PayoutState as S;
    match (state, event) {
        (S::Waiting, E::Claim) | (S::InFlight, E::Free) | (S::Quarantined, E::Release) => To(S::Ready),
        (S::Ready, E::Plan) | (S::Paid, E::Undo) => To(S::InFlight),
        (S::Ready | S::InFlight, E::Refuse) | (S::InFlight, E::Stray) => To(S::Quarantined),
        (S::InFlight, E::Confirm) => To(S::Paid),
        (S::Paid, E::Finalize) | (S::Ready | S::Quarantined, E::ResolvePaid) => To(S::Final),
        (S::Waiting | S::Ready | S::Quarantined, E::Cancel) => To(S::Cancelled),
        (S::Waiting | S::Ready | S::Quarantined, E::Restore) => To(S::InFlight),
        (S::Waiting | S::Ready, E::Doubt) => To(S::Quarantined),
        (S::Final, E::Undo) => Incident(None),
        _ => Stay,
    }
}

/// A table as Markdown: a row per state, a column per event; empty where nothing changes.
fn table<S: Copy, E: Copy>(
    states: &[(S, &'static str)],
    events: &[(E, &'static str)],
    cell: impl Fn(S, E) -> Outcome<S>,
    label: impl Fn(S) -> &'static str,
) -> Vec<String> {
    let columns: Vec<&str> = events.iter().map(|(_, name)| *name).collect();
    let mut lines =
        vec![format!("| | {} |", columns.join(" | ")), format!("| --- |{}", " --- |".repeat(events.len()))];
    for (state, name) in states {
        let cells: Vec<String> = events
            .iter()
            .map(|(event, _)| match cell(*state, *event) {
                Outcome::To(next) => format!("`{}`", label(next)),
                Outcome::Stay => String::new(),
                Outcome::Incident(None) => "incident".to_owned(),
                Outcome::Incident(Some(next)) => format!("`{}`, incident", label(next)),
            })
            .collect();
        lines.push(format!("| `{name}` | {} |", cells.join(" | ")));
    }
    lines
}

/// The table of transactions as lines of Markdown.
#[must_use]
pub fn transaction_table() -> Vec<String> {
    let states: Vec<_> = TxState::all().into_iter().map(|state| (state, state.label())).collect();
    let events = TxEvent::ALL.map(|event| (event, event.label()));
    table(&states, &events, |state, event| transaction(state, event, true), TxState::label)
}

/// The table of payouts as lines of Markdown.
#[must_use]
pub fn payout_table() -> Vec<String> {
    let states = PayoutState::ALL.map(|state| (state, state.label()));
    let events = PayoutEvent::ALL.map(|event| (event, event.label()));
    table(&states, &events, payout, PayoutState::label)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// States that can be reached from `start`.
    fn reached<S: Copy + PartialEq>(start: S, next: impl Fn(S) -> Vec<S>) -> Vec<S> {
        let mut found = vec![start];
        let mut at = 0;
        while at < found.len() {
            for state in next(found[at]) {
                if !found.contains(&state) {
                    found.push(state);
                }
            }
            at += 1;
        }
        found
    }

    fn after(state: TxState) -> Vec<TxState> {
        let outcomes = TxEvent::ALL
            .into_iter()
            .flat_map(|event| [true, false].map(|differs| transaction(state, event, differs)));
        outcomes
            .filter_map(|outcome| match outcome {
                Outcome::To(next) | Outcome::Incident(Some(next)) => Some(next),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn every_state_of_a_transaction_is_reached_and_each_but_an_end_can_reach_an_end() {
        let ends =
            [AttemptState::Final, AttemptState::RevertedFinal, AttemptState::Dead, AttemptState::Stray];
        let ends: Vec<TxState> = ends.map(TxState::Signed).into_iter().chain([TxState::Abandoned]).collect();
        let all = reached(TxState::Planned, after);
        for state in TxState::all() {
            assert!(all.contains(&state), "{state:?} is never reached");
            let further = reached(state, after);
            assert!(further.iter().any(|state| ends.contains(state)), "{state:?} has no end");
        }
        for end in ends {
            let goes_on = |event: &TxEvent| transaction(end, *event, true).to().is_some();
            let further: Vec<TxEvent> = TxEvent::ALL.into_iter().filter(goes_on).collect();
            // What was given up unsigned can be on the chain where the commit of its signature was lost.
            let lost = [TxEvent::Include];
            assert_eq!(
                further,
                if end == TxState::Abandoned { &lost[..] } else { &[] },
                "{end:?} goes on by itself"
            );
        }
    }

    #[test]
    fn every_state_of_a_payout_is_reached_and_each_can_still_end_paid_or_cancelled() {
        let next =
            |state| PayoutEvent::ALL.into_iter().filter_map(move |event| payout(state, event).to()).collect();
        let all = reached(PayoutState::Waiting, next);
        for state in PayoutState::ALL {
            assert!(all.contains(&state), "{state:?} is never reached");
            let ends = [PayoutState::Final, PayoutState::Cancelled];
            assert!(reached(state, next).iter().any(|state| ends.contains(state)), "{state:?} has no end");
        }
    }

    #[test]
    fn a_signed_transaction_is_freed_of_its_rewards_only_dead_or_reverted_for_good() {
        // What leaves a payout to another transaction: nothing else ends a signed one unpaid.
        for state in AttemptState::ALL.map(TxState::Signed) {
            for event in TxEvent::ALL {
                if transaction(state, event, false).to() == Some(TxState::Signed(AttemptState::Dead)) {
                    assert_eq!(event, TxEvent::ProveDead);
                    assert!(["signed", "sent"].contains(&state.label()), "{state:?}");
                }
            }
        }
        let reverted = TxState::Signed(AttemptState::Reverted);
        assert_eq!(transaction(reverted, TxEvent::ProveDead, false), Outcome::Stay);
    }

    #[test]
    fn a_table_has_a_row_per_state_and_a_cell_per_event() {
        assert_eq!(transaction_table().len(), 2 + TxState::all().len());
        assert!(transaction_table().iter().all(|line| line.matches('|').count() == 2 + TxEvent::ALL.len()));
        assert_eq!(payout_table().len(), 2 + PayoutState::ALL.len());
        assert!(
            payout_table().contains(&"| `final` |  |  |  |  |  |  | incident |  |  |  |  |  |  |".to_owned())
        );
    }
}
