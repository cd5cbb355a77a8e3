//! Every example of every stage's input topic goes through its stage; what comes out is compared with the stage's file.
//! `UPDATE_GOLDEN=1 cargo test -p processors --test golden` writes the files anew: read the diff.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use processors::chain_submission::consume::PayoutInput;
use processors::chain_submission::ledger::rows::{Attempt, PaidClause, Transaction};
use processors::chain_submission::ledger::snapshot;
use processors::chain_submission::ledger::transition::{self, Change, Claim};
use processors::fraud_check::corrections::correct;
use processors::fraud_check::facts::VehicleState;
use processors::fraud_check::input::unread;
use processors::fraud_check::judge::judge;
use processors::fraud_check::neighbours::Verified;
use processors::fraud_check::rules::Rules;
use processors::limit_check::grant::{Budgets, grant};
use processors::pipeline::{self, PureVisitor, STAGES};
use processors::reward_rules::Rulebook;
use runtime::testing::{MemoryOutbound, MemorySchemas, raw, stage_context};
use runtime::worker::Decoded;
use runtime::{Processor, Verdict};
use schemas::codec;
use schemas::events::{
    ActivityLogged, AttemptState, BlockAdopted, BlockUndone, Event, ModelDeployed, OdometerRead, PayoutState,
    ReadingCorrected, RewardCalculated, RewardClaimed, RewardGranted, Unit, UploadAbandoned, UploadDecided,
    UploadGraded, UploadHeader, UploadReceived,
};
use schemas::ids::{Micros, UploadId};
use schemas::topic::Topic;
use serde_json::{Value, json};
use sqlx::types::Json;
use support::{Example, MemoryAnswers, dependencies, examples, photo, put, record, workspace};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[tokio::test]
async fn each_example_makes_the_event_and_documents_that_are_checked_in() {
    for row in STAGES {
        let inputs: Vec<_> = row
            .inputs
            .iter()
            .flat_map(|topic| examples(*topic))
            .filter(|example| !example.is_malformed())
            .collect();
        assert!(inputs.iter().any(|example| example.name.starts_with("normal-")), "{}", row.name);
        assert!(inputs.iter().any(|example| example.name.starts_with("edge-")), "{}", row.name);
        let mut outputs = serde_json::Map::new();
        for example in &inputs {
            let mut output = match row.name {
                "quality_check" => quality_check(example).await,
                "odometer_reading" => odometer_reading(example).await,
                "fraud_check" => fraud_check(example),
                "limit_check" => limit_check(example),
                "chain_submission" => chain_submission(example),
                // What is pure and needs nothing but its event is run as it is.
                pure => {
                    let (dependencies, _) = dependencies();
                    pipeline::visit_pure(pure, &dependencies, RunOver(example)).await.unwrap()
                }
            };
            redact(&mut output);
            outputs.insert(example.name.clone(), output);
        }
        compare(row.name, &Value::Object(outputs));
    }
}

async fn quality_check(example: &Example) -> Value {
    let (dependencies, store) = dependencies();
    let event: UploadReceived = example.event();
    give_photo(example, &store, &event.header).await;
    emitted(dependencies.quality_check().process(&record(event, 41)).await.unwrap())
}

async fn odometer_reading(example: &Example) -> Value {
    let (dependencies, store) = dependencies();
    let event: UploadGraded = example.event();
    give_photo(example, &store, &event.header).await;
    let stage = dependencies.odometer_reading_with(MemoryAnswers::default()).await.unwrap();
    emitted(stage.process(&record(event, 41)).await.unwrap())
}

