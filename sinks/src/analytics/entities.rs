//! What is counted of something that changes: what its highest revision says. Its rows can be taken back and added again, in any
//! order and any number of times.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::{AttemptState, PayoutState, PayoutTransaction, PayoutUpdated, UploadDecided, Verdict};
use schemas::payouts::network_label;

use super::count::{BadCount, Count};
use super::exact::Exact;
use super::metrics::{Dimension, Metric};

/// What kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A reward's payment.
    Paid,
    /// What a transaction cost, however many rewards name it.
    Fee,
    /// An upload's first verdict.
    Verdict,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Fee => "fee",
            Self::Verdict => "verdict",
        }
    }
}

/// Something that changes, as one event reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// What kind of thing.
    pub kind: Kind,
    /// Which, among those of its kind.
    pub id: String,
    /// The highest counts; of one revision there is one state.
    pub revision: i64,
    /// What it adds in this state; none where it adds nothing.
    pub counted: Option<Counted>,
}

/// What something adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// At which instant.
    pub at: DateTime<Utc>,
    /// B3TR paid, VTHO spent; 0 for a verdict.
    pub amount: Exact,
    /// Rewards that it is about; uploads for a verdict.
    pub samples: i64,
    /// The network, or the verdict.
    pub label: String,
}

impl Entity {
    /// The entity's key, e.g. `paid:REWARD`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}", self.kind.label(), self.id)
    }
}

impl Counted {
    /// What it adds, as a thing of a kind.
    #[must_use]
    pub fn counts(&self, kind: Kind) -> Vec<Count> {
        let cut = || vec![Dimension::Total, Dimension::Cut("network", self.label.clone())];
        let share = |verdict: Verdict| if self.label == verdict.label() { Exact::ONE } else { Exact::ZERO };
        let rows = match kind {
            Kind::Paid => vec![(Metric::RewardsPaid, self.amount, self.samples, cut())],
            Kind::Fee => vec![
                (Metric::PayoutFee, self.amount, 1, cut()),
                (Metric::FeePerReward, self.amount, self.samples, cut()),
            ],
            Kind::Verdict => vec![
                (Metric::ManualReview, share(Verdict::Review), self.samples, vec![Dimension::Total]),
                (Metric::AutoAccept, share(Verdict::Verified), self.samples, vec![Dimension::Total]),
            ],
        };
        let count = |(metric, value, samples, dimensions): (_, _, _, Vec<Dimension>)| {
            let count = move |dimension| Count { metric, dimension, at: self.at, value, samples };
            dimensions.into_iter().map(count).collect::<Vec<_>>()
        };
        rows.into_iter().flat_map(count).collect()
    }
}

/// An upload's first verdict. A review is before every final verdict, and of two the earlier is the first: the earlier, the higher
/// its revision, and that of a review is above all.
pub(super) fn verdict(event: &UploadDecided) -> Entity {
    let at = event.header.occurred_at;
    let above = if event.verdict == Verdict::Review { i64::MAX } else { 0 };
    let counted =
        Counted { at: at.to_utc(), amount: Exact::ZERO, samples: 1, label: event.verdict.label().to_owned() };
    Entity {
        kind: Kind::Verdict,
        id: event.header.upload_id.to_string(),
        revision: above.saturating_sub(at.0),
        counted: Some(counted),
    }
}

/// The payment and the transaction that a snapshot reports.
pub(super) fn paid(event: &PayoutUpdated) -> Result<Vec<Entity>, BadCount> {
    let bad = |what, why| BadCount { entity: format!("reward {}", event.reward_id), what, why };
    let attempt = event.transaction.as_ref();
    let counted = match event.state {
        PayoutState::Paid | PayoutState::Final => {
            let Some((attempt, at)) = attempt.and_then(|attempt| Some((attempt, block_time(attempt)?)))
            else {
                return Err(bad("rewards_paid", "has no block"));
            };
            if event.amount < Decimal::ZERO {
                return Err(bad("rewards_paid", "is negative"));
            }
            let amount = Exact::of(event.amount).ok_or_else(|| bad("rewards_paid", "is not below 10^11"))?;
            Some(Counted { at, amount, samples: 1, label: network_label(&attempt.genesis_id).to_owned() })
        }
        _ => None,
    };
    let (id, revision) = (event.reward_id.to_string(), event.revision);
    let mut entities = vec![Entity { kind: Kind::Paid, id, revision, counted }];
    if let Some(attempt) = attempt {
        let id = format!("{}/{}", attempt.genesis_id, attempt.tx_id);
        let counted = fee(attempt).map_err(|why| bad("payout_fee", why))?;
        entities.push(Entity { kind: Kind::Fee, id, revision: attempt.revision, counted });
    }
    Ok(entities)
}

/// Gas is paid for whether the clauses succeed or not; only those that succeed pay rewards.
fn fee(attempt: &PayoutTransaction) -> Result<Option<Counted>, &'static str> {
    let rewards = match attempt.state {
        AttemptState::Confirmed | AttemptState::Final => i64::from(attempt.clause_count),
        AttemptState::Reverted | AttemptState::RevertedFinal | AttemptState::Stray => 0,
        AttemptState::Signed | AttemptState::Sent | AttemptState::Included | AttemptState::Dead => {
            return Ok(None);
        }
    };
    let at = block_time(attempt).ok_or("has no block")?;
    let wei = attempt
        .fee_wei
        .as_deref()
        .and_then(|wei| wei.parse::<u128>().ok())
        .and_then(|wei| i128::try_from(wei).ok());
    let amount = wei.and_then(Exact::of_units).ok_or("is no number of wei below 10^29")?;
    Ok(Some(Counted { at, amount, samples: rewards, label: network_label(&attempt.genesis_id).to_owned() }))
}

fn block_time(attempt: &PayoutTransaction) -> Option<DateTime<Utc>> {
    attempt.block.as_ref().map(|block| block.timestamp.to_utc())
}
