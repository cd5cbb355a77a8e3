//! The restore drill: the database is set back to before the payments, or is lost, and nothing is paid twice.

use std::time::Duration;

use harness::deployment::RoleSpec;

use crate::size;
use crate::world::{Driver, World};

/// Rewards that are granted after the restore: payments go on.
const MORE: usize = 8;

/// Payments of which the database knows nothing any more.
struct Drill {
    world: World,
    drivers: Vec<Driver>,
}

impl Drill {
    /// Grants rewards, dumps the database before any is paid, and has them paid; `amid` happens while they are.
    fn paid(name: &str, amid: impl FnOnce(&mut World)) -> Self {
        let roles = vec![RoleSpec::stage("chain_submission", "a"), RoleSpec::watch()];
        let mut world = World::start(name, roles);
        let rewards = (size() / 2).clamp(MORE, 300);
        let drivers = world.drivers(rewards.min(100));
        world.command(&["payouts", "pause", "--reason", "drill"]);
        world.grant(&drivers, rewards);
        world.until("every grant taken", |world| world.booked() == rewards);
        world.stop_roles();
        world.command(&["payouts", "resume"]);
        world.dump();
        world.start_roles();
        world.until("some rewards paid", |world| world.paid() >= rewards / 3);
        amid(&mut world);
        world.until_final();
        eprintln!("payouts: {name}: before: {}", world.verified());
        world.stop_roles();
        Self { world, drivers }
    }

    /// Starts again, grants more, and holds chain and books against each other.
    fn goes_on(mut self, name: &str) {
        self.world.start_roles();
        self.world.grant(&self.drivers, MORE);
        self.world.until_final();
        eprintln!("payouts: {name}: after:  {}", self.world.verified());
        self.world.finish();
    }
}

#[test]
fn a_database_that_is_set_back_to_before_its_payments_pays_none_of_them_again() {
    let mut drill = Drill::paid("dump", |_| {});
    drill.world.restore_dump();
    drill.world.consume_again();
    assert_eq!(drill.world.paid(), 0, "the books have lost what was paid");
    drill.goes_on("dump");
}

#[test]
fn a_database_that_is_set_back_while_kafka_loses_its_last_records_pays_nothing_again() {
    let mut drill = Drill::paid("kafka", World::copy_kafka);
    drill.world.set_kafka_back();
    drill.world.restore_dump();
    drill.world.consume_again();
    assert_eq!(drill.world.paid(), 0, "the books have lost what was paid");
    drill.goes_on("kafka");
}

#[test]
fn payouts_are_restored_from_topics_and_chain_after_the_database_was_lost_and_none_is_paid_again() {
    let mut drill = Drill::paid("empty", |_| {});
    let rewards = drill.world.granted();
    let restore = ["restore", "payouts", "--reason", "drill"];
    let refused = drill.world.refused(&restore);
    assert!(refused.contains("it is not lost"), "{refused}");
    drill.world.lose_database();
    assert_eq!(drill.world.booked(), 0);
    let rebuilt: serde_json::Value = serde_json::from_str(&drill.world.command(&restore)).unwrap();
    eprintln!("payouts: empty: restored: {rebuilt}");
    let counted = |name: &str| rebuilt[name].as_u64().unwrap();
    assert_eq!(
        (counted("unexplained"), counted("unproven"), counted("without_wallet")),
        (0, 0, 0),
        "{rebuilt}"
    );
    assert_eq!(rebuilt["payouts"]["final"], rewards, "{rebuilt}");
    assert!(rebuilt["signs_after"].as_u64().is_some(), "signatures may have been lost: {rebuilt}");
    eprintln!("payouts: empty: books before the start: {}", drill.world.verified());
    drill.world.pass(Duration::from_millis(100));
    drill.goes_on("empty");
}
