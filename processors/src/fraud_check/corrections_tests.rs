//! Corrections by examples, and what must hold for any history of photos, corrections and payments.

use std::collections::{BTreeMap, BTreeSet};

use runtime::Position;
use schemas::events::{
    Correction, LimitType, PayoutState, ReadingCorrected, RewardCalculated, RewardCancelled, UploadDecided,
};
use schemas::ids::RewardId;

use super::*;
use crate::chain_submission::ledger::machine::{self, PayoutEvent};
use crate::fraud_check::corrections::correct;
use crate::fraud_check::event;
use crate::fraud_check::input::FraudInput;
use crate::limit_check::books::Books;
use crate::limit_check::grant::{Budgets, grant};
use crate::limit_check::state::keys_of;
use crate::reward_rules::Rulebook;

/// A driver's world: the vehicle, what was decided, and the money that came of it.
#[derive(Clone, Debug, Default)]
struct World {
    vehicle: Option<VehicleState>,
    effects: BTreeSet<String>,
    verified: BTreeMap<UploadId, UploadDecided>,
    first_km: Option<Decimal>,
    distance: Decimal,
    budgets: Budgets,
    books: Books,
    /// Amount, state, and whether its reading was corrected.
    rewards: BTreeMap<RewardId, (Decimal, PayoutState, bool)>,
}

/// What two worlds are compared by.
type Seen = (
    Option<VehicleState>,
    BTreeMap<UploadId, UploadDecided>,
    Vec<Decimal>,
    BTreeMap<RewardId, (Decimal, PayoutState, bool)>,
);

impl World {
    fn seen(&self) -> Seen {
        let held = self.budgets.values().map(|budget| budget.current).collect();
        (self.vehicle.clone(), self.verified.clone(), held, self.rewards.clone())
    }

    /// Takes a record; one whose effect is stored already is dropped, as the engine does.
    fn take(&mut self, input: &FraudInput) {
        if !self.effects.insert(input.effect()) {
            return;
        }
        match input {
            FraudInput::Read(read) => self.read(read),
            FraudInput::Corrected(corrected) => self.corrected(corrected),
        }
    }

    fn read(&mut self, read: &OdometerRead) {
        let judgement = judge(read, self.vehicle.as_ref(), &Rules::current());
        let at = Position { topic: "uploads.readings".into(), partition: 0, offset: 0 };
        let decided = event::decided((read, &at), &judgement, None, Micros(0));
        let Some(km) = judgement.distance_km else { return };
        self.vehicle = judgement.next_state;
        self.first_km = self.first_km.or(self.vehicle.as_ref().map(|vehicle| vehicle.highest_km));
        self.distance += km;
        self.earn(&decided, km);
        self.verified.insert(decided.header.upload_id, decided);
    }

    fn earn(&mut self, decided: &UploadDecided, km: Decimal) {
        let base = (km / Decimal::ONE_HUNDRED).round_dp(8);
        if base.is_zero() {
            return;
        }
        let reward_id = RewardId::of(decided.header.upload_id);
        let bonus = Decimal::ZERO;
        let reward = RewardCalculated {
            header: decided.header.clone(),
            reward_id,
            base,
            bonus,
            ..crate::examples::reward()
        };
        let policy = &Rulebook::first().in_force(Micros(0)).policy.clone();
        let granted = grant(&reward, &mut self.budgets, policy, Micros(0)).unwrap().amount;
        if !granted.is_zero() {
            self.books.charge(reward_id, keys_of(&reward), granted, &mut self.budgets);
            self.rewards.insert(reward_id, (granted, PayoutState::Ready, false));
        }
    }

    fn corrected(&mut self, event: &ReadingCorrected) {
        let Some(corrected) = correct(event, self.vehicle.as_ref()) else { return };
        self.vehicle = corrected.next_state.or(self.vehicle.take());
        let upload = corrected.decided.header.upload_id;
        self.verified.insert(upload, corrected.decided);
        if let Some((.., is_corrected)) = self.rewards.get_mut(&RewardId::of(upload)) {
            *is_corrected = true;
        }
        self.cancel();
    }

    /// Cancels what is corrected and in no transaction: won in the payouts, then refunded.
    fn cancel(&mut self) {
        for (reward_id, (granted, state, is_corrected)) in &mut self.rewards {
            let next = machine::payout(*state, PayoutEvent::Cancel).to().filter(|_| *is_corrected);
            if let Some(next) = next {
                *state = next;
                let header = good().header;
                let cancelled = RewardCancelled {
                    header,
                    reward_id: *reward_id,
                    granted: *granted,
                    reason: String::new(),
                };
                self.books.cancel(&cancelled, &mut self.budgets);
            }
        }
    }

    /// A step of a payment: what is corrected is not planned.
    fn pay(&mut self, at: usize, step: PayoutEvent) {
        let count = self.rewards.len().max(1);
        if let Some((_, state, is_corrected)) = self.rewards.values_mut().nth(at % count) {
            let next = machine::payout(*state, step).to();
            *state = next.filter(|_| !(*is_corrected && step == PayoutEvent::Plan)).unwrap_or(*state);
        }
        self.cancel();
    }

