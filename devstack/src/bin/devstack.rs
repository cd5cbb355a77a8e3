//! `devstack COMMAND…`: starts the local parts, runs the command with their URLs in its environment, ends with its status.

use std::path::Path;
use std::process::{Command, ExitCode};

use devstack::Stack;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((program, rest)) = arguments.split_first() else {
        eprintln!("usage: devstack COMMAND [ARGUMENT…]");
        return ExitCode::from(2);
    };
    let stack = match Stack::start(Path::new(".local"), &|line| eprintln!("devstack: {line}")) {
        Ok(stack) => stack,
        Err(error) => {
            eprintln!("devstack: {error}");
            return ExitCode::FAILURE;
        }
    };
    let status = Command::new(program).args(rest).envs(stack.environment()).status();
    stack.stop();
    match status {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            eprintln!("devstack: {program}: {error}");
            ExitCode::FAILURE
        }
    }
}
