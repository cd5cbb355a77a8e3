//! Runs one command in the foreground, whose process tree ends with this process.

use std::io::{self, IsTerminal as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::process::{MARK, send, unmark};
use crate::stack::Stack;

/// Waits for the owner as [`crate::Supervised`] does, then kills every process whose environment has the mark `$1`, until
/// there are none: a tree is not one group (a test can start servers of its own), but it inherits the environment.
/// 100 rounds of 50 ms; a tree that forks faster than that is not ours to end.
const REAP: &str = r#"
read -r _
round=0
while [ "$round" -lt 100 ]; do
    found=
    for file in $(grep -lzxsF "$1=1" /proc/[0-9]*/environ); do
        pid=${file#/proc/}
        kill -s KILL "${pid%/environ}" 2>/dev/null && found=yes
    done
    [ -n "$found" ] || exit 0
    sleep 0.05
    round=$((round + 1))
done
"#;

/// Runs a command with the stack's variables in its environment and this process's terminal, passes signals on to it, and
/// returns its status (128 + n after signal n). Whatever it started ends with it, and with this process, however that ends.
///
/// # Errors
/// When the program cannot be started.
pub fn run_in_foreground(stack: &Stack, program: &str, arguments: &[String]) -> io::Result<u8> {
    let mark: String = stack
        .name()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' })
        .collect();
    let mark = format!("{MARK}{mark}");
    let signals = [(SIGINT, "INT"), (SIGTERM, "TERM"), (SIGHUP, "HUP")]
        .into_iter()
        .map(|(number, name)| {
            let came = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(number, Arc::clone(&came)).map(|_| (name, came))
        })
        .collect::<io::Result<Vec<_>>>()?;
    let mut reaper = Command::new("sh");
    unmark(&mut reaper);
    reaper.args(["-c", REAP, "reap", &mark]).process_group(0).stdin(Stdio::piped());
    let mut reaper = reaper.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let status =
        attend(Command::new(program).args(arguments).envs(stack.environment()).env(&mark, "1"), &signals);
    // Closes its pipe, which lets it end what the command left running.
    reaper.wait()?;
    status.map(code)
}

fn attend(command: &mut Command, signals: &[(&str, Arc<AtomicBool>)]) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        for (name, came) in signals {
            // Ctrl-C reaches the whole foreground group: the command has it already, and twice could mean something else.
            if came.swap(false, Ordering::Relaxed) && !(*name == "INT" && io::stdin().is_terminal()) {
                // Err means that it ended just now.
                let _ = send(name, &child.id().to_string());
            }
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
