//! `limit_check`: the one place where a reward is granted. [`grant`](grant::grant) is the decision; the rest carries
//! budgets in and grants out. A reward is charged to its budgets in the transaction that decides about it, and one that is cancelled is
//! refunded to the periods that were charged, whichever of the two records is first. [`adjust`](adjust::adjust) is the decision about a
//! reward that is worked out anew.

pub mod adjust;
pub mod books;
mod follow;
pub mod grant;
pub mod oracle;
pub mod policy;
mod refold;
pub mod state;

use std::sync::Arc;

use runtime::{Clock, Decided, Decider, Decision, Envelope, FromRecord, StageError};
use schemas::codec::{self, CodecError, RecordSchema};
use schemas::events::{Event as _, RewardCalculated, RewardCancelled, RewardGranted, Root, UploadHeader};
use schemas::ids::{EventId, Micros, RewardId};
use schemas::reason::Reason;
use schemas::topic::Topic;
use serde_json::json;
use sqlx::PgConnection;

use self::adjust::adjust;
use self::books::Books;
use self::grant::{BudgetKey, Budgets, Grant, grant};
use self::policy::Policy;
use self::state::keys_of;
use crate::reward_rules::RuleSource;

/// Grants rewards within the budgets.
pub struct LimitCheck {
    clock: Arc<dyn Clock>,
    rules: Arc<RuleSource>,
}

impl LimitCheck {
    /// By these rules. The clock stamps `occurred_at` and is no input of a grant.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, rules: Arc<RuleSource>) -> Self {
        Self { clock, rules }
    }
}

/// A record of `rewards.calculated`.
#[derive(Clone, Debug)]
pub enum LimitInput {
    /// A reward to be granted within the budgets, or one that is worked out anew.
    Calculated(Box<RewardCalculated>),
    /// A reward that will not be paid.
    Cancelled(Box<RewardCancelled>),
}

impl LimitInput {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &UploadHeader {
        match self {
            Self::Calculated(event) => &event.header,
            Self::Cancelled(event) => &event.header,
        }
    }

    /// The reward.
    #[must_use]
    pub fn reward_id(&self) -> RewardId {
        match self {
            Self::Calculated(event) => event.reward_id,
            Self::Cancelled(event) => event.reward_id,
        }
    }

    /// The budgets that it may move: those of a reward's periods, and those that were charged for it.
    fn keys(&self, books: &Books) -> Vec<BudgetKey> {
        let mut keys = books.keys_of(self.reward_id());
        if let Self::Calculated(event) = self {
            keys.extend(keys_of(event));
        }
        keys
    }
}

impl FromRecord for LimitInput {
    fn from_record(schema: &RecordSchema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>> {
        match schema.name() {
            RewardCalculated::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Calculated(Box::new(event))))
            }
            RewardCancelled::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Cancelled(Box::new(event))))
            }
            _ => None,
        }
    }
}

impl Decided for LimitInput {
    const READS: Topic = RewardCalculated::TOPIC;

    fn id(&self) -> EventId {
        match self {
            Self::Calculated(event) => event.header.event_id,
            Self::Cancelled(event) => event.header.event_id,
        }
    }
}

impl Decider for LimitCheck {
    const NAME: &'static str = "limit_check";
    type In = LimitInput;
    type Out = RewardGranted;

    fn effect_of(&self, event: &LimitInput) -> Option<String> {
        Some(match event {
            LimitInput::Calculated(event) => match &event.adjustment {
                Some(adjustment) => adjustment.effect(event.reward_id),
                None => format!("grant:{}", event.reward_id),
            },
            LimitInput::Cancelled(event) => format!("refund:{}", event.reward_id),
        })
    }

    async fn decide(
        &self,
        tx: &mut PgConnection,
        batch: &[Envelope<LimitInput>],
    ) -> Result<Vec<Decision<RewardGranted>>, StageError> {
        self.decide_at(tx, batch, |_| self.clock.now()).await
    }
}

