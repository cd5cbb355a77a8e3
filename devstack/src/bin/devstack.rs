//! `devstack COMMAND…`: starts the local parts, runs the command with their URLs in its environment, ends with its status.

use std::path::Path;
use std::process::ExitCode;

use devstack::{Stack, run_in_foreground};

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
    match run_in_foreground(&stack, program, rest) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("devstack: {program}: {error}");
            ExitCode::FAILURE
        }
    }
}
