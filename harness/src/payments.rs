//! What the chain itself says was paid, beside what the tables say.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use chain::abi::{ContractEvent, topic};
use chain::id::Word;
use chain::node::{Criterion, EventFilter, Node};
use chain::{Address, AppId, Wei};
use rust_decimal::Decimal;
use schemas::impact::{CARBON, carbon_saved};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::client::Client;

/// Logs of one page.
const PAGE: u32 = 256;

/// A reward that the pool paid, by its own log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Paid {
    /// The reward, as the log's proof names it.
    pub reward_id: Uuid,
    /// The transaction.
    pub tx_id: String,
    /// Its clause.
    pub clause_index: i32,
    /// Who was paid.
    pub receiver: String,
    /// B3TR.
    pub amount: Decimal,
}

/// Every reward of an app that the pool has paid on the node's best branch.
///
/// # Errors
/// When the node does not respond, or a log is not one that we would make.
pub async fn on_chain(node: &Node, pool: Address, app: AppId) -> Result<Vec<Paid>> {
    Ok(with_proofs(node, pool, app).await?.into_iter().map(|(paid, _)| paid).collect())
}

/// The same, each with the proof that its log carries.
///
/// # Errors
/// As [`on_chain`].
pub async fn with_proofs(node: &Node, pool: Address, app: AppId) -> Result<Vec<(Paid, Value)>> {
    let mut paid = Vec::new();
    for page in 0.. {
        let criterion = Criterion {
            address: Some(pool),
            topics: [Some(topic::REWARD_DISTRIBUTED), Some(Word(*app.as_bytes())), None, None, None],
        };
        let all = EventFilter::blocks(0, u32::MAX >> 1, vec![criterion]);
        let filter = EventFilter { offset: page * PAGE, limit: PAGE, ..all };
        let logs = node.events(&filter).await.context("the node's logs")?;
        let full = logs.len() == PAGE as usize;
        for log in logs {
            let Some(ContractEvent::RewardDistributed { amount, receiver, proof, .. }) =
                ContractEvent::decode(&log.event)
            else {
                anyhow::bail!("a log of the pool does not decode");
            };
            let (_, rest) = proof.split_once("reward ").context("a proof without a reward")?;
            let id: Uuid = rest.get(..36).context("a proof without a reward's id")?.parse()?;
            let one = Paid {
                reward_id: id,
                tx_id: log.meta.tx_id.to_string(),
                clause_index: i32::try_from(log.meta.clause_index)?,
                receiver: receiver.to_string(),
                amount: coins(amount)?,
            };
            paid.push((one, serde_json::from_str(&proof).context("a proof that is no JSON")?));
        }
        if !full {
            break;
        }
    }
    Ok(paid)
}

/// Every way in which what payments say for themselves is not true: the impact is what distance and vehicle give, and the link opens a
/// page that shows the payment. Also the grams of carbon in all.
///
/// # Errors
/// When the database or the gateway does not respond.
pub async fn untrue(pool: &PgPool, client: &Client, paid: &[(Paid, Value)]) -> Result<(Vec<String>, u64)> {
    let (mut found, mut grams) = (Vec::new(), 0);
    for (Paid { reward_id: id, tx_id, .. }, proof) in paid {
        let (km, kind): (Decimal, String) = sqlx::query_as(
            "select r.distance_traveled, o.vehicle_kind from rewards r join odometer_uploads o on o.id = r.upload_id
             where r.id = $1",
        )
        .bind(id)
        .fetch_one(pool)
        .await?;
        let said = proof["impact"][CARBON].as_u64();
        if said.is_none() || said != carbon_saved(km, &kind) {
            found.push(format!("{id}: {km} km with {kind} do not save {said:?} g"));
        }
        grams += said.unwrap_or_default();
        let Some(link) = proof["proof"]["link"].as_str() else {
            found.push(format!("{id}: no page is linked"));
            continue;
        };
        let (status, content, text) = client.page(link).await?;
        if status != 200 || !content.starts_with("text/html") || !text.contains(tx_id) {
            found.push(format!("{id}: {link} does not show the payment: {status} {content}"));
        }
    }
    Ok((found, grams))
}

