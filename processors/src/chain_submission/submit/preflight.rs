//! What is tried out before anything is stored or signed: is everything there that a payment needs, and which of the clauses would
//! fail.

use chain::abi::{Cause, Refusal, RewardKind};
use chain::fee::next_base_fee;
use chain::node::Revision::{Best, Next};
use chain::node::{BlockSummary, Simulation, failing_clause};
use chain::tx::clause_gas;
use chain::{Address, Clause, Node, Wei};
use schemas::ids::Micros;
use schemas::impact::CARBON;
use serde_json::json;
use uuid::Uuid;

use super::blame::shared_text;
use super::journal::Journal;
use super::obstacle::{Obstacle, shared_cause};
use super::proof::{Action, Means};
use super::rounds::Rounds;
use crate::chain_submission::ledger::rows::Payout;
use crate::chain_submission::ledger::transition::wei;
use crate::chain_submission::network::{APPS, Network, REWARDS_POOL, TOKEN};

/// First version of the pool whose rewards carry metadata.
const METADATA_SINCE: u32 = 6;
/// First version that an app's admin can pause, and that can keep rewards in a purse of their own.
const PURSE_SINCE: u32 = 7;
/// First version that takes the round in which an action was done. Later ones are called like this one: a preflight shows whether they
/// take it.
const ROUNDS_SINCE: u32 = 8;

/// A payout with the clause that would pay it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What is owed.
    pub payout: Payout,
    /// Whom.
    pub receiver: Address,
    /// Wei of B3TR.
    pub amount: Wei,
    /// The call.
    pub clause: Clause,
    /// Simulated and intrinsic gas of the clause.
    pub gas: u64,
}

/// What a preflight found.
#[derive(Debug)]
pub struct Preflight {
    /// Candidates whose clauses succeed together, in this order.
    pub good: Vec<Candidate>,
    /// Candidates that fail for a reason of their own.
    pub bad: Vec<(Candidate, Refusal)>,
    /// The block that the plan refers to.
    pub best: BlockSummary,
    /// Base fee of the next block, wei of VTHO per gas; none before dynamic fees.
    pub base_fee: Option<Wei>,
    /// The tip that the node suggests.
    pub priority: Wei,
    /// The pool's function that is called.
    pub method: &'static str,
    /// What the purse lacks for those that are left out.
    pub short: Option<Obstacle>,
}

/// Who asks for what.
pub struct Asking<'a> {
    /// The network's contracts.
    pub network: &'a Network,
    /// The distributor.
    pub signer: Address,
    /// Where the pages of rewards are.
    pub base: Option<&'a str>,
    /// What earlier transactions that are in no block yet will still take from the purse.
    pub owed: Wei,
}

/// Asks one node whether these payouts can be paid by a transaction that refers to `best`, its newest block.
///
/// # Errors
/// [`Obstacle`].
pub async fn preflight(
    node: &Node,
    asking: &Asking<'_>,
    journal: &mut Journal,
    (best, payouts): (BlockSummary, Vec<(Payout, Address)>),
) -> Result<Preflight, Obstacle> {
    let Asking { network, signer, base, owed } = *asking;
    let version = match journal.inspected(network.pool) {
        Some(version) => version,
        None => inspect(node, network, signer, journal).await?,
    };
    journal.inspect(network.pool, version);
    if version >= ROUNDS_SINCE {
        let accepted = payouts.iter().map(|(payout, _)| payout.header.accepted_at);
        journal.rounds.read(node, network, accepted.min().unwrap_or(Micros(0))).await?;
    }
    let means = Means { network, base, kind: kind(version, &journal.rounds) };
    let available = funds(node, network, version, journal).await?;
    let (mut good, mut due, mut short) = (Vec::<Candidate>::with_capacity(payouts.len()), owed, None);
    for (payout, receiver) in payouts {
        let amount = wei(payout.amount_wei).unwrap_or_default();
        let needed = due.checked_add(amount).unwrap_or(Wei::MAX);
        if needed > available {
            short = Some(Obstacle::NoFunds { needed, available });
            continue;
        }
        due = needed;
        let action = Action::of(&payout, amount, journal.rounds.of(payout.header.accepted_at));
        let clause = means.clause(&action, receiver);
        good.push(Candidate { payout, receiver, amount, clause, gas: 0 });
    }
    if good.is_empty() {
        return Err(short.unwrap_or(Obstacle::NoFunds { needed: due, available }));
    }
    let count = good.len();
    let mut bad = Vec::<(Candidate, Refusal)>::new();
    loop {
        let clauses: Vec<Clause> = good.iter().map(|candidate| candidate.clause.clone()).collect();
        if clauses.is_empty() {
            break;
        }
        let simulation =
            Simulation { clauses: &clauses, caller: signer, gas_payer: None, gas: None, at: Next };
        let outcomes = node.simulate(&simulation).await?;
        for (candidate, outcome) in good.iter().zip(&outcomes) {
            journal.simulated(&means, (candidate.amount, candidate.receiver, &candidate.clause), outcome);
        }
        for (candidate, outcome) in good.iter_mut().zip(&outcomes) {
            candidate.gas = outcome.gas_used.saturating_add(clause_gas(&candidate.clause));
        }
        let Some((at, refusal)) = failing_clause(&outcomes) else { break };
        if let Some(obstacle) = shared_cause(&refusal, signer) {
            return Err(match obstacle {
                Obstacle::NoFunds { .. } => funds(node, network, version, journal)
                    .await
                    .map_or_else(|error| error, |available| Obstacle::NoFunds { needed: due, available }),
                other => other,
            });
        }
        bad.push((good.remove(at), refusal));
        if let Some(refusal) = shared_text(count, bad.iter().map(|(_, refusal)| refusal)) {
            return Err(Obstacle::Refused(refusal.to_string()));
        }
    }
    if bad.iter().any(|(_, refusal)| refusal.cause == Cause::Other)
        && let Some(refusal) = refused_to_itself(node, &means, signer, &journal.rounds).await?
    {
        return Err(Obstacle::Refused(refusal.to_string()));
    }
    let base_fee = best.base_fee_per_gas.map(|fee| next_base_fee(fee, best.gas_limit, best.gas_used));
    let priority = node.priority_fee().await?;
    Ok(Preflight { good, bad, best, base_fee, priority, method: means.kind.method(), short })
}

