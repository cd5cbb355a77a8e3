//! The README says what the code does: its graph and its stage table are held against the pipeline table.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use processors::pipeline::{Kind, STAGES};
use schemas::topic::Topic;

const README: &str = include_str!("../../README.md");

fn graph() -> Vec<&'static str> {
    let (_, rest) = README.split_once("```mermaid\nflowchart LR\n").unwrap();
    let (graph, _) = rest.split_once("```").unwrap();
    graph.lines().map(str::trim).collect()
}

fn names(topics: &[Topic], between: &str) -> String {
    topics.iter().map(|topic| topic.name()).collect::<Vec<_>>().join(between)
}

#[test]
fn the_graph_has_every_stage_between_its_topics_and_no_other() {
    let wanted: BTreeSet<String> = STAGES
        .iter()
        .map(|row| format!("{} --> {} --> {}", names(row.inputs, " & "), row.name, row.output.name()))
        .collect();
    let shown: BTreeSet<String> =
        graph().into_iter().filter(|line| line.matches(" --> ").count() == 2).map(str::to_owned).collect();
    assert_eq!(shown, wanted);
}

#[test]
fn the_graph_shows_what_each_sink_reads() {
    for sink in ["postgres", "mongo", "analytics"] {
        let reads: BTreeSet<&str> = Topic::ALL
            .iter()
            .filter(|topic| topic.spec().unwrap().consumers.iter().any(|consumer| consumer == sink))
            .map(|topic| topic.name())
            .collect();
        let ending = format!(" --> {sink}[({sink} sink)]");
        let line = graph().into_iter().find_map(|line| line.strip_suffix(&ending)).unwrap();
        assert_eq!(line.split(" & ").collect::<BTreeSet<_>>(), reads, "{sink}");
    }
}

#[test]
fn the_stage_table_is_the_pipeline_table() {
    let wanted: Vec<String> = STAGES
        .iter()
        .map(|row| {
            let kind = match row.kind {
                Kind::Pure => "pure",
                Kind::Deciding => "deciding",
                Kind::Paying => "paying",
            };
            let (input, output) = (names(row.inputs, "`, `"), row.output.name());
            format!("| `{}` | {kind} | `{input}` | `{output}` | {} |", row.name, row.meaning)
        })
        .collect();
    let (_, rest) = README.split_once("| --- | --- | --- | --- | --- |\n").unwrap();
    let shown: Vec<&str> = rest.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(shown, wanted);
}
