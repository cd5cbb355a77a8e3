//! Rewards that are worked out anew. What is lowered is lowered here first, in the row that is paid, and then given back to its budgets.
//! What is raised is kept from being planned until `limit_check` has charged its budgets for the difference, or has refused to. A reward
//! that a transaction pays or may yet pay stays as it is.

use chrono::{DateTime, Utc};
use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::{Adjustment, PayoutState, RewardCalculated, RewardGranted, UploadHeader};
use schemas::ids::{EventId, natural};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::ledger::outbox::Outbox;
use super::ledger::publish::Publisher;
use super::ledger::rows::{self, Payout};
use super::ledger::snapshot::coins;
use super::ledger::transition::owed;
use super::operate::{Done, Order, Refused, live, permit};

/// What is to become of a reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The reward as it is worked out now.
    pub calculation: RewardCalculated,
    /// The replay that is promoted.
    pub promotion: String,
    /// What the tariff gave until now, B3TR.
    pub calculated_before: Decimal,
    /// What is owed until now, B3TR.
    pub granted_before: Decimal,
    /// What is to be owed, B3TR on the grid of 1e-8: more than nothing.
    pub granted: Decimal,
    /// Why less than the tariff gives.
    pub detail: Option<String>,
}

impl Wanted {
    fn adjustment(&self, number: i32, now: DateTime<Utc>) -> Adjustment {
        Adjustment {
            number,
            promotion: self.promotion.clone(),
            calculated_before: self.calculated_before,
            granted_before: self.granted_before,
            granted: self.granted,
            detail: self.detail.clone(),
            adjusted_at: now.into(),
        }
    }

    /// The record that has the budgets follow. Published again it has another id and the same effect.
    pub(crate) fn record(&self, (number, published): (i32, i32), now: DateTime<Utc>) -> RewardCalculated {
        let id = natural(&format!("adjusted/{}/{number}/{published}", self.calculation.reward_id));
        RewardCalculated {
            header: UploadHeader {
                event_id: EventId(id),
                occurred_at: now.into(),
                stage_version: crate::VERSION.to_owned(),
                ..self.calculation.header.clone()
            },
            adjustment: Some(self.adjustment(number, now)),
            ..self.calculation.clone()
        }
    }
}

/// By which adjustments are published.
#[derive(Clone, Copy, Debug)]
pub struct Adjuster {
    /// Of payouts.
    pub publisher: Publisher,
    /// The registry's id of [`RewardCalculated`].
    pub calculated: u32,
}

impl Adjuster {
    /// Begins an adjustment in the caller's database transaction: a lower amount stands from then on, a higher one is asked for.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub async fn begin(
        &self,
        tx: &mut PgConnection,
        wanted: &Wanted,
        now: DateTime<Utc>,
    ) -> Result<Done, Refused> {
        let reward = wanted.calculation.reward_id.0;
        let (open, newest): (Option<bool>, Option<i32>) = sqlx::query_as(
            "select bool_or(ended_at is null), max(number) from payout_adjustments where reward_id = $1",
        )
        .bind(reward)
        .fetch_one(&mut *tx)
        .await?;
        if open == Some(true) {
            return Err(Refused::Adjusting);
        }
        let mut payout = rows::payout(tx, reward).await?;
        if payout.is_none() && !wanted.granted_before.is_zero() {
            return Err(Refused::Unknown(reward));
        }
        let live = live(tx, reward).await?;
        let live = live.as_ref().map(|(id, state)| (id.as_str(), state.as_str()));
        let settled = payout.as_ref().map(|payout| payout.adjustment).unwrap_or_default();
        let number = newest.unwrap_or_default().max(settled) + 1;
        change(payout.as_mut(), live, wanted, number)?;
        let mut outbox = Outbox::default();
        if let Some(payout) = &payout {
            rows::update_payout(tx, payout).await?;
            self.publisher.payout(payout, now, &mut outbox)?;
        }
        let record = wanted.record((number, 1), now);
        outbox.calculated(self.calculated, &record)?;
        outbox.store(tx).await?;
        sqlx::query(
            "insert into payout_adjustments (reward_id, number, promotion, granted_before, granted, begun_at)
             values ($1, $2, $3, $4, $5, $6)",
        )
        .bind(reward)
        .bind(number)
        .bind(&wanted.promotion)
        .bind(wanted.granted_before)
        .bind(wanted.granted)
        .bind(now)
        .execute(tx)
        .await?;
        let amounts = |granted: Decimal| json!({ "granted": granted.normalize(), "number": number });
        Ok(Done { before: amounts(wanted.granted_before), after: amounts(wanted.granted) })
    }

    /// Publishes the record of an adjustment again that is open: the effect of one that was decided meanwhile is had. False where none is
    /// open.
    ///
    /// # Errors
    /// The database's, or an event that does not encode.
    pub async fn repeat(
        &self,
        tx: &mut PgConnection,
        wanted: &Wanted,
        now: DateTime<Utc>,
    ) -> Result<bool, StageError> {
        let open: Option<(i32, i32)> = sqlx::query_as(
            "update payout_adjustments set published = published + 1
             where reward_id = $1 and promotion = $2 and ended_at is null returning number, published",
        )
        .bind(wanted.calculation.reward_id.0)
        .bind(&wanted.promotion)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(numbers) = open else { return Ok(false) };
        let mut outbox = Outbox::default();
        outbox.calculated(self.calculated, &wanted.record(numbers, now))?;
        outbox.store(tx).await?;
        Ok(true)
    }
}