/// Tries out a reward of 10^-8 B3TR to the distributor itself: why that fails is no fault of any receiver or amount.
async fn refused_to_itself(
    node: &Node,
    means: &Means<'_>,
    signer: Address,
    rounds: &Rounds,
) -> Result<Option<Refusal>, Obstacle> {
    let (amount, round) = (Wei::from(10_000_000_000), rounds.of(Micros(i64::MAX)));
    let action = Action { reward_id: Uuid::nil(), amount, distance_km: None, vehicle_kind: "", round };
    let clauses = [means.clause(&action, signer)];
    let simulation = Simulation { clauses: &clauses, caller: signer, gas_payer: None, gas: None, at: Next };
    let outcomes = node.simulate(&simulation).await?;
    Ok(failing_clause(&outcomes).map(|(_, refusal)| refusal))
}

/// The function that a version of the pool is called by.
fn kind(version: u32, rounds: &Rounds) -> RewardKind {
    match version {
        ROUNDS_SINCE.. if rounds.known() => RewardKind::WithProofAndMetadataForRound,
        METADATA_SINCE.. => RewardKind::WithProofAndMetadata,
        _ => RewardKind::WithProof,
    }
}

/// Looks at the pool, the token and the app; says which version the pool is of.
async fn inspect(
    node: &Node,
    network: &Network,
    signer: Address,
    journal: &mut Journal,
) -> Result<u32, Obstacle> {
    if node.code(network.pool, Best).await?.is_empty() {
        return Err(Obstacle::NoContract(network.pool));
    }
    let (pool, none) = (journal.contract(node, network.pool), json!({}));
    let of_app = json!({"appId": network.app.to_string()});
    let version = journal.note(REWARDS_POOL, &none, pool.pool_version().await, |version| json!(version))?;
    let number: u32 = version.trim().parse().map_err(|_| {
        Obstacle::WrongContract(network.pool, format!("its version is {version:?}, not a number"))
    })?;
    let keys = journal.note(REWARDS_POOL, &none, pool.pool_impact_keys().await, |keys| json!(keys))?;
    // An unknown key would fail every payment.
    if !keys.iter().any(|key| key == CARBON) {
        return Err(Obstacle::ImpactKey(CARBON));
    }
    if number >= PURSE_SINCE
        && journal.note(REWARDS_POOL, &of_app, pool.pool_paused(network.app).await, |paused| json!(paused))?
    {
        return Err(Obstacle::Paused("the app's distribution is paused".to_owned()));
    }
    if let Some(token) = network.token {
        let token = journal.contract(node, token);
        if journal.note(TOKEN, &none, token.token_paused().await, |paused| json!(paused))? {
            return Err(Obstacle::Paused("B3TR is paused".to_owned()));
        }
    }
    if let Some(apps) = network.apps {
        let apps = journal.contract(node, apps);
        if !journal.note(APPS, &of_app, apps.app_exists(network.app).await, |exists| json!(exists))? {
            return Err(Obstacle::UnknownApp(network.app.to_string()));
        }
        let asked = json!({"appId": network.app.to_string(), "distributor": signer.to_string()});
        let may = apps.is_reward_distributor(network.app, signer).await;
        if !journal.note(APPS, &asked, may, |may| json!(may))? {
            return Err(Obstacle::NotDistributor(signer));
        }
    }
    Ok(number)
}

/// What the app's rewards can be paid from.
async fn funds(node: &Node, network: &Network, version: u32, journal: &mut Journal) -> Result<Wei, Obstacle> {
    let (pool, app) = (journal.contract(node, network.pool), network.app);
    let asked = json!({"appId": app.to_string()});
    let wei = |wei: &Wei| json!(wei.to_string());
    let own_purse = version >= PURSE_SINCE
        && journal.note(REWARDS_POOL, &asked, pool.pool_rewards_enabled(app).await, |own| json!(own))?;
    let read =
        if own_purse { pool.pool_rewards_balance(app).await } else { pool.pool_available_funds(app).await };
    Ok(journal.note(REWARDS_POOL, &asked, read, wei)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_of_the_pool_is_called_by_the_function_that_it_has() {
        let methods = [4, 5, 6, 7, 8, 9].map(|version| kind(version, &Rounds::default()).method());
        let (proof, metadata) = ("distributeRewardWithProof", "distributeRewardWithProofAndMetadata");
        assert_eq!(methods, [proof, proof, metadata, metadata, metadata, metadata]);
    }
}
