use serde_json::Value;

use super::*;
use crate::clock::ManualClock;
use crate::testing::{MemoryOutbound, MemorySchemas, recorded};

const MINUTE: i64 = 60_000_000;

struct Bench {
    journal: Journal,
    outbound: Arc<MemoryOutbound>,
    clock: Arc<ManualClock>,
}

fn bench() -> Bench {
    let (outbound, clock) = (Arc::new(MemoryOutbound::default()), Arc::new(ManualClock::default()));
    let schema = MemorySchemas::id_of::<ActivityLogged>();
    let journal = Journal::new("some_stage", outbound.clone(), clock.clone(), "", schema);
    Bench { journal, outbound, clock }
}

impl Bench {
    /// Every document so far, in order.
    fn documents(&self) -> Vec<Value> {
        recorded(&self.outbound)
    }
}

fn fault(code: &'static str) -> Fault<'static> {
    Fault {
        kind: FaultKind::Validation,
        code,
        message: "The record does not decode.",
        causes: "bad datum: at byte 3",
        user: Some(Uuid::from_u128(7)),
        severity: Severity::Medium,
    }
}

fn call(took: u64, error: Option<&str>) -> Call<'_> {
    let took = Duration::from_millis(took);
    Call { operation: Operation::DatabaseQuery, name: "decide", took, status: None, error }
}

#[test]
fn a_fault_is_a_document_that_nobody_has_resolved_yet() {
    let bench = bench();
    bench.journal.fault(&fault("bad_datum"));
    let expected = json!({
        "error_type": "validation", "error_code": "bad_datum", "error_message": "The record does not decode.",
        "stack_trace": "bad datum: at byte 3", "user_id": Uuid::from_u128(7).to_string(), "module": "some_stage",
        "severity": "medium", "resolved": false,
    });
    assert_eq!(bench.documents(), [expected]);
}

#[test]
fn ten_faults_of_a_code_pass_in_a_minute_and_the_next_one_tells_how_many_did_not() {
    let bench = bench();
    (0..30).for_each(|_| bench.journal.fault(&fault("bad_datum")));
    bench.journal.fault(&fault("bad_row"));
    assert_eq!(bench.documents().len(), 11);
    bench.clock.set(Micros(MINUTE));
    bench.journal.fault(&fault("bad_datum"));
    let documents = bench.documents();
    let message = "The record does not decode. (20 more were left out in the minutes before)";
    assert_eq!(documents[11]["error_message"], message);
}

#[test]
fn causes_are_cut_between_characters() {
    let bench = bench();
    let causes = "é".repeat(CAUSES_BYTES);
    bench.journal.fault(&Fault { causes: &causes, ..fault("bad_datum") });
    assert_eq!(bench.documents()[0]["stack_trace"].as_str().unwrap().len(), CAUSES_BYTES);
}

#[test]
fn of_calls_the_first_is_recorded_and_then_one_in_a_hundred() {
    let bench = bench();
    (0..201).for_each(|_| bench.journal.call(&call(1, None)));
    let rates: Vec<Value> =
        bench.documents().iter().map(|document| document["metadata"]["sample_rate"].clone()).collect();
    assert_eq!(rates, [json!(1.0), json!(0.01), json!(0.01)]);
}

#[test]
fn of_calls_that_come_rarely_one_is_recorded_each_minute() {
    let bench = bench();
    for second in 0..120 {
        bench.clock.set(Micros(second * 1_000_000));
        bench.journal.call(&call(1, None));
    }
    let documents = bench.documents();
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[1]["metadata"]["sample_rate"], json!(1.0 / 60.0));
}

#[test]
fn what_fails_or_is_slow_is_recorded_up_to_the_budget_and_says_why() {
    let bench = bench();
    bench.journal.call(&call(1, None));
    bench.journal.call(&call(100, None));
    (0..30).for_each(|_| bench.journal.call(&call(1, Some("connection refused"))));
    let documents = bench.documents();
    assert_eq!(documents.len(), 1 + 10);
    assert_eq!((&documents[1]["response_time"], &documents[1]["success"]), (&json!(100.0), &json!(true)));
    let failed = &documents[2];
    assert_eq!((&failed["success"], &failed["error_message"]), (&json!(false), &json!("connection refused")));
    assert_eq!(
        (&failed["module_name"], &failed["operation"]),
        (&json!("some_stage"), &json!("database_query"))
    );
    assert!(failed["resource_usage"].is_object());
}

#[test]
fn a_silent_journal_sends_nothing() {
    let journal = Journal::silent("some_stage", Arc::new(ManualClock::default()));
    journal.fault(&fault("bad_datum"));
    journal.call(&call(1_000, Some("no")));
}

fn outside(error: Option<&str>, changes: bool) -> Outside<'static> {
    Outside {
        kind: Integration::Blockchain,
        service: "https://node.example".into(),
        request: json!({ "method": "GET", "url": "https://node.example/blocks/best" }),
        response: json!({ "status": 200 }),
        took: Duration::from_millis(5),
        error: error.map(str::to_owned),
        changes,
    }
}

#[test]
fn of_calls_outside_those_that_failed_or_changed_something_are_recorded_and_one_read_in_a_hundred() {
    let bench = bench();
    (0..=200).for_each(|_| bench.journal.outside(outside(None, false)));
    assert_eq!(bench.documents().len(), 3);
    (0..20).for_each(|_| bench.journal.outside(outside(None, true)));
    (0..20).for_each(|_| bench.journal.outside(outside(Some("it is away"), false)));
    let documents = bench.documents();
    assert_eq!(documents.len(), 43);
    assert_eq!((&documents[3]["success"], &documents[42]["success"]), (&json!(true), &json!(false)));
    assert_eq!(documents[42]["error_details"], "it is away");
    assert_eq!(documents[42]["integration_type"], "blockchain");
}

#[test]
fn a_service_that_fails_without_end_fills_no_topic() {
    let bench = bench();
    (0..4_000).for_each(|_| bench.journal.outside(outside(Some("it is away"), false)));
    assert_eq!(bench.documents().len(), 3_000);
    bench.clock.set(Micros(MINUTE));
    bench.journal.outside(outside(Some("it is away"), false));
    assert_eq!(bench.documents().len(), 3_001);
}

#[test]
fn a_panic_of_any_thread_is_a_fault_that_names_its_place_and_not_what_it_says() {
    let bench = bench();
    let journal = Arc::new(bench.journal);
    journal.tell_of_panics();
    std::thread::spawn(|| panic!("hunter2")).join().unwrap_err();
    let documents = recorded(&bench.outbound);
    let ours = |fault: &&Value| fault["stack_trace"].as_str().unwrap().contains("journal/tests.rs");
    let fault = documents.iter().find(ours).unwrap();
    assert_eq!((&fault["error_code"], &fault["severity"]), (&json!("panic"), &json!("high")));
    assert!(!fault.to_string().contains("hunter2"), "{fault}");
}
