// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.20;

// The package of the contracts ends at version 4 of the reward pool; networks run later ones. This is the least that acts as versions 7 to 9
// do towards whoever pays rewards: the same functions, events, order of checks and words of refusal, written for tests and local chains.
// It is no upgradeable contract, and whoever may administer it on a network has no roles here.

import { Strings } from "@openzeppelin/contracts/utils/Strings.sol";

interface IToken {
  function transfer(address to, uint256 value) external returns (bool);
  function transferFrom(address from, address to, uint256 value) external returns (bool);
  function balanceOf(address account) external view returns (uint256);
}

interface IApps {
  function appExists(bytes32 appId) external view returns (bool);
  function isRewardDistributor(bytes32 appId, address account) external view returns (bool);
  function isAppAdmin(bytes32 appId, address account) external view returns (bool);
}

interface IPassport {
  function registerAction(address user, bytes32 appId) external;
  function registerActionForRound(address user, bytes32 appId, uint256 round) external;
}

/// Rounds that a test turns by hand, read as those of XAllocationVoting are.
contract TurnedRounds {
  uint256 public currentRoundId;
  mapping(uint256 => uint256) public roundSnapshot;

  function startNewRound() external returns (uint256) {
    currentRoundId += 1;
    roundSnapshot[currentRoundId] = block.number;
    return currentRoundId;
  }
}

