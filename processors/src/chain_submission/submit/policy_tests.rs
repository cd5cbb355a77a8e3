use std::sync::Mutex;

use chain::abi::{Proof, deposit, transfer};
use chain::signing::{SigningError, ToSign};
use chain::{BlockRef, Clause, Signature, Signer};
use futures::future::BoxFuture;
use proptest::prelude::*;

use super::*;

const POOL: Address = Address([9; 20]);
const APP: AppId = AppId([7; 32]);
const KEY: &str = "7582be841ca040aa940fff6c05773129e135623e41acce3e0b8ba520dc1ae26a";

/// Notes what it was asked to sign, and signs it.
#[derive(Debug)]
struct Recording {
    signer: Signer,
    asked: Mutex<Vec<UnsignedTx>>,
}

impl Recording {
    fn new() -> Self {
        Self { signer: Signer::from_hex(KEY).unwrap(), asked: Mutex::default() }
    }
}

impl TransactionSigner for Recording {
    fn address(&self) -> Address {
        self.signer.address()
    }

    fn sign<'a>(&'a self, what: ToSign<'a>) -> BoxFuture<'a, Result<Signature, SigningError>> {
        self.asked.lock().unwrap().push(what.unsigned.clone());
        TransactionSigner::sign(&self.signer, what)
    }
}

fn policy() -> Policy {
    Policy {
        reward: Wei::from(100),
        receiver: Wei::from(150),
        batch: Wei::from(250),
        gas_price: Wei::from(1_000),
        gas: 3_000_000,
        contracts: Vec::new(),
        methods: Vec::new(),
    }
}

fn scope() -> Scope {
    Scope { chain_tag: 1, pool: POOL, app: APP, day: Wei::from(300), received: HashMap::new() }
}

fn call(receiver: u8, amount: u128) -> RewardCall {
    RewardCall { app: APP, amount: Wei::from(amount), receiver: Address([receiver; 20]) }
}

fn tx(clauses: Vec<Clause>) -> UnsignedTx {
    UnsignedTx {
        chain_tag: 1,
        block_ref: BlockRef(0),
        expiration: 32,
        clauses,
        fees: Fees::Dynamic { max_priority_fee_per_gas: Wei::ZERO, max_fee_per_gas: Wei::from(1_000) },
        gas: 3_000_000,
        depends_on: None,
        nonce: 1,
        delegated: false,
    }
}

fn violation(unsigned: UnsignedTx) -> Violation {
    policy().permit(unsigned, &scope()).unwrap_err()
}

#[test]
fn what_lies_on_every_bound_passes_and_a_wei_more_does_not() {
    let at = [call(1, 100), call(2, 100), call(1, 50)].map(|call| call.plain(POOL));
    assert!(policy().permit(tx(at.to_vec()), &scope()).is_ok());
    let of = |calls: &[RewardCall]| violation(tx(calls.iter().map(|call| call.plain(POOL)).collect()));
    assert!(matches!(of(&[call(1, 101)]), Violation::Reward { clause: 0, .. }));
    assert!(matches!(of(&[call(1, 100), call(1, 51)]), Violation::Receiver { .. }));
    assert!(matches!(of(&[call(1, 100), call(2, 100), call(3, 51)]), Violation::Batch { .. }));
    let left = Scope { day: Wei::from(99), ..scope() };
    let over = policy().permit(tx(vec![call(1, 100).plain(POOL)]), &left).unwrap_err();
    assert!(matches!(over, Violation::Day { .. }));
    let before = Scope { received: HashMap::from([(Address([1; 20]), Wei::from(51))]), ..scope() };
    let over = policy().permit(tx(vec![call(1, 100).plain(POOL)]), &before).unwrap_err();
    assert!(matches!(over, Violation::Receiver { .. }), "what was signed before in this day counts");
}

#[test]
fn every_payment_of_a_reward_may_be_called_unless_a_list_says_which() {
    let (proof, call) = (Proof { evidence: vec![], impacts: vec![], description: "d".into() }, call(1, 1));
    let calls = [call.plain(POOL), call.with_proof(POOL, &proof), call.with_metadata(POOL, &proof, "{}")];
    assert!(policy().permit(tx(calls.to_vec()), &scope()).is_ok());
    let listed = Policy { methods: vec!["distributeRewardWithProof".into()], ..policy() };
    assert!(listed.permit(tx(vec![calls[1].clone()]), &scope()).is_ok());
    for other in [&calls[0], &calls[2]] {
        let refused = listed.permit(tx(vec![other.clone()]), &scope()).unwrap_err();
        assert!(matches!(refused, Violation::Method { .. }), "{refused}");
    }
}