/// What beginning an adjustment does to its payout: a lower amount stands at once, a higher one once the budgets are charged for it. None
/// is there where nothing was granted until now.
///
/// # Errors
/// [`Refused`]: a transaction pays it or may yet pay it, it is cancelled, or something else is owed than the replay has met.
pub fn change(
    payout: Option<&mut Payout>,
    live: Option<(&str, &str)>,
    wanted: &Wanted,
    number: i32,
) -> Result<(), Refused> {
    let owed = payout.as_ref().map(|payout| coins(payout.amount_wei)).unwrap_or_default();
    if let Some(payout) = &payout {
        // What may be cancelled whole may be changed.
        permit(payout.state, live, &Order::Cancel { settled: false })?;
    }
    if owed != wanted.granted_before {
        return Err(Refused::Amount { owed: owed.normalize(), met: wanted.granted_before.normalize() });
    }
    if let Some(payout) = payout {
        if wanted.granted < wanted.granted_before {
            (payout.amount_wei, payout.adjustment) = (owed_wei(wanted.granted)?, number);
        }
        // A plan that was tried out with the row as it was is not stored any more.
        payout.revision += 1;
    }
    Ok(())
}

/// How an adjustment has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Less is owed.
    Lowered,
    /// More is owed.
    Raised,
    /// The budgets do not hold the difference: nothing changes.
    Refused,
    /// A transaction pays it as it was: nothing changes.
    Late,
}

impl End {
    /// The label in `payout_adjustments.outcome`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Lowered => "lowered",
            Self::Raised => "raised",
            Self::Refused => "refused",
            Self::Late => "late",
        }
    }
}

/// What a grant that answers an adjustment does to its payout. `is_live`: a transaction could still pay it. None where that was done
/// before.
pub fn settle(payout: &mut Payout, event: &RewardGranted, is_live: bool) -> Result<Option<End>, StageError> {
    let number = event.adjustment.as_ref().map_or(0, |adjustment| adjustment.number);
    if payout.adjustment >= number {
        return Ok(None);
    }
    payout.adjustment = number;
    let (before, amount) = (payout.amount_wei, owed_wei(event.granted)?);
    if amount == before || amount.is_zero() {
        return Ok(Some(End::Refused));
    }
    let is_unpaid = !is_live && permit(payout.state, None, &Order::Cancel { settled: false }).is_ok();
    // What is cancelled is never paid, and its amount says what was cancelled.
    if !is_unpaid && payout.state != PayoutState::Cancelled {
        return Ok(Some(End::Late));
    }
    (payout.amount_wei, payout.revision) = (amount, payout.revision + 1);
    Ok(Some(if amount < before { End::Lowered } else { End::Raised }))
}

