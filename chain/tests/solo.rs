//! Against a real Thor solo node with the real contracts. `THOR_URL` names the node, e.g. `http://127.0.0.1:8669`; it must run with
//! a block interval (not on demand), since only then does it use the pool that public nodes use.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::OnceLock;

use alloy_primitives::U256;
use alloy_sol_types::SolCall as _;
use chain::abi::{ContractEvent, Proof, ProofType, RewardCall, RewardKind, topic};
use chain::contract::{Contract, ContractError, Standing};
use chain::deploy::{Artifacts, DeployError, Deployment, Operator, Plan, SOLO_KEYS, deploy, later_pool};
use chain::follow::{Checkpoint, Follower, Step};
use chain::gas::{gas_limit, rewards_gas_limit};
use chain::id::Word;
use chain::node::{
    BadTransaction, Criterion, EventFilter, Limits, Node, NodeError, Rejection, Revision, Simulation,
    failing_clause,
};
use chain::tx::{TX_GAS, clause_gas};
use chain::{Address, BlockId, BlockRef, Clause, Fees, SignedTx, Signer, TxId, UnsignedTx, Wei};

fn node() -> Node {
    let url = std::env::var("THOR_URL").expect(
        "THOR_URL must name a Thor solo node started with --block-interval 1 and without --on-demand",
    );
    Node::new(&url, None, Limits::default()).expect("THOR_URL is an http address")
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn signer(account: usize) -> Signer {
    Signer::from_hex(SOLO_KEYS[account]).unwrap()
}

fn b3tr(amount: &str) -> Wei {
    Wei::from_b3tr(amount.parse().unwrap()).unwrap()
}

fn artifacts() -> &'static Artifacts {
    static COMPILED: OnceLock<Artifacts> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts");
        Artifacts::compile(&sources, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("contracts"))
            .expect("node and npm are installed and the contracts compile")
    })
}

/// One set of contracts for all tests of this run.
fn deployment() -> &'static Deployment {
    static DEPLOYED: OnceLock<Deployment> = OnceLock::new();
    DEPLOYED.get_or_init(|| {
        let plan =
            Plan { app_name: "chain test".to_owned(), distributor: signer(1).address(), funds: b3tr("1000") };
        run(deploy(&node(), artifacts(), &signer(0), &plan)).expect("the node takes the contracts")
    })
}

