//! A search of the protocol: one reward, two processes, a chain that forks, nodes that forget, and a database that is set back, in every
//! order up to a depth. The states of books are those of [`machine`], and every step asks its tables; what this file adds is the world
//! around them. In no state that is reached are two transactions that pay the reward in blocks at once.
//!
//! What it takes for granted: two nodes do not lie together about what is final, a database that is set back is set back with its leases
//! (whoever worked on it begins anew), and `payouts.guard` keeps what was acknowledged.

use std::collections::{HashSet, VecDeque};

use chain::BlockId;
use schemas::events::{AttemptState, PayoutState};

use super::fate::{Fate, Report, judge};
use crate::chain_submission::ledger::machine::{self, Outcome, PayoutEvent, TxEvent, TxState};

/// Transactions of a search at most: a third one shows nothing that two do not, but for a restore in between.
const MOST: usize = 3;
/// Heights of a search.
const HEIGHT: u8 = 6;
/// Blocks after its plan in which a transaction is valid.
const WINDOW: u8 = 2;

/// Which parts of the protocol hold.
#[derive(Clone, Copy)]
struct Rules {
    /// A successor needs a proof on the final chain; without it expiry is enough.
    proof: bool,
    /// The chain and the guard are asked before a plan and before a signature.
    chain_check: bool,
}

/// A transaction in the world, whatever the books say of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Bytes {
    last_valid: u8,
    /// Its signature exists: from here on its bytes may be posted by anybody who once had them.
    signed: bool,
    pooled: bool,
    block: Option<u8>,
}

/// What Postgres holds.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Books {
    payout: PayoutState,
    /// State, and whether the reward is bound to it: the unique index.
    attempts: [Option<(TxState, bool)>; MOST],
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    books: Books,
    backup: Option<Books>,
    set_back: bool,
    made: Vec<Bytes>,
    /// On `payouts.guard`.
    announced: [bool; MOST],
    best: u8,
    finalized: u8,
    /// Which process holds the lease.
    holder: usize,
    /// The plan that each process is about to sign.
    signing: [Option<usize>; 2],
}

impl Books {
    fn live(&self) -> Option<usize> {
        self.attempts.iter().position(|attempt| matches!(attempt, Some((_, true))))
    }

    fn moved(&mut self, event: PayoutEvent) -> bool {
        let next = machine::payout(self.payout, event).to();
        self.payout = next.unwrap_or(self.payout);
        next.is_some()
    }

    /// Applies an event to a transaction; false where the table has nothing for it.
    fn applied(&mut self, id: usize, event: TxEvent) -> bool {
        let Some((state, live)) = self.attempts[id] else { return false };
        match machine::transaction(state, event, false) {
            Outcome::To(next) | Outcome::Incident(Some(next)) => {
                self.attempts[id] = Some((next, live));
                true
            }
            Outcome::Stay | Outcome::Incident(None) => false,
        }
    }

    fn free(&mut self, id: usize) {
        if let Some((state, true)) = self.attempts[id] {
            self.attempts[id] = Some((state, false));
            self.moved(PayoutEvent::Free);
        }
    }
}

impl World {
    fn new() -> Self {
        Self {
            books: Books { payout: PayoutState::Ready, attempts: [None; MOST] },
            backup: None,
            set_back: false,
            made: Vec::new(),
            announced: [false; MOST],
            best: 0,
            finalized: 0,
            holder: 0,
            signing: [None; 2],
        }
    }

    /// One transaction is signed and posted.
    fn posted() -> Self {
        let mut world = Self::new();
        world.books.moved(PayoutEvent::Plan);
        world.books.attempts[0] = Some((TxState::Planned, true));
        world.books.applied(0, TxEvent::Sign);
        world.books.applied(0, TxEvent::Post);
        world.made.push(Bytes { last_valid: WINDOW, signed: true, pooled: true, block: None });
        world.announced[0] = true;
        world
    }

    fn paid(&self) -> usize {
        self.made.iter().filter(|bytes| bytes.block.is_some()).count()
    }

