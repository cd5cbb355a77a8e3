//! How long a failing record is tried again.
//!
//! A dependency that is down fails every record that needs it: they wait, for as long as it takes. A record that fails
//! *alone*, while others of its role succeed, would fail for ever and hold up what is behind it: it ends after
//! [`RetryLimit::after`]. What the two look like is counted per role, over all partitions of the process. Where there are no other records,
//! the dependencies are asked themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::PgPool;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// Rounds of "this record failed, another succeeded, this one failed again" that show that the fault is the record's.
const ROUNDS: u32 = 3;
/// Successes of others since the first failure that show it as well: a burst may be done before the second attempt. More
/// than were in work when a dependency went down (8 records of 4 partitions).
const SUCCESSES: u64 = 50;
/// Longest wait for the dependencies' own response: longer than a failover of one that is well takes to respond to a question.
const RESPONSE: Duration = Duration::from_secs(5);
/// With more than one failing record per this many successes the fault is not one record's: the share at which dead
/// letters halt a partition, too.
const SUCCESSES_PER_FAILING: u64 = 10;

/// When a record that fails alone is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimit {
    /// Time since its first failure.
    pub after: Duration,
}

impl Default for RetryLimit {
    /// 30 s: about ten attempts, longer than the failover of a store or a database for a part of its keys, and short
    /// enough that a partition whose records cannot overtake each other moves on within a minute.
    fn default() -> Self {
        Self { after: Duration::from_secs(30) }
    }
}

/// How the records of a role fare, over all its partitions in this process.
#[derive(Debug, Default)]
pub struct RoleProgress {
    succeeded: AtomicU64,
    failing: AtomicU64,
}

impl RoleProgress {
    /// Records that needed the role's dependencies and succeeded.
    pub fn succeeded(&self, records: usize) {
        self.succeeded.fetch_add(records as u64, Ordering::Relaxed);
    }

    fn successes(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again after this wait.
    Again(Duration),
    /// The record fails alone, and has done so for long enough.
    GiveUp,
}

/// A record whose attempts have failed so far.
#[derive(Debug)]
pub struct Failing {
    role: Arc<RoleProgress>,
    limit: RetryLimit,
    since: Instant,
    before: u64,
    seen: u64,
    rounds: u32,
    responses: u32,
    backoff: Backoff,
}

/// Whether a database responds, and would take what is written: a standby gives no transaction an id.
pub async fn database_responds(pool: &PgPool) -> bool {
    sqlx::query("select pg_current_xact_id()").execute(pool).await.is_ok()
}

/// Whether dependencies respond to a question of their own, in time.
pub(crate) async fn responds(asked: BoxFuture<'_, bool>) -> bool {
    tokio::time::timeout(RESPONSE, asked).await.unwrap_or(false)
}

impl Failing {
    /// A record that is about to fail for the first time.
    #[must_use]
    pub fn new(role: &Arc<RoleProgress>, limit: RetryLimit) -> Self {
        role.failing.fetch_add(1, Ordering::Relaxed);
        let before = role.successes();
        let (since, backoff) = (Instant::now(), Backoff::default());
        Self { role: role.clone(), limit, since, before, seen: before, rounds: 0, responses: 0, backoff }
    }

    /// Attempts that failed so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.backoff.attempts()
    }

    /// Whether no other record has succeeded since the attempt before.
    #[must_use]
    pub fn knows_nothing_new(&self) -> bool {
        self.role.successes() == self.seen
    }

    /// Notes that the dependencies have responded to a question of their own, asked since the last attempt: without other records
    /// this is all that can be known of them.
    pub fn dependencies_responded(&mut self) {
        self.responses += 1;
    }

    /// Notes a failed attempt.
    pub fn failed(&mut self) -> Next {
        let seen = self.role.successes();
        self.rounds += u32::from(seen > self.seen);
        self.seen = seen;
        let wait = self.backoff.next_wait();
        if self.is_alone() && self.since.elapsed() >= self.limit.after {
            Next::GiveUp
        } else {
            Next::Again(wait)
        }
    }

