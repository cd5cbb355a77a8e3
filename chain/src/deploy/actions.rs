//! The order of setting up: libraries and implementations, what is built on them, the proxies that need those, then all calls.

use std::collections::BTreeMap;

use alloy_primitives::{Address as Abi, B256, U256};
use alloy_sol_types::{SolCall, SolValue};

use super::interface::{AppsV1, AppsV2, Creator, NodeManagement, PassportSetup, PoolSetup, Setup};
use super::{Artifacts, DeployError, Deployment, Operator, PUBLIC_CHAIN_TAGS, Plan};
use crate::abi;
use crate::hash::keccak256;
use crate::id::{Address, AppId, TxId};
use crate::node::Node;
use crate::signer::Signer;
use crate::tx::Clause;

/// Libraries of the registry of apps and of the passport.
const LIBRARIES: [&str; 11] = [
    "AdministrationUtils",
    "EndorsementUtils",
    "VoteEligibilityUtils",
    "PassportChecksLogic",
    "PassportConfigurator",
    "PassportDelegationLogic",
    "PassportEntityLogic",
    "PassportPersonhoodLogic",
    "PassportPoPScoreLogic",
    "PassportSignalingLogic",
    "PassportWhitelistAndBlacklistLogic",
];

/// Impact keys that the pool starts with on mainnet.
pub(super) const IMPACT_KEYS: [&str; 8] =
    ["carbon", "water", "energy", "waste_mass", "education_time", "timber", "plastic", "trees_planted"];

/// Twelve bytes that return the ten after them as a contract's code, which returns 1 whatever it is asked:
/// `PUSH1 1, PUSH1 0, MSTORE, PUSH1 32, PUSH1 0, RETURN`.
const RETURNS_ONE: &str = "600a600c600039600a6000f3600160005260206000f3";

/// Init code in one transaction at most: 64 KiB less what the rest of a transaction takes.
const MAX_CREATION_BYTES: usize = 60 * 1024;

/// Blocks before an app without endorsement is dropped; more than a local chain lives.
const GRACE_PERIOD_BLOCKS: u64 = 100_000_000;

/// Strength of the node that endorses: Mjolnir, 100 points, the threshold of an app.
const MJOLNIR: u8 = 7;

type Addresses = BTreeMap<&'static str, Address>;

/// Puts everything on a local chain. Running it again makes a second, independent set: keep the first one's [`Deployment`].
///
/// # Errors
/// Any [`DeployError`]; [`DeployError::PublicNetwork`] before anything is sent to mainnet or testnet.
pub async fn deploy(
    node: &Node,
    artifacts: &Artifacts,
    admin: &Signer,
    plan: &Plan,
) -> Result<Deployment, DeployError> {
    let operator = Operator::new(node, admin).await?;
    let chain_tag = operator.genesis().chain_tag();
    if PUBLIC_CHAIN_TAGS.contains(&chain_tag) {
        return Err(DeployError::PublicNetwork(chain_tag));
    }
    let who = admin.address();
    let (base, _) = create(&operator, "implementations", implementations(artifacts, who)?).await?;
    let (built, _) = create(&operator, "registries", registries(artifacts, &base, who)?).await?;
    let (proxies, created_by) =
        create(&operator, "pool and passport", pool_and_passport(artifacts, &base, &built, who)?).await?;

    let app_id = AppId(keccak256(plan.app_name.as_bytes()));
    let contracts = Contracts { base: &base, built: &built, proxies: &proxies };
    let clauses = set_up(&contracts, who, plan, app_id);
    let receipt = operator.send("setting up the app", clauses).await?;
    Ok(Deployment {
        genesis_id: operator.genesis(),
        chain_tag,
        block_number: receipt.meta.block_number,
        b3tr: base["B3TR"],
        rewards_pool: proxies["X2EarnRewardsPool"],
        x2earn_apps: built["X2EarnApps"],
        passport: proxies["VeBetterPassport"],
        app_id,
        app_name: plan.app_name.clone(),
        admin: who,
        distributor: plan.distributor,
        funds: plan.funds,
        created_by,
    })
}

