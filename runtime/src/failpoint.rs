//! Failpoints: the steps of the commit protocol, at each of which a process may die or be held up, and nothing is lost or done twice. A
//! test arms one of them in a process; everything else is what the process does anyway.
//!
//! They are in a build with the feature `failpoints` alone, which only the `harness` asks for: a release builds the one package
//! `milestream` (`Dockerfile`) and has none, so that no setting can reach one there, and [`at`] is an empty function that the compiler
//! leaves out. Where they are built in, [`VARIABLE`] arms one, which is no setting: no file has it, its name has not the prefix of
//! settings, and a process that passes one says so on its standard error. See `docs/adr/0032-failpoints.md`.

/// The environment variable that arms a step: `STEP:PASSAGE:ACTION`, e.g. `decide.committed:3:abort` or `sink.written:1:8000`. The action
/// is `abort`, or for how many milliseconds the step is held up; it happens once, at that passage.
pub const VARIABLE: &str = "FAILPOINT";

/// Which role passes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    /// The gateway.
    Gateway,
    /// Whoever relays the outbox.
    Relay,
    /// A pure stage.
    Pure,
    /// A stage that decides.
    Deciding,
    /// A sink whose store has transactions.
    TransactionalSink,
    /// Every sink.
    Sink,
    /// The stage that pays.
    Paying,
    /// Whoever consumes.
    Consumer,
}

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident, $name:literal, $passes:ident;)*) => {
        /// A step of the protocol, named by what is done by then.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Step { $($(#[$doc])* $step,)* }

        impl Step {
            /// Every step, in the order in which a record's processing passes them.
            pub const ALL: &[Self] = &[$(Self::$step),*];

            /// Its name, as [`VARIABLE`] has it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$step => $name,)* }
            }

            /// Who passes it.
            #[must_use]
            pub fn passes(self) -> Passes {
                match self { $(Self::$step => Passes::$passes,)* }
            }
        }
    };
}

steps! {
    /// An upload is reserved, and not on its topic.
    UploadReserved, "upload.reserved", Gateway;
    /// Kafka has acknowledged it; that is not marked, and the client knows nothing.
    UploadPublished, "upload.published", Gateway;
    /// A record is worked out, and nothing is published of it.
    PureWorkedOut, "pure.worked-out", Pure;
    /// It is handed to the producer; Kafka has not acknowledged it.
    PureSent, "pure.sent", Pure;
    /// A partition has a new epoch, under which nothing is decided.
    DecideSeized, "decide.seized", Deciding;
    /// Decisions and fence are in the transaction, which is not committed.
    DecideStored, "decide.stored", Deciding;
    /// They are committed, and nothing is published.
    DecideCommitted, "decide.committed", Deciding;
    /// They are handed to the producer; Kafka has not acknowledged them.
    DecideSent, "decide.sent", Deciding;
    /// Kafka has acknowledged them, and the offset has not moved.
    DecideAcknowledged, "decide.acknowledged", Deciding;
    /// What was decided before is published again, and the offset has not moved.
    DecideRepublished, "decide.republished", Deciding;
    /// A payment is signed and stored, and posted nowhere.
    PaymentSigned, "payment.signed", Paying;
    /// It is noted as posted, and is on its way.
    PaymentNoted, "payment.noted", Paying;
    /// Nodes have it, and nothing of what they say is written down.
    PaymentPosted, "payment.posted", Paying;
    /// Rows are in the sink's transaction, which is not committed.
    SinkStored, "sink.stored", TransactionalSink;
    /// A batch is in its store, and the offset has not moved.
    SinkWritten, "sink.written", Sink;
    /// Outbox rows are read under the relay's lock, and nothing is published of them.
    OutboxRead, "outbox.read", Relay;
    /// Kafka has acknowledged them, and they are not marked.
    OutboxAcknowledged, "outbox.acknowledged", Relay;
    /// They are marked in the transaction, which is not committed.
    OutboxMarked, "outbox.marked", Relay;
    /// The offset is about to move.
    OffsetDue, "offset.due", Consumer;
    /// Kafka was told to move it, and has not answered.
    OffsetSent, "offset.sent", Consumer;
}