    fn is_alone(&self) -> bool {
        let successes = self.seen - self.before;
        let others = self.role.failing.load(Ordering::Relaxed).saturating_sub(1);
        let others_succeed = self.rounds >= ROUNDS || successes >= SUCCESSES;
        others_succeed && others * SUCCESSES_PER_FAILING <= successes
            // Where others fail too, a dependency that responds to questions does not do its work.
            || others == 0 && self.responses >= ROUNDS
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.role.failing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A dependency that refuses one question, and is asked another beside it.
#[derive(Debug, Default)]
pub(crate) struct Responding {
    /// When it began to respond to the other, and how often it has since.
    since: Option<(Instant, u32)>,
}

impl Responding {
    /// Whether it responds to the other for so long that the fault lies in the question.
    pub(crate) fn shows(&mut self, responds_to_another: bool, limit: RetryLimit) -> bool {
        if !responds_to_another {
            self.since = None;
            return false;
        }
        let (since, times) = self.since.get_or_insert((Instant::now(), 0));
        *times += 1;
        *times >= ROUNDS && since.elapsed() >= limit.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: RetryLimit = RetryLimit { after: Duration::ZERO };

    fn given_up_within(record: &mut Failing, attempts: u32, between: impl Fn()) -> bool {
        (0..attempts).any(|_| {
            between();
            record.failed() == Next::GiveUp
        })
    }

    #[test]
    fn a_record_that_fails_while_others_succeed_is_given_up_and_one_that_fails_with_all_others_never() {
        let role = Arc::<RoleProgress>::default();
        let mut record = Failing::new(&role, AT_ONCE);
        assert!(!given_up_within(&mut record, 1_000, || {}));
        assert!(given_up_within(&mut record, 3, || role.succeeded(1)));
    }

    #[test]
    fn a_burst_of_successes_after_the_first_failure_shows_it_too() {
        let role = Arc::<RoleProgress>::default();
        let mut record = Failing::new(&role, AT_ONCE);
        role.succeeded(49);
        assert!(!given_up_within(&mut record, 10, || {}));
        role.succeeded(1);
        assert!(given_up_within(&mut record, 1, || {}));
    }

    #[test]
    fn a_record_without_company_is_given_up_when_the_dependencies_respond_and_two_that_fail_are_not() {
        let role = Arc::<RoleProgress>::default();
        let mut record = Failing::new(&role, AT_ONCE);
        let other = Failing::new(&role, AT_ONCE);
        for _ in 0..100 {
            record.dependencies_responded();
            assert_ne!(record.failed(), Next::GiveUp);
        }
        drop(other);
        assert!(given_up_within(&mut record, 1, || {}));
        drop(record);
        let mut record = Failing::new(&role, AT_ONCE);
        let attempts = (1..10).find(|_| {
            let gives_up = record.failed() == Next::GiveUp;
            record.dependencies_responded();
            gives_up
        });
        assert_eq!(attempts, Some(ROUNDS + 1));
    }

    #[test]
    fn no_record_is_given_up_before_its_time() {
        let role = Arc::<RoleProgress>::default();
        let mut record = Failing::new(&role, RetryLimit { after: Duration::from_secs(3_600) });
        assert!(!given_up_within(&mut record, 100, || role.succeeded(100)));
    }

    #[test]
    fn while_a_tenth_of_all_records_fails_none_is_given_up_and_two_bad_ones_do_not_protect_each_other() {
        let role = Arc::<RoleProgress>::default();
        let mut record = Failing::new(&role, AT_ONCE);
        let others: Vec<_> = (0..30).map(|_| Failing::new(&role, AT_ONCE)).collect();
        assert!(!given_up_within(&mut record, 29, || role.succeeded(10)));
        drop(others);
        let _other = Failing::new(&role, AT_ONCE);
        assert!(given_up_within(&mut record, 1, || role.succeeded(1)));
    }
}
