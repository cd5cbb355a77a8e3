//! What is tried out before anything is stored or signed: is everything there that a payment needs, and which of the clauses would
//! fail.

use chain::abi::{Cause, Proof, ProofType, Refusal, RewardCall, RewardKind};
use chain::contract::Contract;
use chain::fee::next_base_fee;
use chain::node::Revision::{Best, Next};
use chain::node::{BlockSummary, CallOutcome, NodeError, Simulation, failing_clause};
use chain::tx::clause_gas;
use chain::{Address, Clause, Node, Wei};
use schemas::logs::ContractInteractionLog;
use serde_json::json;
use uuid::Uuid;

use super::blame::shared_text;
use super::obstacle::{Obstacle, shared_cause};
use crate::chain_submission::ledger::documents::parameters;
use crate::chain_submission::ledger::rows::Payout;
use crate::chain_submission::ledger::transition::wei;
use crate::chain_submission::network::{Network, REWARDS_POOL};

/// First version of the pool whose rewards carry metadata.
const METADATA_SINCE: u32 = 6;

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

/// Asks one node. `owed` is what earlier transactions that are in no block yet will still take from the purse.
///
/// # Errors
/// [`Obstacle`].
pub async fn preflight(
    node: &Node,
    network: &Network,
    signer: Address,
    payouts: Vec<(Payout, Address)>,
    owed: Wei,
) -> Result<Preflight, Obstacle> {
    let best = node.block(Best).await?.ok_or_else(|| Obstacle::NodeUnavailable(NodeError::UnknownBlock))?;
    let kind = inspect(node, network, signer).await?;
    let available = funds(node, network, kind).await?;
    let (mut good, mut due, mut short) = (Vec::<Candidate>::with_capacity(payouts.len()), owed, None);
    for (payout, receiver) in payouts {
        let amount = wei(payout.amount_wei).unwrap_or_default();
        let needed = due.checked_add(amount).unwrap_or(Wei::MAX);
        if needed > available {
            short = Some(Obstacle::NoFunds { needed, available });
            continue;
        }
        due = needed;
        let clause = clause(network, kind, payout.reward_id, amount, receiver);
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
            good.iter()
                .zip(&outcomes)
                .map(|(candidate, outcome)| simulated(network, kind, candidate, outcome)),
        );
        for (candidate, outcome) in good.iter_mut().zip(&outcomes) {
            candidate.gas = outcome.gas_used.saturating_add(clause_gas(&candidate.clause));
        }
        let Some((at, refusal)) = failing_clause(&outcomes) else { break };
        if let Some(obstacle) = shared_cause(&refusal, signer) {
            return Err(match obstacle {
                Obstacle::NoFunds { .. } => funds(node, network, kind)
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
        && let Some(refusal) = refused_to_itself(node, network, kind, signer).await?
    {
        return Err(Obstacle::Refused(refusal.to_string()));
    }
    let base_fee = best.base_fee_per_gas.map(|fee| next_base_fee(fee, best.gas_limit, best.gas_used));
    let priority = node.priority_fee().await?;
    Ok(Preflight { good, bad, best, base_fee, priority, method: kind.method(), short, tried })
}

/// Tries out a reward of 10^-8 B3TR to the distributor itself: why that fails is no fault of any receiver or amount.
async fn refused_to_itself(
    node: &Node,
    network: &Network,
    kind: RewardKind,
    signer: Address,
) -> Result<Option<Refusal>, Obstacle> {
    let clauses = [clause(network, kind, Uuid::nil(), Wei::from(10_000_000_000), signer)];
    let simulation = Simulation { clauses: &clauses, caller: signer, gas_payer: None, gas: None, at: Next };
    let outcomes = node.simulate(&simulation).await?;
    Ok(failing_clause(&outcomes).map(|(_, refusal)| refusal))
}

/// Looks at the pool, the token and the app; says which function pays.
async fn inspect(node: &Node, network: &Network, signer: Address) -> Result<RewardKind, Obstacle> {
    if node.code(network.pool, Best).await?.is_empty() {
        return Err(Obstacle::NoContract(network.pool));
    }
    let pool = Contract::new(node, network.pool, Best);
    let version = pool.pool_version().await?;
    let number: u32 = version.trim().parse().map_err(|_| {
        Obstacle::WrongContract(network.pool, format!("its version is {version:?}, not a number"))
    })?;
    let kind =
        if number >= METADATA_SINCE { RewardKind::WithProofAndMetadata } else { RewardKind::WithProof };
    if kind == RewardKind::WithProofAndMetadata && pool.pool_paused(network.app).await? {
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
    Ok(kind)
}

/// What the app's rewards can be paid from.
async fn funds(node: &Node, network: &Network, kind: RewardKind) -> Result<Wei, Obstacle> {
    let pool = Contract::new(node, network.pool, Best);
    if kind == RewardKind::WithProofAndMetadata && pool.pool_rewards_enabled(network.app).await? {
        return Ok(pool.pool_rewards_balance(network.app).await?);
    }
    Ok(pool.pool_available_funds(network.app).await?)
}

/// A function of its arguments alone: the same reward gives the same bytes. The reward's id stands in what the pool emits, so that
/// the chain itself shows what was paid.
fn clause(network: &Network, kind: RewardKind, reward_id: Uuid, amount: Wei, receiver: Address) -> Clause {
    let call = RewardCall { app: network.app, amount, receiver };
    let proof = Proof {
        evidence: vec![(ProofType::Text, format!("reward {reward_id}"))],
        // Impact keys are left empty: the grant does not know the vehicle's emissions.
        impacts: Vec::new(),
        description: "Verified odometer photo".to_owned(),
    };
    match kind {
        RewardKind::WithProofAndMetadata => {
            call.with_metadata(network.pool, &proof, &json!({"reward_id": reward_id}).to_string())
        }
        RewardKind::WithProof | RewardKind::Plain => call.with_proof(network.pool, &proof),
    }
}

fn simulated(
    network: &Network,
    kind: RewardKind,
    candidate: &Candidate,
    outcome: &CallOutcome,
) -> ContractInteractionLog {
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
