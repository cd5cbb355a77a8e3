//! Prints what the reader makes of photos, one JSON object a line:
//!
//! `cargo run -p reading --example read -- PHOTO…`

use std::{env, fs, time::Instant};

use reading::{Reader, decode, grade};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reader = Reader::embedded()?;
    for file in env::args().skip(1) {
        let bytes = fs::read(&file)?;
        println!("{}", report(&reader, &file, &bytes));
    }
    Ok(())
}

fn report(reader: &Reader, file: &str, bytes: &[u8]) -> Value {
    let (start, cpu) = (Instant::now(), cpu_ms());
    let photo = match decode(bytes) {
        Ok(photo) => photo,
        Err(fault) => return json!({ "file": file, "fault": fault.reason.label(), "detail": fault.detail }),
    };
    let graded = grade(&photo);
    let quality = &graded.quality;
    let graded_ms = start.elapsed().as_millis();
    let reading = reader.read(&photo, quality);
    let best = reading.best.as_ref();
    json!({
        "file": file,
        "reading": best.map(|best| best.value.to_string()),
        "confidence": best.map(|best| best.confidence.to_string()),
        "unit": best.and_then(|best| best.unit).map(schemas::events::Unit::label),
        "several": reading.several,
        "fault": graded.fault.map(|fault| fault.reason.label()),
        "issues": reading.issues,
        "score": reading.quality_score.to_string(),
        "lighting": reading.lighting.label(),
        "mean": quality.mean, "p5": quality.p5, "p99": quality.p99, "tenengrad": quality.tenengrad, "blob": quality.blob,
        "box": reading.box_metrics.map(|b| json!([b.mean, b.contrast, b.gradient, b.glare])),
        "candidates": reading.candidates.iter().map(|c| format!("{}:{}", c.value, c.confidence)).collect::<Vec<_>>(),
        "lines": reading.lines.iter().map(|l| format!("{}|{}|{:.2}", l.text, l.role.label(), l.confidence)).collect::<Vec<_>>(),
        "graded_ms": graded_ms,
        "wall_ms": start.elapsed().as_millis(),
        "cpu_ms": cpu.zip(cpu_ms()).map(|(before, after)| after - before),
    })
}

/// CPU time of this process; milliseconds. Only Linux tells it in a file, in ticks of 10 ms (proc(5), fields 14 and 15).
fn cpu_ms() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) * 10)
}