/// A correction of the newest of two readings, and of one with a newer one behind it.
fn corrected(event: &ReadingCorrected) -> Value {
    let accepted_at = event.decided.header.accepted_at;
    let verified = |at: i64, km: i64, first| Verified { accepted_at: Micros(at), km: km.into(), first };
    let recent = vec![
        verified(accepted_at.0 - 10 * 86_400_000_000, 50_001, true),
        verified(accepted_at.0, 50_310, false),
    ];
    let newest = VehicleState {
        last_km: 50_310.into(),
        highest_km: 50_310.into(),
        unit: Unit::Km,
        unit_shown: Some(Unit::Km),
        last_at: accepted_at,
        last_upload_id: event.decided.header.upload_id,
        recent,
        owner: event.decided.header.user_id,
    };
    let mut overtaken = newest.clone();
    overtaken.recent.push(verified(accepted_at.0 + 1, 50_500, false));
    (overtaken.last_km, overtaken.highest_km) = (50_500.into(), 50_500.into());
    let outcome = |vehicle: &VehicleState| {
        let corrected = correct(event, Some(vehicle)).unwrap();
        let recent = corrected.next_state.map(|state| state.recent);
        json!({"event": corrected.decided, "recent": recent})
    };
    json!({"newest": outcome(&newest), "overtaken": outcome(&overtaken)})
}

/// Judged twice: as the first reading of the vehicle, and after 50,001 km ten days before.
fn fraud_check(example: &Example) -> Value {
    if example.json["record"] == ReadingCorrected::NAME {
        return corrected(&example.event());
    }
    let event = if example.json["record"] == UploadAbandoned::NAME {
        unread(example.event())
    } else {
        example.event::<OdometerRead>()
    };
    let known = VehicleState {
        last_km: 50_001.into(),
        highest_km: 50_001.into(),
        unit: Unit::Km,
        unit_shown: Some(Unit::Km),
        last_at: Micros(event.header.accepted_at.0 - 10 * 86_400_000_000),
        last_upload_id: UploadId(Uuid::from_u128(1)),
        recent: Vec::new(),
        owner: event.header.user_id,
    };
    let outcome = |vehicle: Option<&VehicleState>| {
        let judgement = judge(&event, vehicle, &Rules::current());
        json!({
            "verdict": judgement.verdict, "reason": judgement.reason, "detail": judgement.detail,
            "unit": judgement.unit, "claimed": judgement.claimed, "ai": judgement.ai,
            "final": judgement.final_mileage, "confidence": judgement.confidence, "previous": judgement.previous,
            "distance_km": judgement.distance_km, "baseline": judgement.baseline, "signals": judgement.signals,
        })
    };
    json!({"first": outcome(None), "after_50001_km": outcome(Some(&known))})
}

struct RunOver<'a>(&'a Example);

impl PureVisitor for RunOver<'_> {
    type Output = Value;

    async fn visit<P: Processor>(self, stage: P) -> Value {
        match stage.process(&record(self.0.event(), 41)).await.unwrap() {
            Verdict::Drop(reason) => json!({"drop": reason}),
            Verdict::Reject(reason) => json!({"reject": reason}),
            Verdict::DropWith(reason, logs) => json!({"drop": reason, "documents": documents(&logs)}),
            Verdict::Emit(event) => json!({"event": event}),
            emitted_with => emitted(emitted_with),
        }
    }
}

/// Granted twice: as the first reward of the user, and after 28 B3TR of the same day.
fn limit_check(example: &Example) -> Value {
    let event: RewardCalculated = example.event();
    let book = Rulebook::first();
    let policy = &book.in_force(event.header.accepted_at).policy;
    let outcome = |budgets: &mut Budgets| {
        let grant = grant(&event, budgets, policy, Micros(0)).unwrap();
        json!({
            "granted": grant.amount, "reason": grant.reason, "detail": grant.detail, "remaining": grant.remaining,
            "charges": grant.charges, "evidence": grant.evidence,
        })
    };
    let before = RewardCalculated { base: 28.into(), bonus: 0.into(), ..event.clone() };
    let mut used = Budgets::new();
    grant(&before, &mut used, policy, Micros(0)).unwrap();
    json!({"first": outcome(&mut Budgets::new()), "after_28_b3tr": outcome(&mut used)})
}