    /// What the audit leaves; nothing where it stops signing.
    fn audited(&self, rules: Rules) -> Option<Self> {
        let mut world = self.clone();
        if !rules.chain_check {
            return Some(world);
        }
        for id in 0..self.made.len() {
            let known = matches!(world.books.attempts[id], Some((TxState::Signed(_), _)));
            if self.made[id].block.is_some() && !known {
                // Another transaction that is bound to the reward makes it an unknown payment.
                if world.books.live().is_some_and(|live| live != id) {
                    return None;
                }
                if !world.books.moved(PayoutEvent::Restore) && world.books.payout != PayoutState::InFlight {
                    return None;
                }
                let state =
                    world.books.attempts[id].map_or(TxState::Signed(AttemptState::Sent), |(state, _)| state);
                world.books.attempts[id] = Some((state, true));
                world.books.applied(id, TxEvent::Include);
            }
        }
        let lost = |id: usize| {
            let known = !matches!(world.books.attempts[id], None | Some((TxState::Abandoned, _)));
            self.announced[id] && !known && self.finalized <= self.made[id].last_valid
        };
        (!(0..self.made.len()).any(lost)).then_some(world)
    }

    /// Whether the nodes' final chains prove a transaction dead.
    fn proven_dead(&self, id: usize) -> bool {
        let mut finalized = [0; 32];
        finalized[3] = self.finalized;
        let report = Report { finalized: BlockId(finalized), found: None };
        let held = self.made[id].block.is_some_and(|block| block <= self.finalized);
        !held && judge(&[report, report], 2, self.made[id].last_valid.into()) == Fate::Dead
    }

    /// Every world that one step leads to.
    fn next(&self, rules: Rules) -> Vec<Self> {
        let mut next = Vec::new();
        self.submit(rules, &mut next);
        self.chain_goes_on(&mut next);
        self.database_goes_back(&mut next);
        // The books follow the chain: blocks that were adopted, undone, deep, final.
        let told = self.told();
        next.push(told);
        next
    }

    fn submit(&self, rules: Rules, next: &mut Vec<Self>) {
        if let Some(mut world) = self.audited(rules) {
            if world.books.live().is_none() && world.made.len() < MOST && world.books.moved(PayoutEvent::Plan)
            {
                let id = world.made.len();
                let last_valid = world.best + WINDOW;
                world.made.push(Bytes { last_valid, signed: false, pooled: false, block: None });
                world.books.attempts[id] = Some((TxState::Planned, true));
                next.push(world);
            }
            // The holder reads a plan to sign it; the other process may do so in a moment, and this one not notice.
            if let (Some(mut world), Some(id)) = (self.audited(rules), self.books.live())
                && matches!(world.books.attempts[id], Some((TxState::Planned, true)))
            {
                world.signing[world.holder] = Some(id);
                next.push(world);
            }
        }
        for process in 0..2 {
            let Some(id) = self.signing[process] else { continue };
            let mut world = self.clone();
            world.signing[process] = None;
            // A crash behind the announcement.
            world.announced[id] = true;
            next.push(world.clone());
            if process == world.holder && world.books.applied(id, TxEvent::Sign) {
                world.made[id].signed = true;
                next.push(world);
            }
        }
        for id in 0..self.made.len() {
            let bytes = self.made[id];
            if bytes.signed && !bytes.pooled && bytes.block.is_none() && self.best < bytes.last_valid {
                // Whoever once had the bytes may post them, also a process that lost its lease.
                let mut world = self.clone();
                world.made[id].pooled = true;
                world.books.applied(id, TxEvent::Post);
                next.push(world);
            }
            let expired = self.best > bytes.last_valid && bytes.block.is_none();
            if if rules.proof { self.proven_dead(id) } else { expired } {
                let mut world = self.clone();
                if world.books.applied(id, TxEvent::ProveDead) {
                    world.books.free(id);
                    next.push(world);
                }
            }
            let mut world = self.clone();
            if world.books.applied(id, TxEvent::Abandon) {
                world.books.free(id);
                next.push(world);
            }
        }
        let mut world = self.clone();
        world.holder = 1 - world.holder;
        next.push(world);
    }

