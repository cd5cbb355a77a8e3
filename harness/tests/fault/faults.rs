//! Does to a run what its plan says, and counts it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use runtime::failpoint::Step;

use crate::plan::{Fault, Plan};
use crate::run::Run;

/// A stopped process is woken after this time, whoever has its partitions: the other instance may have been killed meanwhile.
const PATIENCE: Duration = Duration::from_secs(45);
/// Faults that wait until they are possible; more of the plan is not looked at.
const WAITING: usize = 40;

/// A role whose process is to die at a step: another failpoint takes its place only once it has, or after this time, in which the role has
/// not come there.
const ARMED: Duration = Duration::from_secs(120);

/// Failpoints of a role, in their order.
struct Armed {
    failpoints: Vec<(Step, String)>,
    /// Times that the log had named each step before.
    before: Vec<usize>,
    since: Instant,
}

/// A process that is stopped.
struct Stopped {
    role: &'static str,
    since: Instant,
    least: Duration,
}

/// What was done so far.
#[derive(Default)]
pub struct Faults {
    /// Kills by signal, by role or part.
    pub kills: BTreeMap<String, usize>,
    /// Processes that woke when another had what they held, by role.
    pub zombies: BTreeMap<String, usize>,
    /// Processes that woke before.
    pub woken_early: usize,
    stopped: Vec<Stopped>,
    armed: BTreeMap<&'static str, Armed>,
}

/// When the next fault comes.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Some uploads are decided between any two, or the run would show nothing but restarts.
    pub decided: usize,
    pub time: Duration,
}

