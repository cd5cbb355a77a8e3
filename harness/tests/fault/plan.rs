//! What is done to a run, and in which order. The seed determines it; when each fault comes, the run's progress does.

use std::time::Duration;

use devstack::Part;
use harness::dice::Dice;
use runtime::failpoint::{Passes, Step};

/// Longer than the session timeout that a run sets (6 s, the least that Kafka allows by default), so that the group gives a stopped
/// member's partitions to the other.
const STOPPED: Duration = Duration::from_secs(9);
/// Longer than the life of a signer's lease (10 s), so that the other instance signs meanwhile.
const LEASE_LOST: Duration = Duration::from_secs(13);
/// How long a step is held up: the process lives on, and others meet what it holds.
const HELD_UP: Duration = Duration::from_secs(3);

const GATEWAY: &[&str] = &["ingest"];
const RELAYS: &[&str] = &["ingest", "timers", "notices-sink"];
const PURE: &[&str] = &["quality_check-a", "odometer_reading-a", "reward_calculation-a"];
const DECIDING: &[&str] = &["fraud_check-a", "fraud_check-b", "limit_check-a", "limit_check-b"];
const TRANSACTIONAL_SINKS: &[&str] = &["postgres-sink", "analytics-sink"];
const SINKS: &[&str] = &["postgres-sink", "analytics-sink", "mongo-sink"];
const PAYING: &[&str] = &["chain_submission-a", "chain_submission-b"];
const CONSUMERS: &[&str] = &[
    "quality_check-a",
    "odometer_reading-a",
    "fraud_check-a",
    "reward_calculation-a",
    "limit_check-b",
    "chain_submission-a",
    "postgres-sink",
    "mongo-sink",
    "analytics-sink",
];
/// What fails only by a signal.
const OTHERS: &[&str] = &["watch"];
/// What a run may not do without.
const PARTS: [Part; 3] = [Part::Kafka, Part::Postgres, Part::Thor];

/// A fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// SIGKILL and a restart, as an orchestrator does.
    Kill(&'static str),
    /// SIGSTOP until another instance has what this one held, then SIGCONT: a zombie.
    Stop(&'static str, Duration),
    /// SIGKILL to a part, and its restart on the same data.
    KillPart(Part),
    /// SIGKILL and a restart, after which these failpoints are armed: one in the process that is started now, one in the process after
    /// that.
    Arm(Vec<&'static str>, Vec<(Step, String)>),
}

impl Fault {
    /// The roles that it meets.
    pub fn roles(&self) -> Vec<&'static str> {
        match self {
            Self::Kill(role) | Self::Stop(role, _) => vec![role],
            Self::Arm(roles, _) => roles.clone(),
            Self::KillPart(_) => Vec::new(),
        }
    }

    /// Whether it has a role die at a step.
    pub fn dies_at(&self, step: Step) -> bool {
        matches!(self, Self::Arm(_, armed) if armed.last().is_some_and(|(last, _)| *last == step))
    }
}

/// Faults without end: each turn has every step of the protocol, zombies of every stage that has two instances, and kills of every role and
/// part, in an order of its own.
pub struct Plan {
    dice: Dice,
    whole: bool,
    turn: Vec<Fault>,
    /// Turns that were begun.
    pub turns: usize,
}

impl Plan {
    /// Everything.
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), whole: true, turn: Vec::new(), turns: 0 }
    }

    /// Turns that do not kill again by a signal alone what dies at a step anyway.
    pub fn short(seed: u64) -> Self {
        Self { whole: false, ..Self::new(seed) }
    }

    /// Whether the last turn has come to its end.
    pub fn is_between_turns(&self) -> bool {
        self.turn.is_empty()
    }

    fn turn(&mut self) -> Vec<Fault> {
        let dice = &mut self.dice;
        let mut turn: Vec<Fault> = Step::ALL.iter().map(|step| dies_at(*step, dice)).collect();
        for step in [Step::DecideStored, Step::SinkStored] {
            turn.push(Fault::Arm(
                vec![dice.one_of(roles_of(step))],
                vec![(step, armed(step, 1, Some(HELD_UP)))],
            ));
        }
        turn.extend(PARTS.map(Fault::KillPart));
        turn.extend(OTHERS.iter().copied().map(Fault::Kill));
        turn.push(Fault::Stop(dice.one_of(PAYING), LEASE_LOST));
        if self.whole {
            turn.extend(DECIDING.iter().map(|role| Fault::Stop(role, STOPPED)));
            turn.extend(PAYING.iter().map(|role| Fault::Stop(role, LEASE_LOST)));
            let killed = [GATEWAY, PURE, DECIDING, PAYING, SINKS, &["timers", "notices-sink"]].concat();
            turn.extend(killed.into_iter().map(Fault::Kill));
        } else {
            turn.push(Fault::Stop(dice.one_of(&DECIDING[..2]), STOPPED));
            turn.push(Fault::Stop(dice.one_of(&DECIDING[2..]), STOPPED));
        }
        dice.shuffle(&mut turn);
        turn
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.turn.is_empty() {
            self.turn = self.turn();
            self.turns += 1;
        }
        self.turn.pop()
    }
}

fn roles_of(step: Step) -> &'static [&'static str] {
    match step.passes() {
        Passes::Gateway => GATEWAY,
        Passes::Relay => RELAYS,
        Passes::Pure => PURE,
        Passes::Deciding => DECIDING,
        Passes::TransactionalSink => TRANSACTIONAL_SINKS,
        Passes::Sink => SINKS,
        Passes::Paying => PAYING,
        Passes::Consumer => CONSUMERS,
    }
}

fn armed(step: Step, passage: u64, held_up: Option<Duration>) -> String {
    let action = held_up.map_or_else(|| "abort".to_owned(), |time| time.as_millis().to_string());
    format!("{}:{passage}:{action}", step.name())
}

/// A role dies at the step. Of the two that pay, one has the lease; which of them, nobody knows before.
fn dies_at(step: Step, dice: &mut Dice) -> Fault {
    let (roles, passage) = (roles_of(step), dice.below(2) + 1);
    let role = dice.one_of(roles);
    let abort = |step, passage| (step, armed(step, passage, None));
    match step {
        // There is something to publish again where the one before died with it.
        Step::DecideRepublished => {
            Fault::Arm(vec![role], vec![abort(Step::DecideCommitted, passage), abort(step, 1)])
        }
        _ if step.passes() == Passes::Paying => Fault::Arm(roles.to_vec(), vec![abort(step, 1)]),
        _ => Fault::Arm(vec![role], vec![abort(step, passage)]),
    }
}

#[test]
fn a_seed_determines_the_plan_and_each_turn_has_every_step_and_part() {
    let of = |seed| Plan::new(seed).take(200).collect::<Vec<_>>();
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
    for mut plan in [Plan::new(7), Plan::short(7)] {
        let mut turn = vec![plan.next().unwrap()];
        while !plan.is_between_turns() {
            turn.push(plan.next().unwrap());
        }
        for step in Step::ALL {
            assert!(turn.iter().any(|fault| fault.dies_at(*step)), "{}", step.name());
        }
        for part in PARTS {
            assert!(turn.contains(&Fault::KillPart(part)), "{part:?}");
        }
    }
}
