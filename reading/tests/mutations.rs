//! Damaged and hostile files for a minute: each ends as a photo or as a fault with advice, in bounded time and memory.
//!
//! Seeded, so that a failure comes again; what mutates blindly here is guided by coverage in `fuzz/`.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::{
    fs,
    io::Cursor,
    panic::catch_unwind,
    path::Path,
    time::{Duration, Instant},
};

use cpu_time::ProcessTime;
use image::{DynamicImage, ExtendedColorType, ImageEncoder as _, ImageFormat, codecs::png::PngEncoder};
use nix::sys::resource::{UsageWho, getrusage};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reading::{Reader, decode, grade};
use schemas::reason::Reason;

const SEED: u64 = 20_261_125;
const LONG: Duration = Duration::from_secs(60);
/// Bounds of one photo: CPU, and KiB of the process's memory at its highest.
const MOST: Duration = Duration::from_secs(3);
/// What drum-1.jpg costs of CPU on a quiet machine. Where other programs share the cores' caches and pipelines it
/// costs up to four times that, and so does every photo: a bound that was passed is measured again beside it.
const USUAL: Duration = Duration::from_millis(450);
const MOST_KIB: i64 = 350 << 10;
/// One in so many mutated files that still decode is read as well: reading takes a hundred times as long.
const READ: u32 = 20;

fn photo(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos").join(name)).unwrap()
}

/// Real photos of every format, and odd pictures that are whole.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds =
        vec![photo("drum-1.jpg"), photo("drum-4.png"), photo("screen-4.webp"), photo("screen-rotated.jpg")];
    for phone in ["one.heic", "ten-bit.heic", "tiles.heic"] {
        seeds.push(fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/phone").join(phone)).unwrap());
    }
    let grey = vec![0x40_u8; 640 * 480 * 2];
    let mut deep = Vec::new();
    PngEncoder::new(&mut deep).write_image(&grey, 640, 480, ExtendedColorType::L16).unwrap();
    seeds.push(deep);
    seeds.push(flat(1, 1));
    seeds.push(flat(5000, 1));
    seeds
}

fn flat(width: u32, height: u32) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(width, height).write_to(&mut out, ImageFormat::Png).unwrap();
    out.into_inner()
}

/// The JPEG with four components of one block each: CMYK, as scanners and printers write it.
fn cmyk() -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8];
    bytes.extend([0xFF, 0xDB, 0, 67, 0]);
    bytes.extend([1_u8; 64]);
    bytes.extend([0xFF, 0xC0, 0, 20, 8, 0x02, 0x00, 0x02, 0x80, 4]);
    for component in 1..=4 {
        bytes.extend([component, 0x11, 0]);
    }
    // One code of one bit in each table: the symbol 0 (no difference; end of block).
    for table in [0x00, 0x10] {
        bytes.extend([0xFF, 0xC4, 0, 20, table, 1]);
        bytes.extend([0_u8; 15]);
        bytes.push(0);
    }
    bytes.extend([0xFF, 0xDA, 0, 14, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0]);
    // 80 x 64 blocks of four components and two bits each.
    bytes.extend(vec![0_u8; 80 * 64 * 4 * 2 / 8]);
    bytes.extend([0xFF, 0xD9]);
    bytes
}

