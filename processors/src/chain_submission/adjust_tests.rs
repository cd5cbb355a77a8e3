//! Adjustments by examples, and what must hold for any grants, adjustments, cancellations and payments, whatever is delivered late or
//! again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;

use proptest::prelude::*;
use schemas::events::{LimitType, RewardCancelled, Root};
use schemas::ids::{Micros, RewardId, UploadId};

use super::*;
use crate::chain_submission::ledger::machine::{self, PayoutEvent};
use crate::chain_submission::ledger::transition::granted;
use crate::examples;
use crate::limit_check::adjust::adjust;
use crate::limit_check::books::Books;
use crate::limit_check::grant::{Budgets, grant};
use crate::limit_check::policy::Policy;
use crate::limit_check::state::keys_of;
use crate::limit_check::{LimitInput, reward_granted};
use crate::reward_rules::Rulebook;

/// Rewards of one driver, accepted on two days of one week.
const REWARDS: u128 = 6;
const HOUR_US: i64 = 3_600_000_000;

static POLICY: LazyLock<Policy> = LazyLock::new(|| Rulebook::first().in_force(Micros(0)).policy.clone());

fn reward(n: u128, amount: Decimal) -> RewardCalculated {
    let mut event = examples::reward();
    event.header.upload_id = UploadId(Uuid::from_u128(n));
    event.header.accepted_at.0 += 9 * HOUR_US * i64::try_from(n).unwrap();
    event.reward_id = RewardId::of(event.header.upload_id);
    (event.base, event.bonus) = (amount, Decimal::ZERO);
    event.stamp.wallet_id = Some(Uuid::from_u128(1));
    event
}

fn now() -> DateTime<Utc> {
    Micros(7).to_utc()
}

/// The books: both stages' tables and the two topics between them.
#[derive(Clone, Debug, Default)]
struct World {
    budgets: Budgets,
    books: Books,
    effects: BTreeSet<String>,
    payouts: BTreeMap<RewardId, Payout>,
    /// What the newest grant of a reward says.
    granted: BTreeMap<RewardId, Decimal>,
    numbers: BTreeMap<RewardId, i32>,
    /// Adjustments that nobody has answered yet, and whether they raise.
    open: BTreeMap<RewardId, (i32, bool)>,
    /// What a transaction was signed for.
    signed: BTreeMap<RewardId, Decimal>,
    calculated: VecDeque<LimitInput>,
    answers: VecDeque<RewardGranted>,
    taken: Vec<RewardGranted>,
    decided: Vec<LimitInput>,
}

impl World {
    /// `limit_check`, of a record.
    fn decide(&mut self, input: &LimitInput) {
        let effect = match input {
            LimitInput::Calculated(event) => match &event.adjustment {
                Some(adjustment) => adjustment.effect(event.reward_id),
                None => format!("grant:{}", event.reward_id),
            },
            LimitInput::Cancelled(event) => format!("refund:{}", event.reward_id),
        };
        if !self.effects.insert(effect) {
            return;
        }
        let (budgets, books) = (&mut self.budgets, &mut self.books);
        match input {
            LimitInput::Cancelled(event) => drop(books.cancel(event, budgets)),
            // The stage drops it: an adjustment has granted it.
            LimitInput::Calculated(event)
                if event.adjustment.is_none() && books.charged(event.reward_id).is_some() => {}
            LimitInput::Calculated(event) => {
                let made = match &event.adjustment {
                    Some(adjustment) => adjust((event, adjustment), budgets, books, &POLICY, Micros(7)),
                    None => {
                        let made = grant(event, budgets, &POLICY, Micros(7)).unwrap();
                        if !made.amount.is_zero() {
                            books.charge(event.reward_id, keys_of(event), made.amount, budgets);
                        }
                        made
                    }
                };
                self.granted.insert(event.reward_id, made.amount);
                let root = Root { partition: 0, offset: 0 };
                self.answers.push_back(reward_granted(event, root, made, &POLICY, Micros(7)));
            }
        }
    }

    /// `chain_submission`, of a grant. Returns how an adjustment has ended.
    fn take(&mut self, event: &RewardGranted) -> Option<End> {
        let (reward, number) = (event.reward_id, event.adjustment.as_ref().map_or(0, |one| one.number));
        self.open.retain(|of, (open, _)| (*of, *open) != (reward, number));
        if let Some(payout) = self.payouts.get_mut(&reward) {
            return if number > 0 { settle(payout, event, false).unwrap() } else { None };
        }
        if let Some(payout) = granted(event, None, now()).unwrap() {
            self.payouts.insert(reward, payout);
        }
        None
    }

