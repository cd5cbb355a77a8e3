//! Payments under kills and lost databases, on real parts: submitter and watcher are killed again and again, and a database that was
//! set back or lost goes on without paying anything twice. What was paid is counted in the node's own logs.
//!
//! `PAYOUTS` is the size of a run: rewards, 60 without it, to a quarter as many receivers (500 at most), with a kill per 15 rewards (60 at
//! least from 1,200 on). The whole run is `PAYOUTS=2000 cargo test -p harness --test payouts -- --nocapture`, a quarter of an
//! hour; the drills then set 300 payouts back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod drill;
mod world;

use std::time::Duration;

use harness::deployment::RoleSpec;
use harness::dice::Dice;
use world::World;

/// Rewards of a run where `PAYOUTS` says nothing.
const REWARDS: usize = 60;

fn size() -> usize {
    std::env::var("PAYOUTS").ok().and_then(|size| size.parse().ok()).unwrap_or(REWARDS)
}

#[test]
fn submitter_and_watcher_are_killed_again_and_again_and_each_reward_is_paid_once_and_becomes_final() {
    let rewards = size();
    let (receivers, kills) = (
        (rewards / 4).clamp(1, 500),
        if rewards < 1_200 { rewards.div_ceil(15) } else { 60.max(rewards / 32) },
    );
    let submitters = ["a", "b"].map(|instance| RoleSpec::stage("chain_submission", instance));
    let mut world = World::start("kills", submitters.into_iter().chain([RoleSpec::watch()]).collect());
    let drivers = world.drivers(receivers);
    let mut dice = Dice::new(7);
    for portion in 0..kills {
        let until = rewards * (portion + 1) / kills;
        world.grant(&drivers, until - world.granted());
        // At any point of planning, signing, posting and following: something was planned since the last kill.
        let planned = world.planned();
        world.until("more rewards planned", |world| world.planned() > planned);
        world.pass(Duration::from_millis(200 + dice.below(2_500)));
        let role =
            ["chain_submission-a", "chain_submission-b", "watch"][usize::try_from(dice.below(3)).unwrap()];
        eprintln!(
            "payouts: SIGKILL {} of {kills} to {role}, {} of {rewards} planned",
            portion + 1,
            world.planned()
        );
        world.kill(role);
    }
    world.until_final();
    let report = world.verified();
    eprintln!("payouts: {rewards} rewards to {receivers} receivers, {kills} kills: {report}");
    world.finish();
}
