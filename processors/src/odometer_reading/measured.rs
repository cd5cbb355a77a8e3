//! What a piece of work takes of the machine.

use std::time::Duration;

use cpu_time::ThreadTime;
use nix::sys::resource::{UsageWho, getrusage};
use runtime::Clock;

/// What was taken. Nothing where the system does not report it.
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
    let (started, before) = (clock.now(), ThreadTime::try_now().ok());
    let done = work();
    let (ended, cpu) = (clock.now(), before.and_then(|before| before.try_elapsed().ok()));
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    let spent = Spent {
        wall_ms: started.milliseconds_to(ended),
        cpu_ms: cpu.and_then(|cpu| i32::try_from(cpu.as_millis()).ok()),
        // KiB, as Linux counts `ru_maxrss` (getrusage(2)).
        rss_mb: usage.and_then(|usage| i32::try_from(usage.max_rss().saturating_mul(1_024) / 1_000_000).ok()),
    };
    (done, spent)
}

#[cfg(test)]
mod tests {
    use runtime::ManualClock;

    use super::*;

    #[test]
    fn the_cpu_of_this_thread_alone_is_counted_and_the_memory_of_the_whole_process() {
        let busy = || {
            let before = ThreadTime::now();
            while before.elapsed() < Duration::from_millis(20) {}
        };
        let clock = ManualClock::at(schemas::ids::Micros(0));
        let ((), spent) = measured(&clock, || std::thread::spawn(busy).join().unwrap());
        assert!(spent.cpu_ms.unwrap() < 20, "another thread's work is not ours: {spent:?}");
        let ((), spent) = measured(&clock, busy);
        assert!(spent.cpu_ms.unwrap() >= 20 && spent.rss_mb.unwrap() > 0, "{spent:?}");
        assert_eq!(spent.wall_ms, 0.0);
    }
}