    fn chain_goes_on(&self, next: &mut Vec<Self>) {
        if self.best < HEIGHT {
            let height = self.best + 1;
            let holds = |id: &usize| {
                let bytes = self.made[*id];
                bytes.pooled && bytes.block.is_none() && height <= bytes.last_valid
            };
            for held in (0..self.made.len()).filter(holds).map(Some).chain([None]) {
                let mut world = self.clone();
                world.best = height;
                if let Some(id) = held {
                    world.made[id].block = Some(height);
                    world.made[id].pooled = false;
                }
                next.push(world);
            }
        }
        if self.finalized < self.best {
            let mut world = self.clone();
            world.finalized += 1;
            next.push(world);
            // The branch is left for another one, which is empty so far.
            for height in self.finalized..self.best {
                let mut world = self.clone();
                world.best = height;
                for bytes in &mut world.made {
                    if bytes.block.is_some_and(|block| block > height) {
                        (bytes.block, bytes.pooled) = (None, true);
                    }
                }
                next.push(world);
            }
        }
        for id in 0..self.made.len() {
            if self.made[id].pooled {
                let mut world = self.clone();
                world.made[id].pooled = false;
                next.push(world);
            }
        }
    }

    fn database_goes_back(&self, next: &mut Vec<Self>) {
        match &self.backup {
            None => next.push(Self { backup: Some(self.books.clone()), ..self.clone() }),
            Some(books) if !self.set_back => {
                let books = books.clone();
                next.push(Self { books, set_back: true, signing: [None; 2], ..self.clone() });
            }
            Some(_) => {}
        }
    }

    fn told(&self) -> Self {
        let mut world = self.clone();
        for id in 0..self.made.len() {
            if !matches!(world.books.attempts[id], Some((TxState::Signed(_), _))) {
                continue;
            }
            match self.made[id].block {
                Some(block) => {
                    world.books.applied(id, TxEvent::Include);
                    if self.best > block && world.books.applied(id, TxEvent::Confirm) {
                        world.books.moved(PayoutEvent::Confirm);
                    }
                    if self.finalized >= block && world.books.applied(id, TxEvent::Finalize) {
                        world.books.moved(PayoutEvent::Finalize);
                    }
                }
                None => {
                    if world.books.applied(id, TxEvent::Undo) {
                        world.books.moved(PayoutEvent::Undo);
                    }
                }
            }
        }
        world
    }
}

/// What a search found.
struct Found {
    states: usize,
    /// States in which the reward is paid for good, by books and chain.
    settled: usize,
    /// Steps to the first state in which two transactions have paid it.
    double: Option<usize>,
}

/// Every state that at most so many steps lead to, until one pays twice.
fn search(start: World, rules: Rules, depth: usize) -> Found {
    let (mut seen, mut open) = (HashSet::from([start.clone()]), VecDeque::from([(start, 0)]));
    let mut found = Found { states: 0, settled: 0, double: None };
    while let Some((world, steps)) = open.pop_front() {
        found.states += 1;
        if world.paid() > 1 {
            found.double = Some(steps);
            return found;
        }
        found.settled += usize::from(world.books.payout == PayoutState::Final && world.paid() == 1);
        if steps == depth {
            continue;
        }
        for next in world.next(rules) {
            if seen.insert(next.clone()) {
                open.push_back((next, steps + 1));
            }
        }
    }
    found
}

const SOUND: Rules = Rules { proof: true, chain_check: true };

/// Searches the protocol and a mutation of it from the same start to the same depth: only the mutation pays twice.
fn only_without(mutation: Rules, what: &str, start: &World, depth: usize) {
    let sound = search(start.clone(), SOUND, depth);
    println!("{} states to depth {depth}, {} of them settled, none pays twice", sound.states, sound.settled);
    assert_eq!(sound.double, None);
    assert!(sound.states > 1_000 && sound.settled > 0);
    let mutated = search(start.clone(), mutation, depth);
    println!("{what}: pays twice after {:?} steps, {} states", mutated.double, mutated.states);
    assert!(mutated.double.is_some(), "{what}");
}

#[test]
fn no_order_of_crashes_forks_and_lost_commits_pays_twice_unless_nobody_looks_at_the_chain_after_a_restore() {
    let mutation = Rules { chain_check: false, ..SOUND };
    only_without(mutation, "no look at the chain after a restore", &World::new(), 12);
}

#[test]
fn no_order_of_expiry_forks_and_late_blocks_pays_twice_unless_a_successor_needs_no_proof() {
    let mutation = Rules { proof: false, ..SOUND };
    only_without(mutation, "a successor without a proof", &World::posted(), 14);
}