impl LimitCheck {
    /// Decides a batch; each record's rows and event are dated by the time that is given for its place.
    async fn decide_at(
        &self,
        tx: &mut PgConnection,
        batch: &[Envelope<LimitInput>],
        now: impl Fn(usize) -> Micros,
    ) -> Result<Vec<Decision<RewardGranted>>, StageError> {
        let book = self.rules.current_in(&mut *tx).await?;
        let rewards: Vec<RewardId> = batch.iter().map(|record| record.payload.reward_id()).collect();
        let mut books = state::charges(tx, &rewards).await?;
        let keys = batch.iter().flat_map(|record| record.payload.keys(&books));
        let before = state::load(tx, &keys.collect()).await?;
        let mut budgets = before.clone();
        let mut decisions = Vec::with_capacity(batch.len());
        for (place, record) in batch.iter().enumerate() {
            let now = now(place);
            let policy = &book.in_force(record.payload.header().accepted_at).policy;
            decisions.push(match &record.payload {
                LimitInput::Calculated(event) => {
                    self.granting(record, event, (&mut budgets, &mut books), (policy, now))
                }
                LimitInput::Cancelled(event) => {
                    let refunded = books.cancel(event, &mut budgets);
                    Decision {
                        effect_id: self.effect_of(&record.payload),
                        rules_version: policy.version.clone(),
                        reason: Some(Reason::Cancelled),
                        evidence: json!({ "refunded": refunded, "why": event.reason }),
                        logs: Vec::new(),
                        outcome: Err(Reason::Cancelled),
                    }
                }
            });
        }
        state::store(tx, &before, &budgets).await?;
        books.store(tx).await?;
        Ok(decisions)
    }

    fn granting(
        &self,
        record: &Envelope<LimitInput>,
        event: &RewardCalculated,
        (budgets, books): (&mut Budgets, &mut Books),
        (policy, now): (&Policy, Micros),
    ) -> Decision<RewardGranted> {
        let root = Root { partition: record.position.partition, offset: record.position.offset };
        // What was granted by an adjustment alone is not granted a second time.
        let is_repeated = event.adjustment.is_none() && books.charged(event.reward_id).is_some();
        let granted = match &event.adjustment {
            None if is_repeated => None,
            Some(adjustment) => Some(adjust((event, adjustment), budgets, books, policy, now)),
            None => grant(event, budgets, policy, now),
        };
        let dropped = if is_repeated { Reason::DuplicateEvent } else { Reason::BadDatum };
        let first =
            granted.as_ref().filter(|granted| event.adjustment.is_none() && !granted.amount.is_zero());
        if let Some(granted) = first {
            books.charge(event.reward_id, keys_of(event), granted.amount, budgets);
        }
        Decision {
            effect_id: self.effect_of(&record.payload),
            rules_version: policy.version.clone(),
            reason: granted.as_ref().map_or(Some(dropped), |granted| granted.reason),
            evidence: granted.as_ref().map_or(serde_json::Value::Null, |granted| granted.evidence.clone()),
            logs: Vec::new(),
            outcome: granted.map(|granted| reward_granted(event, root, granted, policy, now)).ok_or(dropped),
        }
    }
}

/// The event of a grant.
pub(crate) fn reward_granted(
    event: &RewardCalculated,
    root: Root,
    grant: Grant,
    policy: &Policy,
    now: Micros,
) -> RewardGranted {
    RewardGranted {
        header: event.header.next(LimitCheck::NAME, crate::VERSION, now, root),
        stamp: event.stamp.clone(),
        reward_id: event.reward_id,
        calculated: event.total(),
        granted: grant.amount,
        reason: grant.reason,
        detail: grant.detail,
        remaining: grant.remaining,
        charges: grant.charges,
        policy_version: policy.version.clone(),
        distance_km: Some(event.distance_km),
        adjustment: event.adjustment.clone(),
    }
}

#[cfg(test)]
mod tests;