    fn wei(&self, which: impl Fn(PayoutState) -> bool) -> u128 {
        let of = self.rewards.values().filter(|(_, state, _)| which(*state));
        of.map(|(amount, ..)| chain::Wei::from_b3tr(*amount).unwrap().to_u128().unwrap()).sum()
    }
}

/// The `n`-th photo of a day each, sure.
fn photo(n: i64, km: &str) -> FraudInput {
    let mut event = good();
    reads(&mut event, &[(km, Some(Unit::Km), "0.97")]);
    event.header.accepted_at.0 += n * 30 * DAY_US;
    event.stamp.captured_at = None;
    event.header.upload_id = UploadId(Uuid::from_u128(u128::try_from(n).unwrap()));
    FraudInput::Read(Box::new(event))
}

/// The `number`-th correction of the `n`-th photo.
fn lowered(world: &World, n: u128, mileage: &str, number: i32) -> FraudInput {
    let decided = world.verified[&UploadId(Uuid::from_u128(n))].clone();
    let mileage_before = decided.final_mileage.unwrap();
    let correction = Correction { number, mileage_before, mileage: dec(mileage), corrected_at: Micros(9) };
    FraudInput::Corrected(Box::new(ReadingCorrected::of(decided, correction)))
}

fn world(photos: &[&str]) -> World {
    let mut world = World::default();
    for (n, km) in (0..).zip(photos) {
        world.take(&photo(n, km));
    }
    assert_eq!(world.verified.len(), photos.len());
    world
}

fn reading(world: &World, n: u128) -> (Decimal, Decimal) {
    let decided = &world.verified[&UploadId(Uuid::from_u128(n))];
    (decided.final_mileage.unwrap(), decided.distance_km.unwrap())
}

#[test]
fn the_newest_reading_is_lowered_and_the_driver_goes_on_from_there_without_being_paid_twice() {
    let mut world = world(&["50000", "50400"]);
    let correction = lowered(&world, 1, "50040", 1);
    world.take(&correction);
    let vehicle = world.vehicle.clone().unwrap();
    assert_eq!((vehicle.last_km, vehicle.highest_km), (dec("50040"), dec("50400")));
    assert_eq!(reading(&world, 1), (dec("50040"), dec("40")));
    // What would have been a rollback before is verified, and paid for only above what was verified once.
    for (n, km, paid) in [(2, "50300", "0"), (3, "50450", "50")] {
        world.take(&photo(n, km));
        assert_eq!(reading(&world, n.unsigned_abs().into()), (dec(km), dec(paid)));
    }
}

#[test]
fn a_reading_with_newer_ones_behind_it_is_lowered_in_its_place_and_moves_no_comparison() {
    let mut world = world(&["50000", "50400", "50500"]);
    let correction = lowered(&world, 1, "50100", 1);
    world.take(&correction);
    let vehicle = world.vehicle.clone().unwrap();
    assert_eq!((vehicle.last_km, vehicle.highest_km), (dec("50500"), dec("50500")));
    assert_eq!(
        vehicle.recent.iter().map(|verified| verified.km).collect::<Vec<_>>(),
        [50_000, 50_100, 50_500].map(Decimal::from)
    );
}

#[test]
fn a_correction_that_raises_or_falls_below_the_older_reading_or_is_of_nothing_verified_is_refused() {
    let world = world(&["50000", "50400"]);
    let refused = |input: &FraudInput, vehicle: Option<&VehicleState>| {
        let FraudInput::Corrected(event) = input else { panic!("a correction") };
        correct(event, vehicle).is_none()
    };
    let vehicle = world.vehicle.as_ref();
    for (mileage, expected) in [
        ("50400", true),
        ("50401", true),
        ("-1", true),
        ("49999", true),
        ("50000", false),
        ("50399.9", false),
    ] {
        assert_eq!(refused(&lowered(&world, 1, mileage, 1), vehicle), expected, "{mileage}");
    }
    assert!(refused(&lowered(&world, 1, "50100", 1), None), "a vehicle without any verified reading");
    let FraudInput::Corrected(mut event) = lowered(&world, 1, "50100", 1) else { panic!("a correction") };
    event.decided.verdict = Verdict::Rejected;
    assert!(refused(&FraudInput::Corrected(event.clone()), vehicle));
    (event.decided.verdict, event.correction.mileage_before) = (Verdict::Verified, dec("50500"));
    assert!(refused(&FraudInput::Corrected(event), vehicle), "of another reading than the decision's");
}

