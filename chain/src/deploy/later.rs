//! A reward pool of a later version than the package of the contracts holds, beside a deployment: `contracts/LaterRewardsPool.sol`, the
//! least that acts as versions 7 to 9 towards whoever pays, with rounds that are turned by hand.

use std::collections::BTreeMap;

use alloy_primitives::U256;
use alloy_sol_types::{SolCall as _, SolValue as _};

use super::actions::{IMPACT_KEYS, call, role, to};
use super::interface::{PausedPool, Setup, TurnedRounds};
use super::{Artifacts, DeployError, Deployment, Operator};
use crate::abi;
use crate::amount::Wei;
use crate::id::{Address, AppId};
use crate::node::Node;
use crate::signer::Signer;
use crate::tx::Clause;

/// A pool of a later version, with the purse of the deployment's app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaterPool {
    /// The pool.
    pub pool: Address,
    /// Its rounds; none has begun.
    pub rounds: Address,
}

impl LaterPool {
    /// The clause that begins the next round.
    #[must_use]
    pub fn turn(&self) -> Clause {
        Clause::call(self.rounds, TurnedRounds::startNewRoundCall {}.abi_encode())
    }

    /// The clause by which the app's admin stops its rewards, or lets them go on.
    #[must_use]
    pub fn pause(&self, app: AppId, stopped: bool) -> Clause {
        let id = abi::word(app);
        if stopped {
            call(self.pool, &PausedPool::pauseDistributionCall { appId: id })
        } else {
            call(self.pool, &PausedPool::unpauseDistributionCall { appId: id })
        }
    }
}

/// Puts a pool of `version` beside a deployment, for the same token, apps and passport, and `funds` into its purse of the app. It allows
/// these impact keys, or mainnet's where none are named.
///
/// # Errors
/// Any [`DeployError`].
pub async fn later_pool(
    node: &Node,
    artifacts: &Artifacts,
    admin: &Signer,
    at: &Deployment,
    (version, funds, keys): (u32, Wei, &[&str]),
) -> Result<LaterPool, DeployError> {
    let (operator, none) = (Operator::new(node, admin).await?, BTreeMap::new());
    let rounds = created(&operator, artifacts.init_code("TurnedRounds", &none, &[])?).await?;
    let keys = if keys.is_empty() { &IMPACT_KEYS } else { keys };
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    let arguments = (U256::from(version), to(at.b3tr), to(at.x2earn_apps), to(at.passport), to(rounds), keys);
    let code = artifacts.init_code("LaterRewardsPool", &none, &arguments.abi_encode_params())?;
    let pool = created(&operator, code).await?;
    let clauses = vec![
        call(at.passport, &Setup::grantRoleCall { role: role("ACTION_REGISTRAR_ROLE"), to: to(pool) }),
        call(at.b3tr, &Setup::mintCall { to: to(admin.address()), amount: funds.0 }),
        abi::approve(at.b3tr, pool, funds),
        abi::deposit(pool, at.app_id, funds),
    ];
    operator.send("filling the later pool", clauses).await?;
    Ok(LaterPool { pool, rounds })
}

async fn created(operator: &Operator<'_>, code: Vec<u8>) -> Result<Address, DeployError> {
    let receipt = operator.send("a contract of the later pool", vec![Clause::create(code)]).await?;
    let address = receipt.outputs.first().and_then(|output| output.contract_address);
    address.ok_or_else(|| DeployError::NoAddress("LaterRewardsPool".to_owned()))
}
