//! Photos of screens by their pixels' grid, and photos of dashboards, which have none.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::{fs, path::Path, path::PathBuf};

use reading::{SCREEN_GRID, decode, grade};
use rust_decimal::{Decimal, prelude::FromPrimitive};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files
}

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// The share of a photo that a grid covers; none where the file is no photo or too small.
fn grid(file: &Path) -> Option<Decimal> {
    let photo = decode(&fs::read(file).unwrap()).ok()?;
    grade(&photo).quality.grid.map(|grid| Decimal::from_f64(grid).unwrap())
}

/// What `tools/photogen/screens.py` made of drawn photos.
#[test]
fn a_photo_of_a_screen_has_a_grid_over_more_of_it_than_the_bar() {
    let photos = files(&here("tests/screens"));
    assert!(!photos.is_empty());
    for photo in photos {
        let found = grid(&photo).unwrap();
        assert!(found >= SCREEN_GRID, "{}: {found}", photo.display());
    }
}

#[test]
fn no_sample_photo_of_a_dashboard_comes_near_the_bar() {
    for photo in ["../examples/photos", "tests/phone"].iter().flat_map(|folder| files(&here(folder))) {
        let found = grid(&photo).unwrap_or_default();
        assert!(found < SCREEN_GRID / Decimal::TWO, "{}: {found}", photo.display());
    }
}

/// Measures a folder of photos: `PHOTOS=FOLDER cargo test -p reading --test screens -- --ignored --nocapture`.
#[test]
#[ignore = "needs a folder of photos"]
fn prints_of_each_photo_of_a_folder_what_a_grid_covers() {
    for photo in files(Path::new(&std::env::var("PHOTOS").unwrap())) {
        let found = grid(&photo).map_or_else(|| "-".to_owned(), |grid| grid.round_dp(4).to_string());
        println!("{}\t{found}", photo.file_name().unwrap().display());
    }
}
