//! The system under faults: every process is killed, stopped and ended at each step of the commit protocol, while photos flow and people
//! review, correct, cancel, hold and claim; and nothing is lost, doubled or decided otherwise.
//!
//! Real parts, one process a role, two of those that decide and pay. The oracles decide the same records in one thread. A run of any length
//! is `./dev faults`; of what it is told nothing is left to chance but when a fault meets which record.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod accounts;
mod aggregates;
mod check;
mod faults;
mod load;
mod operators;
mod payments;
mod plan;
mod rewards;
mod run;

use std::time::Duration;

use faults::Pace;
use plan::{Fault, Plan};
use run::Run;
use runtime::failpoint::Step;

/// Uploads of the short run: enough for every fault to meet records in flight.
const UPLOADS: usize = 200;
/// Uploads of the run without guards.
const UNGUARDED_UPLOADS: usize = 48;
/// Photos that are too dark, after each one that can be read: that one takes a CPU second, so that 200 would take two minutes of two cores
/// and 3,000 most of an hour. A short run needs enough that are paid for, to meet each step of a payment.
const DARK_SHORT: usize = 1;
const DARK_LONG: usize = 2;
/// Of the short runs: their plans are the same each time.
const SEED: u64 = 1;
const SHORT: Pace = Pace { decided: 4, time: Duration::from_secs(1) };

/// Waits until everything has come to its end, and says what is wrong then.
fn settled(run: &mut Run) -> Vec<String> {
    run.until_all_decided();
    // What is decided is granted and in the tables before anybody asks whether all of it is paid.
    run.until_no_lag();
    if run.chain.is_some() {
        run.until_all_paid();
        run.until_no_lag();
    }
    let violations = check::violations(run);
    eprintln!("{}\nuploads decided: {}", run.summary(), run.decided());
    violations
}

#[test]
fn under_deaths_at_every_step_each_upload_is_decided_once_and_each_grant_paid_once_and_a_rebuild_gives_equal_tables()
 {
    let mut run = Run::start("on");
    run.post(SEED, DARK_SHORT);
    run.endure(Plan::short(SEED), SHORT, (UPLOADS, Duration::ZERO), |_| true);
    let violations = settled(&mut run);
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    let before = check::materialized(&run);
    assert!(before.lines().count() > 3 * UPLOADS, "the tables hold {} rows", before.lines().count());
    run.rebuild();
    let after = check::materialized(&run);
    check::assert_equal_lines(&before, &after);
    run.finish();
}

/// Meets only the stage whose guards are off: without them the others stand still at what it does, and nothing is published again by it.
fn of_the_decider(fault: &Fault) -> bool {
    let roles = fault.roles();
    let guarded = fault.dies_at(Step::DecideRepublished);
    !guarded && !roles.is_empty() && roles.iter().all(|role| role.starts_with("fraud_check"))
}

#[test]
fn without_fence_and_decision_key_the_same_checks_find_uploads_that_were_decided_twice() {
    let violations = unguarded(SEED, UNGUARDED_UPLOADS);
    let doubled = violations.iter().filter(|text| text.contains("decided in")).count();
    assert!(doubled > 0, "the guards are off and nothing was decided twice: {violations:?}");
}

fn unguarded(seed: u64, uploads: usize) -> Vec<String> {
    let mut run = Run::start("off");
    run.post(seed, 0);
    run.endure(Plan::new(seed), SHORT, (uploads, Duration::ZERO), of_the_decider);
    let violations = settled(&mut run);
    run.finish();
    violations
}

/// `./dev faults`: `FAULTS_SEED`, `FAULTS_MINUTES`, `FAULTS_UPLOADS`, and `FAULTS_NAIVE` for the run without guards.
#[test]
#[ignore = "a run of many minutes: ./dev faults"]
fn a_run_of_any_length() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (seed, minutes) = (number("FAULTS_SEED"), number("FAULTS_MINUTES"));
    let uploads = usize::try_from(number("FAULTS_UPLOADS")).unwrap();
    eprintln!("faults: seed {seed}, {minutes} minutes at least, {uploads} uploads at least");
    let violations = if std::env::var_os("FAULTS_NAIVE").is_some() {
        unguarded(seed, UNGUARDED_UPLOADS)
    } else {
        let mut run = Run::start("on");
        run.post(seed, DARK_LONG);
        // Thirty zombies and 150 kills in 20 minutes.
        let pace = Pace { decided: 1, time: Duration::from_secs(4) };
        run.endure(Plan::new(seed), pace, (uploads, Duration::from_secs(60 * minutes)), |_| true);
        let violations = settled(&mut run);
        run.finish();
        violations
    };
    for violation in &violations {
        println!("violation: {violation}");
    }
    println!("{} violations, seed {seed}", violations.len());
    assert!(violations.is_empty());
}
