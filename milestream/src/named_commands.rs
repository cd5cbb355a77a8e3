//! Every command that a message, a document or an alert names exists: the text between backticks, from `milestream` on, is
//! walked through the parser's own tree.

use std::path::Path;

use clap::{Command, CommandFactory as _};

use crate::commands::Cli;
use crate::documents::texts;

/// What is named in a text: between backticks, after `$ ` in a console, and as a container's entry point.
fn named(text: &str) -> Vec<String> {
    let between = text.split('`').skip(1).filter_map(|piece| piece.strip_prefix("milestream "));
    let consoles = text.lines().filter_map(|line| line.trim().strip_prefix("$ milestream "));
    let containers = text
        .lines()
        .filter_map(|line| line.split_once("--entrypoint milestream setup ").map(|(_, rest)| rest));
    between
        .map(|piece| piece.split("\n\n").next().unwrap_or(piece))
        .chain(consoles)
        .chain(containers)
        .filter(|command| command.starts_with(|c: char| c.is_ascii_alphabetic()))
        .map(|command| command.replace("///", " ").replace("//!", " "))
        .collect()
}

/// Texts that name commands which do not exist: this one, and the worked changes.
fn is_fiction(path: &Path) -> bool {
    path.ends_with("named_commands.rs") || path.components().any(|part| part.as_os_str() == "changes")
}

/// Why a named command does not exist.
fn refused(root: &Command, line: &str) -> Option<String> {
    let mut command = root;
    let mut positional = false;
    for word in line.split_whitespace().take_while(|word| !["|", ">", ";", "&&"].contains(word)) {
        if command.has_subcommands() && word.chars().all(|c| c.is_ascii_uppercase()) {
            // A placeholder: any of its commands.
            return None;
        }
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or(flag);
            let known =
                command.get_arguments().chain(root.get_arguments()).any(|arg| arg.get_long() == Some(flag));
            if !known {
                return Some(format!("{} has no --{flag}", command.get_name()));
            }
            positional = true;
        } else if !positional && command.has_subcommands() {
            match command.find_subcommand(word) {
                Some(below) => command = below,
                None => return Some(format!("{} has no {word}", command.get_name())),
            }
        } else {
            positional = true;
        }
    }
    None
}

#[test]
fn every_command_that_a_message_a_document_or_an_alert_names_exists() {
    let mut root = Cli::command();
    root.build();
    let found = texts(&[".rs", ".md", ".yml", ".yaml", ".json", "dev"]);
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in found.iter().filter(|(path, _)| !is_fiction(path)) {
        for line in named(text) {
            count += 1;
            wrong.extend(
                refused(&root, &line).map(|why| format!("{}: `milestream {line}`: {why}", path.display())),
            );
        }
    }
    assert!(count > 50, "{count}: the texts were not found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let mut root = Cli::command();
    root.build();
    let text = "run `milestream offsets algin {stage}`, or\n$ milestream tokens --user X";
    let found: Vec<_> = named(text).iter().filter_map(|line| refused(&root, line)).collect();
    assert_eq!(found, ["offsets has no algin", "milestream has no tokens"]);
    assert_eq!(refused(&root, "offsets reset STAGE --to 5"), None);
    assert_eq!(refused(&root, "offsets reset STAGE --forwards"), Some("reset has no --forwards".to_owned()));
}
