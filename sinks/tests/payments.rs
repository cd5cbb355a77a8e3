//! The payment of rewards: how its payouts and the chain report it.

use chrono::{DateTime, Utc};
use runtime::Sink as _;
use rust_decimal::Decimal;
use schemas::events::{
    AttemptState, BlockAdopted, BlockPlace, BlockUndone, ChainStep, ChainTransaction, PayoutState,
    PayoutTransaction, PayoutUpdated, RewardClaimed, UploadHeader,
};
use schemas::ids::{Micros, RewardId, UserId, derived, natural};
use schemas::payouts::chain_event_id;
use sinks::postgres::{PostgresConfig, PostgresSink, UploadEvent};
use uuid::Uuid;

use crate::logs::{POOL, SIGNER, distributed};
use crate::stories::{START, Story};
use crate::support::{Schema, envelopes};

/// The network: none of the public ones.
pub const GENESIS: &str = "0xabababababababababababababababababababababababababababababababab";
/// Gas of the whole transaction.
pub const GAS: i64 = 61_003;
/// Wei of VTHO paid for it: not on the grid of 1e-8.
pub const FEE_WEI: u128 = 640_531_500_000_000_123;
/// Simulated gas of a clause; those after it weigh 1,000 more each.
const WEIGHT: i64 = 30_000;

/// What a payout's revision reports: its state, the attempt's, and the branch and confirmations of the block that it is in.
type Snapshot = (PayoutState, Option<AttemptState>, Option<(char, i32)>);

/// Claimed, paid on branch a, undone after 12 confirmations, paid on branch b, final.
const SNAPSHOTS: [Snapshot; 10] = [
    (PayoutState::Waiting, None, None),
    (PayoutState::Ready, None, None),
    (PayoutState::InFlight, Some(AttemptState::Signed), None),
    (PayoutState::InFlight, Some(AttemptState::Sent), None),
    (PayoutState::InFlight, Some(AttemptState::Included), Some(('a', 0))),
    (PayoutState::Paid, Some(AttemptState::Confirmed), Some(('a', 12))),
    (PayoutState::InFlight, Some(AttemptState::Sent), None),
    (PayoutState::InFlight, Some(AttemptState::Included), Some(('b', 0))),
    (PayoutState::Paid, Some(AttemptState::Confirmed), Some(('b', 12))),
    (PayoutState::Final, Some(AttemptState::Final), Some(('b', 12))),
];
/// The revision that is confirmed on branch a.
pub const PAID_ON_A: i64 = 5;
/// The revision that reports that branch a does not count.
pub const UNDONE: i64 = 6;
/// The revision that is confirmed on branch b.
pub const PAID_ON_B: i64 = 8;
/// The last revision.
pub const FINAL: i64 = 9;

/// A transaction that pays the whole reward of each story, one clause each.
#[derive(Clone, Debug)]
pub struct Payment {
    pub stories: Vec<Story>,
}

impl Payment {
    pub fn of(stories: impl IntoIterator<Item = Story>) -> Self {
        Self { stories: stories.into_iter().collect() }
    }

    pub fn tx_id(&self) -> String {
        format!("0x{:064x}", self.stories[0].header.upload_id.0.as_u128())
    }

    /// 0.168945 B3TR, what [`Story::granted`] grants.
    pub fn amount() -> Decimal {
        Decimal::new(168_945, 6)
    }

    pub fn reward(&self, clause: usize) -> RewardId {
        RewardId::of(self.stories[clause].header.upload_id)
    }

    pub fn wallet(&self, clause: usize) -> (Uuid, String) {
        let user = self.stories[clause].header.user_id;
        (natural(&format!("wallet/{user}")), format!("0x{:040x}", user.0.as_u128()))
    }

    /// The block of a branch, on one height.
    pub fn block(branch: char) -> BlockPlace {
        let id = format!("0x{:08x}{}", 100, branch.to_string().repeat(56));
        BlockPlace { id, number: 100, timestamp: Micros(START + 1_000_000_000) }
    }

    /// When the revision was published.
    pub fn published_at(&self, revision: i64) -> Micros {
        Micros(self.stories[0].header.accepted_at.0 + (100 + revision) * 1_000_000)
    }

    /// The part of `total` of a clause: floor(T·Cᵢ/C) − floor(T·Cᵢ₋₁/C), C cumulated.
    fn share(&self, total: u128, clause: usize) -> u128 {
        let weights: Vec<u128> =
            (0..self.stories.len()).map(|n| (WEIGHT as u128) + 1_000 * n as u128).collect();
        let all: u128 = weights.iter().sum();
        let upto = |n: usize| total * weights[..n].iter().sum::<u128>() / all;
        upto(clause + 1) - upto(clause)
    }

