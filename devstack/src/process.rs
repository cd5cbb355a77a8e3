//! A child process that cannot outlive its owner.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs its arguments in the background, then waits for the owner: standard input is a pipe that the owner holds, and
/// it closes however the owner ends. `$1` is the file for the process id.
const WATCH: &str = r#"pidfile=$1; shift; "$@" </dev/null & pid=$!; echo $pid >"$pidfile"; read -r _; kill -9 $pid 2>/dev/null; wait $pid"#;

/// A supervised process.
#[derive(Debug)]
pub struct Supervised {
    watcher: Child,
    pidfile: PathBuf,
}

impl Supervised {
    /// Starts `command` with its output in `log`; `pidfile` tells its process id.
    ///
    /// # Errors
    /// When the shell or the log file cannot be had.
    pub fn spawn(
        command: &[String],
        envs: &[(&str, String)],
        log: &Path,
        pidfile: PathBuf,
    ) -> io::Result<Self> {
        let _ = std::fs::remove_file(&pidfile);
        let out = File::options().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        let watcher = Command::new("sh")
            .arg("-c")
            .arg(WATCH)
            .arg("watch")
            .arg(&pidfile)
            .args(command)
            .envs(envs.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()?;
        Ok(Self { watcher, pidfile })
    }

    /// The process id, once the shell has started it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(pid) =
                std::fs::read_to_string(&self.pidfile).ok().and_then(|text| text.trim().parse().ok())
            {
                return Some(pid);
            }
            if Instant::now() > until {
                return None;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Whether the process itself is alive (a zombie is not).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.pid().is_some_and(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The state follows the command in parentheses.
            stat.rsplit(')').next().is_some_and(|rest| {
                let state = rest.trim_start().chars().next();
                state.is_some_and(|state| state != 'Z' && state != 'X')
            })
        })
    }

    /// Sends a signal by name, e.g. `TERM`, `STOP`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        let pid = self.pid().ok_or_else(|| io::Error::other("no process id"))?;
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(pid.to_string())
            .stderr(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill -{name} {pid}"))) }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.watcher.stdin.take());
        // Err means that it was reaped before.
        let _ = self.watcher.wait();
    }

    /// SIGTERM, then SIGKILL after `grace`.
    pub fn terminate(&mut self, grace: Duration) {
        if self.signal("TERM").is_ok() {
            let until = Instant::now() + grace;
            while self.is_alive() && Instant::now() < until {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        self.kill();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.kill();
    }
}
