//! Goes through what was recorded, in the order of `uploads.readings`: what belongs to the window is decided by the stages as they are
//! live, and everything before, between and behind it has the effect on their state that was recorded. A batch is one transaction in the
//! shadow schema, so that a replay that is killed goes on where it was.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use runtime::refold::{Recorded, Refolds as _, decoded};
use runtime::registry::SchemaSource;
use runtime::{Clock, Decided as _, Decider, Envelope, Processor as _, StageError, Verdict};
use schemas::events::RewardGranted;
use schemas::ids::{EventId, UploadId, UserId, derived};
use sqlx::{PgConnection, PgPool};

use super::ReplayError;
use super::items::{Item, ids, newest};
use super::pace::Pace;
use super::publish::Publisher;
use super::report;
use super::spec::{Cut, Step, Steps};
use super::tables;
use crate::fraud_check::FraudCheck;
use crate::fraud_check::rules::Rules;
use crate::limit_check::{LimitCheck, LimitInput};
use crate::reward_calculation::RewardCalculation;
use crate::reward_rules::{RuleSource, Rulebook};

/// Records of one transaction.
const BATCH: i64 = 200;

/// The stages of a replay, on its shadow.
pub struct Drive<'a> {
    shadow: &'a PgPool,
    schemas: &'a dyn SchemaSource,
    publisher: &'a Publisher,
    cut: &'a Cut,
    steps: Steps,
    fraud_check: FraudCheck,
    reward_calculation: RewardCalculation,
    limit_check: LimitCheck,
}

/// Where a replay reads and writes.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// The shadow schema.
    pub shadow: &'a PgPool,
    /// By which records are read.
    pub schemas: &'a dyn SchemaSource,
    /// The shadow's topics.
    pub publisher: &'a Publisher,
}

impl<'a> Drive<'a> {
    /// The stages by these rules.
    #[must_use]
    pub fn new(
        places: Places<'a>,
        (cut, steps): (&'a Cut, Steps),
        rules: Rulebook,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let Places { shadow, schemas, publisher } = places;
        let rules = Arc::new(RuleSource::fixed(rules));
        Self {
            shadow,
            schemas,
            publisher,
            cut,
            steps,
            fraud_check: FraudCheck::new(Rules::current(), clock.clone()),
            reward_calculation: RewardCalculation::new(clock.clone(), rules.clone()),
            limit_check: LimitCheck::new(clock.clone(), rules),
        }
    }

    /// Goes on to the end, one partition after the other: what is decided about one driver depends on no other.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub async fn run(
        &self,
        pace: &mut Pace,
        progress: &(dyn Fn(i64, i64) + Sync),
    ) -> Result<(), ReplayError> {
        let partitions = tables::partitions(&mut *self.shadow.acquire().await?).await?;
        let total = partitions.values().map(|(count, ..)| count).sum();
        let mut done: i64 = partitions.values().map(|(.., done)| done).sum();
        progress(done, total);
        for (partition, (_, upto, _)) in partitions {
            loop {
                let taken = self.batch(partition, upto).await?;
                if taken == 0 {
                    break;
                }
                pace.take(taken).await;
                done += i64::try_from(taken).unwrap_or(0);
                progress(done, total);
            }
        }
        Ok(())
    }

    /// Decides the next records of a partition; returns how many there were.
    async fn batch(&self, partition: i32, upto: i64) -> Result<usize, ReplayError> {
        let mut tx = self.shadow.begin().await?;
        let records = tables::next(&mut tx, (partition, upto), BATCH).await?;
        let Some(last) = records.last() else { return Ok(0) };
        let end = last.position.offset + 1;
        let mut readings = Vec::with_capacity(records.len());
        for record in &records {
            readings.extend(decoded(self.schemas, record).await?);
        }
        let mut items = self.fresh(&mut tx, readings).await?;
        self.decide(&mut tx, &mut items).await?;
        self.calculate(&mut items).await?;
        self.grant(&mut tx, &mut items).await?;
        let window = || items.iter().filter(|item| item.in_window);
        self.publisher.publish(window().map(|item| &item.replayed)).await?;
        report::store(&mut tx, self.steps, window()).await?;
        tables::done(&mut tx, partition, end).await?;
        tx.commit().await?;
        Ok(records.len())
    }

