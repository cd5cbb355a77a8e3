//! What is under way, told in lines: one at once for news, and one every two seconds for what takes longer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How often the steps under way are told, and the age from which they are.
const EVERY: Duration = Duration::from_secs(2);

enum News {
    Begun(u64, String),
    Ended(u64),
    Line(String),
}

/// Where the threads say what they do.
#[derive(Clone, Debug)]
pub(crate) struct Steps(Sender<News>);

/// A step under way; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Step {
    id: u64,
    steps: Steps,
}

/// Where the lines come from.
pub(crate) struct Report(Receiver<News>);

pub(crate) fn steps() -> (Steps, Report) {
    let (sender, receiver) = channel();
    (Steps(sender), Report(receiver))
}

impl Steps {
    /// Begins a step, e.g. `fetching Kafka`.
    pub(crate) fn begin(&self, what: impl Into<String>) -> Step {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.send(News::Begun(id, what.into()));
        Step { id, steps: self.clone() }
    }

    /// Says a line at once.
    pub(crate) fn say(&self, line: impl Into<String>) {
        self.send(News::Line(line.into()));
    }

    fn send(&self, news: News) {
        // Err means that nobody listens any more.
        let _ = self.0.send(news);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.steps.send(News::Ended(self.id));
    }
}

impl Report {
    /// Tells until every [`Steps`] and [`Step`] is gone.
    pub(crate) fn tell(self, line: &dyn Fn(&str)) {
        let mut under_way = BTreeMap::new();
        let mut next = Instant::now() + EVERY;
        loop {
            match self.0.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(News::Begun(id, what)) => drop(under_way.insert(id, (what, Instant::now()))),
                Ok(News::Ended(id)) => drop(under_way.remove(&id)),
                Ok(News::Line(text)) => line(&text),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + EVERY;
                    if let Some(text) = summary(under_way.values(), Instant::now()) {
                        line(&text);
                    }
                }
            }
        }
    }
}

/// `fetching Kafka (12 s), starting the registry (3 s)…`, of the steps that are old enough.
fn summary<'a>(steps: impl Iterator<Item = &'a (String, Instant)>, now: Instant) -> Option<String> {
    let old: Vec<String> = steps
        .map(|(what, since)| (what, now.saturating_duration_since(*since)))
        .filter(|(_, age)| *age >= EVERY)
        .map(|(what, age)| format!("{what} ({} s)", age.as_secs()))
        .collect();
    (!old.is_empty()).then(|| format!("{}…", old.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_two_seconds_and_more_are_told_with_their_age() {
        let start = Instant::now();
        let steps = [("fetching Kafka".to_owned(), start), ("b".to_owned(), start + Duration::from_secs(11))];
        let told = summary(steps.iter(), start + Duration::from_secs(12));
        assert_eq!(told.as_deref(), Some("fetching Kafka (12 s)…"));
        let told = summary(steps.iter(), start + Duration::from_secs(13));
        assert_eq!(told.as_deref(), Some("fetching Kafka (13 s), b (2 s)…"));
        assert_eq!(summary(steps.iter(), start), None);
    }

    #[test]
    fn the_report_ends_with_the_last_step() {
        let (steps, report) = steps();
        let step = steps.begin("one");
        steps.say("hello");
        drop(steps);
        let said = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(move || drop(step));
            report.tell(&|line| said.lock().unwrap().push(line.to_owned()));
        });
        assert_eq!(said.into_inner().unwrap(), ["hello"]);
    }
}
