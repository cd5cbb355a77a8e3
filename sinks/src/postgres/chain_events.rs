//! `chain.events`: the logs of the transactions that have to do with our app, a row a log and branch.

use std::collections::BTreeMap;

use chain::abi::ContractEvent;
use chain::node::Event as Log;
use chrono::{DateTime, Utc};
use schemas::events::{BlockAdopted, ChainLog, ChainStep, ChainTransaction};
use schemas::ids::natural;
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, query};
use uuid::Uuid;

use super::service::column;

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

/// Steps of a network, in order. The newest step of a block says whether its branch counts.
pub(super) async fn steps(tx: &mut PgConnection, steps: &[&ChainStep]) -> sqlx::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let (mut blocks, mut events) = (BTreeMap::new(), BTreeMap::new());
    for step in steps {
        let (genesis, block, canonical) = match step {
            ChainStep::Adopted(step) => (&step.genesis_id, &step.block.id, true),
            ChainStep::Undone(step) => (&step.genesis_id, &step.block_id, false),
        };
        let newest = blocks.entry((genesis.clone(), block.clone())).or_insert((step.seq(), canonical));
        if step.seq() >= newest.0 {
            *newest = (step.seq(), canonical);
        }
        if let ChainStep::Adopted(block) = step {
            for row in block
                .transactions
                .iter()
                .flat_map(|found| found.logs.iter().map(move |log| row(block, found, log)))
            {
                // A block's second adoption tells of the same logs, later.
                events.entry(row.id).or_insert(row);
            }
        }
    }
    let mut hashes: Vec<String> = events.values().map(|row| row.tx_hash.clone()).collect();
    hashes.sort_unstable();
    hashes.dedup();
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
    insert(tx, &events.into_values().collect::<Vec<_>>()).await?;
    query(
        "update blockchain_events e set canonical = b.canonical from chain_blocks b
         where b.genesis_id = e.genesis_id and b.block_id = e.block_id and e.canonical <> b.canonical
            and (b.genesis_id, b.block_id) in (select * from unnest($1::text[], $2::text[]))",
    )
    .bind(column(&blocks, |((genesis, _), _)| genesis.clone()))
    .bind(column(&blocks, |((_, block), _)| block.clone()))
    .execute(&mut *tx)
    .await?;
    settle(tx, &hashes).await
}

async fn insert(tx: &mut PgConnection, rows: &[EventRow]) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    query(
        "insert into blockchain_events as e (id, genesis_id, block_id, block_number, block_timestamp, tx_hash, clause_index,
            log_index, contract_address, event_signature, event_type, event_data, created_at, processed)
         select *, false from unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::timestamptz[], $6::text[],
            $7::int[], $8::int[], $9::text[], $10::text[], $11::text[], $12::jsonb[], $13::timestamptz[])
         on conflict (id) do update set created_at = least(e.created_at, excluded.created_at)",
    )
    .bind(column(rows, |row| row.id))
    .bind(column(rows, |row| row.genesis_id.clone()))
    .bind(column(rows, |row| row.block_id.clone()))
    .bind(column(rows, |row| i32::try_from(row.block_number).unwrap_or(i32::MAX)))
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

/// Waits until no other batch works on these transactions: what one batch of two writes, the other then sees.
pub(super) async fn take_turns(tx: &mut PgConnection, hashes: &[String]) -> sqlx::Result<()> {
    query("select pg_advisory_xact_lock(hashtextextended(h, 0)) from (select h from unnest($1::text[]) h order by h) o")
        .bind(hashes)
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
                and t.attempt_state in ('confirmed', 'final')
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
    let decoded = parsed(log).and_then(|log| ContractEvent::decode(&log));
    let mut data = json!({"topics": log.topics, "data": log.data});
    if let Some(event) = &decoded {
        data["decoded"] = decoded_json(event);
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

fn parsed(log: &ChainLog) -> Option<Log> {
    Some(Log {
        address: log.address.parse().ok()?,
        topics: log.topics.iter().map(|topic| topic.parse()).collect::<Result<_, _>>().ok()?,
        data: hex::decode(log.data.strip_prefix("0x")?).ok()?,
    })
}

/// `{name,app_id,receiver,amount_wei,distributor,reward_id}`, as far as the event has them.
fn decoded_json(event: &ContractEvent) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: String| drop(fields.insert(name.to_owned(), value.into()));
    put("name", event.name().to_owned());
    match event {
        ContractEvent::RewardDistributed { amount, app, receiver, proof: text, distributor }
        | ContractEvent::RewardMetadata { amount, app, receiver, metadata: text, distributor } => {
            put("app_id", app.to_string());
            put("receiver", receiver.to_string());
            put("amount_wei", amount.to_string());
            put("distributor", distributor.to_string());
            if let Some(id) = reward_id(text) {
                put("reward_id", id.to_string());
            }
        }
        ContractEvent::Transfer { to, amount, .. } => {
            put("receiver", to.to_string());
            put("amount_wei", amount.to_string());
        }
        ContractEvent::RegisteredAction { app, user, .. } => {
            put("app_id", app.to_string());
            put("receiver", user.to_string());
        }
        _ => {}
    }
    Value::Object(fields)
}

/// The first UUID in a text: our proof and our metadata hold one alone, the reward's.
fn reward_id(text: &str) -> Option<Uuid> {
    const LENGTH: usize = 36;
    (0..text.len().saturating_sub(LENGTH - 1))
        .filter_map(|at| text.get(at..at + LENGTH))
        .find_map(|part| Uuid::try_parse(part).ok().filter(|_| part.contains('-')))
}