    /// The records whose effect no record before has had, each with what was recorded of it.
    async fn fresh(
        &self,
        tx: &mut PgConnection,
        readings: Vec<Envelope<<FraudCheck as runtime::Decider>::In>>,
    ) -> Result<Vec<Item>, ReplayError> {
        let effects: Vec<String> = readings.iter().map(|reading| reading.payload.effect()).collect();
        let mut had = tables::had(tx, &effects).await?;
        let (mut fresh, mut effects) = (Vec::with_capacity(readings.len()), Vec::new());
        for reading in readings {
            let effect = reading.payload.effect();
            if had.insert(effect.clone()) {
                effects.push(effect);
                fresh.push(reading);
            }
        }
        tables::have(tx, &effects).await?;
        let wanted: Vec<_> =
            fresh.iter().flat_map(|reading| ids(runtime::Decided::id(&reading.payload))).collect();
        let recorded = tables::recorded(tx, &wanted).await?;
        let adjusted = self.adjusted(tx, &fresh).await?;
        let mut items = Vec::with_capacity(fresh.len());
        for reading in fresh {
            let in_window = self.cut.holds(reading.payload.header().root);
            items.push(Item::new((reading, in_window), (&recorded, &adjusted), self.schemas).await?);
        }
        Ok(items)
    }

    /// What the rewards of these readings' drivers were adjusted to.
    async fn adjusted(
        &self,
        tx: &mut PgConnection,
        readings: &[Envelope<<FraudCheck as runtime::Decider>::In>],
    ) -> Result<HashMap<UploadId, RewardGranted>, ReplayError> {
        let users: HashSet<UserId> = readings.iter().map(|one| one.payload.header().user_id).collect();
        let mut adjusted = Vec::new();
        for record in tables::adjusted(tx, &users).await? {
            adjusted.extend(decoded::<RewardGranted>(self.schemas, &record).await?.map(|one| one.payload));
        }
        Ok(newest(adjusted))
    }

    /// `fraud_check`.
    async fn decide(&self, tx: &mut PgConnection, items: &mut [Item]) -> Result<(), StageError> {
        if !self.steps.run(Step::FraudCheck) {
            for item in items.iter_mut().filter(|item| item.in_window) {
                item.replayed.decided.clone_from(&item.recorded.decided);
            }
            return Ok(());
        }
        for run in items.chunk_by_mut(|one, next| one.in_window == next.in_window) {
            if run.first().is_some_and(|item| item.in_window) {
                let readings: Vec<_> = run.iter().map(|item| item.reading.clone()).collect();
                let decisions = self.fraud_check.decide(tx, &readings).await?;
                for (item, decision) in run.iter_mut().zip(decisions) {
                    item.replayed.decided = decision.outcome.ok();
                }
            } else {
                let recorded: Vec<_> = run
                    .iter()
                    .map(|item| Recorded {
                        record: item.reading.clone(),
                        output: item.recorded.decided.clone(),
                    })
                    .collect();
                self.fraud_check.refold(tx, &recorded).await?;
            }
        }
        Ok(())
    }

    /// `reward_calculation`, which remembers nothing.
    async fn calculate(&self, items: &mut [Item]) -> Result<(), StageError> {
        for item in items.iter_mut().filter(|item| item.in_window) {
            if !self.steps.run(Step::RewardCalculation) {
                item.replayed.calculated.clone_from(&item.recorded.calculated);
                continue;
            }
            let Some(decided) = item.replayed.decided.clone() else { continue };
            let verdict = self.reward_calculation.process(&beside(&item.reading, decided)).await?;
            item.replayed.calculated = match verdict {
                Verdict::Emit(calculated) | Verdict::EmitWith(calculated, _) => Some(calculated),
                Verdict::Drop(_) | Verdict::DropWith(..) | Verdict::Reject(_) => None,
            };
        }
        Ok(())
    }