#[test]
fn only_payments_from_the_apps_purse_by_the_pool_on_this_network_pass() {
    let good = call(1, 1).plain(POOL);
    assert_eq!(violation(UnsignedTx { chain_tag: 2, ..tx(vec![good.clone()]) }), Violation::Network(2));
    assert_eq!(violation(tx(vec![])), Violation::Empty);
    let elsewhere = call(1, 1).plain(Address([8; 20]));
    assert!(matches!(
        violation(tx(vec![good.clone(), elsewhere.clone()])),
        Violation::Contract { clause: 1, .. }
    ));
    assert!(matches!(violation(tx(vec![Clause::create(vec![1])])), Violation::Contract { to: None, .. }));
    let vet = Clause { value: Wei::from(1), ..good.clone() };
    assert!(matches!(violation(tx(vec![vet])), Violation::Value { .. }));
    let foreign = RewardCall { app: AppId([6; 32]), ..call(1, 1) }.plain(POOL);
    assert!(matches!(violation(tx(vec![foreign])), Violation::App { .. }));
    for other in [transfer(POOL, Address([1; 20]), Wei::from(1)), deposit(POOL, APP, Wei::from(1))] {
        assert!(matches!(violation(tx(vec![other])), Violation::Method { .. }));
    }
    let cut = Clause::call(POOL, good.data[..100].to_vec());
    assert_eq!(violation(tx(vec![cut])), Violation::Method { clause: 0, method: "0xf7335f11".into() });
    // A list takes the place of the network's row: who changes that row pays nobody with it.
    let listed = Policy { contracts: vec![Address([8; 20])], ..policy() };
    assert!(listed.permit(tx(vec![elsewhere]), &scope()).is_ok());
    assert!(listed.permit(tx(vec![good]), &scope()).is_err());
}

#[test]
fn what_is_offered_for_gas_is_bounded() {
    let of = |fees: Fees| policy().permit(UnsignedTx { fees, ..tx(vec![call(1, 1).plain(POOL)]) }, &scope());
    let dynamic = |price: u128| Fees::Dynamic {
        max_priority_fee_per_gas: Wei::ZERO,
        max_fee_per_gas: Wei::from(price),
    };
    assert!(of(dynamic(1_000)).is_ok() && of(Fees::Legacy { gas_price_coef: 0 }).is_ok());
    assert!(matches!(of(dynamic(1_001)), Err(Violation::GasPrice { .. })));
    assert!(matches!(of(Fees::Legacy { gas_price_coef: 1 }), Err(Violation::GasCoefficient(1))));
    let more = UnsignedTx { gas: 3_000_001, ..tx(vec![call(1, 1).plain(POOL)]) };
    assert!(matches!(violation(more), Violation::Gas { .. }));
}

fn clauses() -> impl Strategy<Value = Vec<Clause>> {
    let amount = prop_oneof![4 => 0_u128..130, 1 => Just(u128::MAX)];
    let clause = (1_u8..4, amount, 0_u8..12).prop_map(|(receiver, amount, kind)| match kind {
        0 => transfer(POOL, Address([receiver; 20]), Wei::from(amount)),
        1 => call(receiver, amount).plain(Address([8; 20])),
        2 => RewardCall { amount: Wei::MAX, ..call(receiver, 0) }.plain(POOL),
        3 => Clause { value: Wei::from(amount), ..call(receiver, 1).plain(POOL) },
        _ => call(receiver, amount).plain(POOL),
    });
    prop::collection::vec(clause, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_bytes_are_signed_that_exceed_a_bound(
        clauses in clauses(), day in 0_u128..400, before in 0_u128..200, price in 0_u128..2_000, gas in 2_000_000_u64..4_000_000,
    ) {
        let fees = Fees::Dynamic { max_priority_fee_per_gas: Wei::ZERO, max_fee_per_gas: Wei::from(price) };
        let unsigned = UnsignedTx { fees, gas, ..tx(clauses) };
        let received = HashMap::from([(Address([1; 20]), Wei::from(before))]);
        let scope = Scope { day: Wei::from(day), received: received.clone(), ..scope() };
        let (signer, asked) = (Recording::new(), unsigned.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let signed = policy().permit(unsigned, &scope).map(|permitted| runtime.block_on(permitted.sign(&signer, None)).unwrap());
        match signed {
            Err(_) => prop_assert!(signer.asked.lock().unwrap().is_empty(), "the signer is not even asked"),
            Ok(signed) => {
                // The bounds once more, by what a node would read from the bytes.
                let read = SignedTx::decode(&signed.encode()).unwrap();
                prop_assert_eq!(read.unsigned(), &asked);
                prop_assert!(price <= 1_000 && gas <= 3_000_000);
                let mut paid: HashMap<Address, u128> = HashMap::from([(Address([1; 20]), before)]);
                let mut sum = 0_u128;
                for clause in &read.unsigned().clauses {
                    prop_assert_eq!((clause.to, clause.value), (Some(POOL), Wei::ZERO));
                    let (_, call) = RewardCall::decode(&clause.data).unwrap();
                    let amount: u128 = call.amount.to_string().parse().unwrap();
                    prop_assert!(amount <= 100);
                    *paid.entry(call.receiver).or_default() += amount;
                    sum += amount;
                }
                prop_assert!(sum <= 250 && sum <= day);
                for (receiver, amount) in paid {
                    prop_assert!(amount <= 150 || Some(&Wei::from(amount)) == received.get(&receiver));
                }
            }
        }
    }
}
