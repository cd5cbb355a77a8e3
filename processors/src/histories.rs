//! Whole histories of several drivers through the decision core: what was read, what people decide, ends by
//! operators, repeats and cancellations, from the
//! verdict to the granted reward, and what must hold after every record. `./dev test` tries 200,000 of them, `./dev test deep` a million.

mod audit;
mod drawn;
mod world;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};

use self::audit::Audit;
use self::drawn::{Record, history};
use self::world::World;

/// Histories where nobody asks for more: half a second unoptimised.
const HISTORIES: u32 = 1_000;

/// What must hold of one history, whose state is taken at a cut and from there on decided again.
fn holds(draws: &[u64], cut: usize) -> Result<(), TestCaseError> {
    let records = history(draws);
    let cut = cut % records.len();
    let (mut world, mut audit) = (World::default(), Audit::default());
    let (mut outcomes, mut at_the_cut) = (Vec::with_capacity(records.len()), None);
    for (n, record) in records.iter().enumerate() {
        if n == cut {
            at_the_cut = Some(world.clone());
        }
        let outcome = world.take(record);
        audit.of(&world, outcome.as_ref())?;
        outcomes.push(outcome);
    }
    // The rest once more from the state at the cut, one driver after the other: neither a replay nor the order between drivers
    // changes an outcome.
    let mut again = at_the_cut.unwrap_or_default();
    let mut by_driver: Vec<(usize, &Record)> = records.iter().enumerate().skip(cut).collect();
    by_driver.sort_by_key(|(_, record)| record.user());
    for (n, record) in by_driver {
        prop_assert_eq!(again.take(record), outcomes[n].clone());
    }
    prop_assert_eq!(&again, &world);
    // And a third time on top: every record has had its effect.
    for record in &records[cut..] {
        prop_assert_eq!(again.take(record), None);
    }
    prop_assert_eq!(again, world);
    Ok(())
}

#[test]
fn no_history_is_paid_twice_or_over_a_limit_and_neither_a_replay_nor_the_order_between_drivers_changes_it() {
    let histories = crate::properties::tried(HISTORIES).cases;
    let cores = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    let share = || {
        let mut runner = TestRunner::new(crate::properties::exactly(histories.div_ceil(cores)));
        let drawn = (proptest::collection::vec(any::<u64>(), 2..16), any::<u16>());
        runner.run(&drawn, |(draws, cut)| holds(&draws, cut.into()))
    };
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..cores).map(|_| scope.spawn(share)).collect();
        for share in shares {
            match share.join().unwrap() {
                Ok(()) => {}
                Err(TestError::Fail(reason, (draws, cut))) => {
                    panic!("{reason}\nthe history {draws:?}, cut at {cut}: {:#?}", history(&draws))
                }
                Err(aborted) => panic!("{aborted}"),
            }
        }
    });
}

#[test]
fn drawn_histories_hold_every_kind_of_verdict_and_grant() {
    let mut dice = TestRunner::deterministic();
    let strategy = proptest::collection::vec(any::<u64>(), 2..16);
    let mut seen = audit::Seen::default();
    for _ in 0..500 {
        let draws = strategy.new_tree(&mut dice).unwrap().current();
        let mut world = World::default();
        for record in history(&draws) {
            seen.note(world.take(&record).as_ref());
        }
    }
    assert_eq!(seen.missing(), Vec::<&str>::new(), "{seen:?}");
}
