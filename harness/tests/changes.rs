//! The pages of `docs/changes` apply to this tree, touch no more files than they say, and compile.
//!
//! Each page's ```` ```diff ```` blocks are one patch for `git apply`, with two liberties for the reader: a hunk begins with `@@` and
//! whatever names its place, and its lines are not counted. So a hunk is found by its context alone, which must stand in the file once
//! and follow what it adds, unless it adds at the file's end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A row of the table in `docs/changes/README.md`.
struct Change {
    page: String,
    at_most: usize,
}

/// `| [words](page.md) | files once | at most |`
fn changes() -> Vec<Change> {
    let table = std::fs::read_to_string(root().join("docs/changes/README.md")).unwrap();
    let rows = table.lines().filter_map(|line| {
        let cells: Vec<&str> =
            line.strip_prefix("| [")?.trim_end_matches('|').split('|').map(str::trim).collect();
        let (_, page) = cells[0].split_once("](")?;
        let at_most = cells[2].parse().unwrap_or_else(|_| panic!("no number of files at most: {line}"));
        Some(Change { page: page.trim_end_matches(')').to_owned(), at_most })
    });
    rows.collect()
}

/// In front of a new file.
const NEW: &str = "--- /dev/null";

/// The page's patch with the hunks' heads as git wants them, and the files that it touches.
fn patch(page: &str) -> (String, BTreeSet<String>) {
    let text = std::fs::read_to_string(root().join("docs/changes").join(page)).unwrap();
    let (mut patch, mut files, mut within, mut old) = (String::new(), BTreeSet::new(), false, "");
    for line in text.lines() {
        match line {
            "```diff" => within = true,
            "```" => within = false,
            _ if !within => {}
            // Line 0 is a new file's; line 1 would bind the hunk to the beginning of the file.
            _ if line.starts_with("@@") && old == NEW => patch.push_str("@@ -0,0 +1,1 @@\n"),
            _ if line.starts_with("@@") => patch.push_str("@@ -2,1 +2,1 @@\n"),
            _ if line == NEW || line.starts_with("--- a/") => old = line,
            _ => {
                // Without lines that are counted, git takes the next file's `---` for a line that is removed.
                if let Some(name) = line.strip_prefix("+++ b/") {
                    let mode = if old == NEW { "new file mode 100644\n" } else { "" };
                    patch.push_str(&format!("diff --git a/{name} b/{name}\n{mode}{old}\n"));
                    files.insert(name.to_owned());
                }
                // An editor that trims lines leaves nothing of a context line that is empty.
                patch.push_str(if line.is_empty() { " " } else { line });
                patch.push('\n');
            }
        }
    }
    (patch, files)
}

/// What git knows of the tree, in a folder of its own. A file keeps its time, so that cargo compiles again only what a page changes.
fn copy_tree(to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    for name in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let (source, target) = (root().join(name), to.join(name));
        // A file that was removed and is still in the index.
        let Ok(metadata) = source.metadata() else { continue };
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&source, &target).unwrap();
        let copied = std::fs::File::options().write(true).open(&target).unwrap();
        copied.set_modified(metadata.modified().unwrap()).unwrap();
    }
}

fn apply(tree: &Path, page: &str, patch: &str) {
    let mut git = Command::new("git")
        .args(["apply", "--recount", "--whitespace=nowarn", "-"])
        .current_dir(tree)
        // Below another repository git would take the names for its own, and leave out those it does not know.
        .env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git is installed");
    git.stdin.take().unwrap().write_all(patch.as_bytes()).unwrap();
    let output = git.wait_with_output().unwrap();
    assert!(output.status.success(), "docs/changes/{page}: {}", String::from_utf8_lossy(&output.stderr));
}

fn cargo(tree: &Path, arguments: &[&str]) {
    // The target folder of this very run, so that what comes from the registry is compiled once.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("cargo is installed");
    let printed = String::from_utf8_lossy(&output.stderr);
    let errors = printed.find("error").map_or(&*printed, |at| &printed[at..]);
    assert!(output.status.success(), "cargo {}: {errors}", arguments.join(" "));
}

#[test]
fn every_change_on_a_page_applies_touches_few_files_and_compiles() {
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join("changes");
    copy_tree(&tree);
    for Change { page, at_most } in changes() {
        let (patch, files) = patch(&page);
        apply(&tree, &page, &patch);
        println!("{page}: {} files, at most {at_most}", files.len());
        assert!((1..=at_most).contains(&files.len()), "docs/changes/{page} touches {files:#?}");
    }
    cargo(&tree, &["check", "--workspace", "--all-targets", "--all-features", "--offline", "--quiet"]);
}

#[test]
fn every_page_stands_in_the_table() {
    let shown: BTreeSet<String> = changes().into_iter().map(|change| change.page).collect();
    let pages: BTreeSet<String> = std::fs::read_dir(root().join("docs/changes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    assert_eq!(shown, pages);
}