/// Passes a step.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn at(_step: Step) {}

#[cfg(feature = "failpoints")]
pub use armed::at;

#[cfg(feature = "failpoints")]
mod armed {
    use std::str::FromStr;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use super::{Step, VARIABLE};

    #[derive(Debug, PartialEq, Eq)]
    pub(super) enum Action {
        Abort,
        HoldUp(Duration),
    }

    /// What the process is to do, where.
    #[derive(Debug)]
    pub(super) struct Armed {
        pub(super) step: Step,
        pub(super) passages: AtomicU64,
        pub(super) passage: u64,
        pub(super) action: Action,
    }

    impl FromStr for Armed {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            let parts: Vec<&str> = text.split(':').collect();
            let [name, passage, action] = parts[..] else {
                return Err(format!("{text} is not STEP:PASSAGE:ACTION"));
            };
            let step = Step::ALL.iter().copied().find(|step| step.name() == name);
            let step = step.ok_or_else(|| format!("there is no step {name}"))?;
            let passage = passage.parse().map_err(|error| format!("passage {passage}: {error}"))?;
            let action = match action {
                "abort" => Action::Abort,
                millis => {
                    let millis = millis.parse().map_err(|error| format!("action {millis}: {error}"))?;
                    Action::HoldUp(Duration::from_millis(millis))
                }
            };
            Ok(Self { step, passages: AtomicU64::new(0), passage, action })
        }
    }

    impl Armed {
        /// Whether this is the passage.
        pub(super) fn is_due(&self, step: Step) -> bool {
            self.step == step && self.passages.fetch_add(1, Ordering::SeqCst) + 1 == self.passage
        }
    }

    /// A variable that arms nothing would let a test pass that shows nothing: the process ends.
    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let armed = text.parse().unwrap_or_else(|error| {
            eprintln!("{VARIABLE}: {error}");
            std::process::abort()
        });
        Some(armed)
    });

    /// Passes a step: does what is armed for this passage of it. Blocking, as a process that is stopped is.
    pub fn at(step: Step) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.is_due(step)) else { return };
        eprintln!("failpoint {}", step.name());
        match armed.action {
            Action::Abort => std::process::abort(),
            Action::HoldUp(time) => {
                let until = Instant::now() + time;
                while let Some(rest) = until.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(rest);
                }
            }
        }
    }
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::armed::{Action, Armed};
    use super::*;

    #[test]
    fn a_step_has_a_name_of_its_own_and_the_record_of_the_decision_lists_exactly_them() {
        let names: BTreeSet<&str> = Step::ALL.iter().map(|step| step.name()).collect();
        assert_eq!(names.len(), Step::ALL.len());
        let adr = include_str!("../../docs/adr/0032-failpoints.md");
        let listed: BTreeSet<&str> =
            adr.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(listed, names);
    }

    #[test]
    fn the_armed_passage_of_the_armed_step_is_due_once() {
        let armed: Armed = "decide.committed:2:abort".parse().unwrap();
        assert_eq!(armed.action, Action::Abort);
        assert!(!armed.is_due(Step::DecideStored));
        let due: Vec<bool> = (0..3).map(|_| armed.is_due(Step::DecideCommitted)).collect();
        assert_eq!(due, [false, true, false]);
        let held: Armed = "sink.written:1:800".parse().unwrap();
        assert_eq!((held.step, held.action), (Step::SinkWritten, Action::HoldUp(Duration::from_millis(800))));
        for nothing in
            ["", "decide.committed", "decide.comitted:1:abort", "sink.written:x:abort", "sink.written:1:"]
        {
            assert!(nothing.parse::<Armed>().is_err(), "{nothing}");
        }
    }
}
