//! The alert rules and the compose file's configuration of Prometheus, judged by promtool.

use std::path::PathBuf;
use std::process::Command;

use devstack::{Part, Stack};

use crate::repository;

/// promtool of the package that `devstack` unpacks, or the machine's where there is no such package.
fn promtool() -> PathBuf {
    let local = repository().join(".local");
    let fetched = local.join("parts/prometheus-debian/usr/bin/promtool");
    if !fetched.is_file() {
        // Starting Prometheus fetches its package.
        Stack::start_own(&local, &[Part::Prometheus], &|line| eprintln!("{line}")).unwrap().stop();
    }
    if fetched.is_file() { fetched } else { "promtool".into() }
}

fn check(arguments: &[&str]) -> String {
    let output = Command::new(promtool())
        .args(arguments)
        .current_dir(repository().join("prometheus"))
        .output()
        .expect("promtool is missing: it comes with Debian's package prometheus");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}:\n{text}");
    text
}

#[test]
fn promtool_accepts_the_rules_and_the_configuration() {
    assert!(check(&["check", "rules", "rules/milestream.yml"]).contains("SUCCESS"));
    assert!(check(&["check", "config", "prometheus.yml"]).contains("1 rule files found"));
}

#[test]
fn every_alert_fires_when_it_should_and_not_before() {
    let tests = "rules/tests/milestream.yml";
    check(&["test", "rules", tests]);
    let names = |file: &str, key: &str| -> Vec<String> {
        let text = std::fs::read_to_string(repository().join("prometheus").join(file)).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once(key)?.1.split([',', '}']).next());
        lines.map(|name| name.trim().to_owned()).collect()
    };
    let tested = names(tests, "alertname:");
    for alert in names("rules/milestream.yml", "- alert:") {
        assert!(tested.iter().filter(|name| **name == alert).count() >= 2, "{alert} is not tested both ways");
    }
}
