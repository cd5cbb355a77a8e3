//! What must hold of rewards after a run.

use std::collections::{BTreeMap, BTreeSet};

use processors::limit_check::{LimitInput, oracle};
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{LimitType, RewardCalculated, RewardGranted, UploadDecided, Verdict};
use schemas::ids::{Micros, RewardId, UploadId, UserId};
use sqlx::Row as _;

use crate::check::{block_on, pool, read};
use crate::run::Run;

/// Every way in which the run broke a promise about rewards, in words.
pub fn violations(run: &Run, decided: &BTreeMap<UploadId, &UploadDecided>) -> Vec<String> {
    let (inputs, granted) = (read::<LimitInput>(run), read::<RewardGranted>(run));
    let calculated: Vec<&RewardCalculated> = inputs
        .iter()
        .filter_map(|record| match &record.event {
            LimitInput::Calculated(event) => Some(event.as_ref()),
            LimitInput::Cancelled(_) => None,
        })
        .collect();
    let cancelled: BTreeSet<RewardId> = inputs
        .iter()
        .filter_map(|record| match &record.event {
            LimitInput::Cancelled(event) => Some(event.reward_id),
            LimitInput::Calculated(_) => None,
        })
        .collect();
    let mut found = Vec::new();

    // A pure stage may work a reward out twice: under one id, to one amount.
    let mut amounts: BTreeMap<UploadId, BTreeSet<_>> = BTreeMap::new();
    for event in &calculated {
        amounts.entry(event.header.upload_id).or_default().insert((event.header.event_id, event.total()));
    }
    for (id, event) in decided {
        let km = event.distance_km.unwrap_or_default().round_dp_with_strategy(2, RoundingStrategy::ToZero);
        let expected = usize::from(event.verdict == Verdict::Verified && !km.is_zero());
        let rewards = amounts.get(id).map_or(0, BTreeSet::len);
        if rewards != expected {
            found.push(format!("{id} of {km} km has {rewards} rewards instead of {expected}"));
        }
    }

    // A grant may stand twice, byte for byte; two different ones may not. Each is what the oracle grants.
    let mut versions: BTreeMap<RewardId, BTreeSet<&[u8]>> = BTreeMap::new();
    for record in &granted {
        versions.entry(record.event.reward_id).or_default().insert(&record.bytes);
    }
    let oracle = oracle::fold_all(inputs.iter().map(|record| &record.event));
    let first: BTreeMap<RewardId, &RewardGranted> =
        granted.iter().rev().map(|record| (record.event.reward_id, &record.event)).collect();
    for (id, theirs) in &oracle {
        match (versions.get(id).map_or(0, BTreeSet::len), first.get(id)) {
            (1, Some(ours)) if (ours.granted, &ours.charges) != (theirs.amount, &theirs.charges) => {
                found.push(format!("{id}: granted {}, the oracle says {}", ours.granted, theirs.amount));
            }
            (1, Some(_)) => {}
            (n, _) => found.push(format!("{id} was granted in {n} different ways")),
        }
    }
    found.extend(limit_violations(inputs.iter().map(|record| &record.event), &first));
    let unknown = run.done.cancelled.iter().filter(|id| !cancelled.contains(&RewardId(**id)));
    found.extend(unknown.map(|id| format!("{id} was cancelled, and no record says so")));
    let sum: Decimal = first.values().map(|event| event.granted).sum();
    let cut = first.values().filter(|event| event.reason.is_some()).count();
    eprintln!(
        "fault: {} rewards, {cut} of them cut, {} cancelled, {sum} B3TR granted in all",
        first.len(),
        cancelled.len()
    );
    let worked_out: BTreeMap<RewardId, &RewardCalculated> =
        calculated.iter().rev().map(|event| (event.reward_id, *event)).collect();
    found.extend(block_on(table_violations(run, &worked_out, &first, &cancelled)));
    found
}

