//! Runs the package clients, and holds what they bring against the lock files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::process::Supervised;

/// Why a part could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A program or a package is missing.
    #[error("{0} is not installed: run ./dev up, which installs it by name, or install it yourself")]
    Missing(&'static str),
    /// A package client failed.
    #[error("{command} failed:\n{output}")]
    Client {
        /// What was run.
        command: String,
        /// What it printed.
        output: String,
    },
    /// What came is not what is pinned.
    #[error("{file} has sha256 {found}, the lock says {expected}: it is not used; see devstack/README.md")]
    Hash {
        /// The file.
        file: String,
        /// As pinned.
        expected: String,
        /// As fetched.
        found: String,
    },
    /// A file came that is not pinned, or one that is pinned did not come.
    #[error("{0} is {1}: nothing of this part is used; see devstack/README.md")]
    Files(String, &'static str),
    /// The program that there is is too old.
    #[error("{program} is version {found}, at least {least} is needed")]
    Version {
        /// The program.
        program: String,
        /// What it says.
        found: String,
        /// What is needed.
        least: &'static str,
    },
    /// The disk.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs a client in a folder, which also gets its output. It ends with this process, like everything started here.
pub(crate) fn run(folder: &Path, command: &[&str]) -> Result<(), FetchError> {
    let log = folder.join("client.log");
    let start = fs::metadata(&log).map(|meta| meta.len()).unwrap_or_default();
    let mut program = vec!["env".to_owned(), "-C".to_owned(), folder.to_string_lossy().into_owned()];
    program.extend(command.iter().map(|&word| word.to_owned()));
    let mut client = Supervised::spawn(&program, &[], &log, folder.join("client.pid"))?;
    let status = loop {
        match client.try_wait()? {
            Some(status) => break status,
            None => std::thread::park_timeout(Duration::from_millis(20)),
        }
    };
    if status.success() {
        return Ok(());
    }
    let output = crate::process::tail(&log, start, 30);
    Err(FetchError::Client { command: command.join(" "), output })
}

/// Holds a folder against a lock in the form of `sha256sum`: every file as pinned, none missing, none besides.
pub(crate) fn verify_all(folder: &Path, lock: &str) -> Result<(), FetchError> {
    let mut pinned: BTreeMap<&str, &str> =
        lock.lines().filter_map(|line| line.split_once("  ")).map(|(hash, file)| (file, hash)).collect();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match pinned.remove(name.as_str()) {
            Some(hash) => verify(&path, hash)?,
            None => return Err(FetchError::Files(name, "not in the lock")),
        }
    }
    match pinned.into_keys().next() {
        Some(name) => Err(FetchError::Files(name.to_owned(), "in the lock but was not fetched")),
        None => Ok(()),
    }
}

/// Holds one file against its hash.
pub(crate) fn verify(file: &Path, expected: &str) -> Result<(), FetchError> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(file)?, &mut hasher)?;
    let found = hex::encode(hasher.finalize());
    if found == expected {
        return Ok(());
    }
    Err(FetchError::Hash { file: file.display().to_string(), expected: expected.to_owned(), found })
}

/// The program's file on the search path.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    // sha256 of "one" and "two".
    const LOCK: &str = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  a.jar\n\
        3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3  b.jar\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn what_the_lock_says_is_taken() {
        let fetched = folder(&[("a.jar", "one"), ("b.jar", "two")]);
        verify_all(fetched.path(), LOCK).unwrap();
    }

    #[test]
    fn a_tampered_file_is_refused_by_name() {
        let fetched = folder(&[("a.jar", "one"), ("b.jar", "two and more")]);
        let error = verify_all(fetched.path(), LOCK).unwrap_err();
        assert!(matches!(&error, FetchError::Hash { file, .. } if file.ends_with("b.jar")), "{error}");
    }

    #[test]
    fn a_file_besides_and_a_missing_file_are_refused() {
        let fetched = folder(&[("a.jar", "one"), ("b.jar", "two"), ("c.jar", "three")]);
        let besides = verify_all(fetched.path(), LOCK).unwrap_err();
        assert!(matches!(&besides, FetchError::Files(name, "not in the lock") if name == "c.jar"));
        let missing = verify_all(folder(&[("a.jar", "one")]).path(), LOCK).unwrap_err();
        assert!(matches!(&missing, FetchError::Files(name, _) if name == "b.jar"));
    }

    #[test]
    fn a_failed_client_is_reported_with_its_last_words() {
        let place = folder(&[]);
        let error = run(place.path(), &["sh", "-c", "echo no such artifact; exit 3"]).unwrap_err();
        assert!(error.to_string().contains("no such artifact"), "{error}");
    }
}
