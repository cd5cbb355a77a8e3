//! What a piece of work takes of the machine.

use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use runtime::Clock;

use crate::documents::milliseconds;

/// What was taken. Nothing where the system does not tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// Milliseconds by the clock.
    pub wall_ms: f64,
    /// Milliseconds of CPU on the thread that did the work.
    pub cpu_ms: Option<i32>,
    /// The largest resident set of the process so far, MB of 1,000,000 bytes.
    pub rss_mb: Option<i32>,
}

impl Spent {
    /// With CPU time that the work took on another thread.
    pub fn and_cpu(self, elsewhere: Option<Duration>) -> Self {
        let elsewhere = elsewhere.and_then(|cpu| i32::try_from(cpu.as_millis()).ok());
        Self { cpu_ms: self.cpu_ms.zip(elsewhere).map(|(here, there)| here.saturating_add(there)), ..self }
    }
}

/// Does the work on this thread, and measures it.
pub(super) fn measured<T>(clock: &dyn Clock, work: impl FnOnce() -> T) -> (T, Spent) {
    let usage = || getrusage(UsageWho::RUSAGE_THREAD).ok();
    let (started, before) = (clock.now(), usage());
    let done = work();
    let (ended, after) = (clock.now(), usage());
    let cpu = before.zip(after).map(|(before, after)| cpu(&after).saturating_sub(cpu(&before)));
    let spent = Spent {
        wall_ms: milliseconds(started, ended),
        cpu_ms: cpu.and_then(|cpu| i32::try_from(cpu.as_millis()).ok()),
        // KiB, as Linux counts `ru_maxrss` (getrusage(2)): the process's, also when a thread's use is asked for.
        rss_mb: after.and_then(|usage| i32::try_from(usage.max_rss().saturating_mul(1_024) / 1_000_000).ok()),
    };
    (done, spent)
}

fn cpu(usage: &Usage) -> Duration {
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(microseconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use runtime::ManualClock;

    use super::*;

    #[test]
    fn the_cpu_of_this_thread_alone_is_counted_and_the_memory_of_the_whole_process() {
        let busy = || {
            let before = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
            while cpu(&getrusage(UsageWho::RUSAGE_THREAD).unwrap()) < cpu(&before) + Duration::from_millis(20)
            {
            }
        };
        let clock = ManualClock::at(schemas::ids::Micros(0));
        let ((), spent) = measured(&clock, || std::thread::spawn(busy).join().unwrap());
        assert!(spent.cpu_ms.unwrap() < 20, "another thread's work is not ours: {spent:?}");
        let ((), spent) = measured(&clock, busy);
        assert!(spent.cpu_ms.unwrap() >= 20 && spent.rss_mb.unwrap() > 0, "{spent:?}");
        assert_eq!(spent.wall_ms, 0.0);
    }
}
