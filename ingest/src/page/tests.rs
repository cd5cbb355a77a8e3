use super::files::{DRIVERS, REVIEWERS, SOURCES, Source};
use super::*;
use crate::reviews::REASONS;

/// What stands between two marks, each time.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    text.split(begin).skip(1).filter_map(|rest| rest.split(end).next()).collect()
}

fn source(name: &str) -> &'static str {
    SOURCES.iter().find(|source| source.name == name).map(|source| source.text).unwrap()
}

/// The one address outside that a page names: where the wallet comes from.
const WALLET: &str = "https://www.veworld.net";

#[test]
fn nothing_on_the_pages_needs_what_their_policy_forbids() {
    for Source { name, text, .. } in SOURCES.iter().chain([&DRIVERS, &REVIEWERS]) {
        let text = text.replace(WALLET, "").replace("http://www.w3.org/2000/svg", "");
        for forbidden in [
            "http:",
            "https:",
            "style=",
            "onclick=",
            "onload=",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "@import",
            "url(",
        ] {
            assert!(!text.contains(forbidden), "{name} has {forbidden}");
        }
    }
    for page in [DRIVERS, REVIEWERS] {
        assert!(!page.text.contains("<style"));
        for script in between(page.text, "<script", "</script>") {
            assert!(script.starts_with(r#" type="module" src="/pages/{release}/"#), "{script}");
        }
    }
}

#[test]
fn every_file_that_a_page_or_a_script_names_is_there() {
    for page in [DRIVERS, REVIEWERS] {
        for name in between(page.text, "/pages/{release}/", "\"") {
            assert!(find(name).is_some(), "{} names {name}", page.name);
        }
    }
    for Source { name, text, .. } in SOURCES {
        for imported in between(text, "from \"./", "\"") {
            assert!(find(imported).is_some(), "{name} imports {imported}");
        }
    }
}

#[test]
fn the_reviewers_script_finds_every_part_of_the_page_that_it_names_and_offers_every_reason() {
    let script = source("review.js");
    for id in between(script, "by(\"", "\")") {
        assert!(REVIEWERS.text.contains(&format!("id=\"{id}\"")), "{id} is not on the page");
    }
    let offered = between(script, "const REASONS = [", "];")[0];
    let labels: Vec<&str> =
        between(offered, "\"", "\"").into_iter().filter(|text| !text.contains(',')).collect();
    assert_eq!(labels, REASONS.map(schemas::reason::Reason::label));
}

#[test]
fn every_reason_and_every_stage_has_a_text_for_drivers() {
    let texts = source("texts.js");
    for reason in schemas::reason::Reason::ALL {
        let label = reason.label();
        assert!(texts.contains(&format!("\n    {label}: \"")), "{label} has no text");
    }
    for stage in ["quality_check", "odometer_reading", "fraud_check", "review", "reward", "payout", "paid"] {
        assert!(texts.contains(&format!("\n    {stage}: ")), "{stage} has no text");
    }
}

#[test]
fn gzip_is_taken_where_it_is_named_and_not_forbidden() {
    for yes in ["gzip", "br, GZIP", "deflate, gzip;q=0.5", "gzip; q=1.0"] {
        assert!(accepts_gzip(yes), "{yes}");
    }
    for no in ["", "br", "gzip;q=0", "gzip;q=0.0", "xgzip", "identity"] {
        assert!(!accepts_gzip(no), "{no}");
    }
}

#[test]
fn a_copy_is_known_by_any_of_the_tags_that_the_client_names_also_by_a_weak_one() {
    let tag = "\"one\"";
    for known in ["\"one\"", "\"other\", \"one\"", "W/\"one\"", "*", " * "] {
        assert!(is_known(Some(known), tag), "{known}");
    }
    for unknown in [None, Some(""), Some("\"other\""), Some("one")] {
        assert!(!is_known(unknown, tag), "{unknown:?}");
    }
}