/// What became of a grant that answers an adjustment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// There is no payout yet.
    Unpaid,
    /// How the adjustment has ended by it; none where it had before.
    Ended(Option<End>),
}

/// Applies a grant that answers an adjustment to the payout that there is.
///
/// # Errors
/// The database's, or an amount that is none.
pub async fn apply(
    tx: &mut PgConnection,
    event: &RewardGranted,
    publisher: &Publisher,
    (now, outbox): (DateTime<Utc>, &mut Outbox),
) -> Result<Applied, StageError> {
    let Some(mut payout) = rows::payout(tx, event.reward_id.0).await? else { return Ok(Applied::Unpaid) };
    let is_live = live(tx, event.reward_id.0).await?.is_some();
    let ended = settle(&mut payout, event, is_live)?;
    if let Some(ended) = ended {
        rows::update_payout(tx, &payout).await?;
        match ended {
            End::Lowered | End::Raised => publisher.payout(&payout, now, outbox)?,
            End::Late => tracing::error!(
                reward = %event.reward_id, granted = %event.granted,
                "a reward was adjusted when a transaction paid it already: it stays as it is paid"
            ),
            End::Refused => {}
        }
    }
    Ok(Applied::Ended(end(tx, event, ended, now).await?))
}

/// Notes the end of an adjustment, and returns it; none where it had ended before.
///
/// # Errors
/// Postgres'.
pub async fn end(
    tx: &mut PgConnection,
    event: &RewardGranted,
    ended: Option<End>,
    now: DateTime<Utc>,
) -> Result<Option<End>, StageError> {
    let Some(adjustment) = &event.adjustment else { return Ok(None) };
    // Without a payout there was nothing to change; one that has taken it was lowered when it was begun.
    let end = ended.unwrap_or_else(|| match adjustment.raises() {
        _ if event.granted != adjustment.granted => End::Refused,
        true => End::Raised,
        false => End::Lowered,
    });
    let noted = sqlx::query(
        "update payout_adjustments set ended_at = $3, outcome = $4, detail = $5
         where reward_id = $1 and number = $2 and ended_at is null",
    )
    .bind(event.reward_id.0)
    .bind(adjustment.number)
    .bind(now)
    .bind(end.label())
    .bind(event.detail.as_ref().filter(|_| end == End::Refused))
    .execute(tx)
    .await?
    .rows_affected();
    // A database that was set back may know the payout without the adjustment's row.
    Ok((noted > 0 || ended.is_some()).then_some(end))
}

/// How an adjustment stands.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Standing {
    /// The reward.
    pub reward_id: Uuid,
    /// How it has ended, by [`End::label`]; none while it is open.
    pub outcome: Option<String>,
    /// Why it was refused.
    pub detail: Option<String>,
}

impl Standing {
    /// Whether the stages have not answered yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.outcome.is_none()
    }

    /// Why nothing has come of it.
    #[must_use]
    pub fn told(&self) -> &str {
        let late = "a transaction paid it already when it was adjusted: it stays as it is paid";
        self.detail.as_deref().unwrap_or(if self.outcome.as_deref() == Some(End::Late.label()) {
            late
        } else {
            "it is refused"
        })
    }
}

/// The adjustments of a promotion that are open, or have not done what was wanted.
///
/// # Errors
/// Postgres'.
pub async fn undone(connection: &mut PgConnection, promotion: &str) -> sqlx::Result<Vec<Standing>> {
    sqlx::query_as(
        "select reward_id, outcome, detail from payout_adjustments
         where promotion = $1 and (outcome is null or outcome in ('refused', 'late')) order by reward_id",
    )
    .bind(promotion)
    .fetch_all(connection)
    .await
}

fn owed_wei(amount: Decimal) -> Result<Decimal, StageError> {
    owed(amount).map_err(|error| StageError::new("an adjusted reward", error))
}

#[cfg(test)]
#[path = "adjust_tests.rs"]
mod tests;
