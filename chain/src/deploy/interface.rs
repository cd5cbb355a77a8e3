//! Functions that are called once, while setting up. Their documentation is in the contracts' sources.
#![allow(missing_docs)]

alloy_sol_types::sol! {
    interface Setup {
        function addOperator(address operator) external;
        function setSaleAuctionAddress(address auction) external;
        function addToken(address to, uint8 level, bool onUpgrade, uint64 applyUpgradeTime, uint64 applyUpgradeBlockno) external;
        function grantRole(bytes32 role, address to) external;
        function safeMint(address to) external;
        function mint(address to, uint256 amount) external;
        function upgradeToAndCall(address implementation, bytes data) external;
        function submitApp(address teamWallet, address admin, string appName, string metadataURI) external;
        function endorseApp(bytes32 appId, uint256 nodeId) external;
        function addRewardDistributor(bytes32 appId, address distributor) external;
    }

    interface PassportLists {
        function blacklist(address user) external;
        function removeFromBlacklist(address user) external;
        function signalUser(address user) external;
    }

    interface PausedPool {
        function pauseDistribution(bytes32 appId) external;
        function unpauseDistribution(bytes32 appId) external;
    }

    interface TurnedRounds {
        function startNewRound() external returns (uint256 round);
    }

    interface NodeManagement {
        function initialize(address vechainNodes, address admin, address upgrader) external;
    }

    interface Creator {
        function initialize(string baseURI, address admin) external;
    }

    interface AppsV1 {
        function initialize(string baseURI, address[] admins, address upgrader, address governor) external;
    }

    interface AppsV2 {
        function initializeV2(uint48 gracePeriod, address nodeManagement, address passport, address creator) external;
    }

    interface PoolSetup {
        function initialize(address admin, address contractsAdmin, address upgrader, address b3tr, address apps) external;
        function initializeV2(address impactKeyManager, string[] impactKeys) external;
        function initializeV3(address passport) external;
    }

    interface PassportSetup {
        struct Settings {
            address xAllocationVoting;
            address x2EarnApps;
            address galaxyMember;
            uint256 signalingThreshold;
            uint256 roundsForCumulativeScore;
            uint256 minimumGalaxyMemberLevel;
            uint256 blacklistThreshold;
            uint256 whitelistThreshold;
            uint256 maxEntitiesPerPassport;
            uint256 decayRate;
        }
        struct Roles {
            address admin;
            address botSignaler;
            address upgrader;
            address settingsManager;
            address roleGranter;
            address blacklister;
            address whitelister;
            address actionRegistrar;
            address actionScoreManager;
        }
        function initialize(Settings settings, Roles roles) external;
    }
}
