//! Says what is going on while something takes long.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Nobody is left without a word for longer.
const EVERY: Duration = Duration::from_secs(2);

/// Does the work, and says `WHAT (4 s)…` every two seconds meanwhile.
pub fn reporting<T>(report: &(dyn Fn(&str) + Sync), what: &str, work: impl FnOnce() -> T) -> T {
    let (working, done) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let since = Instant::now();
            while done.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                report(&format!("{what} ({} s)…", since.elapsed().as_secs()));
            }
        });
        let result = work();
        // Also dropped where the work panics, so that the thread ends in any case.
        drop(working);
        result
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn quick_work_is_done_without_a_word_and_gives_its_result() {
        let said = Mutex::new(Vec::new());
        let report = |line: &str| said.lock().unwrap().push(line.to_owned());
        assert_eq!(reporting(&report, "adding", || 1 + 1), 2);
        assert!(said.into_inner().unwrap().is_empty());
    }

    #[test]
    fn long_work_is_told_with_its_age() {
        let (sender, reported) = channel();
        let report = move |line: &str| sender.send(line.to_owned()).unwrap();
        // The work lasts until it was told of.
        let line = reporting(&report, "waiting", || reported.recv_timeout(Duration::from_secs(30)).unwrap());
        assert_eq!(line, "waiting (2 s)…");
    }
}
