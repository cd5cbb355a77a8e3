//! The table holds what the types and the topics' files say.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use processors::chain_submission::consumer::PayoutConsumer;
use processors::fraud_check::FraudCheck;
use processors::limit_check::LimitCheck;
use processors::odometer_reading::{OdometerReading, PostgresAnswers};
use processors::pipeline::{Kind, STAGES, StageRow};
use processors::quality_check::QualityCheck;
use processors::reward_calculation::RewardCalculation;
use runtime::{Decider, Processor, Sink as _};
use schemas::events::{Event as _, ModelDeployed, PayoutUpdated};
use schemas::topic::Topic;

fn pure<P: Processor>() -> (&'static str, Kind, Topic, Topic) {
    (P::NAME, Kind::Pure, P::In::TOPIC, P::Out::TOPIC)
}

fn deciding<D: Decider>() -> (&'static str, Kind, Topic, Topic) {
    (D::NAME, Kind::Deciding, D::In::TOPIC, D::Out::TOPIC)
}

#[test]
fn each_row_of_the_table_says_what_its_stages_type_says() {
    let types = [
        pure::<QualityCheck>(),
        pure::<OdometerReading<PostgresAnswers>>(),
        deciding::<FraudCheck>(),
        pure::<RewardCalculation>(),
        deciding::<LimitCheck>(),
    ];
    let rows: Vec<_> = STAGES
        .iter()
        .filter(|row| row.kind != Kind::Paying)
        .map(|row| (row.name, row.kind, row.inputs[0], row.output))
        .collect();
    assert_eq!(rows, types);
    let paying = STAGES.last().unwrap();
    assert_eq!((paying.name, paying.kind), (PayoutConsumer::NAME, Kind::Paying));
    assert_eq!(paying.inputs, PayoutConsumer::TOPICS);
    assert_eq!(paying.output, PayoutUpdated::TOPIC);
}

#[test]
fn each_topic_lists_its_stages_and_no_other_topic_does() {
    for StageRow { name, inputs, output, .. } in STAGES {
        for topic in Topic::ALL {
            let spec = topic.spec().unwrap();
            let (reads, writes) = (inputs.contains(&topic), topic == *output);
            assert_eq!(spec.consumers.iter().any(|role| role == name), reads, "{name} reads {topic:?}");
            let beside = [Topic::ActivityLogs, Topic::DeadLetters].contains(&topic);
            let at_its_start = *name == "odometer_reading" && topic == ModelDeployed::TOPIC;
            assert_eq!(
                spec.producers.iter().any(|role| role == name),
                writes || beside || at_its_start,
                "{name} writes {topic:?}"
            );
        }
    }
}

#[test]
fn an_upload_passes_the_stages_in_the_order_of_the_table() {
    for pair in STAGES.windows(2) {
        assert_eq!(pair[0].output, pair[1].inputs[0]);
    }
    assert_eq!(STAGES.first().unwrap().inputs, [Topic::UploadsReceived]);
    assert_eq!(STAGES.last().unwrap().output, Topic::PayoutsUpdated);
}

#[test]
fn the_pipeline_fits_on_a_screen() {
    assert!(include_str!("../src/pipeline.rs").lines().count() < 90);
}
