//! A page of the photos that were not read right, each with the boxes that were found on it.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::Context as _;

use super::{Outcome, name};

/// The page while it is written: `index.html` in a folder, and one picture a photo beside it.
pub struct Gallery {
    folder: PathBuf,
    page: String,
}

impl Gallery {
    /// Makes the folder.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(folder: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder, page: "<!doctype html><meta charset=utf-8><title>Not read right</title>\n".into() })
    }

    /// Adds a photo with what is to be said of it.
    ///
    /// # Errors
    /// Where the photo cannot be read again or its picture not be written.
    pub fn add(&mut self, outcome: &Outcome, said: &str) -> anyhow::Result<()> {
        let bytes = fs::read(&outcome.file).with_context(|| format!("cannot read {}", outcome.file))?;
        let mut picture = String::new();
        if let (Ok(photo), Some(reading)) = (reading::decode(&bytes), &outcome.reading) {
            picture = format!("{}.png", name(outcome.file.as_ref()));
            let file = self.folder.join(&picture);
            fs::write(&file, reading::annotate(&photo, reading)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let _ = writeln!(
            self.page,
            "<p>{}<br><img loading=lazy style=\"max-width:100%;max-height:95vh\" src=\"{}\">",
            escaped(said),
            escaped(&picture)
        );
        Ok(())
    }

    /// Writes the page.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        let page = self.folder.join("index.html");
        fs::write(&page, self.page).with_context(|| format!("cannot write {}", page.display()))
    }
}

/// A text as HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
