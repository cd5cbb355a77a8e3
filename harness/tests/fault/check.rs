//! What must hold after a run, and the tables as text.

use std::collections::{BTreeMap, BTreeSet};

use harness::topics::read_all;
use processors::fraud_check::oracle;
use processors::fraud_check::rules::Rules;
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{OdometerRead, UploadDecided, UploadReceived, Verdict};
use schemas::ids::UploadId;
use sinks::database::Table;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row as _};

use crate::run::Run;

/// Every way in which the run broke a promise, in words.
pub fn violations(run: &Run) -> Vec<String> {
    let accepted: BTreeSet<UploadId> = run.accepted().into_iter().map(UploadId).collect();
    let received = read_all::<UploadReceived>(&run.kafka, "").unwrap();
    let readings = read_all::<OdometerRead>(&run.kafka, "").unwrap();
    let decided = read_all::<UploadDecided>(&run.kafka, "").unwrap();
    let mut found = Vec::new();

    let published: BTreeSet<UploadId> = received.iter().map(|record| record.event.header.upload_id).collect();
    found.extend(accepted.difference(&published).map(|id| format!("{id} was accepted and never published")));

    // The same decision may stand twice, byte for byte (published again after a crash); two different ones may not.
    let mut versions: BTreeMap<UploadId, BTreeSet<&[u8]>> = BTreeMap::new();
    for record in &decided {
        versions.entry(record.event.header.upload_id).or_default().insert(&record.bytes);
    }
    for id in &accepted {
        match versions.get(id).map_or(0, BTreeSet::len) {
            1 => {}
            0 => found.push(format!("{id} was accepted and never decided")),
            n => found.push(format!("{id} was decided in {n} different ways")),
        }
    }
    let first: BTreeMap<UploadId, &UploadDecided> =
        decided.iter().rev().map(|record| (record.event.header.upload_id, &record.event)).collect();
    let judgements = oracle::fold(readings.iter().map(|record| &record.event), &Rules::current());
    for (id, judgement) in &judgements {
        let Some(event) = first.get(id) else { continue };
        let ours = (event.verdict, event.reason, event.final_mileage, event.distance_km);
        let theirs = (judgement.verdict, judgement.reason, judgement.final_mileage, judgement.distance_km);
        if ours != theirs {
            found.push(format!("{id}: decided {ours:?}, the oracle says {theirs:?}"));
        }
    }
    let paid: Decimal = first.values().filter_map(|event| event.distance_km).sum();
    eprintln!(
        "fault: {} accepted, {} verified, {} decision records, {paid} km in all",
        accepted.len(),
        first.values().filter(|event| event.verdict == Verdict::Verified).count(),
        decided.len()
    );
    if accepted.len() >= 300 && paid == Decimal::ZERO {
        found.push("no upload of a long run earned a distance: the run shows too little".to_owned());
    }
    found.extend(block_on(table_violations(run, &first)));
    found.extend(crate::rewards::violations(run, &first));
    if run.chain.is_some() {
        found.extend(block_on(crate::payments::violations(run)));
        found.extend(block_on(crate::aggregates::violations(run, &received, &first)));
    }
    found
}

async fn table_violations(run: &Run, decided: &BTreeMap<UploadId, &UploadDecided>) -> Vec<String> {
    let rows = sqlx::query(
        "select u.id, u.upload_status::text as status, m.distance_traveled, m.final_mileage
         from odometer_uploads u join mileage_data m on m.upload_id = u.id",
    )
    .fetch_all(&pool(run).await)
    .await
    .unwrap();
    let mut found = Vec::new();
    if rows.len() != decided.len() {
        found.push(format!("{} rows for {} decided uploads", rows.len(), decided.len()));
    }
    for row in rows {
        let id = UploadId(row.get("id"));
        let Some(event) = decided.get(&id) else {
            found.push(format!("{id} is in the tables and was not decided"));
            continue;
        };
        let status = match event.verdict {
            Verdict::Review => "processing",
            other => other.label(),
        };
        let cut = |value: Option<Decimal>| {
            value.map(|value| value.round_dp_with_strategy(2, RoundingStrategy::ToZero))
        };
        let expected = (status.to_owned(), cut(event.distance_km), cut(event.final_mileage));
        let got: (String, Option<Decimal>, Option<Decimal>) =
            (row.get("status"), row.get("distance_traveled"), row.get("final_mileage"));
        if got != expected {
            found.push(format!("{id}: the tables say {got:?}, the decision {expected:?}"));
        }
    }
    found
}

/// Every row and column of the materialized tables, a line each, in an order of its own.
pub fn materialized(run: &Run) -> String {
    block_on(async {
        let pool = pool(run).await;
        let mut lines = Vec::new();
        let rows = |Table { name, key }: &Table| {
            format!("select '{name} ' || to_jsonb(t)::text from {name} t order by {key}")
        };
        let tables = sinks::postgres::tables().emptied;
        let mut queries: Vec<String> = tables.iter().map(rows).collect();
        queries.push(rows(&Table { name: "analytics_data", key: "id" }));
        queries.push(
            "select 'users ' || jsonb_build_object('id', id, 'km', total_mileage, 'b3tr', total_rewards,
                'score', sustainability_score)::text from users order by id"
                .to_owned(),
        );
        for query in queries {
            let found = sqlx::query_scalar::<_, String>(AssertSqlSafe(query)).fetch_all(&pool).await;
            lines.extend(found.unwrap());
        }
        lines.join("\n")
    })
}

/// Equal line by line; shows the first few that differ.
pub fn assert_equal_lines(before: &str, after: &str) {
    let differing: Vec<String> = before
        .lines()
        .zip(after.lines())
        .filter(|(one, other)| one != other)
        .take(3)
        .map(|(one, other)| format!("before {one}\nafter  {other}"))
        .collect();
    assert_eq!(before.lines().count(), after.lines().count(), "another number of rows after the rebuild");
    assert!(differing.is_empty(), "rows differ after the rebuild:\n{}", differing.join("\n"));
}

pub async fn pool(run: &Run) -> PgPool {
    PgPoolOptions::new().max_connections(2).connect(run.stack.database_url()).await.unwrap()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