impl Run {
    /// Faults by the plan until so many uploads are accepted, the time is over and each fault of a turn was met; `meets` says which of
    /// them.
    pub fn endure(
        &mut self,
        mut plan: Plan,
        pace: Pace,
        (uploads, time): (usize, Duration),
        meets: fn(&Fault) -> bool,
    ) {
        let begun = Instant::now();
        // Without a time it is one turn of the plan, whatever that takes.
        let by_turn = time.is_zero();
        let mut waiting: Vec<Fault> = Vec::new();
        loop {
            let is_over = self.sent() >= uploads && begun.elapsed() >= time;
            if is_over && !by_turn {
                break;
            }
            let is_turn_done = plan.turns > 0 && plan.is_between_turns();
            let has_room = waiting.len() < WAITING;
            let takes = if by_turn { !is_turn_done && (is_over || has_room) } else { has_room };
            if takes {
                waiting.extend(plan.next().filter(&meets));
            } else if waiting.is_empty() {
                if is_over {
                    break;
                }
                self.pass(Duration::from_millis(200));
            }
            let Some(place) = waiting.iter().position(|fault| self.is_possible(fault)) else {
                self.pass(Duration::from_millis(50));
                continue;
            };
            let since = Instant::now();
            self.until_decided_more(pace.decided);
            self.pass(pace.time.saturating_sub(since.elapsed()));
            let fault = waiting.remove(place);
            if self.is_possible(&fault) {
                self.inject(&fault);
            } else {
                waiting.push(fault);
            }
        }
        let unmet = |run: &Self| by_turn && run.faults.armed.keys().any(|role| run.is_armed(role));
        while !self.faults.stopped.is_empty() || unmet(self) {
            self.pass(Duration::from_millis(200));
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.tend();
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Failpoints of a role that no process has met.
    fn unmet(&self, role: &str) -> Vec<String> {
        let Some(armed) = self.faults.armed.get(role).filter(|armed| armed.since.elapsed() < ARMED) else {
            return Vec::new();
        };
        let log = self.log(role);
        let unmet = armed
            .failpoints
            .iter()
            .zip(&armed.before)
            .filter(|((step, _), before)| hits(&log, *step) <= **before);
        unmet.map(|((_, failpoint), _)| failpoint.clone()).collect()
    }

    fn is_armed(&self, role: &str) -> bool {
        !self.unmet(role).is_empty()
    }

    fn log(&self, role: &str) -> String {
        let log = std::fs::read(self.deployment.log_file(role)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// A stopped process and its other instance are left alone until it is woken: one of them has to work. And one failpoint waits for
    /// the other.
    fn is_possible(&self, fault: &Fault) -> bool {
        let stage = |role: &str| role.trim_end_matches("-a").trim_end_matches("-b").to_owned();
        let stopped: BTreeSet<String> =
            self.faults.stopped.iter().map(|stopped| stage(stopped.role)).collect();
        let disarms = matches!(fault, Fault::Arm(..)) && fault.roles().iter().any(|role| self.is_armed(role));
        !disarms && fault.roles().iter().all(|role| !stopped.contains(&stage(role)))
    }

    fn inject(&mut self, fault: &Fault) {
        eprintln!("fault: after {} decisions: {fault:?}", self.decided());
        match fault {
            Fault::Kill(role) => self.kill(role),
            Fault::Stop(role, least) => {
                let role = self.holder(role);
                if self.deployment.signal(role, "STOP").is_err() {
                    // It has just died at a step: its successor is stopped.
                    self.tend();
                    self.deployment.signal(role, "STOP").unwrap();
                }
                self.faults.stopped.push(Stopped { role, since: Instant::now(), least: *least });
            }
            Fault::KillPart(part) => {
                assert!(self.stack.kill(*part), "{part:?} is not ours to kill");
                self.stack.start_again(*part).unwrap();
                self.count(&format!("{part:?}"));
            }
            Fault::Arm(roles, failpoints) => {
                for role in roles {
                    let (log, failpoints) = (self.log(role), failpoints.clone());
                    let before = failpoints.iter().map(|(step, _)| hits(&log, *step)).collect();
                    self.faults.armed.insert(role, Armed { failpoints, before, since: Instant::now() });
                    self.kill(role);
                }
            }
        }
    }

    /// What is armed and was not met stays armed.
    fn kill(&mut self, role: &str) {
        self.deployment.arm(role, self.unmet(role)).unwrap();
        self.deployment.kill(role);
        self.deployment.start_again(role).unwrap();
        self.count(role);
    }

    fn count(&mut self, what: &str) {
        *self.faults.kills.entry(what.to_owned()).or_default() += 1;
    }

    /// Starts again what has died by itself, and wakes what has been taken over from.
    pub fn tend(&mut self) {
        self.deployment.tend().unwrap();
        let (mut still, stopped) = (Vec::new(), std::mem::take(&mut self.faults.stopped));
        for process in stopped {
            let asleep = process.since.elapsed();
            let taken = asleep >= process.least && self.holds(process.role) == Some(false);
            if !taken && asleep < PATIENCE {
                still.push(process);
                continue;
            }
            self.deployment.signal(process.role, "CONT").unwrap();
            eprintln!("fault: {} wakes after {asleep:?}, taken over: {taken}", process.role);
            if taken {
                *self.faults.zombies.entry(process.role.to_owned()).or_default() += 1;
            } else {
                self.faults.woken_early += 1;
            }
        }
        self.faults.stopped = still;
    }

    /// Of the two instances of a stage this one, or the other where only that holds anything to be taken.
    fn holder(&self, role: &'static str) -> &'static str {
        let other = match role {
            "fraud_check-a" => "fraud_check-b",
            "fraud_check-b" => "fraud_check-a",
            "limit_check-a" => "limit_check-b",
            "limit_check-b" => "limit_check-a",
            "chain_submission-a" => "chain_submission-b",
            _ => "chain_submission-a",
        };
        let holds_nothing = self.holds(role) == Some(false) && self.holds(other) == Some(true);
        if holds_nothing { other } else { role }
    }

    /// Whether an instance has a partition, or the signer's lease; none while the database does not respond.
    fn holds(&self, role: &str) -> Option<bool> {
        let (stage, instance) = role.rsplit_once('-')?;
        let query = if stage == "chain_submission" {
            // The owner is the instance with its process id.
            sqlx::query_scalar(
                "select exists (select from submitter_leases where owner like $2 || '%' and $1 <> '')",
            )
        } else {
            sqlx::query_scalar("select exists (select from stage_offsets where stage = $1 and owner = $2)")
        };
        self.runtime.block_on(query.bind(stage).bind(instance).fetch_one(&self.pool)).ok()
    }

    /// How often a process has passed an armed step, by step: each says so in its log.
    pub fn steps_hit(&self) -> BTreeMap<&'static str, usize> {
        let names = self.deployment.roles().into_iter().map(|(name, ..)| name);
        let logs: Vec<String> = names.map(|name| self.log(&name)).collect();
        let all = |step: &Step| (step.name(), logs.iter().map(|log| hits(log, *step)).sum());
        Step::ALL.iter().map(all).collect()
    }

    /// What was done, in words.
    pub fn summary(&self) -> String {
        let Faults { kills, zombies, woken_early, .. } = &self.faults;
        let (hit, done) = (self.steps_hit(), &self.done);
        format!(
            "kills by signal: {} {kills:?}\nzombies: {} {zombies:?}, woken early: {woken_early}\nfailpoints: {} {hit:?}\n\
             reviews: {}, corrections: {}, cancellations: {}, claims: {}, holds: {}, roles restarted after they ended: {}",
            kills.values().sum::<usize>(),
            zombies.values().sum::<usize>(),
            hit.values().sum::<usize>(),
            done.reviewed.len(),
            done.corrected.len(),
            done.cancelled.len(),
            done.claimed.len(),
            done.holds,
            self.deployment.restarts,
        )
    }
}

/// How often a log names a step that was passed armed.
fn hits(log: &str, step: Step) -> usize {
    let line = format!("failpoint {}", step.name());
    log.lines().filter(|found| *found == line).count()
}
