//! The system under faults: every process is killed while photos flow, and nothing is lost, doubled or decided otherwise.
//!
//! Real parts, one process a role, two of `fraud_check`. The oracle decides the same `uploads.readings` in one thread.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod aggregates;
mod check;
mod payments;
mod rewards;
mod run;

use std::time::Duration;

use devstack::Part;
use run::{Fault, Run};

/// Uploads of the whole run: enough for every fault to meet records in flight.
const UPLOADS: usize = 200;
/// Uploads of the run without guards.
const UNGUARDED_UPLOADS: usize = 48;
/// Longer than the session timeout that the run sets (6 s, the least that Kafka allows by default), so that the group
/// gives the stopped member's partitions to the other.
const STOPPED: Duration = Duration::from_secs(9);
/// Longer than the life of a signer's lease (10 s), so that the other instance signs meanwhile.
const LEASE_LOST: Duration = Duration::from_secs(13);

#[test]
fn under_kills_of_every_process_each_upload_is_decided_once_and_each_grant_paid_once_and_a_rebuild_gives_equal_tables()
 {
    let mut run = Run::start("on");
    run.post(UPLOADS);
    let kill = |role: &str| Fault::KillRole(role.to_owned());
    let faults = [
        kill("ingest"),
        kill("quality_check-a"),
        kill("odometer_reading-a"),
        kill("fraud_check-a"),
        kill("fraud_check-b"),
        Fault::StopRole("fraud_check-a".to_owned(), STOPPED),
        kill("reward_calculation-a"),
        kill("limit_check-a"),
        kill("chain_submission-a"),
        kill("watch"),
        kill("timers"),
        Fault::KillPart(Part::Thor),
        kill("postgres-sink"),
        kill("mongo-sink"),
        kill("analytics-sink"),
        Fault::StopRole("chain_submission-a".to_owned(), LEASE_LOST),
        Fault::KillPart(Part::Kafka),
        kill("chain_submission-b"),
        Fault::KillPart(Part::Postgres),
        Fault::KillPart(Part::Thor),
    ];
    for fault in &faults {
        // Some uploads are decided between any two faults, or the run would show nothing but restarts.
        run.until_decided_more(7);
        run.inject(fault);
    }
    run.until_all_decided();
    run.until_all_paid();
    run.until_no_lag();
    let violations = check::violations(&run);
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    let before = check::materialized(&run);
    assert!(before.lines().count() > 3 * UPLOADS, "the tables hold {} rows", before.lines().count());
    run.rebuild();
    let after = check::materialized(&run);
    check::assert_equal_lines(&before, &after);
    run.finish();
}

#[test]
fn without_fence_and_decision_key_the_same_checks_find_uploads_that_were_decided_twice() {
    let mut run = Run::start("off");
    run.post(UNGUARDED_UPLOADS);
    for _ in 0..4 {
        // Killed right behind a decision: its offset is not committed yet, and the next start decides it again.
        run.until_decided_more(6);
        run.inject(&Fault::KillRole("fraud_check-a".to_owned()));
        run.until_decided_more(1);
        run.inject(&Fault::KillRole("fraud_check-b".to_owned()));
    }
    run.until_all_decided();
    run.until_no_lag();
    let violations = check::violations(&run);
    let doubled = violations.iter().filter(|text| text.contains("decided in")).count();
    assert!(doubled > 0, "the guards are off and nothing was decided twice: {violations:?}");
    run.finish();
}