/// A grant becomes a payout, a claim is applied to one that waits for it, and a block to the transaction that pays `normal-whole`.
fn chain_submission(example: &Example) -> Value {
    let at = Micros(1_772_438_403_000_000).to_utc();
    match example.json["record"].as_str().unwrap() {
        RewardGranted::NAME => {
            let payout = transition::granted(&example.event(), None, at).unwrap();
            json!(payout.map(|payout| snapshot::updated(&payout, None, at.into())))
        }
        RewardClaimed::NAME => {
            let claim = Claim::from(&example.event::<RewardClaimed>());
            let mut event: RewardGranted = whole();
            (event.stamp.auto_claim, event.stamp.wallet_id) = (false, None);
            let mut payout = transition::granted(&event, None, at).unwrap().unwrap();
            assert!(payout.claimed(claim, at));
            json!(snapshot::updated(&payout, None, at.into()))
        }
        BlockAdopted::NAME => {
            let (block, mut transaction) = (example.event::<BlockAdopted>(), sent());
            let found = block.transactions.iter().find(|found| found.id == transaction.attempt.tx_id);
            let change = found.and_then(|found| transaction.included(&block, found));
            of_change(&transaction, change, block.occurred_at)
        }
        BlockUndone::NAME => {
            let (undone, mut transaction) = (example.event::<BlockUndone>(), sent());
            let adopted =
                examples(Topic::ChainEvents).into_iter().find(|example| example.name == "normal-adopted");
            let block: BlockAdopted = adopted.unwrap().event();
            transaction.included(&block, &block.transactions[0]);
            let change = transaction.undone(&undone.block_id, undone.occurred_at.to_utc());
            of_change(&transaction, change, undone.occurred_at)
        }
        // A correction keeps its reward from being paid: that is tried on Postgres. Any other decision is passed over.
        UploadDecided::NAME => {
            json!({"corrects": example.event::<UploadDecided>().correction.map(|correction| correction.number)})
        }
        other => panic!("write here what {other} does"),
    }
}

fn of_change(transaction: &Transaction, change: Option<Change>, at: Micros) -> Value {
    let event = snapshot::updated(&transaction.payouts[0], Some((transaction, 0)), at);
    json!({"step": change.map(Change::label), "event": event})
}

fn whole() -> RewardGranted {
    examples(Topic::RewardsGranted).iter().find(|example| example.name == "normal-whole").unwrap().event()
}

/// A posted transaction that pays the reward of `normal-whole`.
fn sent() -> Transaction {
    let at = Micros(1_772_438_404_000_000).to_utc();
    let mut payout = transition::granted(&whole(), None, at).unwrap().unwrap();
    let attempt: Value = serde_json::from_str(include_str!("attempt.json")).unwrap();
    let text = |name: &str| attempt[name].as_str().unwrap().to_owned();
    let number = |name: &str| attempt[name].as_i64().unwrap();
    payout.state = PayoutState::InFlight;
    payout.tx_id = Some(text("tx_id"));
    let clause = PaidClause {
        tx_id: text("tx_id"),
        clause_index: 0,
        reward_id: payout.reward_id,
        attempt_no: 1,
        receiver: text("receiver"),
        amount_wei: payout.amount_wei,
        gas_weight: number("estimated_gas"),
    };
    let attempt = Attempt {
        tx_id: text("tx_id"),
        genesis_id: text("genesis_id"),
        signer: text("signer"),
        gas_payer: text("signer"),
        contract: text("contract"),
        app_id: text("app_id"),
        method: text("method"),
        batch_id: text("batch_id"),
        block_ref: text("block_ref"),
        expiration: number("expiration"),
        last_valid: number("last_valid"),
        nonce: number("nonce").into(),
        gas_limit: number("gas_limit"),
        estimated_gas: number("estimated_gas"),
        max_fee_wei: number("max_fee_wei").into(),
        priority_wei: number("priority_wei").into(),
        strategy: text("strategy"),
        state: AttemptState::Signed,
        block_id: None,
        block_number: None,
        block_timestamp: None,
        reverted: None,
        gas_used: None,
        paid_wei: None,
        broadcast_count: 0,
        clause_count: 1,
        batch_wei: payout.amount_wei,
        beneficiary_user: Some(payout.user_id),
        beneficiary_wallet: payout.wallet_id,
        signed_at: at,
        sent_at: None,
        confirmations: 0,
        confirmed_at: None,
        finalized_at: None,
        error: None,
        history: Json(Vec::new()),
        revision: 1,
    };
    let mut transaction = Transaction { attempt, clauses: vec![clause], payouts: vec![payout] };
    transaction.sent(at);
    transaction
}

