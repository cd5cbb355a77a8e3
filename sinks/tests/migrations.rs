//! What a migration must not do: hold a lock on a table that grows for as long as it takes to read it, or break the release before,
//! which runs beside it until the last role is restarted.
//!
//! A table that the same file creates is free: it is empty, and the release before does not know it. For all others a statement
//! with `-- allowed: REASON` in it or right before it is passed.

use std::collections::BTreeSet;

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

/// What was applied before these rules: its text is part of its checksum and cannot be changed any more.
const FROZEN: [(&str, &str, &str); 6] = [
    ("0010_payouts.sql", "payouts", "no release wrote payouts before this one"),
    ("0010_payouts.sql", "payout_attempts", "no release wrote payouts before this one"),
    ("0011_analytics.sql", "analytics_data", "no release filled it before this one"),
    ("0012_models.sql", "ai_performance_metrics", "no release filled it before this one"),
    ("0014_reading_services.sql", "ai_service_configs", "a row per service: a check reads a handful"),
    (
        "0014_reading_services.sql",
        "reading_results",
        "its key is made anew once; answers are kept for days only",
    ),
];

/// How a comment passes a statement.
const ALLOWED: &str = "allowed:";

/// A statement: its words and signs in lower case, and the comments in front of and in it.
struct Statement {
    words: Vec<String>,
    comments: String,
}

fn statements(sql: &str) -> Vec<Statement> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap();
    let (mut found, mut words, mut comments) = (Vec::new(), Vec::new(), String::new());
    for token in tokens {
        match token {
            Token::SemiColon => {
                found.push(Statement {
                    words: std::mem::take(&mut words),
                    comments: std::mem::take(&mut comments),
                });
            }
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => comments.push_str(&comment),
            Token::Whitespace(Whitespace::MultiLineComment(comment)) => comments.push_str(&comment),
            Token::Whitespace(_) => {}
            other => words.push(other.to_string().to_lowercase()),
        }
    }
    assert!(words.is_empty(), "a statement without its end: {words:?}");
    found
}

/// The first words of a statement or an action are these.
fn begins(words: &[String], with: &str) -> bool {
    let mut with = with.split(' ');
    words.iter().zip(with.by_ref()).all(|(word, want)| word == want) && with.next().is_none()
}

fn holds(words: &[String], part: &str) -> bool {
    (0..words.len()).any(|at| begins(&words[at..], part))
}

/// The word after the first of these, without `if exists`, `if not exists` and `only`.
fn after<'a>(words: &'a [String], what: &str) -> &'a str {
    let noise = ["if", "not", "exists", "only", "concurrently"];
    let mut rest = words.iter().skip_while(|word| *word != what).skip(1);
    rest.find(|word| !noise.contains(&word.as_str())).map_or("", String::as_str)
}

/// Actions of an `alter table`, which commas outside brackets part.
fn actions(words: &[String]) -> Vec<Vec<String>> {
    let (mut depth, mut found) = (0_i32, vec![Vec::new()]);
    for word in words {
        depth += i32::from(word == "(") - i32::from(word == ")");
        if word == "," && depth == 0 {
            found.push(Vec::new());
        } else if let Some(action) = found.last_mut() {
            action.push(word.clone());
        }
    }
    found
}

/// Why an action on a table that exists is refused.
fn refused_action(action: &[String]) -> Option<&'static str> {
    const VOLATILE: [&str; 4] = ["random", "gen_random_uuid", "clock_timestamp", "nextval"];
    let has = |word: &str| action.iter().any(|found| found == word);
    let adds_constraint =
        ["add constraint", "add check", "add foreign", "add unique", "add primary", "add exclude"];
    if adds_constraint.iter().any(|add| begins(action, add)) {
        let cheap = holds(action, "not valid") || holds(action, "using index");
        return (!cheap).then_some(
            "reads the table under a lock: add it `not valid` or `using index`, then validate it",
        );
    }
    if begins(action, "add") {
        if holds(action, "not null") && !has("default") {
            return Some("the release before writes rows without the column: give it a default");
        }
        if VOLATILE.iter().any(|call| has(call)) || has("generated") || has("serial") || has("bigserial") {
            return Some("writes every row anew: add the column empty and fill it in portions");
        }
        let indexed = has("unique") || holds(action, "primary key");
        return indexed.then_some("builds an index under a lock: create it concurrently");
    }
    if begins(action, "drop") && !begins(action, "drop constraint") {
        return Some("the release before reads the column: drop it one release later");
    }
    if begins(action, "rename") {
        return Some("the release before knows the old name");
    }
    if holds(action, "set not null") {
        return Some("reads the table under a lock, and the release before may write null");
    }
    (begins(action, "alter") && has("type")).then_some("writes the table anew under a lock")
}