    /// An operator promotes a replay that has met what is owed now.
    fn adjust(&mut self, n: u128, calculated: Decimal, granted: Decimal) -> Result<(), Refused> {
        let calculation = reward(n, calculated);
        let id = calculation.reward_id;
        if self.open.contains_key(&id) {
            return Err(Refused::Adjusting);
        }
        let granted_before = self.granted.get(&id).copied().unwrap_or_default();
        let (promotion, calculated_before) = ("march".to_owned(), granted_before);
        let wanted =
            Wanted { calculation, promotion, calculated_before, granted_before, granted, detail: None };
        let number = self.numbers.get(&id).copied().unwrap_or_default() + 1;
        change(self.payouts.get_mut(&id), None, &wanted, number)?;
        self.numbers.insert(id, number);
        self.open.insert(id, (number, granted > granted_before));
        self.calculated.push_back(LimitInput::Calculated(Box::new(wanted.record((number, 1), now()))));
        Ok(())
    }

    fn cancel(&mut self, n: u128) {
        let event = reward(n, Decimal::ONE);
        let Some(payout) = self.payouts.get_mut(&event.reward_id) else { return };
        if payout.moves(PayoutEvent::Cancel) {
            let (reward_id, granted) = (event.reward_id, coins(payout.amount_wei));
            let cancelled =
                RewardCancelled { header: event.header, reward_id, granted, reason: String::new() };
            self.calculated.push_back(LimitInput::Cancelled(Box::new(cancelled)));
        }
    }

    /// A step of a payment: what may be raised is not planned, and what is planned is signed for what is owed then.
    fn pay(&mut self, n: u128, step: PayoutEvent) {
        let id = reward(n, Decimal::ONE).reward_id;
        let waits = self.open.get(&id).is_some_and(|(_, raises)| *raises);
        let Some(payout) = self.payouts.get_mut(&id) else { return };
        if step == PayoutEvent::Plan && waits {
            return;
        }
        if payout.moves(step) && step == PayoutEvent::Plan {
            self.signed.insert(id, payout.amount_wei);
        }
    }

    fn deliver(&mut self, to_limits: bool) -> Option<End> {
        if to_limits {
            let input = self.calculated.pop_front()?;
            self.decide(&input);
            self.decided.push(input);
            return None;
        }
        let event = self.answers.pop_front()?;
        let ended = self.take(&event);
        self.taken.push(event);
        ended
    }

    fn wei(&self, which: impl Fn(PayoutState) -> bool) -> Decimal {
        self.payouts.values().filter(|payout| which(payout.state)).map(|payout| payout.amount_wei).sum()
    }

    fn held(&self, limit_type: LimitType) -> Decimal {
        let of = self.budgets.iter().filter(|((_, of, _), _)| *of == limit_type);
        of.map(|(_, budget)| owed_wei(budget.current).unwrap()).sum()
    }

    /// What holds after every step: no budget is exceeded, nothing is owed that no budget was charged for, and what was signed is what is
    /// owed.
    fn holds(&self) -> Result<(), TestCaseError> {
        for budget in self.budgets.values() {
            prop_assert!(budget.current >= Decimal::ZERO && budget.current <= budget.limit);
        }
        let owed = self.wei(|state| state != PayoutState::Cancelled);
        for limit_type in LimitType::ALL {
            prop_assert!(self.held(limit_type) >= owed, "{limit_type:?}");
        }
        let in_transaction = [PayoutState::InFlight, PayoutState::Paid, PayoutState::Final];
        for (id, payout) in self.payouts.iter().filter(|(_, payout)| in_transaction.contains(&payout.state)) {
            prop_assert_eq!(self.signed.get(id), Some(&payout.amount_wei));
        }
        Ok(())
    }

    /// What holds once everything has arrived: granted is paid, pending and cancelled together, and budgets hold what is not cancelled.
    fn balances(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.open.is_empty());
        let granted: Decimal = self.granted.values().map(|amount| owed_wei(*amount).unwrap()).sum();
        let cancelled = self.wei(|state| state == PayoutState::Cancelled);
        let paid = self.wei(|state| matches!(state, PayoutState::Paid | PayoutState::Final));
        let pending = self.wei(|state| {
            matches!(
                state,
                PayoutState::Waiting | PayoutState::Ready | PayoutState::InFlight | PayoutState::Quarantined
            )
        });
        prop_assert_eq!(granted, paid + pending + cancelled);
        for limit_type in LimitType::ALL {
            prop_assert_eq!(self.held(limit_type), paid + pending);
        }
        Ok(())
    }

    /// Money and states. Of a refused raise from nothing a payout that comes later learns only when it is delivered again.
    fn seen(&self) -> (Budgets, Vec<(RewardId, Decimal, PayoutState, i64)>) {
        let payouts = self.payouts.iter();
        let of = payouts.map(|(id, payout)| (*id, payout.amount_wei, payout.state, payout.revision));
        (self.budgets.clone(), of.collect())
    }
}

