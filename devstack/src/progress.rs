//! Progress in lines: one at once for news, and one every two seconds for what takes longer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How often the tasks under way are reported, and the age from which they are.
const EVERY: Duration = Duration::from_secs(2);

enum News {
    Begun(u64, String),
    Ended(u64),
    Line(String),
}

/// Where threads report what they do.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Sender<News>);

/// A task under way; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Task {
    id: u64,
    progress: Progress,
}

/// Where the lines come from.
pub(crate) struct Report(Receiver<News>);

pub(crate) fn reported() -> (Progress, Report) {
    let (sender, receiver) = channel();
    (Progress(sender), Report(receiver))
}

impl Progress {
    /// Begins a task, e.g. `fetching Kafka`.
    pub(crate) fn begin(&self, what: impl Into<String>) -> Task {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.send(News::Begun(id, what.into()));
        Task { id, progress: self.clone() }
    }

    /// Reports a line at once.
    pub(crate) fn line(&self, line: impl Into<String>) {
        self.send(News::Line(line.into()));
    }

    fn send(&self, news: News) {
        // Err means that nobody listens any more.
        let _ = self.0.send(news);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.progress.send(News::Ended(self.id));
    }
}

impl Report {
    /// Prints until every [`Progress`] and [`Task`] is gone.
    pub(crate) fn print(self, line: &dyn Fn(&str)) {
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

/// `fetching Kafka (12 s), starting the registry (3 s)…`, of the tasks that are old enough.
fn summary<'a>(tasks: impl Iterator<Item = &'a (String, Instant)>, now: Instant) -> Option<String> {
    let old: Vec<String> = tasks
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
    fn tasks_of_two_seconds_and_more_are_reported_with_their_age() {
        let start = Instant::now();
        let tasks = [("fetching Kafka".to_owned(), start), ("b".to_owned(), start + Duration::from_secs(11))];
        let reported = summary(tasks.iter(), start + Duration::from_secs(12));
        assert_eq!(reported.as_deref(), Some("fetching Kafka (12 s)…"));
        let reported = summary(tasks.iter(), start + Duration::from_secs(13));
        assert_eq!(reported.as_deref(), Some("fetching Kafka (13 s), b (2 s)…"));
        assert_eq!(summary(tasks.iter(), start), None);
    }

    #[test]
    fn the_report_ends_with_the_last_task() {
        let (progress, report) = reported();
        let task = progress.begin("one");
        progress.line("hello");
        drop(progress);
        let printed = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(move || drop(task));
            report.print(&|line| printed.lock().unwrap().push(line.to_owned()));
        });
        assert_eq!(printed.into_inner().unwrap(), ["hello"]);
    }
}
