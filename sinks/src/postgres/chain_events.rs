//! `chain.events`: the logs of the transactions that have to do with our app, one row per log and branch.

use std::collections::BTreeMap;

use chain::abi::ContractEvent;
use chain::node::Event as Log;
use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use runtime::Envelope;
use schemas::events::{BlockAdopted, ChainLog, ChainStep, ChainTransaction};
use schemas::ids::natural;
use serde_json::{Value, json};
use sqlx::{PgConnection, query};
use uuid::Uuid;

use super::balances;
use super::event::UploadEvent;
use super::writer::{WriteError, Writer, picked};
use crate::database::{Table, column};

/// Writes the blocks and events of the chain.
pub(super) struct ChainEvents;

impl Writer for ChainEvents {
    fn tables(&self) -> &'static [Table] {
        &[
            Table { name: "chain_blocks", key: "genesis_id, block_id" },
            Table { name: "blockchain_events", key: "id" },
        ]
    }

    fn write<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        batch: &'a [Envelope<UploadEvent>],
    ) -> BoxFuture<'a, Result<(), WriteError>> {
        async {
            let chain_steps = picked(batch, |event| match event {
                UploadEvent::Chain(step) => Some(step.as_ref()),
                _ => None,
            });
            Ok(steps(tx, &chain_steps).await?)
        }
        .boxed()
    }
}

/// A row of `blockchain_events`.
struct EventRow {
    id: Uuid,
    genesis_id: String,
    block_id: String,
    block_number: i64,
    block_timestamp: DateTime<Utc>,
    tx_hash: String,
    clause_index: i32,
    log_index: i32,
    address: String,
    signature: Option<String>,
    kind: &'static str,
    data: Value,
    created_at: DateTime<Utc>,
}

/// What steps say of a block: the highest seq, and whether the block counts by it.
type Blocks = BTreeMap<(String, String), (i64, bool)>;

/// Steps of networks, in any order. The newest step of a block says whether its branch counts.
async fn steps(tx: &mut PgConnection, steps: &[&ChainStep]) -> sqlx::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let (blocks, events) = sorted(steps);
    let mut hashes: Vec<String> = events.values().map(|row| row.tx_hash.clone()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    // Read last and locked first, in the order of the tables: else emptying the tables and this wait in a circle.
    query("lock table blockchain_transactions in access share mode").execute(&mut *tx).await?;
    take_turns(tx, &hashes).await?;
    let blocks: Vec<_> = blocks.into_iter().collect();
    query(
        "insert into chain_blocks as b (genesis_id, block_id, seq, canonical)
         select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bool[])
         on conflict (genesis_id, block_id) do update set seq = excluded.seq, canonical = excluded.canonical
         where excluded.seq > b.seq",
    )
    .bind(column(&blocks, |((genesis, _), _)| genesis.clone()))
    .bind(column(&blocks, |((_, block), _)| block.clone()))
    .bind(column(&blocks, |(_, (seq, _))| *seq))
    .bind(column(&blocks, |(_, (_, canonical))| *canonical))
    .execute(&mut *tx)
    .await?;
    let blocks: Vec<(String, String)> = blocks.into_iter().map(|(block, _)| block).collect();
    hold(tx, &hashes, &blocks).await?;
    insert(tx, &events.into_values().collect::<Vec<_>>()).await?;
    query(
        "update blockchain_events e set canonical = b.canonical from chain_blocks b
         where b.genesis_id = e.genesis_id and b.block_id = e.block_id and e.canonical <> b.canonical
            and (b.genesis_id, b.block_id) in (select * from unnest($1::text[], $2::text[]))",
    )
    .bind(column(&blocks, |(genesis, _)| genesis.clone()))
    .bind(column(&blocks, |(_, block)| block.clone()))
    .execute(&mut *tx)
    .await?;
    balances::follow(tx, &blocks).await?;
    settle(tx, &hashes).await
}