/// Statements that are refused as they are: what they begin with, the word before the table, the cause.
const REFUSED: [(&str, &str, &str); 9] = [
    ("drop table", "table", "the release before uses the table"),
    ("truncate", "truncate", "the release before uses the rows"),
    ("drop type", "type", "the release before uses the type"),
    (
        "create index",
        "on",
        "writers wait while it is built: `create index concurrently`, with -- no-transaction on top",
    ),
    (
        "create unique",
        "on",
        "writers wait while it is built: `create index concurrently`, with -- no-transaction on top",
    ),
    ("drop index", "index", "everybody waits: `drop index concurrently`, with -- no-transaction on top"),
    ("update", "update", "changes rows of a table that grows: do it in portions, outside a migration"),
    ("delete from", "from", "changes rows of a table that grows: do it in portions, outside a migration"),
    ("lock table", "table", "everybody waits"),
];

/// Table and cause of everything in a statement that is refused unless the table is new.
fn refused(words: &[String]) -> Vec<(String, &'static str)> {
    if begins(words, "alter table") {
        let name = after(words, "table").to_owned();
        let rest = words.iter().skip_while(|word| **word != name).skip(1).cloned().collect::<Vec<_>>();
        let found = actions(&rest);
        return found.iter().filter_map(|action| Some((name.clone(), refused_action(action)?))).collect();
    }
    if words.iter().any(|word| word == "concurrently") {
        return Vec::new();
    }
    let found = REFUSED.iter().filter(|(first, ..)| begins(words, first));
    found.map(|(_, before, why)| (after(words, before).to_owned(), *why)).collect()
}

/// What is wrong with a migration.
fn complaints(file: &str, sql: &str) -> Vec<String> {
    let (mut new, mut found) = (BTreeSet::new(), Vec::new());
    let transaction = !sql.starts_with("-- no-transaction");
    for Statement { words, comments } in statements(sql) {
        if begins(&words, "create table") || begins(&words, "create unlogged") {
            new.insert(after(&words, "table").to_owned());
        }
        if transaction && words.iter().any(|word| word == "concurrently") {
            found.push(format!("{file}: concurrently wants -- no-transaction as the first line"));
        }
        let reason = comments.split_once(ALLOWED).map(|(_, reason)| reason.trim().len());
        if reason.is_some_and(|length| length < 10) {
            found.push(format!("{file}: `{ALLOWED}` without a reason"));
        }
        for (table, why) in refused(&words) {
            let frozen = FROZEN.iter().any(|(in_file, of, _)| (*in_file, *of) == (file, table.as_str()));
            if !new.contains(&table) && !frozen && reason.is_none() {
                found.push(format!("{file}: {table}: {why}"));
            }
        }
    }
    found
}

#[test]
fn no_migration_locks_a_table_that_grows_or_breaks_the_release_before() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".sql") {
            continue;
        }
        assert_eq!(complaints(&name, &std::fs::read_to_string(&path).unwrap()), Vec::<String>::new());
        seen += 1;
    }
    assert!(seen >= 14, "{seen} migrations: the folder is not read");
}

#[test]
fn every_dangerous_statement_is_refused_with_its_table() {
    for sql in [
        "alter table uploads drop column image_url;",
        "alter table uploads rename to photos;",
        "alter table only uploads rename column a to b;",
        "alter table uploads alter column file_size type bigint;",
        "alter table uploads alter column file_size set data type bigint;",
        "alter table uploads alter column file_size set not null;",
        "alter table uploads add column size integer not null;",
        "alter table uploads add column id2 uuid not null default gen_random_uuid();",
        "alter table uploads add column code text unique;",
        "alter table uploads add constraint positive check (size > 0);",
        "alter table uploads add column a int, add primary key (a);",
        "drop table if exists uploads;",
        "create index on uploads (size);",
        "create unique index code on uploads (code);",
        "drop index uploads;",
        "update uploads set size = 0;",
        "delete from uploads;",
        "truncate uploads;",
        "lock table uploads;",
    ] {
        let found = complaints("x.sql", sql);
        assert_eq!(found.len(), 1, "{sql}: {found:?}");
        assert!(found[0].starts_with("x.sql: uploads: "), "{sql}: {found:?}");
    }
}

#[test]
fn what_is_cheap_is_on_a_new_table_or_has_a_reason_is_passed() {
    for sql in [
        "create table t (a int); create index on t (a); alter table t add column b text not null; update t set b = 1;",
        "alter table uploads add column note text, add column size integer not null default 0;",
        "alter table uploads add constraint positive check (size > 0) not valid;",
        "alter table uploads drop constraint positive, alter column size drop not null;",
        "-- no-transaction\ncreate index concurrently on uploads (size);",
        "-- allowed: the table has a row per network\nupdate uploads set size = 0;",
        "create function f() returns trigger language plpgsql as $$ begin update uploads set a = 1; end $$;",
    ] {
        assert_eq!(complaints("x.sql", sql), Vec::<String>::new(), "{sql}");
    }
    assert_eq!(complaints("x.sql", "-- allowed:\nupdate uploads set a = 1;").len(), 1);
    assert_eq!(complaints("x.sql", "create index concurrently on uploads (a);").len(), 1);
}
