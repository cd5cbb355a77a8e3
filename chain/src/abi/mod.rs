//! Calls and events of the `VeBetterDAO` contracts. The interface is our own: the npm package carries the reward pool's version 4,
//! networks run later ones, and only what both share or what we decode is declared here.

mod calls;
mod events;
mod proof;
mod refusal;

pub use calls::{RewardCall, RewardKind, TokenTransfer, approve, deposit, transfer};
pub use events::{ContractEvent, topic};
pub use proof::{Proof, ProofError, ProofType};
pub use refusal::{Cause, Refusal};

pub(crate) use interface::{Apps, Passport, RewardsPool, Token, Voting};

use crate::amount::Wei;
use crate::id::{Address, AppId};

/// Declarations as the contracts' sources have them; their documentation is there.
#[allow(missing_docs)]
mod interface {
    alloy_sol_types::sol! {
        /// X2EarnRewardsPool, versions 4 to 8; the functions `…ForRound` are version 8's.
        interface RewardsPool {
            event RewardDistributed(uint256 amount, bytes32 indexed appId, address indexed receiver, string proof, address indexed distributor);
            event RewardMetadata(uint256 amount, bytes32 indexed appId, address indexed receiver, string metadata, address indexed distributor);
            event RegisterActionFailed(string reason, bytes lowLevelData);
            event NewDeposit(uint256 amount, bytes32 indexed appId, address indexed depositor);
            event TeamWithdrawal(uint256 amount, bytes32 indexed appId, address indexed teamWallet, address withdrawer, string reason);
            event AppPaused(bytes32 indexed appId, address indexed admin);
            event AppUnpaused(bytes32 indexed appId, address indexed admin);
            event RewardsPoolBalanceUpdated(bytes32 indexed appId, uint256 amount, uint256 availableFunds, uint256 rewardsPoolBalance);

            function distributeReward(bytes32 appId, uint256 amount, address receiver, string proof) external;
            function distributeRewardWithProof(bytes32 appId, uint256 amount, address receiver, string[] proofTypes, string[] proofValues, string[] impactCodes, uint256[] impactValues, string description) external;
            function distributeRewardWithProofAndMetadata(bytes32 appId, uint256 amount, address receiver, string[] proofTypes, string[] proofValues, string[] impactCodes, uint256[] impactValues, string description, string metadata) external;
            function distributeRewardForRound(bytes32 appId, uint256 amount, address receiver, string proof, uint256 actionRound) external;
            function distributeRewardWithProofForRound(bytes32 appId, uint256 amount, address receiver, string[] proofTypes, string[] proofValues, string[] impactCodes, uint256[] impactValues, string description, uint256 actionRound) external;
            function distributeRewardWithProofAndMetadataForRound(bytes32 appId, uint256 amount, address receiver, string[] proofTypes, string[] proofValues, string[] impactCodes, uint256[] impactValues, string description, string metadata, uint256 actionRound) external;
            function deposit(uint256 amount, bytes32 appId) external returns (bool);
            function availableFunds(bytes32 appId) external view returns (uint256);
            function rewardsPoolBalance(bytes32 appId) external view returns (uint256);
            function isRewardsPoolEnabled(bytes32 appId) external view returns (bool);
            function isDistributionPaused(bytes32 appId) external view returns (bool);
            function getAllowedImpactKeys() external view returns (string[] memory);
            function version() external view returns (string memory);
        }

        /// B3TR.
        interface Token {
            event Transfer(address indexed from, address indexed to, uint256 value);
            error EnforcedPause();
            error ERC20InvalidReceiver(address receiver);
            error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
            error ERC20InsufficientAllowance(address spender, uint256 allowance, uint256 needed);

            function transfer(address to, uint256 value) external returns (bool);
            function approve(address spender, uint256 value) external returns (bool);
            function balanceOf(address account) external view returns (uint256);
            function totalSupply() external view returns (uint256);
            function paused() external view returns (bool);
        }

        /// X2EarnApps.
        interface Apps {
            function appExists(bytes32 appId) external view returns (bool);
            function isRewardDistributor(bytes32 appId, address distributor) external view returns (bool);
        }

        /// VeBetterPassport.
        interface Passport {
            event RegisteredAction(address indexed user, address passport, bytes32 indexed appId, uint256 indexed round, uint256 actionScore);
            function isPerson(address user) external view returns (bool person, string memory reason);
            function isBlacklisted(address user) external view returns (bool);
            function isWhitelisted(address user) external view returns (bool);
            function signaledCounter(address user) external view returns (uint256);
            function signalingThreshold() external view returns (uint256);
        }

        /// XAllocationVoting: the rounds that actions count in.
        interface Voting {
            function currentRoundId() external view returns (uint256);
            function roundSnapshot(uint256 roundId) external view returns (uint256);
        }
    }
}

/// The JSON ABI of what is declared here, by interface: `RewardsPool`, `Token`, `Apps`, `Passport`, `Voting`.
#[must_use]
pub fn json() -> &'static str {
    include_str!("interface.json")
}

pub(crate) fn word(app: AppId) -> alloy_primitives::B256 {
    alloy_primitives::B256::from(app.0)
}

pub(crate) fn account(address: Address) -> alloy_primitives::Address {
    alloy_primitives::Address::from(address.0)
}

fn amount(wei: Wei) -> alloy_primitives::U256 {
    wei.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alloy_sol_types::SolInterface as _;

    use super::interface::{Apps, Passport, RewardsPool, Token, Voting};
    use crate::hash::keccak256;

    fn selectors(interface: &str) -> BTreeSet<[u8; 4]> {
        let all: serde_json::Value = serde_json::from_str(super::json()).unwrap();
        let functions = all[interface].as_array().unwrap().iter().filter(|item| item["type"] == "function");
        functions
            .map(|function| {
                let types: Vec<&str> = function["inputs"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|input| input["type"].as_str().unwrap())
                    .collect();
                let signature = format!("{}({})", function["name"].as_str().unwrap(), types.join(","));
                *keccak256(signature.as_bytes()).first_chunk().unwrap()
            })
            .collect()
    }

    #[test]
    fn the_json_abi_has_the_functions_of_the_interfaces() {
        assert_eq!(selectors("RewardsPool"), RewardsPool::RewardsPoolCalls::selectors().collect());
        assert_eq!(selectors("Token"), Token::TokenCalls::selectors().collect());
        assert_eq!(selectors("Apps"), Apps::AppsCalls::selectors().collect());
        assert_eq!(selectors("Passport"), Passport::PassportCalls::selectors().collect());
        assert_eq!(selectors("Voting"), Voting::VotingCalls::selectors().collect());
    }
}
