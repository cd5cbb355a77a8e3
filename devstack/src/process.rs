//! A child process that cannot outlive its owner.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Runs its arguments in a session of their own and ends with their status. Standard input is a pipe that only the owner
/// holds, and it closes however the owner ends: then the guard sends `$2` (a signal) to the process, gives it 3 s (30 looks
/// of 0.1 s) and kills its whole group. `$1` is the file for the process id. The group is killed after a normal end too.
const WATCH: &str = r#"
pidfile=$1 farewell=$2
shift 2
exec 3<&0
setsid "$@" </dev/null 3<&- &
pid=$!
echo "$pid" >"$pidfile"
{
    read -r _ <&3
    kill -s "$farewell" "$pid"
    looks=0
    while kill -0 "$pid" && [ "$looks" -lt 30 ]; do sleep 0.1; looks=$((looks + 1)); done
    kill -s KILL -- "-$pid"
} 2>/dev/null &
guard=$!
wait "$pid"
status=$?
kill -s KILL -- "-$pid" "$guard" 2>/dev/null
exit "$status"
"#;

/// Variables of this prefix mark the process tree of a command run by [`crate::run_in_foreground`]. A watcher must not carry
/// them: it has to survive the end of that tree for long enough to end its own process.
pub(crate) const MARK: &str = "DEVSTACK_RUN_";

/// What to run, and where its traces go.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Added to the environment.
    pub(crate) envs: Vec<(&'static str, String)>,
    /// Standard output and error are appended here.
    pub(crate) log: PathBuf,
    /// The process id.
    pub(crate) pidfile: PathBuf,
    /// The signal that the process gets when its owner is gone, e.g. `KILL`.
    pub(crate) farewell: &'static str,
}

/// A supervised process; dropping it kills the process.
#[derive(Debug)]
pub struct Supervised {
    watcher: Child,
    pidfile: PathBuf,
    pid: OnceLock<u32>,
}

impl Supervised {
    /// Starts `command` with its output appended to `log`; `pidfile` holds its process id.
    ///
    /// # Errors
    /// When the shell or the log file cannot be had. A missing program shows as an early end with status 127.
    pub fn spawn(
        command: &[String],
        envs: &[(&str, String)],
        log: &Path,
        pidfile: PathBuf,
    ) -> io::Result<Self> {
        Self::watch(command, envs, log, pidfile, "KILL")
    }

    /// Starts a program of the stack.
    pub(crate) fn start(program: &Program) -> io::Result<Self> {
        let Program { command, envs, log, pidfile, farewell } = program;
        Self::watch(command, envs, log, pidfile.clone(), farewell)
    }

    fn watch(
        command: &[String],
        envs: &[(&str, String)],
        log: &Path,
        pidfile: PathBuf,
        farewell: &str,
    ) -> io::Result<Self> {
        if let Err(error) = std::fs::remove_file(&pidfile)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let out = File::options().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        let mut shell = Command::new("sh");
        shell.args(["-c", WATCH, "watch"]).arg(&pidfile).arg(farewell).args(command);
        shell.envs(envs.iter().map(|(key, value)| (key, value)));
        // Lets `./dev down` know a process again after its id was given to another.
        shell.env("SUPERVISED_AS", &pidfile);
        unmark(&mut shell);
        // A group of its own: Ctrl-C at the terminal is the owner's business, who then ends the parts in order.
        let watcher = shell.process_group(0).stdin(Stdio::piped()).stdout(out).stderr(err).spawn()?;
        Ok(Self { watcher, pidfile, pid: OnceLock::new() })
    }