async fn give_photo(example: &Example, store: &Arc<object_store::memory::InMemory>, header: &UploadHeader) {
    if let Some(name) = example.json["photo"].as_str() {
        put(store.as_ref(), header, photo(name)).await;
    }
}

fn emitted<E: Event>(verdict: Verdict<E>) -> Value {
    let Verdict::EmitWith(event, logs) = verdict else {
        panic!("expected an event with documents: {verdict:?}")
    };
    json!({"event": event, "documents": documents(&logs)})
}

fn documents(logs: &[ActivityLogged]) -> Vec<Value> {
    logs.iter()
        .map(|log| {
            let document: Value = serde_json::from_str(&log.document).unwrap();
            json!({"collection": log.collection, "ordinal": log.ordinal, "document": document})
        })
        .collect()
}

fn compare(stage: &str, outputs: &Value) {
    let path = workspace().join(format!("processors/tests/golden/{stage}.json"));
    let text = serde_json::to_string_pretty(outputs).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // What is null is as good as absent: a new field that nobody sets stands in no file.
    let [text, expected] = [text, expected].map(|text| {
        let mut value = serde_json::from_str(&text).unwrap();
        drop_nulls(&mut value);
        serde_json::to_string_pretty(&value).unwrap()
    });
    assert_eq!(text, expected, "{stage}: if meant, run with UPDATE_GOLDEN=1 and read the diff");
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Leaves out what may differ: the release, ciphertexts, what the machine was used for, and the last digits of measured floats
/// and of the network's confidence, which follow the machine's vector unit.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match name.as_str() {
                    "stage_version" | "detected_text" | "cpu_ms" | "rss_mb" if !field.is_null() => {
                        *field = json!("[redacted]")
                    }
                    "bounding_boxes" => {
                        if let Some(Ok(mut boxes)) = field.as_str().map(serde_json::from_str::<Value>) {
                            redact(&mut boxes);
                            *field = boxes;
                        }
                    }
                    "quad" if !field.is_null() => *field = json!("[quad]"),
                    _ => redact(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Number(number) if number.is_f64() => {
            let rounded = (number.as_f64().unwrap() * 10.0).round() / 10.0;
            *value = json!(rounded);
        }
        _ => {}
    }
}

fn survives<E: Event + PartialEq>(example: &Example) {
    let event: E = example.event();
    let bytes = codec::encode(7, &event).unwrap_or_else(|error| panic!("{}: {error}", example.name));
    let (id, datum) = codec::unframe(&bytes).unwrap();
    let back: E = codec::decode(E::schema(), id, datum).unwrap();
    assert_eq!(back, event, "{}", example.name);
}

