//! `rewards`: from an event to its row, and the upsert. `rewards.calculated` brings what was worked out, `rewards.granted`
//! what of it is owed; either may come first.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use schemas::events::{RewardCalculated, RewardGranted, Stamp, UploadHeader};
use schemas::reason::Reason;
use serde_json::{Value, json};
use sqlx::{PgConnection, query_as};
use uuid::Uuid;

use super::fit::{BadValue, Fit};
use super::rows::{CalculatedColumns, RewardRow, Rows, UploadRow};
use super::upload_rows::upload;
use crate::database::{Table, column};

/// First value that `numeric(18,8)` cannot hold.
pub(super) const AMOUNT_LIMIT: Decimal = Decimal::from_parts(1_410_065_408, 2, 0, false, 0);
/// First value that `numeric(10,4)` cannot hold.
const RATE_LIMIT: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// The rows of a calculated reward.
pub(super) fn calculated(event: &RewardCalculated) -> Result<Rows, BadValue> {
    let (header, fit) = (&event.header, Fit(event.header.upload_id));
    let parts: Vec<Value> = event
        .parts
        .iter()
        .map(|part| {
            let mut shown = json!({
                "name": part.name.label(), "kind": part.kind.label(), "factor": part.factor, "amount": part.amount,
            });
            if let Some(label) = &part.label {
                shown["label"] = json!(label);
            }
            shown
        })
        .collect();
    let distance = fit.mileage("rewards.distance_traveled", Some(event.distance_km))?.unwrap_or_default();
    let columns = CalculatedColumns {
        adjustment: event.adjustment.as_ref().map_or(0, |adjustment| adjustment.number),
        base: fit.within("rewards.base_amount", event.base, 8, AMOUNT_LIMIT)?,
        bonus: fit.within("rewards.bonus_amount", event.bonus, 8, AMOUNT_LIMIT)?,
        rate: fit.within("rewards.reward_rate", event.rate, 4, RATE_LIMIT)?,
        distance,
        factors: json!({
            "tariff_version": event.tariff_version,
            "vehicle_kind": event.stamp.vehicle_kind,
            "rate": event.rate,
            "distance_km": event.distance_km,
            "parts": parts,
        }),
        calculated_at: None,
    };
    let reward = RewardRow {
        id: event.reward_id.0,
        user_id: header.user_id.0,
        calculated: Some(columns),
        granted: None,
        status: "calculated",
        grant_reason: None,
        payout_reason: None,
        distributed_at: None,
        revision: 0,
        created_at: header.occurred_at.to_utc(),
        at: header.occurred_at.to_utc(),
    };
    Ok(Rows { reward: Some(reward), ..Rows::of(parent(header, &event.stamp)?) })
}

/// The rows of a granted reward; one of nothing is cancelled. What an adjustment grants is in the payout's own revision, once it is owed.
pub(super) fn granted(event: &RewardGranted) -> Result<Rows, BadValue> {
    let (header, fit) = (&event.header, Fit(event.header.upload_id));
    if event.adjustment.is_some() {
        return Ok(Rows::of(parent(header, &event.stamp)?));
    }
    let granted = fit.within("rewards.granted_amount", event.granted, 8, AMOUNT_LIMIT)?;
    let sentence = |reason: Reason| {
        format!("{}: {}", reason.label(), event.detail.as_deref().unwrap_or(reason.advice()))
    };
    let reward = RewardRow {
        id: event.reward_id.0,
        user_id: header.user_id.0,
        calculated: None,
        granted: Some(granted),
        status: if granted.is_zero() { "cancelled" } else { "calculated" },
        grant_reason: event.reason.map(sentence),
        payout_reason: None,
        distributed_at: None,
        revision: 1,
        created_at: header.occurred_at.to_utc(),
        at: header.occurred_at.to_utc(),
    };
    Ok(Rows { reward: Some(reward), ..Rows::of(parent(header, &event.stamp)?) })
}

/// The upload that a reward hangs on, where the reward comes first. Only a verified upload has one; when it was processed
/// and last changed is the decision's to say, so that the time here is the earliest that any event can bring.
pub(super) fn parent(header: &UploadHeader, stamp: &Stamp) -> Result<UploadRow, BadValue> {
    Ok(UploadRow { updated_at: header.accepted_at.to_utc(), ..upload(header, stamp, "verified", 2)? })
}

/// Rewards.
pub(super) const TABLE: Table = Table { name: "rewards", key: "id" };