    /// The process id; waits up to 5 s for the shell to report it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let until = Instant::now() + Duration::from_secs(5);
        while self.pid.get().is_none() && Instant::now() < until {
            let text = std::fs::read_to_string(&self.pidfile).unwrap_or_default();
            match text.trim().parse() {
                Ok(pid) => return Some(*self.pid.get_or_init(|| pid)),
                Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
            }
        }
        self.pid.get().copied()
    }

    /// Whether the process itself is alive, stopped included (a zombie is not).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.pid().is_some_and(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // proc(5): the state and the parent follow the command in parentheses. The parent distinguishes ours from a later
            // process with the same id.
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            let alive = fields.next().is_some_and(|state| state != "Z" && state != "X");
            alive && fields.next() == Some(self.watcher.id().to_string().as_str())
        })
    }

    /// Its end, if it has come: the status, 128 + n after signal n. Does not wait.
    ///
    /// # Errors
    /// When the operating system cannot report it.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.watcher.try_wait()
    }

    /// Sends a signal by name, e.g. `TERM`, `STOP`, `CONT`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        match self.pid() {
            Some(pid) if self.is_alive() => send(name, &pid.to_string()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "the process is gone")),
        }
    }

    /// SIGKILL to the process and all of its group, and waits until they are gone.
    pub fn kill(&mut self) {
        if self.is_alive()
            && let Some(pid) = self.pid()
        {
            // Err means that it ended just now.
            let _ = send("KILL", &format!("-{pid}"));
        }
        // Closes the pipe, which makes the guard do the same; Err means that it was reaped before.
        let _ = self.watcher.wait();
    }

    /// SIGTERM, then SIGKILL after `grace`.
    pub fn terminate(&mut self, grace: Duration) {
        self.end("TERM", grace);
    }

    /// A signal, then SIGKILL after `grace`.
    pub(crate) fn end(&mut self, signal: &str, grace: Duration) {
        if self.signal(signal).is_ok() {
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

/// The last lines of a log, from a place on: what an earlier start said is not of this one.
pub(crate) fn tail(log: &Path, from: u64, lines: usize) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.get(usize::try_from(from).unwrap_or(0)..).unwrap_or_default());
    let mut last: Vec<&str> = text.lines().rev().take(lines).collect();
    last.reverse();
    last.join("\n")
}

/// Takes the marks of an outer run from the environment of a watcher.
pub(crate) fn unmark(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(MARK) {
            command.env_remove(name);
        }
    }
}

/// The shell's own `kill`: there is always one, while the program of that name is a package that may be missing.
pub(crate) fn send(signal: &str, target: &str) -> io::Result<()> {
    let status = Command::new("sh")
        .args(["-c", r#"kill -s "$1" -- "$2""#, "kill", signal, target])
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill -s {signal} {target}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(folder: &Path, script: &str) -> Supervised {
        let command = ["sh", "-c", script].map(str::to_owned);
        Supervised::spawn(&command, &[], &folder.join("log"), folder.join("pid")).unwrap()
    }

    fn until(mut condition: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if condition() {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        false
    }

    #[test]
    fn an_ended_process_has_a_status_and_is_not_alive() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = start(folder.path(), "exit 7");
        let mut status = None;
        assert!(until(|| {
            status = process.try_wait().unwrap();
            status.is_some()
        }));
        assert_eq!(status.and_then(|status| status.code()), Some(7));
        assert!(!process.is_alive());
        assert!(process.signal("TERM").is_err());
    }

    #[test]
    fn a_kill_ends_the_whole_group_even_when_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let child = folder.path().join("child");
        let mut process = start(folder.path(), &format!("sleep 100 & echo $! >{}; wait", child.display()));
        assert!(until(|| std::fs::read_to_string(&child).is_ok_and(|text| text.ends_with('\n'))));
        process.signal("STOP").unwrap();
        assert!(process.is_alive());
        process.kill();
        assert!(!process.is_alive());
        let child = std::fs::read_to_string(child).unwrap();
        assert!(until(|| !runs(child.trim())), "the child of the killed process is still there");
    }

    #[test]
    fn a_polite_end_runs_the_handler() {
        let folder = tempfile::tempdir().unwrap();
        let mut process =
            start(folder.path(), "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done");
        let log = folder.path().join("log");
        assert!(until(|| std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"))));
        process.terminate(Duration::from_secs(10));
        assert!(std::fs::read_to_string(&log).unwrap().contains("bye"));
    }

    #[test]
    fn a_missing_program_shows_as_status_127() {
        let folder = tempfile::tempdir().unwrap();
        let command = ["/no/such/program".to_owned()];
        let mut process =
            Supervised::spawn(&command, &[], &folder.path().join("log"), folder.path().join("pid")).unwrap();
        assert!(until(|| process.try_wait().unwrap().is_some()));
        assert_eq!(process.try_wait().unwrap().and_then(|status| status.code()), Some(127));
    }

    fn runs(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    }
}