/// Changes some bytes, cuts, repeats or splices.
fn mutated(rng: &mut StdRng, whole: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..rng.random_range(1..=16) {
        // Headers hold the decisions: half of the changes go there.
        let end = if rng.random() { bytes.len().min(700) } else { bytes.len() };
        let at = rng.random_range(0..end);
        bytes[at] = match rng.random_range(0..4) {
            0 => 0,
            1 => 0xFF,
            2 => bytes[at] ^ (1 << rng.random_range(0..8)),
            _ => rng.random(),
        };
    }
    match rng.random_range(0..8) {
        0 => bytes.truncate(rng.random_range(1..bytes.len())),
        1 => {
            let from = rng.random_range(0..other.len());
            bytes.extend_from_slice(&other[from..]);
        }
        2 => {
            let at = rng.random_range(0..bytes.len());
            let end = (at + rng.random_range(1..4096)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {}
    }
    bytes
}

/// What the pipeline does with a file; the reader only where `read` says so.
fn through(reader: &Reader, bytes: &[u8], read: bool) -> Option<Reason> {
    let photo = match decode(bytes) {
        Ok(photo) => photo,
        Err(fault) => {
            assert!(!fault.detail.is_empty() && !fault.reason.advice().is_empty());
            return Some(fault.reason);
        }
    };
    let graded = grade(&photo);
    if read && graded.fault.is_none() {
        let reading = reader.read(&photo, &graded.quality);
        assert!(reading.candidates.len() <= 16 && reading.lines.len() <= 64);
        assert!(!reading.bounding_boxes_json(photo.size()).is_empty());
    }
    graded.fault.map(|fault| fault.reason)
}

/// Runs one file and holds it to its bounds.
fn bounded(reader: &Reader, bytes: &[u8], read: bool, what: &str) -> Option<Reason> {
    let before = ProcessTime::now();
    let outcome = catch_unwind(std::panic::AssertUnwindSafe(|| through(reader, bytes, read)));
    let spent = before.elapsed();
    let kept = || {
        let path = std::env::temp_dir().join("milestream-mutation-failed.bin");
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    assert!(outcome.is_ok(), "{what}: a panic; the file is kept as {}", kept());
    if spent > MOST {
        let usual = photo("drum-1.jpg");
        let cost = |bytes: &[u8]| {
            let before = ProcessTime::now();
            through(reader, bytes, read);
            before.elapsed()
        };
        let (usual, again) = (cost(&usual), cost(bytes));
        let most = MOST.mul_f64(usual.max(USUAL).div_duration_f64(USUAL));
        assert!(again <= most, "{what}: {again:?} of CPU, {most:?} at most; the file is kept as {}", kept());
    }
    outcome.unwrap()
}

/// One test, so that no other in this process adds to its time or its memory.
#[test]
fn odd_and_mutated_files_for_a_minute_end_as_a_reading_or_a_reason_in_bounded_time_and_memory() {
    let reader = Reader::embedded().unwrap();
    let start = Instant::now();
    let odd: [(&str, Vec<u8>, Option<Reason>); 6] = [
        ("GIF", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec(), Some(Reason::UnsupportedFormat)),
        ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec(), Some(Reason::TruncatedImage)),
        ("1x1", flat(1, 1), Some(Reason::LowResolution)),
        ("5000x1", flat(5000, 1), Some(Reason::LowResolution)),
        ("a black page", flat(5000, 5000), Some(Reason::TooDark)),
        ("CMYK", cmyk(), None),
    ];
    for (what, bytes, expected) in odd {
        let reason = bounded(&reader, &bytes, true, what);
        assert!(expected.is_none() || reason == expected, "{what}: {reason:?}");
    }
    let mut rng = StdRng::seed_from_u64(SEED);
    let seeds = seeds();
    let (mut files, mut decoded) = (0_u32, 0_u32);
    while start.elapsed() < LONG {
        let whole = &seeds[rng.random_range(0..seeds.len())];
        let other = &seeds[rng.random_range(0..seeds.len())];
        let bytes = mutated(&mut rng, whole, other);
        let read = decode(&bytes).is_ok() && {
            decoded += 1;
            decoded % READ == 1
        };
        bounded(&reader, &bytes, read, &format!("file {files} of seed {SEED}"));
        files += 1;
    }
    let peak = getrusage(UsageWho::RUSAGE_SELF).unwrap().max_rss();
    println!("{files} files, {decoded} of them decoded, peak {} MiB", peak >> 10);
    assert!(files > 20 && decoded > 0, "{files} files, {decoded} decoded");
    assert!(peak <= MOST_KIB, "{peak} KiB");
}