// The topics fill each other's blanks; state and amount are those of the highest revision, and of calculations the newest adjustment's
// stands. `before` reads the row as it was when the statement began, under the upload's lock. What is owed is what is granted and not
// cancelled.
// What the driver is told is the newest payout's reason and the grant's, which no payout takes back; in a row of the release before
// the grant's is status_reason alone, at revision 1.
const REWARDS: &str = "
with incoming as (
    select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[],
        $8::jsonb[], $9::timestamptz[], $10::numeric[], $11::text[], $12::text[], $13::bigint[], $14::timestamptz[],
        $15::timestamptz[], $16::timestamptz[], $17::text[], $18::integer[])
        as r (id, upload_id, user_id, base, bonus, rate, distance, factors, calculated_at, granted, status, reason,
        revision, at, distributed_at, created_at, grant_reason, adjustment)
), before as (
    select w.id, case when w.status = 'cancelled' then 0 else w.granted_amount end as owed
    from rewards w join incoming using (id)
), written as (
    insert into rewards as w (id, upload_id, user_id, base_amount, bonus_amount, reward_rate, distance_traveled,
        calculation_factors, calculated_at, granted_amount, status, status_reason, revision, created_at, updated_at,
        distributed_at, grant_reason, adjustment)
    select id, upload_id, user_id, base, bonus, rate, distance, factors, calculated_at, granted, status::rewards_status,
        reason, revision, created_at, at, distributed_at, grant_reason, adjustment
    from incoming order by id
    on conflict (id) do update set
        base_amount = case when excluded.adjustment > w.adjustment then excluded.base_amount
            else coalesce(w.base_amount, excluded.base_amount) end,
        bonus_amount = case when excluded.adjustment > w.adjustment then excluded.bonus_amount
            else coalesce(w.bonus_amount, excluded.bonus_amount) end,
        reward_rate = case when excluded.adjustment > w.adjustment then excluded.reward_rate
            else coalesce(w.reward_rate, excluded.reward_rate) end,
        distance_traveled = case when excluded.adjustment > w.adjustment then excluded.distance_traveled
            else coalesce(w.distance_traveled, excluded.distance_traveled) end,
        calculation_factors = case when excluded.adjustment > w.adjustment then excluded.calculation_factors
            else coalesce(w.calculation_factors, excluded.calculation_factors) end,
        calculated_at = least(w.calculated_at, excluded.calculated_at),
        adjustment = greatest(w.adjustment, excluded.adjustment),
        granted_amount = case when excluded.revision > w.revision then coalesce(excluded.granted_amount, w.granted_amount)
            else coalesce(w.granted_amount, excluded.granted_amount) end,
        status = case when excluded.revision > w.revision then excluded.status else w.status end,
        grant_reason = coalesce(w.grant_reason, excluded.grant_reason, case when w.revision = 1 then w.status_reason end),
        status_reason = case
            when excluded.revision > w.revision and excluded.grant_reason is null then nullif(concat_ws('; ',
                excluded.status_reason, coalesce(w.grant_reason, case when w.revision = 1 then w.status_reason end)), '')
            when excluded.revision > w.revision then excluded.status_reason
            when w.revision > 1 and w.grant_reason is null and excluded.grant_reason is not null
                then concat_ws('; ', w.status_reason, excluded.grant_reason)
            else w.status_reason end,
        distributed_at = case when excluded.revision > w.revision then excluded.distributed_at else w.distributed_at end,
        revision = greatest(w.revision, excluded.revision),
        created_at = least(w.created_at, excluded.created_at),
        updated_at = greatest(w.updated_at, excluded.updated_at)
    returning w.id, w.user_id, case when w.status = 'cancelled' then 0 else w.granted_amount end as owed
)
select user_id, sum(coalesce(written.owed, 0) - coalesce(before.owed, 0))
from written left join before using (id) group by user_id";

/// Rewards by upload, at most one row each, after the uploads. Returns what each user is owed more, B3TR.
pub(super) async fn rewards(
    tx: &mut PgConnection,
    rows: &[(Uuid, &RewardRow)],
) -> sqlx::Result<BTreeMap<Uuid, Decimal>> {
    if rows.is_empty() {
        return Ok(BTreeMap::new());
    }
    let owed: Vec<(Uuid, Decimal)> = query_as(REWARDS)
        .bind(column(rows, |(_, row)| row.id))
        .bind(column(rows, |(upload, _)| *upload))
        .bind(column(rows, |(_, row)| row.user_id))
        .bind(column(rows, |(_, row)| Some(row.calculated.as_ref()?.base)))
        .bind(column(rows, |(_, row)| Some(row.calculated.as_ref()?.bonus)))
        .bind(column(rows, |(_, row)| Some(row.calculated.as_ref()?.rate)))
        .bind(column(rows, |(_, row)| Some(row.calculated.as_ref()?.distance)))
        .bind(column(rows, |(_, row)| Some(row.calculated.as_ref()?.factors.clone())))
        .bind(column(rows, |(_, row)| row.calculated.as_ref()?.calculated_at))
        .bind(column(rows, |(_, row)| row.granted))
        .bind(column(rows, |(_, row)| row.status))
        .bind(column(rows, |(_, row)| row.told()))
        .bind(column(rows, |(_, row)| row.revision))
        .bind(column(rows, |(_, row)| row.at))
        .bind(column(rows, |(_, row)| row.distributed_at))
        .bind(column(rows, |(_, row)| row.created_at))
        .bind(column(rows, |(_, row)| row.grant_reason.clone()))
        .bind(column(rows, |(_, row)| row.calculated.as_ref().map_or(0, |columns| columns.adjustment)))
        .fetch_all(tx)
        .await?;
    Ok(owed.into_iter().collect())
}

#[cfg(test)]
#[path = "rewards_tests.rs"]
mod tests;
