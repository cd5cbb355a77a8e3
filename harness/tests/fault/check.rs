//! What must hold after a run, and the tables as text.

use std::collections::{BTreeMap, BTreeSet};

use harness::topics::{Decoded, read_each};
use processors::fraud_check::input::FraudInput;
use processors::fraud_check::oracle;
use processors::fraud_check::rules::Rules;
use runtime::registry::{Registry, RegistryConfig};
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{Correction, UploadDecided, UploadReceived, Verdict};
use schemas::ids::UploadId;
use schemas::reason::Reason;
use sinks::database::Table;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row as _};

use crate::run::Run;

/// The decisions of a run: each effect's first record.
pub struct Decided<'a> {
    /// By effect.
    pub by_effect: BTreeMap<String, &'a UploadDecided>,
    /// The newest decision of each upload that something can be earned by: a person's, or the first one.
    pub earning: BTreeMap<UploadId, &'a UploadDecided>,
    /// The newest decision of each upload: the last correction, where there is one.
    pub newest: BTreeMap<UploadId, &'a UploadDecided>,
}

impl<'a> Decided<'a> {
    fn of(records: &'a [Decoded<UploadDecided>]) -> Self {
        let mut by_effect = BTreeMap::new();
        for record in records {
            by_effect.entry(oracle::effect_of(&record.event)).or_insert(&record.event);
        }
        let rank = |event: &UploadDecided| match &event.correction {
            Some(correction) => 1 + correction.number,
            None => i32::from(event.review.is_some()),
        };
        let last = |counts: fn(&UploadDecided) -> bool| {
            let mut last: BTreeMap<UploadId, &'a UploadDecided> = BTreeMap::new();
            for event in by_effect.values().filter(|event| counts(event)) {
                let known = last.entry(event.header.upload_id).or_insert(event);
                if rank(event) > rank(known) {
                    *known = event;
                }
            }
            last
        };
        let (earning, newest) = (last(|event| event.correction.is_none()), last(|_| true));
        Self { by_effect, earning, newest }
    }
}

/// Every record of a topic that a stage with this input takes.
pub fn read<R: runtime::Decided>(run: &Run) -> Vec<Decoded<R>> {
    let registry = Registry::new(&RegistryConfig::open(run.stack.schema_registry_url())).unwrap();
    block_on(read_each(&run.kafka, &registry, "")).unwrap()
}

/// Every way in which the run broke a promise, in words.
pub fn violations(run: &Run) -> Vec<String> {
    let accepted: BTreeSet<UploadId> = run.accepted().into_iter().map(UploadId).collect();
    let (received, readings) = (read::<UploadReceived>(run), read::<FraudInput>(run));
    let records = read::<UploadDecided>(run);
    let mut found = Vec::new();

    let published: BTreeSet<UploadId> = received.iter().map(|record| record.event.header.upload_id).collect();
    found.extend(accepted.difference(&published).map(|id| format!("{id} was accepted and never published")));

    // The same decision may stand twice, byte for byte (published again after a crash); two different ones may not.
    let mut versions: BTreeMap<String, BTreeSet<&[u8]>> = BTreeMap::new();
    for record in &records {
        versions.entry(oracle::effect_of(&record.event)).or_default().insert(&record.bytes);
    }
    let undecided = accepted.iter().filter(|id| !versions.contains_key(&format!("verdict:{id}")));
    found.extend(undecided.map(|id| format!("{id} was accepted and never decided")));
    let doubled = versions.iter().filter(|(_, versions)| versions.len() > 1);
    found.extend(
        doubled
            .map(|(effect, versions)| format!("{effect} was decided in {} different ways", versions.len())),
    );

    let decided = Decided::of(&records);
    let judgements = oracle::fold_all(readings.iter().map(|record| &record.event), &Rules::current());
    for (effect, theirs) in &judgements {
        match decided.by_effect.get(effect).map(|event| oracle::said_by(event)) {
            Some(ours) if ours == *theirs => {}
            ours => found.push(format!("{effect}: decided {ours:?}, the oracle says {theirs:?}")),
        }
    }
    let beyond = decided.by_effect.keys().filter(|effect| !judgements.contains_key(*effect));
    found.extend(beyond.map(|effect| format!("{effect} was decided, and the oracle decides nothing")));
    found.extend(people_violations(run, &decided, &judgements));
    let paid: Decimal = decided.earning.values().filter_map(|event| event.distance_km).sum();
    eprintln!(
        "fault: {} accepted, {} verified, {} decision records, {paid} km in all",
        accepted.len(),
        decided.earning.values().filter(|event| event.verdict == Verdict::Verified).count(),
        records.len()
    );
    if accepted.len() >= 150 && paid == Decimal::ZERO {
        found.push("no upload of a long run earned a distance: the run shows too little".to_owned());
    }
    found.extend(block_on(table_violations(run, &decided.newest)));
    found.extend(crate::rewards::violations(run, &decided.earning));
    if run.chain.is_some() {
        found.extend(crate::payments::violations(run));
        found.extend(block_on(crate::aggregates::violations(run, &received, &decided.earning)));
    }
    found
}

/// What people have said is what was decided; of a run without them nothing is asked.
fn people_violations(run: &Run, decided: &Decided, oracle: &BTreeMap<String, oracle::Said>) -> Vec<String> {
    let mut found = Vec::new();
    for (id, mileage) in &run.done.reviewed {
        let Some(event) = decided.by_effect.get(&format!("review:{id}")) else {
            found.push(format!("{id} was reviewed and not decided"));
            continue;
        };
        let said = event.review.as_ref().map(|review| review.mileage.map(|mileage| mileage.normalize()));
        // What a car cannot have driven is a slip of the person's.
        let fits = match (mileage, event.verdict) {
            (Some(_), Verdict::Rejected) => event.reason == Some(Reason::ImpossibleSpeed),
            (Some(_), verdict) => {
                verdict == Verdict::Verified
                    && event.final_mileage.map(|mileage| mileage.normalize()) == *mileage
            }
            (None, verdict) => verdict == Verdict::Rejected && event.reason == Some(Reason::ReviewRejected),
        };
        if said != Some(*mileage) || !fits {
            let outcome = (event.verdict, event.reason, event.final_mileage);
            found
                .push(format!("{id}: a person said {mileage:?}, and it was decided {outcome:?} by {said:?}"));
        }
    }
    for (id, mileage) in &run.done.corrected {
        let effect = Correction::effect(*id, 1);
        let corrected = decided.by_effect.get(&effect).and_then(|event| event.final_mileage);
        // One that is refused is decided as well: another was on its way.
        if oracle.contains_key(&effect) && corrected.map(|mileage| mileage.normalize()) != Some(*mileage) {
            found.push(format!("{id} was corrected to {mileage}, and it was decided {corrected:?}"));
        }
    }
    if run.chain.is_some() {
        let waiting = decided.earning.iter().filter(|(_, event)| event.verdict == Verdict::Review);
        found.extend(waiting.map(|(id, _)| format!("{id} waits for a person")));
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
    connected(run.stack.database_url()).await
}

pub async fn connected(database_url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(2).connect(database_url).await.unwrap()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
