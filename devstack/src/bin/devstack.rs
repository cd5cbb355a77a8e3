//! `devstack [--with PART]… COMMAND…`: starts the local parts, runs the command with their URLs in its environment, ends with
//! its status.

use std::path::Path;
use std::process::ExitCode;

use devstack::{Part, Stack, run_in_foreground};

const USAGE: &str = "usage: devstack [--with PART]… COMMAND [ARGUMENT…]";

fn main() -> ExitCode {
    let mut rest: Vec<String> = std::env::args().skip(1).collect();
    let more = match take_parts(&mut rest) {
        Ok(more) => more,
        Err(complaint) => return misused(&complaint),
    };
    let Some((program, arguments)) = rest.split_first() else {
        return misused("no command");
    };
    let stack = match Stack::start_with(Path::new(".local"), &more, &|line| eprintln!("devstack: {line}")) {
        Ok(stack) => stack,
        Err(error) => {
            eprintln!("devstack: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run_in_foreground(&stack, program, arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("devstack: {program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes `--with PART` from the front, as often as it is there: what follows belongs to the command.
fn take_parts(arguments: &mut Vec<String>) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    while arguments.first().is_some_and(|word| word == "--with") {
        let name = arguments.get(1).ok_or("--with names no part")?;
        let part = Part::ALL.into_iter().find(|part| part.name() == name);
        parts.push(
            part.ok_or_else(|| {
                format!("no part {name}; there are {}", Part::ALL.map(Part::name).join(", "))
            })?,
        );
        arguments.drain(..2);
    }
    Ok(parts)
}

fn misused(complaint: &str) -> ExitCode {
    eprintln!("devstack: {complaint}\n{USAGE}");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn parts_are_taken_from_the_front_only() {
        let mut arguments = words("--with thor --with kafka sh --with postgres");
        assert_eq!(take_parts(&mut arguments), Ok(vec![Part::Thor, Part::Kafka]));
        assert_eq!(arguments, words("sh --with postgres"));
    }

    #[test]
    fn every_part_has_a_name_of_its_own_and_an_unknown_one_is_refused_with_those_there_are() {
        for part in Part::ALL {
            assert_eq!(take_parts(&mut words(&format!("--with {}", part.name()))), Ok(vec![part]));
        }
        let complaint = take_parts(&mut words("--with bitcoin sh")).unwrap_err();
        assert_eq!(
            complaint,
            "no part bitcoin; there are postgres, mongodb, kafka, registry, prometheus, thor"
        );
        assert!(take_parts(&mut words("--with")).is_err());
    }
}
