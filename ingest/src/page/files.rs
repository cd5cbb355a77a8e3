//! The files of the pages. They are part of the binary and travel as they are written: there is no build step.
//!
//! The pages themselves are asked for anew each time and sent where they have changed. They name styles and scripts below the release,
//! the hash of all of them, so that browsers keep those for ever, and scripts import each other from the same release.

use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// In a page's text, what stands for the release.
const RELEASE_MARK: &str = "{release}";

/// A page's text that names files of this release.
pub(crate) fn of_release(page: &str) -> String {
    page.replace(RELEASE_MARK, &RELEASE)
}

/// A file as it is written.
pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) text: &'static str,
}

macro_rules! sources {
    ($($kind:ident: $($name:literal)*;)*) => {
        &[$($(Source { name: $name, kind: $kind, text: include_str!(concat!("files/", $name)) },)*)*]
    };
}

/// Everything below a release.
pub(super) const SOURCES: &[Source] = sources! {
    CSS: "base.css" "drivers.css" "proof.css" "review.css";
    SCRIPT: "api.js" "account.js" "drivers.js" "dom.js" "notices.js" "photos.js" "rewards.js" "sign_in.js" "texts.js" "vehicles.js" "review.js";
    SVG: "icon.svg";
};

pub(super) const DRIVERS: Source =
    Source { name: "drivers.html", kind: HTML, text: include_str!("files/drivers.html") };
pub(super) const REVIEWERS: Source =
    Source { name: "review.html", kind: HTML, text: include_str!("files/review.html") };

/// A file as it goes out.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) kind: &'static str,
    pub(super) plain: Bytes,
    pub(super) zipped: Bytes,
    /// Hash of the plain text, 32 hex digits.
    pub(super) hash: String,
}

/// The hash of all files, 16 hex digits.
pub(super) static RELEASE: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for Source { name, text, .. } in SOURCES {
        hash.update(format!("{name} {}\n", text.len()));
        hash.update(text);
    }
    hex::encode(&hash.finalize()[..8])
});

pub(super) static DRIVERS_READY: LazyLock<Ready> = LazyLock::new(|| ready(&DRIVERS));
pub(super) static REVIEWERS_READY: LazyLock<Ready> = LazyLock::new(|| ready(&REVIEWERS));
static FILES_READY: LazyLock<Vec<Ready>> = LazyLock::new(|| SOURCES.iter().map(ready).collect());

/// A file below a release.
pub(super) fn find(name: &str) -> Option<&'static Ready> {
    let place = SOURCES.iter().position(|source| source.name == name)?;
    FILES_READY.get(place)
}

fn ready(source: &Source) -> Ready {
    let text = match source.kind {
        HTML => of_release(source.text),
        _ => source.text.to_owned(),
    };
    let plain = Bytes::from(text);
    Ready {
        kind: source.kind,
        hash: hex::encode(&Sha256::digest(&plain)[..16]),
        zipped: zipped(&plain),
        plain,
    }
}

/// Empty where it does not zip; then it is not offered.
fn zipped(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    match encoder.write_all(plain).and_then(|()| encoder.finish()) {
        Ok(bytes) => bytes.into(),
        Err(_) => Bytes::new(),
    }
}
