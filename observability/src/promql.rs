//! The names in a PromQL expression. It takes an expression apart far enough to find metrics, labels, functions and
//! windows; what it does not know it refuses, and whether the rest is well formed says the Prometheus of the live test.

use std::collections::BTreeSet;

/// Functions and aggregations that may be used, from Prometheus's reference; a further one is added here.
const FUNCTIONS: &[&str] = &[
    "absent",
    "avg",
    "avg_over_time",
    "count",
    "deriv",
    "histogram_quantile",
    "increase",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "rate",
    "sum",
    "time",
    "topk",
    "vector",
];
/// In front of a list of labels.
const CLAUSES: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Between expressions.
const OPERATORS: &[&str] = &["and", "or", "unless", "bool", "offset"];

/// What an expression names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expression {
    /// Series.
    pub metrics: BTreeSet<String>,
    /// Labels in matchers and clauses.
    pub labels: BTreeSet<String>,
    /// Labels that must have one value.
    pub equals: BTreeSet<(String, String)>,
    /// The function before each range, and the range: `("rate", "5m")`.
    pub windows: Vec<(String, String)>,
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromqlError {
    /// No such function, or none that is allowed here.
    #[error("function {0} is not in the list of promql.rs")]
    Function(String),
    /// A bracket or quote without its end.
    #[error("{0} is not closed")]
    Open(char),
    /// Not `label="value"`.
    #[error("{0} is no matcher")]
    Matcher(String),
}

/// Finds the names of an expression.
///
/// # Errors
/// [`PromqlError`].
pub fn read(text: &str) -> Result<Expression, PromqlError> {
    let mut found = Expression::default();
    let mut function = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if is_word(first) && !first.is_ascii_digit() {
            let word;
            (word, rest) = split_word(rest);
            if CLAUSES.contains(&word) {
                let Some(labels) = rest.trim_start().strip_prefix('(') else { continue };
                let inner;
                (inner, rest) = until(labels, ')')?;
                found.labels.extend(
                    inner.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()),
                );
            } else if FUNCTIONS.contains(&word) {
                word.clone_into(&mut function);
            } else if rest.trim_start().starts_with('(') {
                return Err(PromqlError::Function(word.to_owned()));
            } else if !OPERATORS.contains(&word) {
                found.metrics.insert(word.to_owned());
            }
            continue;
        }
        rest = &rest[first.len_utf8()..];
        let inner;
        match first {
            '{' => {
                (inner, rest) = until(rest, '}')?;
                matchers(inner, &mut found)?;
            }
            '[' => {
                (inner, rest) = until(rest, ']')?;
                found.windows.push((function.clone(), inner.to_owned()));
            }
            '"' => (_, rest) = until(rest, '"')?,
            // A number or a duration: its letters are no name.
            digit if digit.is_ascii_digit() => (_, rest) = split_word(rest),
            _ => {}
        }
    }
    Ok(found)
}

/// `stage="a", status=~"5.."`.
fn matchers(mut rest: &str, found: &mut Expression) -> Result<(), PromqlError> {
    loop {
        rest = rest.trim_start_matches(|letter: char| letter == ',' || letter.is_whitespace());
        if rest.is_empty() {
            return Ok(());
        }
        let (label, after) = split_word(rest);
        let operator = ["=~", "!~", "!=", "="].into_iter().find(|operator| after.starts_with(operator));
        let value = operator.and_then(|operator| after[operator.len()..].strip_prefix('"'));
        let Some(value) = value.filter(|_| !label.is_empty()) else {
            return Err(PromqlError::Matcher(rest.to_owned()));
        };
        let (value, after) = until(value, '"')?;
        found.labels.insert(label.to_owned());
        if operator == Some("=") {
            found.equals.insert((label.to_owned(), value.to_owned()));
        }
        rest = after;
    }
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

fn split_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|letter| !is_word(letter)).unwrap_or(text.len()))
}

/// What is before the end, and what after it. An end inside quotes is none.
fn until(text: &str, end: char) -> Result<(&str, &str), PromqlError> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == end && !quoted => return Ok((&text[..at], &text[at + letter.len_utf8()..])),
            '"' => quoted = !quoted,
            _ => {}
        }
    }
    Err(PromqlError::Open(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn metrics_labels_values_and_windows_are_found() {
        let found = read(
            r#"histogram_quantile(0.95, sum by (stage, le) (rate(a_bucket{x="1}", y=~"$z"}[$__rate_interval])))
               unless on (stage) b offset 5m > 1e3"#,
        )
        .unwrap();
        assert_eq!(found.metrics, set(&["a_bucket", "b"]));
        assert_eq!(found.labels, set(&["stage", "le", "x", "y"]));
        assert_eq!(found.equals, BTreeSet::from([("x".to_owned(), "1}".to_owned())]));
        assert_eq!(found.windows, [("rate".to_owned(), "$__rate_interval".to_owned())]);
    }

    #[test]
    fn an_unknown_function_an_open_bracket_and_a_matcher_without_value_are_refused() {
        assert_eq!(read("ratte(a[1m])"), Err(PromqlError::Function("ratte".into())));
        assert_eq!(read("rate(a[1m)"), Err(PromqlError::Open(']')));
        assert_eq!(read("a{b}"), Err(PromqlError::Matcher("b".into())));
    }
}
