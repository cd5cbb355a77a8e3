//! The folder of one run: its data, which goes with it, and its logs, of which the last runs' are kept.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs whose logs are kept, this one included. One takes a few megabytes.
const KEPT_LOGS: usize = 5;
/// Names the folder under the system's temporary one that holds a database where the project's folder cannot.
pub(crate) const OUTSIDE: &str = "milestream-postgres-";

/// `ROOT/run/NAME` and `ROOT/logs/NAME`. The file `lock` in the first is locked as long as the owner lives: the operating
/// system unlocks it however the owner ends, so that a later run can tell what was left behind.
#[derive(Debug)]
pub(crate) struct RunFolder {
    name: String,
    data: PathBuf,
    logs: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes the folders, and removes what ended owners left.
    pub(crate) fn make(root: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let run = root.join("run");
        fs::create_dir_all(&run)?;
        // Nobody may sweep a folder that is made but not yet locked.
        let alone = File::create(root.join("run.lock"))?;
        alone.lock()?;
        let time = chrono::Utc::now().format("%Y%m%dT%H%M%SZ");
        let name = format!("{time}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (data, logs) = (run.join(&name), root.join("logs").join(&name));
        sweep(&run)?;
        fs::create_dir_all(&data)?;
        fs::create_dir_all(&logs)?;
        let lock = File::create(data.join("lock"))?;
        lock.lock()?;
        fs::write(data.join("owner"), format!("{}\n", std::process::id()))?;
        forget_old_logs(root, &run)?;
        Ok(Self { name, data, logs, _lock: lock })
    }

    /// Unique for each run.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    pub(crate) fn remove_data(&self) -> io::Result<()> {
        remove(&self.data)
    }
}

fn sweep(run: &Path) -> io::Result<()> {
    for folder in folders(run)? {
        if !is_owned(&folder) {
            remove(&folder)?;
        }
    }
    Ok(())
}

/// A folder without a lock is none of ours: it counts as owned.
fn is_owned(folder: &Path) -> bool {
    match File::open(folder.join("lock")) {
        Ok(lock) => matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => folder.exists(),
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    // PostgreSQL's folder can be a link to one of ours outside.
    if let Ok(outside) = fs::read_link(folder.join("postgres"))
        && outside.parent() == Some(std::env::temp_dir().as_path())
        && outside.file_name().is_some_and(|name| name.to_string_lossy().starts_with(OUTSIDE))
    {
        gone(fs::remove_dir_all(outside))?;
    }
    gone(fs::remove_dir_all(folder))
}

fn forget_old_logs(root: &Path, run: &Path) -> io::Result<()> {
    let mut all = folders(&root.join("logs"))?;
    // The names begin with the time.
    all.sort();
    let old = all.len().saturating_sub(KEPT_LOGS);
    for folder in &all[..old] {
        if !folder.file_name().is_some_and(|name| is_owned(&run.join(name))) {
            gone(fs::remove_dir_all(folder))?;
        }
    }
    Ok(())
}

fn folders(of: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(of)?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|path| path.is_dir()).collect())
}

/// Another process may remove the same thing at the same time.
fn gone(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_an_ended_owner_is_swept_and_that_of_a_living_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let ended = RunFolder::make(root.path()).unwrap();
        let ended_data = ended.data().to_path_buf();
        drop(ended);
        let living = RunFolder::make(root.path()).unwrap();
        let _another = RunFolder::make(root.path()).unwrap();
        assert!(!ended_data.exists());
        assert!(living.data().join("owner").is_file());
    }

    #[test]
    fn the_logs_of_the_last_five_runs_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..7)
            .map(|_| {
                let run = RunFolder::make(root.path()).unwrap();
                run.remove_data().unwrap();
                assert!(!run.data().exists());
                run.name().to_owned()
            })
            .collect();
        let kept = folders(&root.path().join("logs")).unwrap();
        assert_eq!(kept.len(), KEPT_LOGS);
        assert!(names[2..].iter().all(|name| root.path().join("logs").join(name).is_dir()));
    }
}
