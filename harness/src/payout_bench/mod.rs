//! Rewards settled a second by `chain_submission` and all that it needs, from the grant to twelve blocks on top, beside raw transactions of
//! the same shape: signed before, posted all at once, settled by the same twelve blocks. Both arms pay on one node in one run. Also the
//! gas of a reward in batches of 1, 10 and 40.

mod grants;
mod raw;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chain::node::Node;
use devstack::Stack;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use self::grants::Grants;
use self::raw::Raw;
use crate::local_chain::{PaidChain, start_paying_roles};
use crate::payments;

/// The share of the raw rate that must be reached.
const WANTED: f64 = 0.8;
/// Rewards of one transaction.
const BATCH: usize = 40;
/// Longest wait for the last reward: the node holds about 160 a second, of which 2,000 are 13 s, and twelve blocks follow.
const LIMIT: Duration = Duration::from_secs(300);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Pays `rewards` by each arm and prints the rates; whether the bar is reached.
///
/// # Errors
/// When the parts do not start, or not everything is settled in time.
#[allow(clippy::cast_precision_loss, reason = "a count of rewards")]
pub fn run(stack: &Stack, rewards: usize) -> Result<bool> {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let PaidChain { deployment, chain, other, prefix } =
        threads.block_on(start_paying_roles(stack, "payout"))?;
    let (good, faults) = threads.block_on(async {
        let (node, at) = (chain.node()?, chain.contracts());
        let raw = Raw::new(&node, &other).await?;
        println!("gas of a reward with proof and impact, to receivers that were paid before in this round, and to new ones:");
        for batch in [1, 10, BATCH] {
            let (new, known) = raw.gas(batch).await?;
            println!("  {batch:>2} in a transaction: {known:>7} known, {new:>7} new");
        }
        let pool = PgPoolOptions::new().max_connections(4).connect(stack.database_url()).await?;
        let grants = Grants::prepare(stack, &pool, &prefix, rewards).await?;
        let before = raw.settle(rewards, BATCH).await?;
        let ours = settle(&grants, &pool, rewards).await?;
        let after = raw.settle(rewards, BATCH).await?;
        let rate = |took: Duration| rewards as f64 / took.as_secs_f64();
        let share = rate(ours) / f64::midpoint(rate(before), rate(after));
        println!("rewards settled a second, {rewards} each round, twelve blocks included:");
        println!("  raw transactions   {:>7.1} and {:.1}", rate(before), rate(after));
        println!("  chain_submission   {:>7.1}, {share:.2} of them (wanted: at least {WANTED})", rate(ours));
        anyhow::Ok((share >= WANTED, faults(&node, &pool, &grants, (at.rewards_pool, at.app_id)).await?))
    })?;
    deployment.stop();
    for fault in &faults {
        println!("{fault}");
    }
    Ok(good && faults.is_empty())
}

/// From the first grant on the topic to the last payout with twelve confirmations.
async fn settle(grants: &Grants, pool: &PgPool, rewards: usize) -> Result<Duration> {
    let begun = Instant::now();
    grants.publish()?;
    loop {
        let paid: i64 = sqlx::query_scalar(
            "select count(*) from payouts where state in ('paid', 'final') and reward_id = any($1)",
        )
        .bind(grants.rewards())
        .fetch_one(pool)
        .await?;
        if usize::try_from(paid)? >= rewards {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < LIMIT, "{paid} of {rewards} rewards are settled after {LIMIT:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Whatever the chain's own logs say against it: each granted reward is paid once.
async fn faults(
    node: &Node,
    pool: &PgPool,
    grants: &Grants,
    (contract, app): (chain::Address, chain::AppId),
) -> Result<Vec<String>> {
    let paid = payments::on_chain(node, contract, app).await.context("the chain's logs")?;
    let count = |id| paid.iter().filter(|one| one.reward_id == id).count();
    let mut found: Vec<String> = grants
        .rewards()
        .into_iter()
        .map(|id| (id, count(id)))
        .filter(|(_, count)| *count != 1)
        .map(|(id, count)| format!("reward {id} was paid {count} times"))
        .collect();
    let incidents: i64 =
        sqlx::query_scalar("select count(*) from payout_incidents where resolved_at is null")
            .fetch_one(pool)
            .await?;
    if incidents > 0 {
        found.push(format!("{incidents} incidents are open"));
    }
    Ok(found)
}
