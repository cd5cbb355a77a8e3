//! A photo's outcome as JSON or for a person.

use std::fmt::Write as _;

use schemas::{
    events::{Candidate, Unit},
    reason::Reason,
};
use serde_json::{Value, json};

use super::Outcome;

/// One JSON object. `reading` is the one that the last verified reading speaks for, where one was given; the one by the
/// photo alone is `reading_alone`.
pub fn json(outcome: &Outcome) -> Value {
    let chosen = outcome.chosen(outcome.previous);
    let against = outcome.against(outcome.previous);
    let value = |candidate: Option<&Candidate>| candidate.map(|one| one.value.to_string());
    let candidates = outcome.reading.iter().flat_map(|reading| &reading.candidates);
    json!({
        "file": outcome.file,
        "reading": value(chosen),
        "reading_alone": value(outcome.best()),
        "unit": chosen.and_then(|one| one.unit).map(Unit::label),
        "confidence": chosen.map(|one| one.confidence),
        "auto_accept": against.is_none(),
        "reason": against.map(Reason::label),
        "advice": against.map(Reason::advice),
        "detail": outcome.fault.as_ref().map(|fault| &fault.detail),
        "candidates": candidates.map(|one| json!({
            "value": one.value, "unit": one.unit.map(Unit::label), "confidence": one.confidence,
        })).collect::<Vec<_>>(),
        "quality": quality(outcome),
        "cpu_ms": outcome.cpu.as_millis() as u64,
        "wall_ms": outcome.wall.as_millis() as u64,
    })
}

/// Frame and reading's box together; the frame alone where nothing was read.
fn quality(outcome: &Outcome) -> Option<Value> {
    let graded = outcome.graded.as_ref()?;
    let frame = &graded.quality;
    let (score, lighting, blur, glare, issues) = outcome
        .reading
        .as_ref()
        .map_or((frame.score, frame.lighting, frame.blur, frame.glare, &graded.issues), |r| {
            (r.quality_score, r.lighting, r.blur, r.glare, &r.issues)
        });
    Some(json!({
        "score": score, "lighting": lighting.label(), "blur": blur, "glare": glare, "issues": issues,
        "mean": frame.mean, "p5": frame.p5, "p99": frame.p99, "tenengrad": frame.tenengrad, "blob": frame.blob,
    }))
}

/// A few lines for a person.
pub fn text(outcome: &Outcome) -> String {
    let against = outcome.against(outcome.previous);
    let verdict = if against.is_none() { "accepted" } else { "not accepted" };
    let mut out = match outcome.chosen(outcome.previous) {
        Some(one) => format!("{}: {}, {verdict}\n", outcome.file, candidate(one)),
        None => format!("{}: no reading, {verdict}\n", outcome.file),
    };
    let mut line = |name: &str, text: String| {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "  {name:<12}{text}");
    };
    if let Some(previous) = outcome.previous {
        let alone = outcome.best().map_or_else(|| "no reading".to_owned(), candidate);
        line("alone", format!("{alone} (the reading above was chosen knowing {previous})"));
    }
    if let Some(reason) = against {
        line("advice", format!("{} ({})", reason.advice(), reason.label()));
    }
    if let Some(fault) = &outcome.fault {
        line("detail", fault.detail.clone());
    }
    if let Some(quality) = quality(outcome) {
        let issues: Vec<&str> =
            quality["issues"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let score = quality["score"].as_str().unwrap_or_default();
        let light = quality["lighting"].as_str().unwrap_or_default();
        let issues = if issues.is_empty() { "nothing wrong".to_owned() } else { issues.join(", ") };
        line("quality", format!("{score}, {light} light, {issues}"));
    }
    let others = outcome.reading.iter().flat_map(|reading| &reading.candidates);
    let others: Vec<String> = others.map(candidate).collect();
    if others.len() > 1 {
        line("candidates", others.join("; "));
    }
    line("time", format!("{} ms CPU, {} ms in all", outcome.cpu.as_millis(), outcome.wall.as_millis()));
    out
}

fn candidate(one: &Candidate) -> String {
    let unit = one.unit.map(|unit| format!(" {}", unit.label())).unwrap_or_default();
    format!("{}{unit} at confidence {}", one.value, one.confidence)
}