#[test]
fn where_two_readings_are_wrong_the_older_is_corrected_first_and_one_may_be_corrected_again() {
    let mut world = world(&["50000", "50400", "50450"]);
    let too_early = lowered(&world, 2, "50200", 1);
    world.take(&too_early);
    assert_eq!(reading(&world, 2).0, dec("50450"));
    for (n, mileage, number) in [(1, "50100", 1), (2, "50200", 2), (1, "50050", 2), (2, "50150", 3)] {
        let correction = lowered(&world, n, mileage, number);
        world.take(&correction);
        assert_eq!(reading(&world, n).0, dec(mileage));
    }
    assert_eq!(world.vehicle.unwrap().last_km, dec("50150"));
}

#[test]
fn an_unsigned_reward_is_cancelled_and_refunded_one_in_a_transaction_once_that_is_dead_and_what_was_paid_stays()
 {
    for (steps, state, held) in [
        (&[][..], PayoutState::Cancelled, "0"),
        (&[PayoutEvent::Plan], PayoutState::InFlight, "4"),
        (&[PayoutEvent::Plan, PayoutEvent::Confirm], PayoutState::Paid, "4"),
    ] {
        let mut world = world(&["50000", "50400"]);
        steps.iter().for_each(|step| world.pay(0, *step));
        let correction = lowered(&world, 1, "50040", 1);
        world.take(&correction);
        let (granted, found, _) = world.rewards.values().next().unwrap();
        assert_eq!((*granted, *found), (dec("4"), state));
        assert!(world.budgets.values().all(|budget| budget.current == dec(held)), "{state:?}");
        if state == PayoutState::InFlight {
            world.pay(0, PayoutEvent::Free);
            assert_eq!(world.rewards.values().next().unwrap().1, PayoutState::Cancelled);
            assert!(world.budgets.values().all(|budget| budget.current.is_zero()));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Photo(Box<OdometerRead>),
    Correct(usize, i64),
    Pay(usize, PayoutEvent),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => upload().prop_map(|event| Step::Photo(Box::new(event))),
        2 => (any::<usize>(), 0_i64..2_000).prop_map(|(at, tenths)| Step::Correct(at, tenths)),
        3 => (any::<usize>(), crate::examples::payment()).prop_map(|(at, step)| Step::Pay(at, step)),
    ]
}

proptest! {
    #![proptest_config(crate::properties::tried(768))]

    #[test]
    fn with_corrections_nothing_is_paid_beyond_the_highest_reading_and_every_wei_is_paid_pending_or_cancelled(
        steps in proptest::collection::vec(step(), 1..60), suffix in any::<prop::sample::Index>(),
    ) {
        let (mut world, mut log) = (World::default(), Vec::new());
        for step in steps {
            let before = world.clone();
            match step {
                Step::Photo(event) => log.push(FraudInput::Read(event)),
                Step::Correct(at, tenths) => {
                    let Some(upload) = world.verified.keys().nth(at % world.verified.len().max(1)) else { continue };
                    let decided = world.verified[upload].clone();
                    let mileage_before = decided.final_mileage.unwrap();
                    // Now and then one that raises, which is refused.
                    let mileage = mileage_before - Decimal::new(tenths - 20, 1);
                    let number = 1 + decided.correction.as_ref().map_or(0, |correction| correction.number);
                    let correction = Correction { number, mileage_before, mileage, corrected_at: Micros(0) };
                    log.push(FraudInput::Corrected(Box::new(ReadingCorrected::of(decided, correction))));
                }
                Step::Pay(at, step) => {
                    world.pay(at, step);
                    continue;
                }
            }
            if let Some(input) = log.last() {
                world.take(input);
            }
            if let (Some(before), Some(after)) = (&before.vehicle, &world.vehicle) {
                prop_assert!(after.highest_km >= before.highest_km && after.last_km <= after.highest_km);
                prop_assert!(after.recent.windows(2).all(|pair| pair[0].km <= pair[1].km));
            }
            let driven = world.vehicle.as_ref().zip(world.first_km).map(|(vehicle, first)| vehicle.highest_km - first);
            prop_assert_eq!(world.distance, driven.unwrap_or_default());
        }
        let cancelled = world.wei(|state| state == PayoutState::Cancelled);
        let paid = world.wei(|state| matches!(state, PayoutState::Paid | PayoutState::Final));
        let pending = world.wei(|state| {
            matches!(state, PayoutState::Waiting | PayoutState::Ready | PayoutState::InFlight | PayoutState::Quarantined)
        });
        prop_assert_eq!(world.wei(|_| true), paid + pending + cancelled);
        for limit_type in LimitType::ALL {
            let held: Decimal =
                world.budgets.iter().filter(|((_, of, _), _)| *of == limit_type).map(|(_, budget)| budget.current).sum();
            prop_assert_eq!(chain::Wei::from_b3tr(held).unwrap().to_u128().unwrap(), paid + pending);
        }
        // Whatever comes again has had its effect.
        let seen = world.seen();
        if !log.is_empty() {
            let from = suffix.index(log.len());
            for _ in 0..2 {
                log[from..].iter().for_each(|input| world.take(input));
            }
        }
        prop_assert_eq!(world.seen(), seen);
    }
}
