//! What is tried out before anything is stored or signed: is everything there that a payment needs, and which of the clauses would
//! fail.

use chain::abi::{Cause, Refusal, RewardKind};
use chain::contract::Contract;
use chain::fee::next_base_fee;
use chain::node::Revision::{Best, Next};
use chain::node::{BlockSummary, CallOutcome, NodeError, Simulation, failing_clause};
use chain::tx::clause_gas;
use chain::{Address, Clause, Node, Wei};
use schemas::ids::Micros;
use schemas::impact::CARBON;
use schemas::logs::ContractInteractionLog;
use serde_json::json;
use uuid::Uuid;

use super::blame::shared_text;
use super::obstacle::{Obstacle, shared_cause};
use super::proof::{Action, Means};
use super::rounds::Rounds;
use crate::chain_submission::ledger::documents::parameters;
use crate::chain_submission::ledger::rows::Payout;
use crate::chain_submission::ledger::transition::wei;
use crate::chain_submission::network::{Network, REWARDS_POOL};

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
    /// The simulations, for the log collections.
    pub tried: Vec<ContractInteractionLog>,
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

/// Asks one node.
///
/// # Errors
/// [`Obstacle`].
pub async fn preflight(
    node: &Node,
    asking: &Asking<'_>,
    rounds: &mut Rounds,
    payouts: Vec<(Payout, Address)>,
) -> Result<Preflight, Obstacle> {
    let Asking { network, signer, base, owed } = *asking;
    let best = node.block(Best).await?.ok_or_else(|| Obstacle::NodeUnavailable(NodeError::UnknownBlock))?;
    let version = inspect(node, network, signer).await?;
    if version >= ROUNDS_SINCE {
        let accepted = payouts.iter().map(|(payout, _)| payout.header.accepted_at);
        rounds.read(node, network, accepted.min().unwrap_or(Micros(0))).await?;
    }
    let means = Means { network, base, kind: kind(version, rounds) };
    let available = funds(node, network, version).await?;
    let (mut good, mut due, mut short) = (Vec::<Candidate>::with_capacity(payouts.len()), owed, None);
    for (payout, receiver) in payouts {
        let amount = wei(payout.amount_wei).unwrap_or_default();
        let needed = due.checked_add(amount).unwrap_or(Wei::MAX);
        if needed > available {
            short = Some(Obstacle::NoFunds { needed, available });
            continue;
        }
        due = needed;
        let action = Action::of(&payout, amount, rounds.of(payout.header.accepted_at));
        let clause = means.clause(&action, receiver);
        good.push(Candidate { payout, receiver, amount, clause, gas: 0 });
    }
    if good.is_empty() {
        return Err(short.unwrap_or(Obstacle::NoFunds { needed: due, available }));
    }
    let count = good.len();
    let (mut bad, mut tried) = (Vec::<(Candidate, Refusal)>::new(), Vec::new());
    loop {
        let clauses: Vec<Clause> = good.iter().map(|candidate| candidate.clause.clone()).collect();
        if clauses.is_empty() {
            break;
        }
        let simulation =
            Simulation { clauses: &clauses, caller: signer, gas_payer: None, gas: None, at: Next };
        let outcomes = node.simulate(&simulation).await?;
        tried.extend(
            good.iter().zip(&outcomes).map(|(candidate, outcome)| simulated(&means, candidate, outcome)),
        );
        for (candidate, outcome) in good.iter_mut().zip(&outcomes) {
            candidate.gas = outcome.gas_used.saturating_add(clause_gas(&candidate.clause));
        }
        let Some((at, refusal)) = failing_clause(&outcomes) else { break };
        if let Some(obstacle) = shared_cause(&refusal, signer) {
            return Err(match obstacle {
                Obstacle::NoFunds { .. } => funds(node, network, version)
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
        && let Some(refusal) = refused_to_itself(node, &means, signer, rounds).await?
    {
        return Err(Obstacle::Refused(refusal.to_string()));
    }
    let base_fee = best.base_fee_per_gas.map(|fee| next_base_fee(fee, best.gas_limit, best.gas_used));
    let priority = node.priority_fee().await?;
    Ok(Preflight { good, bad, best, base_fee, priority, method: means.kind.method(), short, tried })
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
async fn inspect(node: &Node, network: &Network, signer: Address) -> Result<u32, Obstacle> {
    if node.code(network.pool, Best).await?.is_empty() {
        return Err(Obstacle::NoContract(network.pool));
    }
    let pool = Contract::new(node, network.pool, Best);
    let version = pool.pool_version().await?;
    let number: u32 = version.trim().parse().map_err(|_| {
        Obstacle::WrongContract(network.pool, format!("its version is {version:?}, not a number"))
    })?;
    // An unknown key would fail every payment.
    if !pool.pool_impact_keys().await?.iter().any(|key| key == CARBON) {
        return Err(Obstacle::ImpactKey(CARBON));
    }
    if number >= PURSE_SINCE && pool.pool_paused(network.app).await? {
        return Err(Obstacle::Paused("the app's distribution is paused".to_owned()));
    }
    if let Some(token) = network.token
        && Contract::new(node, token, Best).token_paused().await?
    {
        return Err(Obstacle::Paused("B3TR is paused".to_owned()));
    }
    if let Some(apps) = network.apps {
        let apps = Contract::new(node, apps, Best);
        if !apps.app_exists(network.app).await? {
            return Err(Obstacle::UnknownApp(network.app.to_string()));
        }
        if !apps.is_reward_distributor(network.app, signer).await? {
            return Err(Obstacle::NotDistributor(signer));
        }
    }
    Ok(number)
}

/// What the app's rewards can be paid from.
async fn funds(node: &Node, network: &Network, version: u32) -> Result<Wei, Obstacle> {
    let pool = Contract::new(node, network.pool, Best);
    if version >= PURSE_SINCE && pool.pool_rewards_enabled(network.app).await? {
        return Ok(pool.pool_rewards_balance(network.app).await?);
    }
    Ok(pool.pool_available_funds(network.app).await?)
}

fn simulated(means: &Means<'_>, candidate: &Candidate, outcome: &CallOutcome) -> ContractInteractionLog {
    let Means { network, kind, .. } = *means;
    let failure = outcome.failure();
    let gas = i64::try_from(outcome.gas_used).ok();
    ContractInteractionLog {
        contract_address: network.pool.to_string(),
        contract_name: REWARDS_POOL.to_owned(),
        method_name: kind.method().to_owned(),
        parameters: parameters(
            &network.app.to_string(),
            &candidate.amount.to_string(),
            &candidate.receiver.to_string(),
        ),
        gas_estimated: i64::try_from(outcome.gas_used.saturating_add(clause_gas(&candidate.clause))).ok(),
        gas_used: gas,
        success: failure.is_none(),
        return_value: failure.is_none().then(|| json!({"data": format!("0x{}", hex::encode(&outcome.data))})),
        error_message: failure.map(|refusal| refusal.to_string()),
        call_kind: "simulate".to_owned(),
        tx_hash: None,
    }
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