type Creation = (&'static str, Vec<u8>);

/// Creates contracts, as many in a transaction as fit, all transactions on their way at once; also returns which was the last.
async fn create(
    operator: &Operator<'_>,
    action: &str,
    creations: Vec<Creation>,
) -> Result<(Addresses, TxId), DeployError> {
    let mut sent = Vec::new();
    for group in groups(creations) {
        let names: Vec<_> = group.iter().map(|(name, _)| *name).collect();
        let clauses = group.into_iter().map(|(_, code)| Clause::create(code)).collect();
        sent.push((names, operator.submit(action, clauses).await?));
    }
    let (mut addresses, mut last) = (Addresses::new(), TxId::default());
    for (names, id) in sent {
        last = id;
        let receipt = operator.wait(action, id).await?;
        for (index, name) in names.into_iter().enumerate() {
            let address = receipt.outputs.get(index).and_then(|output| output.contract_address);
            addresses.insert(name, address.ok_or_else(|| DeployError::NoAddress(name.to_owned()))?);
        }
    }
    Ok((addresses, last))
}

/// Splits in order so that each group's code stays below [`MAX_CREATION_BYTES`]; no single contract exceeds it (24 KiB of code).
fn groups(creations: Vec<Creation>) -> Vec<Vec<Creation>> {
    let mut groups: Vec<Vec<Creation>> = Vec::new();
    let mut size = usize::MAX;
    for creation in creations {
        size = size.saturating_add(creation.1.len());
        match groups.last_mut() {
            Some(group) if size <= MAX_CREATION_BYTES => group.push(creation),
            _ => {
                size = creation.1.len();
                groups.push(vec![creation]);
            }
        }
    }
    groups
}

/// What needs nothing else.
fn implementations(artifacts: &Artifacts, admin: Address) -> Result<Vec<Creation>, DeployError> {
    let none = BTreeMap::new();
    let admins = (to(admin), to(admin), to(admin)).abi_encode_params();
    let mut creations = vec![
        ("B3TR", artifacts.init_code("B3TR", &none, &admins)?),
        ("stub", hex::decode(RETURNS_ONE).map_err(|e| DeployError::Artifacts(e.to_string()))?),
    ];
    let plain = ["TokenAuction", "NodeManagement", "X2EarnCreator", "X2EarnAppsV1", "X2EarnRewardsPool"];
    for name in LIBRARIES.into_iter().chain(plain) {
        creations.push((name, artifacts.init_code(name, &none, &[])?));
    }
    Ok(creations)
}

/// What needs libraries or implementations: the auction, the later registry, the passport, and three proxies.
fn registries(artifacts: &Artifacts, base: &Addresses, admin: Address) -> Result<Vec<Creation>, DeployError> {
    let none = BTreeMap::new();
    let auction = (to(base["TokenAuction"]), to(admin)).abi_encode_params();
    let nodes = NodeManagement::initializeCall {
        vechainNodes: to(base["TokenAuction"]),
        admin: to(admin),
        upgrader: to(admin),
    };
    let creator = Creator::initializeCall { baseURI: "ipfs://local/".to_owned(), admin: to(admin) };
    let apps = AppsV1::initializeCall {
        baseURI: "ipfs://".to_owned(),
        admins: vec![to(admin)],
        upgrader: to(admin),
        governor: to(admin),
    };
    Ok(vec![
        ("ClockAuction", artifacts.init_code("ClockAuction", &none, &auction)?),
        ("X2EarnAppsV2", artifacts.init_code("X2EarnApps", base, &[])?),
        ("PassportCode", artifacts.init_code("VeBetterPassport", base, &[])?),
        ("NodeManagement", proxy(artifacts, base["NodeManagement"], nodes.abi_encode())?),
        ("X2EarnCreator", proxy(artifacts, base["X2EarnCreator"], creator.abi_encode())?),
        ("X2EarnApps", proxy(artifacts, base["X2EarnAppsV1"], apps.abi_encode())?),
    ])
}

/// The two proxies that must know the registry of apps.
fn pool_and_passport(
    artifacts: &Artifacts,
    base: &Addresses,
    built: &Addresses,
    admin: Address,
) -> Result<Vec<Creation>, DeployError> {
    let passport = PassportSetup::initializeCall {
        // Thresholds as on mainnet where they matter to a payout: more than 2 reports make a bot.
        settings: PassportSetup::Settings {
            xAllocationVoting: to(base["stub"]),
            x2EarnApps: to(built["X2EarnApps"]),
            galaxyMember: to(base["stub"]),
            signalingThreshold: U256::from(2),
            roundsForCumulativeScore: U256::from(12),
            minimumGalaxyMemberLevel: U256::from(2),
            blacklistThreshold: U256::from(20),
            whitelistThreshold: U256::from(20),
            maxEntitiesPerPassport: U256::from(5),
            decayRate: U256::ZERO,
        },
        roles: PassportSetup::Roles {
            admin: to(admin),
            botSignaler: to(admin),
            upgrader: to(admin),
            settingsManager: to(admin),
            roleGranter: to(admin),
            blacklister: to(admin),
            whitelister: to(admin),
            actionRegistrar: to(admin),
            actionScoreManager: to(admin),
        },
    };
    let pool = PoolSetup::initializeCall {
        admin: to(admin),
        contractsAdmin: to(admin),
        upgrader: to(admin),
        b3tr: to(base["B3TR"]),
        apps: to(built["X2EarnApps"]),
    };
    Ok(vec![
        ("VeBetterPassport", proxy(artifacts, built["PassportCode"], passport.abi_encode())?),
        ("X2EarnRewardsPool", proxy(artifacts, base["X2EarnRewardsPool"], pool.abi_encode())?),
    ])
}

fn proxy(artifacts: &Artifacts, implementation: Address, data: Vec<u8>) -> Result<Vec<u8>, DeployError> {
    let arguments = (to(implementation), alloy_primitives::Bytes::from(data)).abi_encode_params();
    artifacts.init_code("B3TRProxy", &BTreeMap::new(), &arguments)
}

/// What was created, by the action that created it.
struct Contracts<'a> {
    base: &'a Addresses,
    built: &'a Addresses,
    proxies: &'a Addresses,
}

