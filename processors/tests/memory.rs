//! The memory of a process that looks at photos is flat: it runs the stage's own code over many photos of many sizes, with as many at
//! once as a role has with four partitions, and looks at what is resident. A process of its own, so that no other test is measured.
//!
//! `PHOTOS=4000 cargo test -p processors --test memory -- --nocapture` prints it for a long run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use runtime::{Processor, Verdict};
use schemas::events::UploadReceived;
use schemas::topic::Topic;
use support::{dependencies, examples, put, record, workspace};
use tokio::task::JoinSet;

/// Photos of one partition in work at once, times partitions.
const AT_ONCE: usize = <processors::quality_check::QualityCheck as Processor>::IN_FLIGHT * 4;
/// What the resident memory may differ by without a leak; MiB. The allocator keeps a picture's buffers for a thread that decodes one from
/// tiles for the first time: a step of 12 MiB was seen, once. A leak of a tenth of a picture would be 42 MiB from the fifth to the eighth
/// tenth.
const NOISE: f64 = 16.0;

/// Resident memory of this process, MiB.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1_048_576.0
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_flat_while_photos_flow() {
    let photos: usize = std::env::var("PHOTOS").map_or(400, |count| count.parse().unwrap());
    let (dependencies, store) = dependencies();
    let example =
        examples(Topic::UploadsReceived).into_iter().find(|example| example.name == "normal-bare").unwrap();
    let template: UploadReceived = example.event();
    let mut uploads = Vec::new();
    for entry in std::fs::read_dir(workspace().join("examples/photos")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "json") {
            let mut upload = template.clone();
            upload.header.object_key = path.file_name().unwrap().to_str().unwrap().to_owned();
            let bytes = std::fs::read(&path).unwrap();
            upload.header.file_size = i64::try_from(bytes.len()).unwrap();
            put(store.as_ref(), &upload.header, bytes).await;
            uploads.push(upload);
        }
    }
    let stage = Arc::new(dependencies.quality_check());
    let (uploads, next) = (Arc::new(uploads), Arc::new(AtomicUsize::new(0)));
    let mut samples = Vec::new();
    for part in 1..=10 {
        let mut lanes = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (stage, uploads, next) = (stage.clone(), uploads.clone(), next.clone());
            lanes.spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= photos * part / 10 {
                        return;
                    }
                    let verdict =
                        stage.process(&record(uploads[at % uploads.len()].clone(), 0)).await.unwrap();
                    assert!(matches!(verdict, Verdict::EmitWith(..)));
                }
            });
        }
        lanes.join_all().await;
        samples.push(resident());
    }
    println!("resident after each tenth of {photos} photos, MiB: {samples:.1?}");
    // On a busy machine one sample may hold what was not given back yet. What has leaked is in all of them.
    let (middle, last) = (samples[4], samples[7..].iter().copied().fold(f64::INFINITY, f64::min));
    assert!(last - middle < NOISE, "grew from {middle:.1} to {last:.1} MiB: {samples:.1?}");
}