contract LaterRewardsPool {
  uint256 private immutable number;
  IToken private immutable b3tr;
  IApps private immutable apps;
  IPassport private immutable passport;
  TurnedRounds private immutable rounds;

  mapping(bytes32 => uint256) public availableFunds;
  mapping(bytes32 => uint256) public rewardsPoolBalance;
  mapping(bytes32 => bool) public isRewardsPoolEnabled;
  mapping(bytes32 => bool) public isDistributionPaused;
  string[] private keys;

  event RewardDistributed(
    uint256 amount, bytes32 indexed appId, address indexed receiver, string proof, address indexed distributor
  );
  event RewardMetadata(
    uint256 amount, bytes32 indexed appId, address indexed receiver, string metadata, address indexed distributor
  );
  event RegisterActionFailed(string reason, bytes lowLevelData);

  constructor(uint256 version_, IToken b3tr_, IApps apps_, IPassport passport_, TurnedRounds rounds_, string[] memory keys_) {
    (number, b3tr, apps, passport, rounds) = (version_, b3tr_, apps_, passport_, rounds_);
    keys = keys_;
  }

  // A version before 8 has none of the functions with a round: calling one fails without a word.
  modifier since8() {
    if (number < 8) revert();
    _;
  }

  function version() external view returns (string memory) {
    return Strings.toString(number);
  }

  function getAllowedImpactKeys() external view returns (string[] memory) {
    return keys;
  }

  function deposit(uint256 amount, bytes32 appId) external returns (bool) {
    require(apps.appExists(appId), "X2EarnRewardsPool: app does not exist");
    availableFunds[appId] += amount;
    require(b3tr.transferFrom(msg.sender, address(this), amount), "X2EarnRewardsPool: deposit transfer failed");
    return true;
  }

  function pauseDistribution(bytes32 appId) external {
    require(apps.isAppAdmin(appId, msg.sender), "X2EarnRewardsPool: not an app admin");
    isDistributionPaused[appId] = true;
  }

  function unpauseDistribution(bytes32 appId) external {
    require(apps.isAppAdmin(appId, msg.sender), "X2EarnRewardsPool: not an app admin");
    isDistributionPaused[appId] = false;
  }

  function toggleRewardsPoolBalance(bytes32 appId, bool enable) external {
    require(apps.isAppAdmin(appId, msg.sender), "X2EarnRewardsPool: caller is not app admin");
    isRewardsPoolEnabled[appId] = enable;
  }

  function increaseRewardsPoolBalance(bytes32 appId, uint256 amount) external {
    require(apps.isAppAdmin(appId, msg.sender), "X2EarnRewardsPool: caller is not app admin");
    availableFunds[appId] -= amount;
    rewardsPoolBalance[appId] += amount;
  }

  function distributeReward(bytes32 appId, uint256 amount, address receiver, string memory) external {
    emit RewardDistributed(amount, appId, receiver, "", msg.sender);
    pay(appId, amount, receiver, 0);
  }

  function distributeRewardWithProof(
    bytes32 appId, uint256 amount, address receiver, string[] memory proofTypes, string[] memory proofValues,
    string[] memory impactCodes, uint256[] memory impactValues, string memory description
  ) external {
    string memory proof = build(proofTypes, proofValues, impactCodes, impactValues, description);
    emit RewardDistributed(amount, appId, receiver, proof, msg.sender);
    pay(appId, amount, receiver, 0);
  }

  function distributeRewardWithProofAndMetadata(
    bytes32 appId, uint256 amount, address receiver, string[] memory proofTypes, string[] memory proofValues,
    string[] memory impactCodes, uint256[] memory impactValues, string memory description, string memory metadata
  ) external {
    string memory proof = build(proofTypes, proofValues, impactCodes, impactValues, description);
    emit RewardDistributed(amount, appId, receiver, proof, msg.sender);
    emit RewardMetadata(amount, appId, receiver, metadata, msg.sender);
    pay(appId, amount, receiver, 0);
  }

  function distributeRewardForRound(
    bytes32 appId, uint256 amount, address receiver, string memory, uint256 actionRound
  ) external since8 {
    emit RewardDistributed(amount, appId, receiver, "", msg.sender);
    inRound(actionRound);
    pay(appId, amount, receiver, actionRound);
  }

  function distributeRewardWithProofForRound(
    bytes32 appId, uint256 amount, address receiver, string[] memory proofTypes, string[] memory proofValues,
    string[] memory impactCodes, uint256[] memory impactValues, string memory description, uint256 actionRound
  ) external since8 {
    string memory proof = build(proofTypes, proofValues, impactCodes, impactValues, description);
    emit RewardDistributed(amount, appId, receiver, proof, msg.sender);
    inRound(actionRound);
    pay(appId, amount, receiver, actionRound);
  }

  function distributeRewardWithProofAndMetadataForRound(
    bytes32 appId, uint256 amount, address receiver, string[] memory proofTypes, string[] memory proofValues,
    string[] memory impactCodes, uint256[] memory impactValues, string memory description, string memory metadata,
    uint256 actionRound
  ) external since8 {
    string memory proof = build(proofTypes, proofValues, impactCodes, impactValues, description);
    emit RewardDistributed(amount, appId, receiver, proof, msg.sender);
    emit RewardMetadata(amount, appId, receiver, metadata, msg.sender);
    inRound(actionRound);
    pay(appId, amount, receiver, actionRound);
  }

  function inRound(uint256 actionRound) private view {
    require(actionRound > 0, "X2EarnRewardsPool: actionRound is zero");
    require(
      address(rounds) != address(0) && actionRound <= rounds.currentRoundId(),
      "X2EarnRewardsPool: actionRound exceeds current round"
    );
  }

  // Round 0: the action counts in the current round.
  function pay(bytes32 appId, uint256 amount, address receiver, uint256 round) private {
    require(!isDistributionPaused[appId], "X2EarnRewardsPool: distribution is paused");
    require(apps.appExists(appId), "X2EarnRewardsPool: app does not exist");
    require(apps.isRewardDistributor(appId, msg.sender), "X2EarnRewardsPool: not a reward distributor");
    require(b3tr.balanceOf(address(this)) >= amount, "X2EarnRewardsPool: insufficient funds on contract");
    if (isRewardsPoolEnabled[appId]) {
      require(rewardsPoolBalance[appId] >= amount, "X2EarnRewardsPool: not enough funds in the rewards pool");
      rewardsPoolBalance[appId] -= amount;
    } else {
      require(availableFunds[appId] >= amount, "X2EarnRewardsPool: app has insufficient available funds");
      availableFunds[appId] -= amount;
    }
    require(b3tr.transfer(receiver, amount), "X2EarnRewardsPool: Allocation transfer to app failed");
    bytes memory call = round == 0
      ? abi.encodeCall(IPassport.registerAction, (receiver, appId))
      : abi.encodeCall(IPassport.registerActionForRound, (receiver, appId, round));
    (bool done, bytes memory data) = address(passport).call(call);
    if (!done) emit RegisterActionFailed("Low-level error", data);
  }

  function build(
    string[] memory proofTypes, string[] memory proofValues, string[] memory impactCodes, uint256[] memory impactValues,
    string memory description
  ) private view returns (string memory) {
    require(proofTypes.length == proofValues.length, "X2EarnRewardsPool: Mismatched input lengths for Proof");
    require(impactCodes.length == impactValues.length, "X2EarnRewardsPool: Mismatched input lengths for Impact");
    if (proofTypes.length == 0 && impactCodes.length == 0) return "";
    bytes memory json = abi.encodePacked('{"version": 2,"description": "', description, '"');
    bytes memory part;
    for (uint256 i; i < proofTypes.length; i++) {
      require(isProof(proofTypes[i]), "X2EarnRewardsPool: Invalid proof type");
      part = abi.encodePacked(part, i == 0 ? "" : ",", '"', proofTypes[i], '":"', proofValues[i], '"');
    }
    if (proofTypes.length > 0) json = abi.encodePacked(json, ',"proof": {', part, "}");
    part = "";
    for (uint256 i; i < impactCodes.length; i++) {
      require(isKey(impactCodes[i]), "X2EarnRewardsPool: Invalid impact key");
      part = abi.encodePacked(part, i == 0 ? "" : ",", '"', impactCodes[i], '":', Strings.toString(impactValues[i]));
    }
    if (impactCodes.length > 0) json = abi.encodePacked(json, ',"impact": {', part, "}");
    return string(abi.encodePacked(json, "}"));
  }

  function same(string memory a, string memory b) private pure returns (bool) {
    return keccak256(bytes(a)) == keccak256(bytes(b));
  }

  function isProof(string memory kind) private pure returns (bool) {
    return same(kind, "image") || same(kind, "link") || same(kind, "text") || same(kind, "video");
  }

  function isKey(string memory key) private view returns (bool) {
    for (uint256 i; i < keys.length; i++) if (same(key, keys[i])) return true;
    return false;
  }
}
