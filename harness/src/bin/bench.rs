//! `./dev bench NAME`: ratios taken in one run on the local parts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use devstack::{Part, Stack};
use harness::runtime_bench::{AGAINST_RAW, Arm, Bar, Size};
use harness::{
    books_bench, decide_bench, flow_bench, gateway_bench, idle_bench, login_bench, memory_bench, memory_soak,
    payout_bench, reading_bench, rebuild_bench, runtime_bench,
};

/// Measures Milestream against something named, in one run.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    #[arg(value_enum)]
    name: Name,
    /// Records of a round.
    #[arg(long, default_value_t = 100_000)]
    records: usize,
    /// Records of a round of `runtime` and `peers` that are measured.
    #[arg(long, default_value_t = 500_000)]
    measured: usize,
    /// Records before them: a JVM has compiled what matters after half a million.
    #[arg(long, default_value_t = 500_000)]
    warm_up: usize,
    /// Rounds of each arm; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Rewards of a round of `payout`.
    #[arg(long, default_value_t = 2_000)]
    rewards: usize,
    /// Uploads of `flow`, one per second.
    #[arg(long, default_value_t = 60)]
    uploads: usize,
    /// Rows that are in the tables before `books`, beside few.
    #[arg(long, default_value_t = 1_000_000)]
    existing: u64,
    /// Photos of a round of `reading`; a round of `gateway` has ten times as many.
    #[arg(long, default_value_t = 80)]
    photos: usize,
    /// Logins of a round of `login`.
    #[arg(long, default_value_t = 2_000)]
    logins: usize,
    /// The program that `gateway` and `decide` measure, for a comparison of releases; this build's where none is named.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Seconds of `decide`.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Minutes of `memory`.
    #[arg(long, default_value_t = 60)]
    minutes: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// The engine with a pure stage, beside a raw rdkafka loop; and the memory of every role.
    Runtime,
    /// The same beside Kafka Streams too, at least once and exactly once.
    Peers,
    /// The CPU of every role, and of Kafka, while there is nothing to do.
    Idle,
    /// The stage that reads, beside two `milestream read` processes; and other users' photos while one stands still.
    Reading,
    /// The stages that decide and the sinks on Postgres, beside a bare insert of their rows, on small and on large tables.
    Books,
    /// What deciding costs, and the time from a reading to its granted reward at 500 readings a second.
    Decide,
    /// Events a second of a rebuild.
    Rebuild,
    /// What an upload costs the gateway, Postgres and Kafka, beside a bare handler with the same promises to the disk.
    Gateway,
    /// What signing in costs the gateway, beside bare recovery of a signer; and what the check of a token costs.
    Login,
    /// Rewards settled a second, beside raw transactions of the same shape; and the gas of a reward by the size of the batch.
    Payout,
    /// Where an upload's time goes, from 202 to the confirmed payment.
    Flow,
    /// Whether the memory of every role is flat under load.
    Memory,
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
    let tell = |line: &str| eprintln!("bench: {line}");
    let root = Path::new(".local");
    let Arguments { measured, warm_up, rounds, .. } = *arguments;
    let (size, streams) = (Size { records: measured, warm_up, rounds }, Path::new(".local/peers"));
    let (stack, good) = match arguments.name {
        Name::Runtime => {
            let stack = Stack::start(root, &tell)?;
            let good = runtime_bench::run(&stack, &[Arm::Raw, Arm::Engine], &[AGAINST_RAW], size, streams)?;
            memory_bench::run(&stack)?;
            (stack, good)
        }
        Name::Peers => {
            let stack = Stack::start(root, &tell)?;
            let arms = [Arm::Engine, Arm::Raw, Arm::StreamsAtLeastOnce, Arm::StreamsExactlyOnce];
            let streams_bar = |of| Bar { of, share: 1.5, memory: true };
            let bars =
                [AGAINST_RAW, streams_bar(Arm::StreamsAtLeastOnce), streams_bar(Arm::StreamsExactlyOnce)];
            let good = runtime_bench::run(&stack, &arms, &bars, size, streams)?;
            (stack, good)
        }
        Name::Idle => {
            let stack = Stack::start(root, &tell)?;
            let good = idle_bench::run(&stack, arguments.rounds)?;
            (stack, good)
        }
        Name::Gateway => {
            return gateway_bench::run(arguments.program.as_deref(), arguments.photos * 10, arguments.rounds);
        }
        Name::Decide => return decide_bench::run(arguments.program.as_deref(), arguments.seconds),
        Name::Login => return login_bench::run(arguments.logins, arguments.rounds),
        Name::Reading => {
            let stack = Stack::start(root, &tell)?;
            let good = reading_bench::run(&stack, arguments.photos, arguments.rounds)?;
            (stack, good)
        }
        Name::Books => {
            let stack = Stack::start_own(root, &[Part::Postgres], &tell)?;
            let sizes = (u64::try_from(arguments.records)?, arguments.existing);
            let good = books_bench::run(stack.database_url(), sizes, arguments.rounds)?;
            (stack, good)
        }
        Name::Rebuild => {
            let stack = Stack::start(root, &tell)?;
            let good = rebuild_bench::run(&stack, u64::try_from(arguments.records)?)?;
            (stack, good)
        }
        Name::Flow => {
            let stack = Stack::start_with(root, &[Part::Thor], &tell)?;
            let good = flow_bench::run(&stack, arguments.uploads)?;
            (stack, good)
        }
        Name::Payout => {
            let stack = Stack::start_with(root, &[Part::Thor], &tell)?;
            let good = payout_bench::run(&stack, arguments.rewards)?;
            (stack, good)
        }
        Name::Memory => {
            let stack = Stack::start_with(root, &[Part::Thor], &tell)?;
            let good = memory_soak::run(&stack, arguments.minutes)?;
            (stack, good)
        }
    };
    stack.stop();
    Ok(good)
}