#[test]
fn every_normal_and_edge_example_survives_encoding_and_decoding() {
    for topic in documented_topics() {
        for example in examples(topic).iter().filter(|example| !example.is_malformed()) {
            match topic {
                Topic::UploadsReceived => survives::<UploadReceived>(example),
                Topic::UploadsGraded => survives::<UploadGraded>(example),
                Topic::UploadsReadings if example.json["record"] == ReadingCorrected::NAME => {
                    survives::<ReadingCorrected>(example);
                }
                Topic::UploadsReadings if example.json["record"] == UploadAbandoned::NAME => {
                    survives::<UploadAbandoned>(example);
                }
                Topic::UploadsReadings => survives::<OdometerRead>(example),
                Topic::UploadsDecided => survives::<UploadDecided>(example),
                Topic::RewardsCalculated => survives::<RewardCalculated>(example),
                Topic::RewardsGranted | Topic::ChainEvents => {
                    match example.json["record"].as_str().unwrap() {
                        RewardGranted::NAME => survives::<RewardGranted>(example),
                        RewardClaimed::NAME => survives::<RewardClaimed>(example),
                        BlockAdopted::NAME => survives::<BlockAdopted>(example),
                        _ => survives::<BlockUndone>(example),
                    }
                }
                Topic::ActivityLogs => survives::<ActivityLogged>(example),
                Topic::ModelsDeployed => survives::<ModelDeployed>(example),
                _ => panic!("no examples here"),
            }
        }
    }
}

#[tokio::test]
async fn every_malformed_example_is_refused_for_the_reason_it_names() {
    let context = stage_context("golden", Arc::new(MemoryOutbound::default())).unwrap();
    let stop = CancellationToken::new();
    for topic in documented_topics() {
        for example in examples(topic).iter().filter(|example| example.is_malformed()) {
            let bytes = hex::decode(example.json["bytes"].as_str().unwrap()).unwrap();
            let record = raw(topic.name(), 0, None, Some(bytes));
            let reason = match topic {
                Topic::UploadsReceived => refusal(context.decode::<UploadReceived>(&record, &stop).await),
                Topic::UploadsGraded => refusal(context.decode::<UploadGraded>(&record, &stop).await),
                Topic::UploadsReadings => refusal(context.decode::<OdometerRead>(&record, &stop).await),
                Topic::UploadsDecided => refusal(context.decode::<UploadDecided>(&record, &stop).await),
                Topic::RewardsCalculated => refusal(context.decode::<RewardCalculated>(&record, &stop).await),
                Topic::RewardsGranted => refusal(context.decode::<RewardGranted>(&record, &stop).await),
                Topic::ActivityLogs => refusal(context.decode::<ActivityLogged>(&record, &stop).await),
                Topic::ChainEvents => refusal(context.decode::<PayoutInput>(&record, &stop).await),
                Topic::ModelsDeployed => refusal(context.decode::<ModelDeployed>(&record, &stop).await),
                _ => panic!("no examples here"),
            };
            assert_eq!(reason.as_deref(), example.json["reason"].as_str(), "{topic:?} {}", example.name);
        }
    }
}

fn refusal<T>(decoded: Result<Decoded<T>, runtime::worker::Halt>) -> Option<String> {
    match decoded {
        Ok(Decoded::Bad(reason, _)) => Some(reason.label().to_owned()),
        _ => None,
    }
}

/// Malformed examples of a datum carry the ids of the memory registry.
#[test]
fn the_examples_schema_ids_are_those_of_the_memory_registry() {
    assert_eq!(MemorySchemas::id_of::<UploadReceived>(), 1);
    assert_eq!(MemorySchemas::id_of::<ActivityLogged>(), 5);
    assert_eq!(MemorySchemas::id_of::<RewardGranted>(), 8);
    assert_eq!(MemorySchemas::id_of::<ModelDeployed>(), 13);
}

fn documented_topics() -> [Topic; 9] {
    [
        Topic::UploadsReceived,
        Topic::UploadsGraded,
        Topic::UploadsReadings,
        Topic::UploadsDecided,
        Topic::RewardsCalculated,
        Topic::RewardsGranted,
        Topic::ActivityLogs,
        Topic::ChainEvents,
        Topic::ModelsDeployed,
    ]
}
