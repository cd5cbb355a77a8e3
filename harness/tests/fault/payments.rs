//! What must hold of payments after a run.

use std::collections::{BTreeMap, BTreeSet};

use harness::payments;
use harness::topics::Decoded;
use rust_decimal::Decimal;
use schemas::events::{PayoutUpdated, RewardGranted};
use uuid::Uuid;

use crate::check::{block_on, pool, read};
use crate::run::Run;

/// Every way in which the run broke a promise about payments, in words: each grant is paid exactly once by the node's own logs, to
/// the wei, and tables and topic say so too.
pub fn violations(run: &Run) -> Vec<String> {
    let granted = read::<RewardGranted>(run)
        .into_iter()
        .map(|record| (record.event.reward_id.0, record.event.granted.normalize()))
        .collect();
    let mut found = block_on(payment_violations(run, granted));
    found.extend(revision_violations(read::<PayoutUpdated>(run)));
    found
}

async fn payment_violations(run: &Run, granted: BTreeMap<Uuid, Decimal>) -> Vec<String> {
    let chain = run.chain.as_ref().unwrap();
    let contracts = chain.contracts();
    let node = chain.node().unwrap();
    let paid = payments::on_chain(&node, contracts.rewards_pool, contracts.app_id).await.unwrap();
    let pool = pool(run).await;
    let mut found = payments::differences(&pool, &paid).await.unwrap();

    let owed: BTreeMap<Uuid, Decimal> =
        granted.iter().filter(|(_, amount)| !amount.is_zero()).map(|(id, amount)| (*id, *amount)).collect();
    let on_chain: BTreeMap<Uuid, Decimal> = paid.iter().map(|one| (one.reward_id, one.amount)).collect();
    let cancelled: BTreeSet<Uuid> =
        sqlx::query_scalar("select reward_id from payouts where state = 'cancelled'")
            .fetch_all(&pool)
            .await
            .unwrap()
            .into_iter()
            .collect();
    for (id, amount) in owed.iter().filter(|(id, _)| !cancelled.contains(id)) {
        if on_chain.get(id) != Some(amount) {
            found.push(format!("{id}: granted {amount}, the chain paid {:?}", on_chain.get(id)));
        }
    }
    found.extend(
        on_chain
            .keys()
            .filter(|id| !owed.contains_key(id) || cancelled.contains(id))
            .map(|id| format!("{id} was paid and not granted, or cancelled")),
    );

    // Granted = paid + pending + cancelled, to the wei, by the stage's own state.
    let states: Vec<(String, Decimal)> =
        sqlx::query_as("select state, sum(amount_wei) from payouts group by state")
            .fetch_all(&pool)
            .await
            .unwrap();
    let wei: Decimal = states.iter().map(|(_, wei)| *wei).sum();
    let all: Decimal = owed.values().sum();
    if (wei - all * Decimal::from(1_000_000_000_000_000_000_i64)) != Decimal::ZERO {
        found.push(format!("{all} B3TR granted, the payouts hold {wei} wei"));
    }
    let open: Vec<&(String, Decimal)> = states
        .iter()
        .filter(|(state, _)| !["paid", "final", "cancelled"].contains(&state.as_str()))
        .collect();
    if !open.is_empty() {
        found.push(format!("not every payout is paid or cancelled: {open:?}"));
    }
    let (transactions, broadcasts): (i64, i64) = sqlx::query_as(
        "select count(*), coalesce(sum(broadcast_count), 0) from payout_attempts where raw is not null",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    eprintln!(
        "fault: {} rewards paid in {transactions} transactions, {broadcasts} times posted, {} B3TR",
        paid.len(),
        payments::sum(&paid)
    );
    if run.accepted().len() >= 200 && paid.len() < 20 {
        found.push(format!("{} payments: the run shows too little", paid.len()));
    }
    found
}

/// Revisions of a payout have no gap, and each publishes one thing.
fn revision_violations(records: Vec<Decoded<PayoutUpdated>>) -> Vec<String> {
    let mut published: BTreeMap<Uuid, BTreeMap<i64, BTreeSet<Vec<u8>>>> = BTreeMap::new();
    for record in records {
        let versions = published.entry(record.event.reward_id.0).or_default();
        versions.entry(record.event.revision).or_default().insert(record.bytes);
    }
    let mut found = Vec::new();
    for (id, revisions) in published {
        if revisions.keys().copied().ne(0..i64::try_from(revisions.len()).unwrap()) {
            found.push(format!("{id}: revisions {:?} have a gap", revisions.keys().collect::<Vec<_>>()));
        }
        let doubled = revisions.iter().filter(|(_, versions)| versions.len() > 1);
        found.extend(
            doubled.map(|(revision, _)| format!("{id}: revision {revision} was published in two ways")),
        );
    }
    found
}
