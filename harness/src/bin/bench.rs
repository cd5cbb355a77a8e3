//! `./dev bench NAME`: ratios taken in one run on the local parts.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use devstack::Stack;
use harness::{memory_bench, runtime_bench};

/// Measures Milestream against something named, in one run.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    #[arg(value_enum)]
    name: Name,
    /// Records of a round.
    #[arg(long, default_value_t = 100_000)]
    records: usize,
    /// Rounds of each arm; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// The engine with a pure stage, beside a raw rdkafka loop; and the memory of every role.
    Runtime,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let Name::Runtime = arguments.name;
    let stack = Stack::start(Path::new(".local"), &|line| eprintln!("bench: {line}"))?;
    let good = runtime_bench::run(&stack, arguments.records, arguments.rounds)?;
    memory_bench::run(&stack)?;
    stack.stop();
    Ok(good)
}