fn sorted(steps: &[&ChainStep]) -> (Blocks, BTreeMap<Uuid, EventRow>) {
    let (mut blocks, mut events) = (Blocks::new(), BTreeMap::<Uuid, EventRow>::new());
    for step in steps {
        let (block, canonical) = match step {
            ChainStep::Adopted(step) => (&step.block.id, true),
            ChainStep::Undone(step) => (&step.block_id, false),
        };
        let newest = (step.seq(), canonical);
        let kept = blocks.entry((step.genesis_id().to_owned(), block.clone())).or_insert(newest);
        *kept = newest.max(*kept);
        let ChainStep::Adopted(block) = step else { continue };
        for found in &block.transactions {
            for row in found.logs.iter().map(|log| row(block, found, log)) {
                // A block's second adoption tells of the same logs, later.
                let at = row.created_at;
                let kept = events.entry(row.id).or_insert(row);
                kept.created_at = kept.created_at.min(at);
            }
        }
    }
    (blocks, events)
}

async fn insert(tx: &mut PgConnection, rows: &[EventRow]) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    query(
        "insert into blockchain_events as e (id, genesis_id, block_id, block_number, block_timestamp, tx_hash, clause_index,
            log_index, contract_address, event_signature, event_type, event_data, created_at, processed)
         select *, false from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::text[],
            $7::int[], $8::int[], $9::text[], $10::text[], $11::text[], $12::jsonb[], $13::timestamptz[])
         on conflict (id) do update set created_at = least(e.created_at, excluded.created_at)",
    )
    .bind(column(rows, |row| row.id))
    .bind(column(rows, |row| row.genesis_id.clone()))
    .bind(column(rows, |row| row.block_id.clone()))
    .bind(column(rows, |row| row.block_number))
    .bind(column(rows, |row| row.block_timestamp))
    .bind(column(rows, |row| row.tx_hash.clone()))
    .bind(column(rows, |row| row.clause_index))
    .bind(column(rows, |row| row.log_index))
    .bind(column(rows, |row| row.address.clone()))
    .bind(column(rows, |row| row.signature.clone()))
    .bind(column(rows, |row| row.kind))
    .bind(column(rows, |row| row.data.clone()))
    .bind(column(rows, |row| row.created_at))
    .execute(tx)
    .await?;
    Ok(())
}

/// Advisory locks of [`take_turns`] at most, a batch: 6 writers take less than the 6,400 that PostgreSQL holds by default
/// (`max_locks_per_transaction` 64 times `max_connections` 100).
const TURNS: i64 = 1_024;

/// Waits until no other batch works on these transactions: what one batch of two writes, the other then sees. Transactions
/// whose hashes fall together wait for each other too.
pub(super) async fn take_turns(tx: &mut PgConnection, hashes: &[String]) -> sqlx::Result<()> {
    query(
        "select pg_advisory_xact_lock(hashtext('blockchain_transactions'), turn) from (
            select distinct (hashtextextended(h, 0) & ($2 - 1))::int as turn from unnest($1::text[]) h order by turn
         ) o",
    )
    .bind(hashes)
    .bind(TURNS)
    .execute(tx)
    .await?;
    Ok(())
}

/// Locks the events of transactions and of blocks (network and id) by key, before any of them is changed.
pub(super) async fn hold(
    tx: &mut PgConnection,
    hashes: &[String],
    blocks: &[(String, String)],
) -> sqlx::Result<()> {
    query(
        "select 1 from blockchain_events where id in (
            select id from blockchain_events where tx_hash = any($1)
            union all
            select id from blockchain_events
            where (genesis_id, block_id) in (select * from unnest($2::text[], $3::text[]))
         ) order by id for no key update",
    )
    .bind(hashes)
    .bind(column(blocks, |(genesis, _)| genesis.clone()))
    .bind(column(blocks, |(_, block)| block.clone()))
    .execute(tx)
    .await?;
    Ok(())
}

