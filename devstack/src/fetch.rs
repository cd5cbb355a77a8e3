//! Fetches the parts by pinned version through the ordinary package clients, once, into one folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

const KAFKA_POM: &str = include_str!("../parts/kafka/pom.xml");
const KAFKA_HASHES: &str = include_str!("../parts/kafka/jars.sha256");
const MONGODB_LOCK: &str = include_str!("../parts/mongodb.lock");
const JAVA_LOCK: &str = include_str!("../parts/java.lock");
/// The Maven plugin that unpacks artifacts; pinned like all else.
const UNPACKER: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
const REGISTRY_ARTIFACT: &str = "io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all";
const REGISTRY_JAR_SHA256: &str = include_str!("../parts/registry.sha256");

/// The server inside its wheel (the `.data/scripts` twin is a Python launcher).
const MONGODB_PROGRAM: &str = "secantusdb.scripts/secantusd-rs";

/// Why a part could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A package client is missing.
    #[error("{0} is not installed: run ./dev, which installs it by name, or install it")]
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
    #[error("{file} has sha256 {found}, the lock says {expected}: do not use it; see devstack/README.md")]
    Hash {
        /// The file.
        file: String,
        /// As pinned.
        expected: String,
        /// As fetched.
        found: String,
    },
    /// The disk.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Where the parts lie.
#[derive(Debug)]
pub(crate) struct Parts {
    root: PathBuf,
}

impl Parts {
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder with Kafka's jars.
    pub(crate) fn kafka(&self) -> Result<PathBuf, FetchError> {
        self.once("kafka-4.3.1", |folder| {
            let pom = folder.join("pom.xml");
            fs::write(&pom, KAFKA_POM)?;
            maven(&[
                "-f",
                &pom.to_string_lossy(),
                &format!("{UNPACKER}:copy-dependencies"),
                &format!("-DoutputDirectory={}", folder.join("lib").display()),
            ])?;
            for line in KAFKA_HASHES.lines() {
                if let Some((hash, file)) = line.split_once("  ") {
                    verify(&folder.join("lib").join(file), hash)?;
                }
            }
            Ok(())
        })
    }

    /// The registry's folder.
    pub(crate) fn registry(&self) -> Result<PathBuf, FetchError> {
        self.once("registry-3.3.3", |folder| {
            maven(&[
                &format!("{UNPACKER}:unpack"),
                &format!("-Dartifact={REGISTRY_ARTIFACT}"),
                &format!("-DoutputDirectory={}", folder.display()),
                "-Dmdep.useBaseVersion=true",
            ])?;
            verify(&folder.join("quarkus-run.jar"), REGISTRY_JAR_SHA256.trim())
        })
    }

    /// The MongoDB server's program.
    pub(crate) fn mongodb(&self) -> Result<PathBuf, FetchError> {
        let folder = self.once("mongodb-0.6.0b17", |folder| wheel(MONGODB_LOCK, folder))?;
        Ok(folder.join(MONGODB_PROGRAM))
    }

    /// A Java runtime of at least version 21: the machine's, or the pinned one.
    pub(crate) fn java(&self) -> Result<PathBuf, FetchError> {
        let mut candidates = vec![PathBuf::from("java")];
        candidates.extend(std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java")));
        if let Ok(entries) = fs::read_dir("/usr/lib/jvm") {
            candidates.extend(entries.flatten().map(|entry| entry.path().join("bin/java")));
        }
        if let Some(java) = candidates.into_iter().find(|java| java_version(java) >= 21) {
            return Ok(java);
        }
        let folder = self.once("java-25", |folder| wheel(JAVA_LOCK, folder))?;
        let java = find(&folder, "java").ok_or(FetchError::Missing("java in the wheel"))?;
        // Wheels do not keep the executable bits of everything under a data folder.
        run(Command::new("chmod").args(["-R", "u+x"]).arg(java.parent().unwrap_or(&folder)))?;
        Ok(java)
    }

    /// Makes a folder once: into a name of this process first, then renamed, so that a cut leaves nothing half made and two
    /// processes do not meet.
    fn once(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<(), FetchError>,
    ) -> Result<PathBuf, FetchError> {
        let target = self.root.join(name);
        if target.is_dir() {
            return Ok(target);
        }
        let draft = self.root.join(format!("{name}.part-{}", std::process::id()));
        let _ = fs::remove_dir_all(&draft);
        fs::create_dir_all(&draft)?;
        make(&draft)?;
        if let Err(error) = fs::rename(&draft, &target) {
            fs::remove_dir_all(&draft)?;
            // Another process was quicker: its folder is as good.
            if !target.is_dir() {
                return Err(error.into());
            }
        }
        Ok(target)
    }
}

fn maven(arguments: &[&str]) -> Result<(), FetchError> {
    if which("mvn").is_none() {
        return Err(FetchError::Missing("mvn"));
    }
    run(Command::new("mvn").args(["-q", "-B"]).args(arguments))
}

fn wheel(lock: &str, folder: &Path) -> Result<(), FetchError> {
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, lock)?;
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"])
        .args([
            "--platform",
            "manylinux_2_17_x86_64",
            "--platform",
            "manylinux2014_x86_64",
            "--require-hashes",
        ])
        .arg("-r")
        .arg(&requirements)
        .arg("-d")
        .arg(folder))?;
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    for archive in entries.filter(|path| path.extension().is_some_and(|ending| ending == "whl")) {
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&archive).arg(folder))?;
        fs::remove_file(archive)?;
    }
    // Unpacking by `zipfile` drops the executable bits.
    let program = folder.join(MONGODB_PROGRAM);
    if program.is_file() {
        run(Command::new("chmod").arg("a+rx").arg(program))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), FetchError> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{shown}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(FetchError::Client { command: shown, output: String::from_utf8_lossy(&text).into_owned() })
}

fn verify(file: &Path, expected: &str) -> Result<(), FetchError> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(file)?, &mut hasher)?;
    let found = hex::encode(hasher.finalize());
    if found == expected {
        return Ok(());
    }
    Err(FetchError::Hash { file: file.display().to_string(), expected: expected.to_owned(), found })
}

fn java_version(java: &Path) -> u32 {
    let Ok(output) = Command::new(java).arg("-version").output() else { return 0 };
    let text = String::from_utf8_lossy(&output.stderr);
    // openjdk version "17.0.15" 2025-04-15
    text.split('"').nth(1).and_then(|version| version.split('.').next()?.parse().ok()).unwrap_or(0)
}

pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here =
        entries.iter().find(|path| path.is_file() && path.file_name().is_some_and(|file| file == name));
    here.cloned().or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}