    fn header(&self, clause: usize, what: &str, at: Micros) -> UploadHeader {
        let header = &self.stories[clause].header;
        UploadHeader { event_id: derived(header.event_id, what, 0), occurred_at: at, ..header.clone() }
    }

    /// The transaction as a clause's payout reports it in its n-th revision.
    fn transaction(&self, clause: usize, revision: i64) -> Option<PayoutTransaction> {
        let (_, attempt, place) = SNAPSHOTS[usize::try_from(revision).unwrap()];
        let state = attempt?;
        let confirmed = matches!(state, AttemptState::Confirmed | AttemptState::Final);
        let first = self.stories[0].header.user_id;
        let alone = self.stories.iter().all(|story| story.header.user_id == first);
        let n = i64::try_from(self.stories.len()).unwrap();
        let included = place.is_some();
        Some(PayoutTransaction {
            tx_id: self.tx_id(),
            revision: revision - 1,
            genesis_id: GENESIS.into(),
            state,
            signer: SIGNER.into(),
            gas_payer: SIGNER.into(),
            contract: POOL.into(),
            batch_id: format!("0x{}", "ba".repeat(32)),
            clause_count: i32::try_from(n).unwrap(),
            batch_amount: Self::amount() * Decimal::from(n),
            beneficiary_user: alone.then_some(first),
            beneficiary_wallet: alone.then(|| self.wallet(0).0),
            estimated_gas: WEIGHT * n,
            gas_limit: GAS + 1_000,
            gas_strategy: "medium".into(),
            max_fee_wei: "20000000000000".into(),
            priority_fee_wei: "0".into(),
            block_ref: "0x0000006300000000".into(),
            expiration: 180,
            nonce: "1".into(),
            broadcast_count: i32::try_from(revision.min(UNDONE) - 2).unwrap(),
            signed_at: self.published_at(2),
            block: place.map(|(branch, _)| Self::block(branch)),
            gas_used: included.then_some(GAS),
            gas_price_wei: included.then(|| (FEE_WEI / GAS as u128).to_string()),
            fee_wei: included.then(|| FEE_WEI.to_string()),
            confirmations: place.map_or(0, |(_, confirmations)| confirmations),
            confirmed_at: confirmed.then(|| self.published_at(revision.min(PAID_ON_B))),
            finalized_at: (state == AttemptState::Final).then(|| self.published_at(revision)),
            error: None,
            clause_index: i32::try_from(clause).unwrap(),
            attempt_no: 1,
            reward_gas_used: included.then(|| i64::try_from(self.share(GAS as u128, clause)).unwrap()),
            reward_fee: included.then(|| {
                let grid = self.share(FEE_WEI / 10_000_000_000, clause);
                Decimal::from_i128_with_scale(i128::try_from(grid).unwrap(), 8)
            }),
        })
    }

    pub fn snapshot(&self, clause: usize, revision: i64) -> PayoutUpdated {
        let (state, ..) = SNAPSHOTS[usize::try_from(revision).unwrap()];
        let transaction = self.transaction(clause, revision);
        PayoutUpdated {
            header: self.header(clause, &format!("payout/{revision}"), self.published_at(revision)),
            stamp: self.stories[clause].stamp.clone(),
            reward_id: self.reward(clause),
            revision,
            state,
            amount: Self::amount(),
            wallet_id: (revision > 0).then(|| self.wallet(clause).0),
            claimed_at: (revision > 0).then(|| self.published_at(1)),
            reason: (revision == 0).then(|| "unclaimed: a sentence".to_owned()),
            strikes: i32::try_from(clause).unwrap(),
            max_retries: 3,
            adjustment: None,
            paid_at: transaction.as_ref().and_then(|transaction| transaction.confirmed_at),
            transaction,
        }
    }

    /// A clause's payout in its n-th revision.
    pub fn payout(&self, clause: usize, revision: i64) -> UploadEvent {
        UploadEvent::Paid(Box::new(self.snapshot(clause, revision)))
    }

    /// A payout that ends without a transaction in its first revision.
    pub fn ended(&self, clause: usize, state: PayoutState) -> UploadEvent {
        let reason = Some("code: a sentence".to_owned());
        UploadEvent::Paid(Box::new(PayoutUpdated { state, reason, ..self.snapshot(clause, 1) }))
    }

    /// The rewards cut to 0.1 B3TR by their grants, waiting and then ready to be paid.
    pub fn cut(&self) -> Vec<UploadEvent> {
        let amount = Decimal::new(1, 1);
        let ready = |clause| (0..2).map(move |revision| (clause, revision));
        let payout = |(clause, revision)| {
            UploadEvent::Paid(Box::new(PayoutUpdated { amount, ..self.snapshot(clause, revision) }))
        };
        let grants = self.stories.iter().flat_map(|story| [story.calculated(), story.granted(Some(amount))]);
        grants.chain((0..self.stories.len()).flat_map(ready).map(payout)).collect()
    }