/// An event is processed once its transaction is confirmed in the event's own block; an undone block takes that back. Either topic
/// may be first.
pub(super) async fn settle(tx: &mut PgConnection, hashes: &[String]) -> sqlx::Result<()> {
    query(
        "update blockchain_events e set processed = s.done, processed_at = s.at
         from (
            select e.id, t.id is not null as done, t.confirmed_at as at from blockchain_events e
            left join blockchain_transactions t on t.tx_hash = e.tx_hash and t.block_id = e.block_id
                and t.genesis_id = e.genesis_id and t.attempt_state in ('confirmed', 'final')
            where e.tx_hash = any($1)
         ) s
         where s.id = e.id and (e.processed, e.processed_at) is distinct from (s.done, s.at)",
    )
    .bind(hashes)
    .execute(tx)
    .await?;
    Ok(())
}

fn row(block: &BlockAdopted, found: &ChainTransaction, log: &ChainLog) -> EventRow {
    let (clause, index) = (log.clause_index, log.log_index);
    let decoded =
        Log::from_hex(&log.address, &log.topics, &log.data).and_then(|log| ContractEvent::decode(&log));
    let mut data = json!({"topics": log.topics, "data": log.data});
    if let Some(event) = &decoded {
        data["decoded"] = decoded_json(event);
        if let Some(balance) = &log.balance_after_wei {
            data["decoded"]["balance_after_wei"] = balance.as_str().into();
        }
    }
    EventRow {
        id: natural(&format!("{}:{}:{}:{clause}:{index}", block.genesis_id, block.block.id, found.id)),
        genesis_id: block.genesis_id.clone(),
        block_id: block.block.id.clone(),
        block_number: block.block.number,
        block_timestamp: block.block.timestamp.to_utc(),
        tx_hash: found.id.clone(),
        clause_index: clause,
        log_index: index,
        address: log.address.clone(),
        signature: log.topics.first().cloned(),
        kind: decoded.as_ref().map_or("Unknown", ContractEvent::name),
        data,
        created_at: block.occurred_at.to_utc(),
    }
}

/// `{name,app_id,receiver,amount_wei,distributor,reward_id}`, as far as the event has them.
fn decoded_json(event: &ContractEvent) -> Value {
    use ContractEvent as E;
    let (app, receiver, amount, distributor, text) = match event {
        E::RewardDistributed { amount, app, receiver, proof: text, distributor }
        | E::RewardMetadata { amount, app, receiver, metadata: text, distributor } => {
            (Some(app), Some(receiver), Some(amount), Some(distributor), Some(text))
        }
        E::Transfer { to, amount, .. } => (None, Some(to), Some(amount), None, None),
        E::TeamWithdrawal { amount, app, team_wallet, .. } => {
            (Some(app), Some(team_wallet), Some(amount), None, None)
        }
        E::RegisteredAction { app, user, .. } => (Some(app), Some(user), None, None, None),
        E::NewDeposit { amount, app, .. } | E::RewardsPoolBalanceUpdated { app, amount, .. } => {
            (Some(app), None, Some(amount), None, None)
        }
        E::AppPaused { app, .. } | E::AppUnpaused { app, .. } => (Some(app), None, None, None, None),
        E::RegisterActionFailed { .. } => (None, None, None, None, None),
    };
    let fields = [
        ("name", Some(event.name().to_owned())),
        ("app_id", app.map(ToString::to_string)),
        ("receiver", receiver.map(ToString::to_string)),
        ("amount_wei", amount.map(ToString::to_string)),
        ("distributor", distributor.map(ToString::to_string)),
        ("reward_id", text.and_then(|text| reward_id(text)).map(|id| id.to_string())),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    Value::Object(fields.collect())
}

/// The first UUID in a text: our proof and our metadata hold one alone, the reward's.
fn reward_id(text: &str) -> Option<Uuid> {
    const LENGTH: usize = 36;
    (0..text.len().saturating_sub(LENGTH - 1))
        .filter_map(|at| text.get(at..at + LENGTH))
        .find_map(|part| Uuid::try_parse(part).ok())
}

#[cfg(test)]
#[path = "chain_events_tests.rs"]
mod tests;