    /// `limit_check`. A reward that was cancelled has its charge back where the cancellation stood before the driver's next reward; one
    /// outside the window that was adjusted is charged otherwise from there on.
    async fn grant(&self, tx: &mut PgConnection, items: &mut [Item]) -> Result<(), ReplayError> {
        if !self.steps.run(Step::LimitCheck) {
            return Ok(());
        }
        let mut changed = self.changed(tx, items).await?;
        let mut turns = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let user = item.reading.payload.header().user_id;
            if let Some(below) = item.calculated_at {
                let before = |turn: &mut Turn| {
                    turn.input.payload.header().user_id == user && turn.input.position.offset < below
                };
                turns.extend(changed.extract_if(.., before));
            }
            let (led, recorded) = if item.in_window {
                (&item.replayed, None)
            } else {
                (&item.recorded, item.recorded.granted.clone())
            };
            if let Some(calculated) = led.calculated.clone() {
                let input = LimitInput::Calculated(Box::new(calculated));
                let at = item.in_window.then_some(at);
                turns.push(Turn { at, input: beside(&item.reading, input), recorded });
            }
        }
        let turns = self.once(tx, turns).await?;
        for run in turns.chunk_by(|one, next| one.at.is_some() == next.at.is_some()) {
            if run.first().is_some_and(|turn| turn.at.is_some()) {
                let inputs: Vec<_> = run.iter().map(|turn| turn.input.clone()).collect();
                let decisions = self.limit_check.decide(tx, &inputs).await?;
                for (turn, decision) in run.iter().zip(decisions) {
                    if let Some(item) = turn.at.and_then(|at| items.get_mut(at)) {
                        item.replayed.granted = decision.outcome.ok();
                    }
                }
            } else {
                let followed: Vec<_> =
                    run.iter().map(|turn| (turn.input.clone(), turn.recorded.clone())).collect();
                LimitCheck::follow(tx, &followed).await?;
            }
        }
        Ok(())
    }

    /// The cancellations and adjustments that stood before the last reward of this batch. What becomes of a reward of the window is this
    /// replay's to decide: its adjustments are left out.
    async fn changed(&self, tx: &mut PgConnection, items: &[Item]) -> Result<Vec<Turn>, ReplayError> {
        let Some(below) = items.iter().filter_map(|item| item.calculated_at).max() else {
            return Ok(Vec::new());
        };
        let users: HashSet<UserId> = items.iter().map(|item| item.reading.payload.header().user_id).collect();
        let mut changed: Vec<Envelope<LimitInput>> = Vec::new();
        for record in tables::changed(tx, &users, below).await? {
            changed.extend(decoded(self.schemas, &record).await?);
        }
        changed.retain(|one| {
            matches!(one.payload, LimitInput::Cancelled(_)) || !self.cut.holds(one.payload.header().root)
        });
        let granted_as = |one: &Envelope<LimitInput>| derived(one.payload.id(), LimitCheck::NAME, 0);
        let granted: Vec<EventId> = changed.iter().map(granted_as).collect();
        let recorded = tables::recorded(tx, &granted).await?;
        let mut turns = Vec::with_capacity(changed.len());
        for input in changed {
            let granted = match recorded.get(&granted_as(&input)) {
                Some(record) => decoded::<RewardGranted>(self.schemas, record).await?.map(|one| one.payload),
                None => None,
            };
            turns.push(Turn { at: None, input, recorded: granted });
        }
        Ok(turns)
    }

    /// One grant, one refund and each adjustment of a reward once.
    async fn once(&self, tx: &mut PgConnection, turns: Vec<Turn>) -> Result<Vec<Turn>, StageError> {
        let effect = |turn: &Turn| self.limit_check.effect_of(&turn.input.payload).unwrap_or_default();
        let effects: Vec<String> = turns.iter().map(effect).collect();
        let mut had = tables::had(tx, &effects).await?;
        let (mut fresh, mut effects) = (Vec::with_capacity(turns.len()), Vec::new());
        for turn in turns {
            let effect = effect(&turn);
            if had.insert(effect.clone()) {
                effects.push(effect);
                fresh.push(turn);
            }
        }
        tables::have(tx, &effects).await?;
        Ok(fresh)
    }
}

/// One record of `limit_check`.
struct Turn {
    /// Whose grant is decided; none where what was recorded is followed.
    at: Option<usize>,
    input: Envelope<LimitInput>,
    recorded: Option<RewardGranted>,
}

/// An event in the place of the record that led to it.
fn beside<T, U>(record: &Envelope<T>, payload: U) -> Envelope<U> {
    Envelope {
        payload,
        position: record.position.clone(),
        timestamp_ms: record.timestamp_ms,
        redrive: record.redrive,
        traceparent: record.traceparent.clone(),
    }
}