/// On every prefix of grants and cancellations: nothing above what was calculated, no budget exceeded, and each the sum of its charges.
fn limit_violations<'a>(
    inputs: impl Iterator<Item = &'a LimitInput>,
    granted: &BTreeMap<RewardId, &RewardGranted>,
) -> Vec<String> {
    let mut found = Vec::new();
    let (mut charged, mut cancelled) = (BTreeSet::new(), BTreeSet::new());
    let mut sums = BTreeMap::<(UserId, LimitType, Micros), Decimal>::new();
    let refund = |sums: &mut BTreeMap<_, Decimal>, event: &RewardGranted| {
        for charge in &event.charges {
            *sums.entry((event.header.user_id, charge.limit_type, charge.period_start)).or_default() -=
                charge.amount;
        }
    };
    for input in inputs {
        let id = input.reward_id();
        let Some(event) = granted.get(&id) else { continue };
        if let LimitInput::Cancelled(_) = input {
            if cancelled.insert(id) && charged.contains(&id) {
                refund(&mut sums, event);
            }
            continue;
        }
        if !charged.insert(id) {
            continue;
        }
        if event.granted > event.calculated || event.granted < Decimal::ZERO {
            found.push(format!("{id}: {} of {} granted", event.granted, event.calculated));
        }
        for charge in &event.charges {
            let sum = sums.entry((event.header.user_id, charge.limit_type, charge.period_start)).or_default();
            *sum += charge.amount;
            if *sum != charge.current_amount || *sum > charge.limit_amount {
                let kind = charge.limit_type.label();
                found.push(format!("{id}: the {kind} charges sum to {sum}, the event says {charge:?}"));
            }
        }
        if cancelled.contains(&id) {
            refund(&mut sums, event);
        }
    }
    found
}

const UNBALANCED: &str = "
select format('%s %s: charged %s, charges %s of %s', user_id, limit_type, current_amount, charges, limit_amount)
from reward_limits l cross join lateral (
    select coalesce(sum(amount) filter (where not refunded), 0) as charges from limit_charges c
    where (c.user_id, c.limit_type, c.period_start) = (l.user_id, l.limit_type, l.period_start)) c
where current_amount <> charges or current_amount > limit_amount";

const TOTALS: &str = "
select format('%s: total %s, rewards %s', u.id, total_rewards, owed)
from users u cross join lateral (
    select coalesce(sum(total_amount) filter (where status <> 'cancelled'), 0) as owed from rewards r
    where r.user_id = u.id) r
where total_rewards <> owed";

async fn table_violations(
    run: &Run,
    calculated: &BTreeMap<RewardId, &RewardCalculated>,
    granted: &BTreeMap<RewardId, &RewardGranted>,
    cancelled: &BTreeSet<RewardId>,
) -> Vec<String> {
    let pool = pool(run).await;
    let mut found: Vec<String> = sqlx::query_scalar(UNBALANCED).fetch_all(&pool).await.unwrap();
    found.extend(sqlx::query_scalar::<_, String>(TOTALS).fetch_all(&pool).await.unwrap());
    let charged: Decimal =
        sqlx::query_scalar("select coalesce(sum(amount), 0) from limit_charges where limit_type = 'daily'")
            .fetch_one(&pool)
            .await
            .unwrap();
    let sum: Decimal = granted.values().map(|event| event.granted).sum();
    if charged != sum {
        found.push(format!("{charged} B3TR were charged, {sum} granted"));
    }
    let rows = sqlx::query(
        "select id, base_amount, bonus_amount, total_amount, status::text as status from rewards",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    if rows.len() != calculated.len() {
        found.push(format!("{} rows for {} rewards", rows.len(), calculated.len()));
    }
    for row in rows {
        let id = RewardId(row.get("id"));
        let (Some(event), Some(grant)) = (calculated.get(&id), granted.get(&id)) else {
            found.push(format!("{id} is in the table and was not granted"));
            continue;
        };
        let status = match (grant.granted.is_zero() || cancelled.contains(&id), run.chain.is_some()) {
            (true, _) => "cancelled",
            (false, true) => "distributed",
            (false, false) => "calculated",
        };
        let expected = (Some(event.base), Some(event.bonus), Some(grant.granted), status.to_owned());
        let got: (Option<Decimal>, Option<Decimal>, Option<Decimal>, String) =
            (row.get("base_amount"), row.get("bonus_amount"), row.get("total_amount"), row.get("status"));
        if got != expected {
            found.push(format!("{id}: the table says {got:?}, the events {expected:?}"));
        }
    }
    found
}
