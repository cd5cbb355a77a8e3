//! The table holds together.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use processors::pipeline::STAGES;
use schemas::topic::Topic;

#[test]
fn an_upload_passes_the_stages_in_the_order_of_the_table() {
    let mut published = vec![Topic::UploadsReceived];
    for row in STAGES {
        assert!(published.contains(&row.inputs[0]), "{} reads what no stage before it publishes", row.name);
        published.push(row.output);
    }
    assert!(published.contains(&Topic::PayoutsUpdated));
}

#[test]
fn no_two_stages_have_one_name_or_publish_on_one_topic() {
    for (at, row) in STAGES.iter().enumerate() {
        for other in &STAGES[at + 1..] {
            assert!(row.name != other.name && row.output != other.output, "{} and {}", row.name, other.name);
        }
    }
}
