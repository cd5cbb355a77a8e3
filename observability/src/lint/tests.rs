use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn pipeline() -> String {
    std::fs::read_to_string(repository().join("grafana/dashboards/pipeline.json")).unwrap()
}

/// The complaints about the real dashboard after a change to its text.
fn changed(from: &str, to: &str) -> Vec<String> {
    let text = pipeline();
    assert!(text.contains(from), "{from} is not in the dashboard");
    dashboard(&Dashboard::parse(&text.replacen(from, to, 1)).unwrap())
}

#[test]
fn every_dashboard_passes() {
    let folder = repository().join("grafana/dashboards");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let found = Dashboard::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(dashboard(&found), Vec::<String>::new(), "{}", path.display());
        seen += found.queries().count();
    }
    assert!(seen > 20, "{seen} queries: the dashboards are not read");
}

#[test]
fn every_metric_of_the_catalogue_is_on_the_dashboard() {
    let text = pipeline();
    for Declared { name, .. } in catalogue() {
        assert!(text.contains(name), "{name} is collected, and no panel shows it");
    }
}

#[test]
fn a_misspelt_metric_fails_with_its_name() {
    let complaints = changed("milestream_records_consumed_total{", "milestream_record_consumed_total{");
    assert!(
        complaints.iter().any(|what| what.contains("metric milestream_record_consumed_total is in no table")),
        "{complaints:?}"
    );
    // The bare name of a histogram is no series.
    assert_eq!(expression("sum(milestream_stage_seconds)").len(), 1);
}

#[test]
fn a_misspelt_label_variable_or_legend_fails() {
    for (from, to, want) in [
        ("sum by (stage, cause)", "sum by (stage, couse)", "label couse is on none of the metrics"),
        (r#"stage=~\"$stage\""#, r#"stage=~\"$stge\""#, "$stge is unknown"),
        (
            r#""{{stage}} {{cause}}""#,
            r#""{{stage}} {{reason}}""#,
            "the legend's reason is not in the expression",
        ),
        (
            "label_values(milestream_records_consumed_total, stage)\",",
            "label_values(milestream_x, stage)\",",
            "milestream_x",
        ),
        ("$__timeFilter(created_at)", "$__timeFiltered(created_at)", "$__timeFiltered is unknown"),
    ] {
        let complaints = changed(from, to);
        assert!(complaints.iter().any(|what| what.contains(want)), "{from}: {complaints:?}");
    }
}

#[test]
fn a_fixed_window_or_a_fixed_data_source_fails() {
    let complaints = changed("[$__rate_interval]", "[5m]");
    assert!(complaints.iter().any(|what| what.contains("write $__rate_interval")), "{complaints:?}");
    let complaints = changed("\"uid\": \"${prometheus}\"", "\"uid\": \"prometheus\"");
    assert!(complaints.iter().any(|what| what.contains("its data source is not")), "{complaints:?}");
}

#[test]
fn a_panel_without_title_description_or_unit_fails() {
    for (key, want) in [("title", "has no title"), ("description", "has no description")] {
        let mut json: Value = serde_json::from_str(&pipeline()).unwrap();
        json["panels"][1][key] = "".into();
        let complaints = dashboard(&serde_json::from_value(json).unwrap());
        assert!(complaints.iter().any(|what| what.contains(want)), "{complaints:?}");
    }
    let complaints = changed("\"unit\": \"s\",", "");
    assert!(complaints.iter().any(|what| what.contains("has no unit")), "{complaints:?}");
    let complaints = changed("\"unit\": \"s\",", "\"unit\": \"seconds\",");
    assert!(complaints.iter().any(|what| what.contains("its unit is not in the list")), "{complaints:?}");
}

/// `stage="…"` of an expression that no stage has.
fn unknown_stages(text: &str) -> Vec<String> {
    let known: Vec<&str> = processors::pipeline::STAGES.iter().map(|row| row.name).collect();
    let equals = promql::read(text).unwrap().equals;
    let stages = equals.into_iter().filter(|(label, _)| label == "stage").map(|(_, value)| value);
    stages.filter(|stage| !known.contains(&stage.as_str())).collect()
}

#[test]
fn every_alert_names_what_exists_and_says_what_to_do() {
    let text = std::fs::read_to_string(repository().join("prometheus/rules/milestream.yml")).unwrap();
    let rules: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
    let rules = rules["groups"][0]["rules"].as_sequence().unwrap();
    assert!(rules.len() >= 8);
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        let query = rule["expr"].as_str().unwrap();
        assert_eq!(expression(query), Vec::<String>::new(), "{name}");
        assert_eq!(unknown_stages(query), Vec::<String>::new(), "{name}");
        assert!(["page", "ticket"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        for annotation in ["summary", "description", "action"] {
            assert!(rule["annotations"][annotation].as_str().is_some_and(|text| text.len() > 10), "{name}");
        }
    }
}