/// A reward that is granted and stands in the payouts.
fn world(amount: i64) -> World {
    let mut world = World::default();
    world.calculated.push_back(LimitInput::Calculated(Box::new(reward(1, amount.into()))));
    world.deliver(true);
    world.deliver(false);
    world
}

fn owed(world: &World) -> Decimal {
    coins(world.payouts[&reward(1, Decimal::ONE).reward_id].amount_wei)
}

fn dec(amount: i64) -> Decimal {
    Decimal::from(amount)
}

#[test]
fn a_reward_is_lowered_where_it_stands_and_then_given_back_to_its_budgets() {
    let mut world = world(10);
    world.adjust(1, dec(4), dec(4)).unwrap();
    assert_eq!(owed(&world), dec(4), "at once: nothing is paid that is not owed any more");
    assert!(world.budgets.values().all(|budget| budget.current == dec(10)));
    assert!(matches!(world.adjust(1, dec(3), dec(3)), Err(Refused::Adjusting)));
    world.deliver(true);
    assert!(world.budgets.values().all(|budget| budget.current == dec(4)));
    assert_eq!(world.deliver(false), None, "it has taken it already");
    world.adjust(1, dec(3), dec(3)).unwrap();
    assert_eq!(owed(&world), dec(3));
}

#[test]
fn a_reward_is_raised_once_its_budgets_are_charged_and_is_not_planned_before() {
    let mut world = world(10);
    world.adjust(1, dec(16), dec(16)).unwrap();
    world.pay(1, PayoutEvent::Claim);
    world.pay(1, PayoutEvent::Plan);
    assert_eq!((owed(&world), world.signed.len()), (dec(10), 0));
    world.deliver(true);
    assert!(world.budgets.values().all(|budget| budget.current == dec(16)));
    assert_eq!((world.deliver(false), owed(&world)), (Some(End::Raised), dec(16)));
    world.pay(1, PayoutEvent::Plan);
    assert_eq!(world.signed.len(), 1);
}

#[test]
fn a_raise_that_a_budget_does_not_hold_whole_is_refused_and_says_which() {
    let mut world = world(10);
    world.adjust(1, dec(31), dec(31)).unwrap();
    world.deliver(true);
    let answer = world.answers[0].clone();
    assert_eq!((answer.granted, answer.calculated), (dec(10), dec(31)));
    let detail = answer.detail.unwrap();
    assert!(detail.starts_with("the daily budget of 30 B3TR had 20 B3TR left for the 21 B3TR"), "{detail}");
    assert_eq!((world.deliver(false), owed(&world)), (Some(End::Refused), dec(10)));
    world.balances().unwrap();
}

#[test]
fn of_nothing_that_was_granted_the_whole_is_charged_and_owed_and_a_grant_that_comes_later_is_none() {
    let mut world = World::default();
    world.adjust(1, dec(5), dec(5)).unwrap();
    world.deliver(true);
    world.deliver(false);
    assert_eq!(owed(&world), dec(5));
    world.calculated.push_back(LimitInput::Calculated(Box::new(reward(1, dec(7)))));
    world.deliver(true);
    assert_eq!((world.answers.len(), owed(&world)), (0, dec(5)));
    world.balances().unwrap();
    // And one that came before, which the replay has not met, stands.
    let mut world = World::default();
    world.calculated.push_back(LimitInput::Calculated(Box::new(reward(1, dec(7)))));
    world.adjust(1, dec(5), dec(5)).unwrap();
    for to_limits in [true, true, false, false] {
        world.deliver(to_limits);
    }
    assert_eq!(owed(&world), dec(7));
    world.balances().unwrap();
}