    /// The driver's claim.
    pub fn claimed(&self, clause: usize) -> UploadEvent {
        let header = self.header(clause, "claim", self.published_at(0));
        UploadEvent::Claimed(RewardClaimed {
            event_id: header.event_id,
            occurred_at: header.occurred_at,
            reward_id: self.reward(clause),
            user_id: header.user_id,
            wallet_id: self.wallet(clause).0,
        })
    }

    /// A block with this transaction is adopted.
    pub fn adopted(&self, seq: i64, branch: char, adoption: i32) -> UploadEvent {
        let block = Self::block(branch);
        // 0.168945 B3TR in wei.
        let amount = 168_945 * 10_u128.pow(12);
        let log = |clause: usize| {
            let (at, proof) = (i32::try_from(clause).unwrap(), self.reward(clause).to_string());
            distributed((at, 4 + at), &self.wallet(clause).1, amount, &proof)
        };
        let transaction = ChainTransaction {
            id: self.tx_id(),
            index: 0,
            origin: SIGNER.into(),
            gas_payer: SIGNER.into(),
            gas_used: GAS,
            paid_wei: FEE_WEI.to_string(),
            reverted: false,
            logs: (0..self.stories.len()).map(log).collect(),
        };
        UploadEvent::Chain(Box::new(ChainStep::Adopted(BlockAdopted {
            event_id: chain_event_id(GENESIS, "adopted", &block.id, adoption),
            occurred_at: step_at(seq),
            seq,
            genesis_id: GENESIS.into(),
            parent_id: format!("0x{:08x}{}", 99, "0".repeat(56)),
            block,
            adoption,
            finalized_number: 90,
            retold: false,
            transactions: vec![transaction],
        })))
    }

    /// That block does not count any more.
    pub fn undone(seq: i64, branch: char, adoption: i32) -> UploadEvent {
        let block = Self::block(branch);
        UploadEvent::Chain(Box::new(ChainStep::Undone(BlockUndone {
            event_id: chain_event_id(GENESIS, "undone", &block.id, adoption),
            occurred_at: step_at(seq),
            seq,
            genesis_id: GENESIS.into(),
            block_id: block.id,
            number: block.number,
            adoption,
        })))
    }

    /// The chain's story: a, undone, a again, undone, b.
    pub fn chain(&self) -> Vec<UploadEvent> {
        vec![
            self.adopted(1, 'a', 1),
            Self::undone(2, 'a', 1),
            self.adopted(3, 'a', 2),
            Self::undone(4, 'a', 2),
            self.adopted(5, 'b', 1),
        ]
    }

    /// All events of the payment up to a revision, from the rewards' beginning, in the order that they happen.
    pub fn events(&self, last: i64) -> Vec<UploadEvent> {
        let clauses = 0..self.stories.len();
        let mut events: Vec<UploadEvent> = self
            .stories
            .iter()
            .flat_map(|story| [story.calculated(), story.granted(None)])
            .chain(clauses.clone().map(|clause| self.claimed(clause)))
            .collect();
        for revision in 0..=last {
            events.extend(clauses.clone().map(|clause| self.payout(clause, revision)));
        }
        events
    }

    /// The drivers and their wallets, as the gateway has them.
    pub async fn accounts(&self, schema: &Schema) {
        let (user, wallet) = (
            "insert into users (id, created_at, updated_at) values ($1, $2, $2) on conflict do nothing",
            "insert into user_wallets (id, user_id, wallet_address, wallet_type, network)
             values ($1, $2, $3, 'vechain', 'testnet') on conflict do nothing",
        );
        for (clause, story) in self.stories.iter().enumerate() {
            let UserId(id) = story.header.user_id;
            let created: DateTime<Utc> = story.stamp.account_created_at.to_utc();
            sqlx::query(user).bind(id).bind(created).execute(&schema.pool).await.unwrap();
            let (wallet_id, address) = self.wallet(clause);
            sqlx::query(wallet).bind(wallet_id).bind(id).bind(address).execute(&schema.pool).await.unwrap();
        }
    }
}

/// When a step was seen.
pub fn step_at(seq: i64) -> Micros {
    Micros(START + 2_000_000_000 + seq * 1_000_000)
}

/// Writes the events as one batch.
pub async fn write(sink: &PostgresSink, events: impl IntoIterator<Item = UploadEvent>) {
    sink.write(&envelopes(events)).await.unwrap();
}

/// A sink of the schema.
pub async fn sink(schema: &Schema) -> PostgresSink {
    PostgresConfig::default().build(schema.pool.clone()).await.unwrap()
}

/// A schema with the payment's accounts, and the sink.
pub async fn ready(payment: &Payment) -> (Schema, PostgresSink) {
    let schema = Schema::new().await;
    payment.accounts(&schema).await;
    let sink = sink(&schema).await;
    (schema, sink)
}
