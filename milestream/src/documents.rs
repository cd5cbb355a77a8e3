//! What holds the documents to the code: every link leads to a file, every metric that is named exists, the index of decisions
//! lists them all, and every word that names use most has one meaning in the glossary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::pages::hold;

/// Folders that hold no text of ours.
const LEFT_OUT: [&str; 4] = ["target", "node_modules", "shared", "fixtures"];
/// Words of names that are grammar or Rust's own.
const GRAMMAR: &str = "a an and are as at be by default error fmt for from hash has in into is it its json main map new next no not of on \
    one only or out over same self set so string test tests text that the their them then to two u u8 url with without";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Texts of ours with one of these endings, or of this name: (path, content).
pub fn texts(endings: &[&str]) -> Vec<(PathBuf, String)> {
    let (mut folders, mut found) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().unwrap();
            if name.starts_with('.') || LEFT_OUT.contains(&name.as_str()) || kind.is_symlink() {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|end| name.ends_with(end)) {
                found.push((path.clone(), std::fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_link_of_a_document_leads_to_a_file() {
    let mut broken = Vec::new();
    for (path, text) in texts(&[".md"]) {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let leads = target.is_empty() || target.contains("://") || path.with_file_name(target).exists();
            if !leads {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_metric_that_a_document_names_exists() {
    let sources: String = texts(&[".rs"]).into_iter().map(|(_, text)| text).collect();
    let named = |text: &str| -> Vec<String> {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let pieces = text.split('`').filter(|piece| piece.starts_with("milestream_"));
        pieces.map(|piece| piece.chars().take_while(|c| is_name(*c)).collect()).collect()
    };
    for (path, text) in texts(&[".md"]) {
        for name in named(&text) {
            let suffix = name.strip_prefix("milestream_").unwrap_or(&name);
            let exists =
                sources.contains(&format!("\"{name}\"")) || sources.contains(&format!("\"{suffix}\""));
            assert!(exists, "{}: there is no metric {name}", path.display());
        }
    }
}

#[test]
fn the_index_of_decisions_lists_every_one() {
    let mut out = String::from(
        "# Decisions\n\nWhy it is as it is, one page each (architecture decision records). Generated from their titles.\n\n\
         | decision | |\n| --- | --- |\n",
    );
    for (path, text) in texts(&[".md"]) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let of_a_decision =
            path.parent().is_some_and(|folder| folder.ends_with("docs/adr")) && name != "README.md";
        if let Some((number, title)) =
            text.lines().next().and_then(|line| line[2..].split_once(". ")).filter(|_| of_a_decision)
        {
            out += &format!("| [{number}]({name}) | {title} |\n");
        }
    }
    hold("adr/README.md", &out);
}

/// The words of a name: `DeadLetterLimit` and `dead_letter_limit` have the same three.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let chars: Vec<char> = name.chars().collect();
    for (n, &c) in chars.iter().enumerate() {
        let starts = c.is_uppercase()
            && (chars.get(n + 1).is_some_and(|c| c.is_lowercase()) || n > 0 && chars[n - 1].is_lowercase());
        if c == '_' || starts {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// How often each word stands in a name of a type, a function or a module, tests left out; plurals count as their singular.
fn used() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (path, text) in texts(&[".rs"]) {
        let path = path.to_string_lossy().into_owned();
        if path.contains("/tests") || path.ends_with("tests.rs") {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let mut names = Vec::new();
        for line in code.lines() {
            let mut rest = line.split_whitespace().peekable();
            while let Some(word) = rest.next() {
                if ["struct", "enum", "trait", "type", "fn", "mod"].contains(&word)
                    && !line.trim_start().starts_with("//")
                {
                    let name =
                        rest.peek().unwrap_or(&"").split(|c: char| !c.is_alphanumeric() && c != '_').next();
                    names.extend(name.map(str::to_owned));
                }
            }
        }
        for word in names.iter().flat_map(|name| words(name)) {
            *counts.entry(word).or_insert(0) += 1;
        }
    }
    let plurals: Vec<String> =
        counts.keys().filter(|word| counts.contains_key(&format!("{word}s"))).cloned().collect();
    for word in plurals {
        let more = counts.remove(&format!("{word}s")).unwrap_or(0);
        *counts.entry(word).or_insert(0) += more;
    }
    counts
}

#[test]
fn each_of_the_thirty_words_used_most_in_names_has_one_meaning_in_the_glossary() {
    let glossary = std::fs::read_to_string(root().join("docs/glossary.md")).unwrap();
    let mut meanings = BTreeMap::new();
    for line in glossary.lines().filter_map(|line| line.strip_prefix("| **")) {
        let (word, meaning) = line.split_once("** | ").unwrap();
        let before = meanings.insert(word.to_owned(), meaning.trim_end_matches(" |").to_owned());
        assert!(before.is_none(), "{word} has two meanings in the glossary");
    }
    let grammar: BTreeSet<&str> = GRAMMAR.split_whitespace().collect();
    let mut counts: Vec<(usize, String)> = used()
        .into_iter()
        .filter(|(word, _)| word.len() > 1 && !grammar.contains(word.as_str()))
        .map(|(word, count)| (count, word))
        .collect();
    counts.sort_by(|a, b| b.cmp(a));
    let mut missing = Vec::new();
    for (count, word) in counts.iter().take(30) {
        match meanings.get(word) {
            Some(meaning) => println!("{count:4} {word}: {meaning}"),
            None => missing.push(format!("{word} ({count})")),
        }
    }
    assert!(missing.is_empty(), "docs/glossary.md has no entry for: {}", missing.join(", "));
}