/// The response to bytes that are on the chain: success for as long as the pool still keeps its copy (a block or two), then this.
async fn response_once_settled(node: &Node, raw: &[u8], id: TxId) -> NodeError {
    for _ in 0..300 {
        match node.send(raw).await {
            Ok(same) => assert_eq!(same, id),
            Err(error) => return error,
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the pool still keeps {id} after 30 s");
}

/// A transaction that a node takes at once: current reference, enough gas and fees.
async fn unsigned(node: &Node, clauses: Vec<Clause>) -> UnsignedTx {
    let best = node.block(Revision::Best).await.unwrap().unwrap();
    UnsignedTx {
        chain_tag: node.genesis().await.unwrap().chain_tag(),
        block_ref: BlockRef::from(best.id),
        expiration: 32,
        clauses,
        fees: Fees::Dynamic {
            max_priority_fee_per_gas: node.priority_fee().await.unwrap(),
            max_fee_per_gas: best.base_fee_per_gas.unwrap().checked_mul(4).unwrap(),
        },
        gas: 2_000_000,
        depends_on: None,
        nonce: rand::random(),
        delegated: false,
    }
}

#[test]
fn three_rewards_in_one_transaction_are_paid_to_the_wei_under_the_id_known_before_signing() {
    let (node, at) = (node(), deployment());
    let calls: Vec<_> = ["0.00000001", "12.34567891", "0.5"]
        .iter()
        .zip(0_u8..)
        .map(|(amount, n)| RewardCall {
            app: at.app_id,
            amount: b3tr(amount),
            receiver: Address(std::array::from_fn(|i| if i == 19 { n + 1 } else { rand::random() })),
        })
        .collect();
    run(async {
        let clauses = calls.iter().map(|call| call.plain(at.rewards_pool)).collect();
        let unsigned = unsigned(&node, clauses).await;
        let distributor = signer(1);
        let planned = unsigned.id(distributor.address());
        let raw = SignedTx::sign(unsigned, &distributor).unwrap().encode();
        assert_eq!(node.send(&raw).await.unwrap(), planned);
        assert_eq!(node.send(&raw).await.unwrap(), planned, "the same bytes again are the same transaction");

        let receipt =
            Operator::new(&node, &distributor).await.unwrap().wait("paying", planned).await.unwrap();
        assert_eq!(receipt.meta.tx_origin, distributor.address());
        assert_eq!(response_once_settled(&node, &raw, planned).await, NodeError::Rejected(Rejection::Known));
        assert_eq!(
            node.receipt(planned, Some(at.genesis_id)).await,
            Ok(None),
            "the genesis block does not hold it"
        );

        let topics = [Some(topic::REWARD_DISTRIBUTED), Some(Word(at.app_id.0)), None, None, None];
        let criteria = vec![Criterion { address: Some(at.rewards_pool), topics }];
        let number = receipt.meta.block_number;
        let logs = node.events(&EventFilter::blocks(number, number, criteria)).await.unwrap();
        let paid: Vec<_> = logs.iter().filter(|log| log.meta.tx_id == planned).collect();
        assert_eq!(paid.len(), calls.len());
        for ((log, call), clause) in paid.iter().zip(&calls).zip(0_u32..) {
            assert_eq!(log.meta.clause_index, clause);
            assert_eq!(
                ContractEvent::decode(&log.event),
                Some(ContractEvent::RewardDistributed {
                    amount: call.amount,
                    app: at.app_id,
                    receiver: call.receiver,
                    proof: String::new(),
                    distributor: distributor.address(),
                })
            );
            let token = Contract::new(&node, at.b3tr, Revision::Best);
            assert_eq!(token.token_balance(call.receiver).await, Ok(call.amount));
        }

        // The same block, read whole, holds the same: clauses, logs, places.
        let block = node.expanded_block(Revision::Id(receipt.meta.block_id)).await.unwrap().unwrap();
        let tx = block.transactions.iter().find(|tx| tx.id == planned).unwrap();
        for ((clause, output), call) in tx.clauses.iter().zip(&tx.outputs).zip(&calls) {
            assert_eq!(RewardCall::decode(&clause.data), Some((RewardKind::Plain, *call)));
            let names: Vec<_> =
                output.events.iter().filter_map(ContractEvent::decode).map(|event| event.name()).collect();
            assert_eq!(names, ["RewardDistributed", "Transfer", "RegisteredAction"]);
        }
        assert_eq!(tx.outputs, receipt.outputs);
        let found = node.transaction(planned, true, None).await.unwrap().unwrap();
        assert_eq!(found.meta.unwrap().block_id, receipt.meta.block_id);
    });
}

#[test]
fn a_proof_with_quotes_and_line_breaks_is_json_on_the_chain() {
    let (node, at) = (node(), deployment());
    let text = "\"quoted\", a \\ and\na line, größe ☃";
    let proof = Proof {
        evidence: vec![
            (ProofType::Text, text.to_owned()),
            (ProofType::Link, "https://example.org/?a=\"b\"".to_owned()),
        ],
        impacts: vec![("carbon".to_owned(), 1234)],
        description: text.to_owned(),
    };
    let call = RewardCall { app: at.app_id, amount: b3tr("0.25"), receiver: Address(rand::random()) };
    run(async {
        let distributor = signer(1);
        let operator = Operator::new(&node, &distributor).await.unwrap();
        let receipt = operator.send("paying", vec![call.with_proof(at.rewards_pool, &proof)]).await.unwrap();
        let events: Vec<_> = receipt.outputs[0].events.iter().filter_map(ContractEvent::decode).collect();
        let [ContractEvent::RewardDistributed { amount, proof: on_chain, .. }, ..] = events.as_slice() else {
            panic!("no reward first: {events:?}");
        };
        assert_eq!(*amount, call.amount);
        let json: serde_json::Value = serde_json::from_str(on_chain).unwrap();
        assert_eq!(json["description"], text);
        assert_eq!(json["proof"]["text"], text);
        assert_eq!(json["proof"]["link"], "https://example.org/?a=\"b\"");
        assert_eq!(json["impact"]["carbon"], 1234);

        let unknown = Proof { impacts: vec![("mileage".to_owned(), 1)], ..proof };
        let refused = operator.send("paying", vec![call.with_proof(at.rewards_pool, &unknown)]).await;
        let Err(DeployError::Reverted { clause: Some(0), reason, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(reason, "X2EarnRewardsPool: Invalid impact key");
    });
}

#[test]
fn legacy_delegated_and_dependent_transactions_are_taken_under_their_planned_ids() {
    let node = node();
    let (origin, payer) = (signer(1), signer(2));
    run(async {
        let operator = Operator::new(&node, &origin).await.unwrap();
        let nothing = vec![Clause::call(Address([1; 20]), vec![])];
        let base = unsigned(&node, nothing).await;
        let first = UnsignedTx { fees: Fees::Legacy { gas_price_coef: 255 }, ..base.clone() };
        let second = UnsignedTx {
            depends_on: Some(first.id(origin.address())),
            delegated: true,
            nonce: 2,
            ..base.clone()
        };
        let third = UnsignedTx {
            fees: Fees::Legacy { gas_price_coef: 1 },
            depends_on: Some(second.id(origin.address())),
            delegated: true,
            ..base
        };
        // Backwards: a dependent one waits in the pool for what it depends on.
        for unsigned in [&third, &second] {
            let signed = SignedTx::sign_delegated(unsigned.clone(), &origin, &payer).unwrap();
            assert_eq!(node.send(&signed.encode()).await.unwrap(), unsigned.id(origin.address()));
        }
        let waiting = node.transaction(third.id(origin.address()), true, None).await.unwrap().unwrap();
        assert_eq!((waiting.meta, waiting.delegator), (None, Some(payer.address())));
        let signed = SignedTx::sign(first.clone(), &origin).unwrap();
        assert_eq!(node.send(&signed.encode()).await.unwrap(), first.id(origin.address()));
        let mut numbers = Vec::new();
        for (unsigned, gas_payer) in
            [(first, origin.address()), (second, payer.address()), (third, payer.address())]
        {
            let receipt = operator.wait("nothing", unsigned.id(origin.address())).await.unwrap();
            assert_eq!((receipt.gas_payer, receipt.gas_used), (gas_payer, unsigned.intrinsic_gas()));
            numbers.push(receipt.meta.block_number);
        }
        assert!(numbers.is_sorted(), "{numbers:?}");
    });
}

#[test]
fn what_a_payout_depends_on_reads_from_the_contracts() {
    let (node, at) = (node(), deployment());
    run(async {
        let pool = Contract::new(&node, at.rewards_pool, Revision::Best);
        assert_eq!(pool.pool_version().await.unwrap(), "4");
        assert!(pool.pool_impact_keys().await.unwrap().contains(&"carbon".to_owned()));
        assert!(pool.pool_available_funds(at.app_id).await.unwrap() <= at.funds);
        let lacking = pool.pool_paused(at.app_id).await;
        assert!(
            matches!(lacking, Err(ContractError::Reverted { .. })),
            "version 4 has no pause: {lacking:?}"
        );

        let apps = Contract::new(&node, at.x2earn_apps, Revision::Best);
        assert!(apps.app_exists(at.app_id).await.unwrap());
        assert!(apps.is_reward_distributor(at.app_id, at.distributor).await.unwrap());
        assert!(!apps.is_reward_distributor(at.app_id, at.admin).await.unwrap());

        let token = Contract::new(&node, at.b3tr, Revision::Best);
        assert!(!token.token_paused().await.unwrap());
        assert!(token.token_supply().await.unwrap() >= at.funds);
        let nowhere = Address([0x77; 20]);
        let empty = Contract::new(&node, nowhere, Revision::Best);
        assert_eq!(empty.pool_version().await, Err(ContractError::NoCode(nowhere)));
        assert!(node.code(nowhere, Revision::Best).await.unwrap().is_empty());
        assert!(at.is_on(&node).await.unwrap());

        let passport = Contract::new(&node, at.passport, Revision::Best);
        assert!(!passport.is_person(nowhere).await.unwrap());
        let standings = passport.standings(&[nowhere, at.distributor]).await.unwrap();
        assert_eq!((standings.threshold, standings.of), (2, vec![Standing::default(); 2]));
        assert_eq!(empty.standings(&[nowhere]).await, Err(ContractError::NoCode(nowhere)));
    });
}

#[test]
fn a_simulation_names_the_clause_that_would_fail_and_why() {
    let (node, at) = (node(), deployment());
    let pay = |amount: &str, receiver: Address| {
        RewardCall { app: at.app_id, amount: b3tr(amount), receiver }.plain(at.rewards_pool)
    };
    let try_out = |caller: Address, clauses: Vec<Clause>| {
        let simulation =
            Simulation { clauses: &clauses, caller, gas_payer: None, gas: None, at: Revision::Next };
        failing_clause(&run(node.simulate(&simulation)).unwrap())
    };
    let (someone, distributor) = (Address([5; 20]), at.distributor);
    assert_eq!(try_out(distributor, vec![pay("1", someone), pay("2", someone)]), None);
    let (clause, reason) =
        try_out(distributor, vec![pay("1", someone), pay("1001", someone), pay("1", someone)]).unwrap();
    assert_eq!((clause, reason.to_string().as_str()), (1, "X2EarnRewardsPool: app has insufficient funds"));
    let (clause, reason) = try_out(at.admin, vec![pay("1", someone)]).unwrap();
    assert_eq!((clause, reason.to_string().as_str()), (0, "X2EarnRewardsPool: not a reward distributor"));
    let (clause, reason) = try_out(distributor, vec![pay("1", Address::default())]).unwrap();
    assert_eq!((clause, reason.to_string()), (0, format!("ERC20InvalidReceiver({})", Address::default())));
}

#[test]
fn a_follower_walks_a_real_chain_block_by_block_and_sees_the_set_up() {
    let (node, at) = (node(), deployment());
    run(async {
        let best = node.block(Revision::Best).await.unwrap().unwrap();
        let mut follower = Follower::with_bounds(Checkpoint::after(at.genesis_id), 50, 20);
        let mut adopted = vec![at.genesis_id];
        let mut deposits = 0;
        while follower.checkpoint().tip().is_some_and(|tip| tip.number() < best.number) {
            let batch = follower.poll(&node).await.unwrap();
            for step in batch.steps {
                let Step::Adopted { block, adoption } = step else { panic!("a single node undoes nothing") };
                assert_eq!((block.parent_id, adoption), (adopted[adopted.len() - 1], 1));
                adopted.push(block.id);
                let outputs = block.transactions.iter().flat_map(|tx| &tx.outputs);
                let logs =
                    outputs.flat_map(|output| &output.events).filter(|log| log.address == at.rewards_pool);
                deposits += logs
                    .filter_map(ContractEvent::decode)
                    .filter(|event| matches!(event, ContractEvent::NewDeposit { amount, .. } if *amount == at.funds))
                    .count();
            }
            follower.commit(batch.checkpoint);
        }
        assert!(adopted.contains(&best.id));
        assert_eq!(deposits, 1);
    });
}

#[test]
fn places_of_logs_counted_in_a_whole_block_equal_those_that_the_log_search_finds() {
    let (node, at) = (node(), deployment());
    run(async {
        // Two transactions with two logging clauses each; with luck in one block, and right in any case.
        let distributor = signer(1);
        let operator = Operator::new(&node, &distributor).await.unwrap();
        let pay = || RewardCall { app: at.app_id, amount: b3tr("0.125"), receiver: Address(rand::random()) };
        let clauses = || vec![pay().plain(at.rewards_pool), pay().plain(at.rewards_pool)];
        let first = operator.submit("paying", clauses()).await.unwrap();
        let second = operator.submit("paying", clauses()).await.unwrap();
        for id in [first, second] {
            let receipt = operator.wait("paying", id).await.unwrap();
            let (number, block_id) = (receipt.meta.block_number, receipt.meta.block_id);
            let block = node.expanded_block(Revision::Id(block_id)).await.unwrap().unwrap();
            let counted: Vec<_> = block
                .logs()
                .map(|log| (log.tx.id, log.tx_index, log.clause_index, log.log_index, log.event.clone()))
                .collect();
            let found = node.events(&EventFilter::blocks(number, number, vec![])).await.unwrap();
            let found: Vec<_> = found
                .into_iter()
                .map(|log| {
                    (log.meta.tx_id, log.meta.tx_index, log.meta.clause_index, log.meta.log_index, log.event)
                })
                .collect();
            assert_eq!(counted, found);
            assert!(counted.len() >= 6, "three logs a reward");
        }
    });
}

/// Signs without the builder's checks: what it refuses must reach the node here.
fn unchecked(unsigned: &UnsignedTx, signature: &[u8]) -> Vec<u8> {
    let unsigned = unsigned.encode_unsigned();
    let (kind, mut list) = unsigned.split_at(1);
    assert_eq!(kind, [chain::tx::DYNAMIC_FEE_TYPE]);
    let mut items = alloy_rlp::Header::decode_bytes(&mut list, true).unwrap().to_vec();
    alloy_rlp::Encodable::encode(signature, &mut items);
    let mut raw = kind.to_vec();
    alloy_rlp::Header { list: true, payload_length: items.len() }.encode(&mut raw);
    [raw, items].concat()
}

fn mirrored(signature: [u8; 65]) -> [u8; 65] {
    let order =
        U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16).unwrap();
    let mut high = signature;
    high[32..64].copy_from_slice(&(order - U256::from_be_slice(&signature[32..64])).to_be_bytes::<32>());
    high[64] ^= 1;
    high
}

#[test]
fn the_pools_refusals_arrive_as_the_kinds_that_say_what_to_do() {
    let node = node();
    run(async {
        let key = signer(2);
        let good = unsigned(&node, vec![Clause::call(Address([1; 20]), vec![])]).await;
        let sign = |unsigned: &UnsignedTx| key.sign_prehash(unsigned.signing_hash().as_bytes()).unwrap().0;
        let post = async |unsigned: UnsignedTx| {
            node.send(&unchecked(&unsigned, &sign(&unsigned))).await.unwrap_err()
        };
        let bad = NodeError::BadTransaction;
        let rejected = NodeError::Rejected;
        let one_wei = Wei::from(1);

        assert_eq!(post(UnsignedTx { chain_tag: 0x4a, ..good.clone() }).await, bad(BadTransaction::ChainTag));
        assert_eq!(post(UnsignedTx { gas: 20_999, ..good.clone() }).await, bad(BadTransaction::GasTooLow));
        let upside_down = Fees::Dynamic { max_priority_fee_per_gas: Wei::from(2), max_fee_per_gas: one_wei };
        assert_eq!(
            post(UnsignedTx { fees: upside_down, ..good.clone() }).await,
            bad(BadTransaction::PriorityAboveMax)
        );
        let cheap = Fees::Dynamic { max_priority_fee_per_gas: one_wei, max_fee_per_gas: one_wei };
        assert_eq!(post(UnsignedTx { fees: cheap, ..good.clone() }).await, rejected(Rejection::BaseFee));
        assert_eq!(
            post(UnsignedTx { block_ref: BlockRef(0), expiration: 0, ..good.clone() }).await,
            rejected(Rejection::Expired)
        );
        let ahead = BlockRef(u64::from(good.block_ref.number() + 1_000_000) << 32);
        assert_eq!(
            post(UnsignedTx { block_ref: ahead, ..good.clone() }).await,
            rejected(Rejection::RefAhead)
        );
        assert_eq!(
            post(UnsignedTx { gas: u64::MAX / 2, ..good.clone() }).await,
            rejected(Rejection::GasAboveBlockLimit)
        );
        let long =
            UnsignedTx { clauses: vec![Clause::call(Address([1; 20]), vec![0; 70_000])], ..good.clone() };
        assert_eq!(post(long).await, rejected(Rejection::TooLarge));

        let signature = sign(&good);
        for broken in
            [mirrored(signature).to_vec(), signature[..64].to_vec(), [&signature[..64], &[27]].concat()]
        {
            let error = node.send(&unchecked(&good, &broken)).await.unwrap_err();
            assert!(matches!(error, NodeError::BadTransaction(BadTransaction::Signature(_))), "{error:?}");
        }
        let flipped = [&signature[..64], &[1 - signature[64]]].concat();
        assert_eq!(
            node.send(&unchecked(&good, &flipped)).await,
            Err(rejected(Rejection::InsufficientEnergy)),
            "the other v is a stranger without VTHO"
        );
        for garbage in [vec![], vec![0x52, 1], good.encode_unsigned()] {
            let error = node.send(&garbage).await.unwrap_err();
            assert!(matches!(error, NodeError::BadTransaction(BadTransaction::Encoding(_))), "{error:?}");
        }
    });
}

#[test]
fn a_node_of_another_network_or_without_the_block_says_so() {
    run(async {
        let node = node();
        let url = std::env::var("THOR_URL").unwrap();
        let elsewhere = Node::new(&url, Some(BlockId([1; 32])), Limits::default()).unwrap();
        assert_eq!(elsewhere.block(Revision::Best).await, Err(NodeError::WrongNetwork));
        let here = Node::new(&url, Some(node.genesis().await.unwrap()), Limits::default()).unwrap();
        assert!(here.block(Revision::Best).await.unwrap().is_some());

        let unknown = BlockId([2; 32]);
        assert_eq!(node.block(Revision::Id(unknown)).await, Ok(None));
        assert_eq!(node.block(Revision::Number(u32::MAX)).await, Ok(None));
        assert_eq!(node.receipt(TxId([3; 32]), None).await, Ok(None));
        assert_eq!(node.receipt(TxId([3; 32]), Some(unknown)).await, Err(NodeError::UnknownBlock));
        assert_eq!(node.transaction(TxId([3; 32]), true, Some(unknown)).await, Err(NodeError::UnknownBlock));
        assert_eq!(node.account(Address([3; 20]), Revision::Id(unknown)).await, Err(NodeError::UnknownBlock));
        let filter = EventFilter { limit: 1_001, ..EventFilter::blocks(0, 10, vec![]) };
        assert!(matches!(node.events(&filter).await, Err(NodeError::BadRequest { .. })));
        assert!(!node.fee_history(1).await.unwrap().base_fee_per_gas.is_empty());
        assert!(!node.account(signer(2).address(), Revision::Best).await.unwrap().energy.is_zero());
        assert!(node.block(Revision::Finalized).await.unwrap().is_some());
    });
}

alloy_sol_types::sol! {
    function setXAllocationVoting(address voting);
}

#[test]
fn a_round_that_turns_between_simulation_and_block_costs_more_than_a_fifth_and_less_than_is_asked_for() {
    let node = node();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts");
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contracts");
    let artifacts = Artifacts::compile(&sources, &work).expect("node and npm are installed");
    run(async {
        let (admin, distributor) = (signer(0), signer(1));
        let plan = Plan {
            app_name: "an app whose round turns".to_owned(),
            distributor: distributor.address(),
            funds: b3tr("1000"),
        };
        let at = deploy(&node, &artifacts, &admin, &plan).await.expect("the node takes the contracts");
        let (admin, payer) =
            (Operator::new(&node, &admin).await.unwrap(), Operator::new(&node, &distributor).await.unwrap());
        let proof = Proof {
            evidence: vec![(ProofType::Text, "reward 0190".to_owned())],
            impacts: Vec::new(),
            description: "Verified odometer photo".to_owned(),
        };
        let calls: Vec<RewardCall> = (0..10)
            .map(|_| RewardCall { app: at.app_id, amount: b3tr("1"), receiver: Address(rand::random()) })
            .collect();
        let clauses =
            || -> Vec<Clause> { calls.iter().map(|call| call.with_proof(at.rewards_pool, &proof)).collect() };
        payer.send("paying for the first time", clauses()).await.unwrap();
        let repeated = clauses();
        let simulation = Simulation {
            clauses: &repeated,
            caller: distributor.address(),
            gas_payer: None,
            gas: None,
            at: Revision::Next,
        };
        let outcomes = node.simulate(&simulation).await.unwrap();
        let intrinsic = repeated.iter().map(clause_gas).sum::<u64>() + TX_GAS;
        let tried = intrinsic + outcomes.iter().map(|outcome| outcome.gas_used).sum::<u64>();
        // Code that returns 2 whatever it is asked stands in for the contract that knows the round: it was 1 before.
        let two = hex::decode("600a600c600039600a6000f3600260005260206000f3").unwrap();
        let made = admin.send("making a round", vec![Clause::create(two)]).await.unwrap();
        let round = made.outputs[0].contract_address.unwrap();
        let turn = setXAllocationVotingCall { voting: alloy_primitives::Address::from(round.0) };
        admin.send("turning the round", vec![Clause::call(at.passport, turn.abi_encode())]).await.unwrap();
        let mut paid = Vec::new();
        for gas in
            [gas_limit(tried, u64::MAX).unwrap(), rewards_gas_limit(tried, calls.len(), u64::MAX).unwrap()]
        {
            let asked = UnsignedTx { gas, ..unsigned(&node, clauses()).await };
            let sent = SignedTx::sign(asked, &distributor).unwrap();
            node.send(&sent.encode()).await.unwrap();
            paid.push(payer.wait("paying", sent.id()).await.is_ok());
            if let Some(receipt) = node.receipt(sent.id(), None).await.unwrap() {
                println!(
                    "tried {tried}, asked for {gas}, used {}, reverted {}",
                    receipt.gas_used, receipt.reverted
                );
            }
        }
        assert_eq!(paid, [false, true], "a fifth runs out");
    });
}

/// What a description must not break: quotes, a backslash, line breaks, letters beyond ASCII.
const TEXT: &str = "Verified \"odometer\" \\ photo\nof the 333 km to Zürich\r\n";

fn said() -> Proof {
    Proof {
        evidence: vec![
            (ProofType::Text, "reward 1".to_owned()),
            (ProofType::Link, "https://m.example/proofs/1".to_owned()),
        ],
        impacts: vec![("carbon".to_owned(), 26_640)],
        description: TEXT.to_owned(),
    }
}

/// The proof that a receipt's first clause has on the chain, and the round that the passport has noted.
fn noted(receipt: &chain::node::Receipt) -> (serde_json::Value, Option<u64>) {
    let events = receipt.outputs[0].events.iter();
    let decoded: Vec<_> = events.filter_map(ContractEvent::decode).collect();
    let proof = decoded.iter().find_map(|event| match event {
        ContractEvent::RewardDistributed { proof, .. } => Some(serde_json::from_str(proof).unwrap()),
        _ => None,
    });
    let round = decoded.iter().find_map(|event| match event {
        ContractEvent::RegisteredAction { round, .. } => Some(*round),
        _ => None,
    });
    (proof.unwrap(), round)
}

#[test]
fn pools_of_versions_4_and_7_to_9_take_proof_impact_and_any_text_and_8_and_9_the_round_of_the_action() {
    let (node, at) = (node(), deployment());
    run(async {
        let admin_key = signer(0);
        let (admin, key) = (Operator::new(&node, &admin_key).await.unwrap(), signer(1));
        let distributor = Operator::new(&node, &key).await.unwrap();
        let call = RewardCall { app: at.app_id, amount: b3tr("0.5"), receiver: Address(rand::random()) };
        let first =
            distributor.send("version 4", vec![call.with_proof(at.rewards_pool, &said())]).await.unwrap();
        let (on_4, _) = noted(&first);
        assert_eq!((&on_4["description"], &on_4["impact"]["carbon"]), (&TEXT.into(), &26_640.into()));
        for version in [7, 8, 9] {
            let later =
                later_pool(&node, artifacts(), &admin_key, at, (version, b3tr("10"), &[])).await.unwrap();
            let pool = Contract::new(&node, later.pool, Revision::Best);
            assert_eq!(pool.pool_version().await.unwrap(), version.to_string());
            assert!(!pool.pool_paused(at.app_id).await.unwrap());
            assert_eq!(pool.pool_available_funds(at.app_id).await.unwrap(), b3tr("10"));
            let plain = distributor
                .send("metadata", vec![call.with_metadata(later.pool, &said(), "{}")])
                .await
                .unwrap();
            let (on_later, _) = noted(&plain);
            assert_eq!(on_later, on_4, "version {version} writes what version 4 writes");

            // Round 1 is over, round 2 is under way.
            admin.send("two rounds", vec![later.turn(), later.turn()]).await.unwrap();
            let rounds = Contract::new(&node, later.rounds, Revision::Best);
            assert_eq!(rounds.current_round().await.unwrap(), 2);
            assert!(rounds.round_begins(1).await.unwrap() > 0);
            let late = |round| vec![call.for_round(later.pool, &said(), "{}", round)];
            if version == 7 {
                assert!(distributor.send("a round", late(1)).await.is_err(), "version 7 knows no rounds");
                continue;
            }
            let receipt = distributor.send("the round before", late(1)).await.unwrap();
            assert_eq!(noted(&receipt).1, Some(1), "the action counts in the round in which it was done");
            for (round, words) in [(0, "actionRound is zero"), (3, "actionRound exceeds current round")] {
                let refused = distributor.send("no such round", late(round)).await.unwrap_err().to_string();
                assert!(refused.contains(&format!("X2EarnRewardsPool: {words}")), "{refused}");
            }
        }
    });
}
