//! The command that `devstack` runs: its status, its signals, its end. Every part is replaced, so nothing is started.
#![allow(clippy::unwrap_used, reason = "clippy knows the test functions, not their helpers")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use devstack::Part;

fn replaced(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    for part in Part::ALL {
        command.env(part.variable(), "replaced:1");
    }
    command.current_dir(root);
    command
}

fn devstack(root: &Path, script: &str) -> Child {
    let mut command = replaced(root);
    command.args(["sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn signal(name: &str, child: &Child) {
    let kill = r#"kill -s "$1" "$2""#;
    let status = Command::new("sh").args(["-c", kill, "kill", name, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

fn is_gone(pid: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    false
}

#[test]
fn the_status_of_the_command_is_the_status_of_devstack() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(devstack(root.path(), "exit 7").wait().unwrap().code(), Some(7));
    assert_eq!(devstack(root.path(), "kill -9 $$").wait().unwrap().code(), Some(137));
}

#[test]
fn the_command_sees_where_the_parts_are() {
    let root = tempfile::tempdir().unwrap();
    let mut child = devstack(root.path(), "echo $KAFKA_BROKERS,$DATABASE_URL,$PROMETHEUS_URL");
    assert_eq!(first_line(&mut child), "replaced:1,replaced:1,replaced:1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn thor_is_there_for_those_who_ask_and_its_url_replaces_it() {
    let root = tempfile::tempdir().unwrap();
    let script = ["sh", "-c", "echo [$THOR_URL]"];
    let output = replaced(root.path()).args(["--with", "thor"]).args(script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[replaced:1]\n");
    // Nobody asks, nothing replaces it: it is neither built nor started.
    let output = replaced(root.path()).env_remove("THOR_URL").args(script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[]\n");
    assert!(!root.path().join(".local/parts").exists());
}

#[test]
fn a_wrong_part_is_a_wrong_use_and_nothing_is_started() {
    let root = tempfile::tempdir().unwrap();
    for arguments in [&["--with", "bitcoin", "true"][..], &["--with", "thor"], &["--with"], &[]] {
        let output = replaced(root.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: devstack"), "{arguments:?}");
    }
    assert!(!root.path().join(".local").exists());
}

#[test]
fn signals_are_passed_on_and_the_command_may_end_in_its_own_way() {
    for (name, status) in [("TERM", 3), ("INT", 4), ("HUP", 5)] {
        let root = tempfile::tempdir().unwrap();
        let script = "trap 'exit 3' TERM; trap 'exit 4' INT; trap 'exit 5' HUP; echo ready; while :; do sleep 0.01; done";
        let mut child = devstack(root.path(), script);
        assert_eq!(first_line(&mut child), "ready");
        signal(name, &child);
        assert_eq!(child.wait().unwrap().code(), Some(status), "{name}");
    }
}

#[test]
fn what_the_command_leaves_running_ends_with_it() {
    let root = tempfile::tempdir().unwrap();
    let mut child = devstack(root.path(), "setsid sleep 1000 >/dev/null & echo $!");
    let left = first_line(&mut child);
    assert!(child.wait().unwrap().success());
    assert!(is_gone(&left));
}

#[test]
fn kill_9_of_devstack_ends_the_command_and_all_that_it_started() {
    let root = tempfile::tempdir().unwrap();
    // A devstack inside a devstack, whose command hides in a session of its own.
    let inner = format!("{} setsid sh -c 'sleep 1000 & echo $! $$; wait'", env!("CARGO_BIN_EXE_devstack"));
    let mut child = devstack(root.path(), &inner);
    let pids = first_line(&mut child);
    assert_eq!(pids.split(' ').count(), 2, "{pids}");
    child.kill().unwrap();
    child.wait().unwrap();
    for pid in pids.split(' ') {
        assert!(is_gone(pid), "{pid} outlived devstack");
    }
}

#[test]
fn a_program_that_is_not_there_is_a_failure() {
    let root = tempfile::tempdir().unwrap();
    let output = replaced(root.path()).arg("/no/such/program").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/program"));
}
