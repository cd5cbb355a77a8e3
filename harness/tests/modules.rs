//! How the sources are built, which no lint of the compiler sees. No two modules of a crate need each other, beyond a module
//! and what lies inside it: each can be read, tested and moved without the other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "modules/graph.rs"]
mod graph;
#[path = "modules/source.rs"]
mod source;

use std::path::{Path, PathBuf};

use graph::Graph;
use source::Crate;

/// The crates of the workspace that have sources of their own.
fn crates() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.join("Cargo.toml").exists() && folder.join("src").exists())
        .collect();
    found.sort();
    found
}

fn circles(folder: &Path) -> Vec<String> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let parsed = Crate::parse(&folder.join("src"));
    parsed.graph().in_circles().into_iter().map(|module| format!("{name}::{module}")).collect()
}

#[test]
fn no_module_is_in_an_import_circle() {
    let mut found = Vec::new();
    for folder in crates() {
        let circles = circles(&folder);
        let name = folder.file_name().unwrap().to_string_lossy();
        println!("{name}: {} imports in circles beyond parent and child", circles.len());
        found.extend(circles);
    }
    assert!(found.is_empty(), "modules that need each other:\n{}", found.join("\n"));
}

/// What no source outside tests may name, and what to use instead.
const FORBIDDEN: [(&str, &str); 4] = [
    (
        "tokio::spawn",
        "a task that nobody waits for dies unseen: spawn it in a JoinSet that ends with its owner",
    ),
    (
        "tokio::task::spawn",
        "a task that nobody waits for dies unseen: spawn it in a JoinSet that ends with its owner",
    ),
    ("warp::body::bytes", "it reads a body of any length into memory: use the gateway's capped body"),
    ("warp::body::json", "it reads a body of any length into memory: use the gateway's capped body"),
];

#[test]
fn no_source_spawns_a_task_that_nobody_waits_for_reads_an_endless_body_or_publishes_names_unseen() {
    let mut found = Vec::new();
    for folder in crates() {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        for (module, path) in Crate::parse(&folder.join("src")).written() {
            let forbidden = FORBIDDEN.iter().find(|(forbidden, _)| forbidden == path).map(|(_, why)| *why);
            let glob = path.starts_with("pub use ").then_some("name what is published");
            if let Some(why) = forbidden.or(glob) {
                found.push(format!("{name}::{}: {path}: {why}", module.join("::")));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Characters of a comment's line at most: rustfmt wraps code and leaves comments as they are.
const COMMENT_WIDTH: usize = 140;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_comment_is_wider_than_140_characters() {
    let mut files = Vec::new();
    for folder in crates() {
        ["src", "tests"]
            .map(|name| folder.join(name))
            .iter()
            .filter(|folder| folder.is_dir())
            .for_each(|folder| rust_files(folder, &mut files));
    }
    assert!(files.len() > 300, "only {} files were found", files.len());
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (n, line) in (1..).zip(text.lines()) {
            let width = line.chars().count();
            if line.trim_start().starts_with("//") && width > COMMENT_WIDTH {
                found.push(format!("{}:{n}: {width} characters", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "wrap these comments at {COMMENT_WIDTH} characters:\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_found_through_a_re_export_and_not_between_parent_and_child() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a; mod b; mod c; mod d; pub use b::Thing; #[cfg(test)] mod tests;");
    write("a.rs", "use crate::Thing; pub struct Other;");
    write("b.rs", "pub struct Thing; fn f() -> crate::a::Other { crate::a::Other }");
    write("c/mod.rs", "mod inner; pub struct Outer(inner::Inner);");
    write("c/inner.rs", "use super::Outer; pub struct Inner(Box<Outer>);");
    write("d.rs", "use crate::c::Outer; #[cfg(test)] mod tests { use crate::a::Other; }");
    write("tests.rs", "use crate::d;");
    assert_eq!(Crate::parse(folder.path()).graph().in_circles(), ["a -> b", "b -> a"]);
    assert!(Graph::default().in_circles().is_empty());
}