#[test]
fn what_a_transaction_pays_and_what_is_owed_otherwise_stays() {
    let mut world = world(10);
    world.pay(1, PayoutEvent::Claim);
    let id = reward(1, Decimal::ONE).reward_id;
    let mut wanted = Wanted {
        calculation: reward(1, dec(4)),
        promotion: String::new(),
        calculated_before: dec(10),
        granted_before: dec(9),
        granted: dec(4),
        detail: None,
    };
    let payout = world.payouts.get_mut(&id).unwrap();
    let refused = change(Some(payout), None, &wanted, 1).unwrap_err().to_string();
    assert_eq!(refused, "10 B3TR are owed for it, and the replay has met 9: replay it again");
    wanted.granted_before = dec(10);
    assert!(matches!(change(Some(payout), Some(("0x01", "sent")), &wanted, 1), Err(Refused::Live { .. })));
    for state in [PayoutState::InFlight, PayoutState::Paid, PayoutState::Final, PayoutState::Cancelled] {
        payout.state = state;
        let before = payout.clone();
        assert!(matches!(change(Some(payout), None, &wanted, 1), Err(Refused::State { .. })), "{state:?}");
        assert_eq!(*payout, before);
    }
    // A database that lost the adjustment has it from the topic; what is paid meanwhile stays.
    let mut answer = world.taken[0].clone();
    answer.granted = dec(4);
    answer.adjustment = Some(wanted.adjustment(1, now()));
    for (state, ended) in [(PayoutState::Paid, End::Late), (PayoutState::Ready, End::Lowered)] {
        let mut payout = Payout { state, ..world.payouts[&id].clone() };
        assert_eq!(settle(&mut payout, &answer, false).unwrap(), Some(ended));
        assert_eq!(settle(&mut payout, &answer, false).unwrap(), None, "once");
    }
    let mut payout = Payout { state: PayoutState::Quarantined, ..world.payouts[&id].clone() };
    assert_eq!(settle(&mut payout, &answer, true).unwrap(), Some(End::Late));
}

#[derive(Clone, Debug)]
enum Step {
    Grant(u128, Decimal),
    Adjust(u128, Decimal, bool),
    Cancel(u128),
    Pay(u128, PayoutEvent),
    Deliver(bool),
    Again(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    // From far below a budget to above it, on the grid.
    let amount = prop_oneof![1_i64..2_000_000_000, Just(1), Just(3_000_000_000)]
        .prop_map(|units| Decimal::new(units, 8));
    let payment = prop_oneof![1 => Just(PayoutEvent::Claim), 7 => examples::payment()];
    let n = 0..REWARDS;
    prop_oneof![
        3 => (n.clone(), amount.clone()).prop_map(|(n, amount)| Step::Grant(n, amount)),
        4 => (n.clone(), amount, any::<bool>()).prop_map(|(n, amount, cut)| Step::Adjust(n, amount, cut)),
        1 => n.clone().prop_map(Step::Cancel),
        4 => (n, payment).prop_map(|(n, step)| Step::Pay(n, step)),
        6 => any::<bool>().prop_map(Step::Deliver),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(at, to_limits)| Step::Again(at, to_limits)),
    ]
}

proptest! {
    #![proptest_config(crate::properties::tried(768))]

    #[test]
    fn any_grants_adjustments_cancellations_and_payments_conserve_every_wei_and_exceed_no_budget(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::default();
        for step in steps {
            let ended = match step {
                Step::Grant(n, amount) => {
                    world.calculated.push_back(LimitInput::Calculated(Box::new(reward(n, amount))));
                    None
                }
                Step::Adjust(n, amount, cut) => {
                    // A replay's budgets may cut what it works out.
                    let calculated = if cut { amount * Decimal::TWO } else { amount };
                    let _ = world.adjust(n, calculated, amount);
                    None
                }
                Step::Cancel(n) => {
                    world.cancel(n);
                    None
                }
                Step::Pay(n, step) => {
                    world.pay(n, step);
                    None
                }
                Step::Deliver(to_limits) => world.deliver(to_limits),
                // What was taken before is delivered again.
                Step::Again(at, true) if !world.decided.is_empty() => {
                    let input = world.decided[at % world.decided.len()].clone();
                    world.decide(&input);
                    None
                }
                Step::Again(at, false) if !world.taken.is_empty() => {
                    let event = world.taken[at % world.taken.len()].clone();
                    world.take(&event)
                }
                Step::Again(..) => None,
            };
            prop_assert_ne!(ended, Some(End::Late), "what may be raised is in no transaction");
            world.holds()?;
        }
        while !world.calculated.is_empty() || !world.answers.is_empty() {
            for to_limits in [true, false] {
                prop_assert_ne!(world.deliver(to_limits), Some(End::Late));
                world.holds()?;
            }
        }
        world.balances()?;
        let seen = world.seen();
        for input in world.decided.clone() {
            world.decide(&input);
        }
        for event in world.taken.clone() {
            world.take(&event);
        }
        prop_assert_eq!(world.seen(), seen);
    }

    #[test]
    fn a_payout_moves_by_its_table_alone(at in 0..PayoutState::ALL.len()) {
        // An adjustment is permitted exactly where the whole could be cancelled.
        let state = PayoutState::ALL[at];
        let may = machine::payout(state, PayoutEvent::Cancel).to().is_some();
        prop_assert_eq!(permit(state, None, &Order::Cancel { settled: false }).is_ok(), may);
    }
}
