//! How PostgreSQL is set up: a cluster of its own, made by `initdb`, never the machine's service.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::client::{FetchError, which};
use crate::error::{StackError, os};
use crate::run_folder::{OUTSIDE, RunFolder};

/// A cluster that is set up and not running.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    /// What stands before every program: another user, where this one is root.
    before: Vec<String>,
    bin: PathBuf,
}

impl Cluster {
    /// Makes the cluster with the databases `milestream` and `registry`.
    pub(crate) fn make(run: &RunFolder) -> Result<Self, StackError> {
        let bin = programs().ok_or(FetchError::Missing("postgresql"))?;
        let folder = run.data().join("postgres");
        fs::create_dir_all(&folder).map_err(os("make PostgreSQL's folder"))?;
        let mut cluster = Self { folder, before: Vec::new(), bin };
        if is_root()? {
            cluster.become_unprivileged(run)?;
        }
        let mut initdb = cluster.program("initdb");
        initdb
            .extend(["-U", "milestream", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"].map(str::to_owned));
        // The data does not outlive the run: no need to wait for the disk here (the server itself does sync).
        initdb.extend(["--no-instructions", "--no-sync"].map(str::to_owned));
        let made = Command::new(&initdb[0]).args(&initdb[1..]).stdin(Stdio::null()).output();
        let made = made.map_err(os("run initdb"))?;
        if !made.status.success() {
            let output = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(FetchError::Client { command: initdb.join(" "), output }.into());
        }
        cluster.create_databases()?;
        Ok(cluster)
    }

    /// The command that serves the cluster.
    pub(crate) fn serve(&self, port: u16) -> Vec<String> {
        let mut command = self.program("postgres");
        command.extend(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""].map(str::to_owned));
        // Ten roles with pools of ten, the tests of a machine with many cores, the registry.
        command.extend(["-c", "max_connections=200", "-c", "shared_buffers=128MB"].map(str::to_owned));
        command
    }

    fn program(&self, name: &str) -> Vec<String> {
        let mut command = self.before.clone();
        command.push(self.bin.join(name).to_string_lossy().into_owned());
        command.extend(["-D".to_owned(), self.folder.to_string_lossy().into_owned()]);
        command
    }

    /// PostgreSQL refuses to run as root: then it runs as the user `postgres`, who gets the folder. A folder that this user
    /// cannot reach (a clone under /root) is replaced by a link to one that it can.
    fn become_unprivileged(&mut self, run: &RunFolder) -> Result<(), StackError> {
        // It looks for its other programs from where it stands, which must be a readable folder.
        let before = ["env", "-C", "/", "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"];
        self.before = before.map(str::to_owned).to_vec();
        self.before.push("--reset-env".to_owned());
        self.give_away()?;
        let mut probe = Command::new(&self.before[0]);
        probe.args(&self.before[1..]).args(["test", "-w"]).arg(&self.folder).stderr(Stdio::null());
        if !probe.status().map_err(os("run setpriv"))?.success() {
            let outside = std::env::temp_dir().join(format!("{OUTSIDE}{}", run.name()));
            fs::create_dir(&outside).map_err(os("make PostgreSQL's folder"))?;
            fs::remove_dir(&self.folder).map_err(os("replace PostgreSQL's folder"))?;
            std::os::unix::fs::symlink(&outside, &self.folder).map_err(os("link PostgreSQL's folder"))?;
            self.folder = outside;
            self.give_away()?;
        }
        Ok(())
    }

    fn give_away(&self) -> Result<(), StackError> {
        let chown = Command::new("chown").arg("postgres").arg(&self.folder).stderr(Stdio::null()).status();
        if chown.map_err(os("chown"))?.success() {
            return Ok(());
        }
        Err(FetchError::Missing("the user postgres (Debian package postgresql)").into())
    }

    /// In single-user mode, so that no client program is needed.
    fn create_databases(&self) -> Result<(), StackError> {
        let mut command = self.before.clone();
        command.push(self.bin.join("postgres").to_string_lossy().into_owned());
        command.extend(["--single", "-D"].map(str::to_owned));
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .arg(&self.folder)
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(os("create the databases"))?;
        if let Some(mut input) = child.stdin.take() {
            let statements = b"create database milestream\ncreate database registry\n";
            input.write_all(statements).map_err(os("create the databases"))?;
        }
        let status = child.wait().map_err(os("create the databases"))?;
        if status.success() {
            return Ok(());
        }
        Err(FetchError::Client { command: command.join(" "), output: status.to_string() }.into())
    }
}

fn is_root() -> Result<bool, StackError> {
    let id = Command::new("id").arg("-u").output().map_err(os("run id"))?;
    Ok(String::from_utf8_lossy(&id.stdout).trim() == "0")
}

/// The newest of Debian's versions, which are not on the search path, or what is on it.
fn programs() -> Option<PathBuf> {
    let version = |folder: &PathBuf| -> u32 {
        let name =
            folder.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        name.parse().unwrap_or(0)
    };
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort_by_key(|folder| std::cmp::Reverse(version(folder)));
    folders.extend(which("initdb").and_then(|file| Some(file.parent()?.to_path_buf())));
    folders.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}