fn coins(amount: Wei) -> Result<Decimal> {
    Ok(amount.to_b3tr()?.normalize())
}

/// A payment as the tables have it, with what they owe.
#[derive(Debug, sqlx::FromRow)]
struct PaymentRow {
    reward_id: Uuid,
    tx_id: String,
    clause_index: i32,
    receiver: String,
    amount: Decimal,
    amount_wei: Decimal,
    owed: Decimal,
    reward: String,
    transaction: String,
}

/// Every way in which chain and tables differ, in words: each reward is paid once, by the transaction and clause, to the address and
/// with the amount that `reward_transactions` has, and `rewards` owes exactly that.
///
/// # Errors
/// When the database does not respond.
pub async fn differences(pool: &PgPool, paid: &[Paid]) -> Result<Vec<String>> {
    let rows: Vec<PaymentRow> = sqlx::query_as(
        "select t.reward_id, t.blockchain_tx_hash as tx_id, t.clause_index, t.to_address as receiver, t.amount, t.amount_wei,
            r.total_amount as owed, r.status::text as reward, t.status::text as transaction
         from reward_transactions t join rewards r on r.id = t.reward_id where t.block_id is not null",
    )
    .fetch_all(pool)
    .await?;
    let unpaid: Vec<Uuid> = sqlx::query_scalar(
        "select id from rewards r where status = 'distributed'
         and not exists (select from reward_transactions t where t.reward_id = r.id and t.status = 'confirmed')",
    )
    .fetch_all(pool)
    .await?;
    let mut found: Vec<String> =
        unpaid.iter().map(|id| format!("{id} is distributed by no transaction")).collect();
    let mut counts: BTreeMap<Uuid, usize> = BTreeMap::new();
    for one in paid {
        *counts.entry(one.reward_id).or_default() += 1;
    }
    let several = counts.iter().filter(|(_, count)| **count > 1);
    found.extend(several.map(|(id, count)| format!("{id} was paid {count} times")));
    let in_tables: BTreeSet<Paid> = rows.iter().map(PaymentRow::paid).collect();
    let chain: BTreeSet<Paid> = paid.iter().cloned().collect();
    found.extend(
        chain.difference(&in_tables).map(|one| format!("on the chain and not in the tables: {one:?}")),
    );
    found.extend(
        in_tables.difference(&chain).map(|one| format!("in the tables and not on the chain: {one:?}")),
    );
    found.extend(rows.iter().flat_map(PaymentRow::faults));
    Ok(found)
}

impl PaymentRow {
    fn paid(&self) -> Paid {
        Paid {
            reward_id: self.reward_id,
            tx_id: self.tx_id.clone(),
            clause_index: self.clause_index,
            receiver: self.receiver.clone(),
            amount: self.amount.normalize(),
        }
    }

    /// How the tables differ among themselves.
    fn faults(&self) -> Vec<String> {
        let Self { reward_id: id, amount, amount_wei: wei, owed, reward, transaction, .. } = self;
        let mut found = Vec::new();
        if amount != owed {
            found.push(format!("{id}: paid {amount}, owed {owed}"));
        }
        // 10^18 wei are a B3TR.
        if *wei != amount * Decimal::from(1_000_000_000_000_000_000_i64) {
            found.push(format!("{id}: {wei} wei are not {amount} B3TR"));
        }
        if (transaction == "confirmed") != (reward == "distributed") {
            found.push(format!("{id}: the transaction is {transaction} and the reward {reward}"));
        }
        found
    }
}

/// B3TR of all payments.
#[must_use]
pub fn sum(paid: &[Paid]) -> Decimal {
    paid.iter().map(|one| one.amount).sum()
}
