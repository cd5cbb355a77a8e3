//! Pages of `docs/` that are generated from the code. The tests fail when one is stale; `UPDATE=1 cargo test -p milestream pages`
//! writes them again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory as _};
use serde_json::Value;

use crate::commands::Cli;
use crate::config::{Config, FAMILIAR_NAMES};

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// Compares a page with what the code says, or writes it.
pub fn hold(name: &str, wanted: &str) {
    let path = page(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/{name} is stale: run `UPDATE=1 cargo test -p milestream pages`");
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn help(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(|text| format!("{}.", text.to_string().trim_end_matches('.'))).unwrap_or_default()
}

fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str()))
}

/// How an argument is written, e.g. `--to OFFSET` or `STAGE`.
fn written(arg: &Arg) -> String {
    let values = arg.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
    match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => format!("--{long} {values}"),
        Some(long) => format!("--{long}"),
        None => values,
    }
}

/// The section of a command, and of the commands below it.
fn section(out: &mut String, path: &str, command: &Command) {
    let about = help(command.get_long_about().or(command.get_about()));
    if command.has_subcommands() {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            section(out, &format!("{path} {}", below.get_name()), below);
        }
        // One that does something by itself as well has arguments of its own.
        if arguments(command).all(Arg::is_global_set) {
            return;
        }
    }
    writeln!(out, "\n## `{path}`\n\n{about}").unwrap();
    let mut arguments = arguments(command).filter(|arg| !arg.is_global_set()).peekable();
    if arguments.peek().is_some() {
        writeln!(out, "\n| argument | meaning |\n| --- | --- |").unwrap();
    }
    for arg in arguments {
        let mut meaning = help(arg.get_long_help().or(arg.get_help()));
        let choices: Vec<_> =
            arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        if !choices.is_empty() && arg.get_action().takes_values() {
            write!(meaning, " One of {}.", choices.join(", ")).unwrap();
        }
        if let [default] = arg.get_default_values() {
            write!(meaning, " Default: `{}`.", default.to_string_lossy()).unwrap();
        }
        let needed = if arg.is_required_set() { ", required" } else { "" };
        writeln!(out, "| `{}`{needed} | {} |", written(arg), cell(&meaning)).unwrap();
    }
}

#[test]
fn the_page_of_commands_is_what_the_parser_knows() {
    let mut command = Cli::command();
    command.build();
    let mut out = String::from(
        "# Commands\n\nGenerated from the command line's own code; `milestream COMMAND --help` prints the same. Every command takes\n\
         `--config FILE` (default `milestream.toml`) and the settings of [configuration.md](configuration.md). What changes\n\
         something that operators own is recorded in `system_audit_logs`.\n",
    );
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        section(&mut out, &format!("milestream {}", below.get_name()), below);
    }
    hold("commands.md", &out);
}

#[test]
fn the_page_of_the_configuration_is_what_the_code_reads() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    let defaults: Value = serde_json::to_value(Config::default()).unwrap();
    let described = |value: &Value| value["description"].as_str().unwrap_or_default().replace('\n', " ");
    let mut out = String::from(
        "# Configuration\n\nGenerated from the code that reads it. Defaults, then `milestream.toml`, then the environment; unknown keys are\n\
         refused, and `milestream config show` prints what is in force, secrets redacted. A variable is named after its key:\n\
         `MILESTREAM_SECTION__KEY`. Some also go by the name that other programs use for them, in parentheses.\n",
    );
    for (section, reference) in schema["properties"].as_object().unwrap() {
        let name = reference["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let definition = &schema["$defs"][name];
        writeln!(out, "\n## `[{section}]`\n\n{}", described(definition)).unwrap();
        writeln!(out, "\n| key | variable | default | meaning |\n| --- | --- | --- | --- |").unwrap();
        for (key, property) in definition["properties"].as_object().unwrap() {
            let path = format!("{section}.{key}");
            let familiar = FAMILIAR_NAMES.iter().find(|(_, familiar)| *familiar == path);
            let familiar = familiar.map_or(String::new(), |(variable, _)| format!(" (`{variable}`)"));
            let variable = format!("MILESTREAM_{}__{}", section.to_uppercase(), key.to_uppercase());
            let default = match &defaults[section][key] {
                Value::String(text) if text.is_empty() => String::new(),
                Value::String(text) => format!("`{text}`"),
                other => format!("`{other}`"),
            };
            let meaning = cell(&described(property));
            writeln!(out, "| `{key}` | `{variable}`{familiar} | {default} | {meaning} |").unwrap();
        }
    }
    hold("configuration.md", &out);
}