/// All calls, in one transaction: all take effect or none does.
fn set_up(
    Contracts { base, built, proxies }: &Contracts<'_>,
    admin: Address,
    plan: &Plan,
    app: AppId,
) -> Vec<Clause> {
    let (token, nodes, apps) = (base["B3TR"], base["TokenAuction"], built["X2EarnApps"]);
    let (pool, passport, creator) =
        (proxies["X2EarnRewardsPool"], proxies["VeBetterPassport"], built["X2EarnCreator"]);
    let upgrade = AppsV2::initializeV2Call {
        gracePeriod: alloy_primitives::Uint::from(GRACE_PERIOD_BLOCKS),
        nodeManagement: to(built["NodeManagement"]),
        passport: to(passport),
        creator: to(creator),
    };
    let keys = IMPACT_KEYS.map(str::to_owned).to_vec();
    let id = B256::from(app.0);
    vec![
        call(nodes, &Setup::addOperatorCall { operator: to(admin) }),
        call(nodes, &Setup::setSaleAuctionAddressCall { auction: to(built["ClockAuction"]) }),
        call(
            apps,
            &Setup::upgradeToAndCallCall {
                implementation: to(built["X2EarnAppsV2"]),
                data: upgrade.abi_encode().into(),
            },
        ),
        call(creator, &Setup::grantRoleCall { role: role("MINTER_ROLE"), to: to(apps) }),
        call(creator, &Setup::safeMintCall { to: to(admin) }),
        call(pool, &PoolSetup::initializeV2Call { impactKeyManager: to(admin), impactKeys: keys }),
        call(pool, &PoolSetup::initializeV3Call { passport: to(passport) }),
        call(passport, &Setup::grantRoleCall { role: role("ACTION_REGISTRAR_ROLE"), to: to(pool) }),
        call(passport, &Setup::grantRoleCall { role: role("ACTION_SCORE_MANAGER_ROLE"), to: to(apps) }),
        call(
            apps,
            &Setup::submitAppCall {
                teamWallet: to(admin),
                admin: to(admin),
                appName: plan.app_name.clone(),
                metadataURI: "local".to_owned(),
            },
        ),
        call(
            nodes,
            &Setup::addTokenCall {
                to: to(admin),
                level: MJOLNIR,
                onUpgrade: false,
                applyUpgradeTime: 0,
                applyUpgradeBlockno: 0,
            },
        ),
        call(apps, &Setup::endorseAppCall { appId: id, nodeId: U256::from(1) }),
        call(apps, &Setup::addRewardDistributorCall { appId: id, distributor: to(plan.distributor) }),
        call(token, &Setup::mintCall { to: to(admin), amount: plan.funds.0 }),
        abi::approve(token, pool, plan.funds),
        abi::deposit(pool, app, plan.funds),
    ]
}

pub(super) fn call(contract: Address, call: &impl SolCall) -> Clause {
    Clause::call(contract, call.abi_encode())
}

pub(super) fn role(name: &str) -> B256 {
    B256::from(keccak256(name.as_bytes()))
}

pub(super) fn to(address: Address) -> Abi {
    abi::account(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creations_are_grouped_in_order_below_the_size_of_a_transaction() {
        let creation = |name, kib: usize| (name, vec![0; kib * 1024]);
        let grouped = groups(vec![
            creation("a", 30),
            creation("b", 30),
            creation("c", 1),
            creation("d", 59),
            creation("e", 2),
        ]);
        let names: Vec<Vec<_>> =
            grouped.iter().map(|group| group.iter().map(|(name, _)| *name).collect()).collect();
        assert_eq!(names, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
        assert!(groups(vec![]).is_empty());
    }
}
