//! The names in a PromQL expression: metrics, labels, and the windows of functions.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, display_duration, walk_expr};

/// Grafana's variables of time, which are no PromQL, and durations that nobody writes, which stand for them here.
const WINDOWS: [(&str, &str, Duration); 3] = [
    ("$__rate_interval", "86401s", Duration::from_secs(86_401)),
    ("$__interval", "86403s", Duration::from_secs(86_403)),
    ("$__range", "86407s", Duration::from_secs(86_407)),
];

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

/// Not PromQL: the parser's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PromqlError(String);

/// Finds the names of an expression, which may hold Grafana's variables of time.
///
/// # Errors
/// [`PromqlError`].
pub fn read(text: &str) -> Result<Expression, PromqlError> {
    let text = WINDOWS.iter().fold(text.to_owned(), |text, (name, window, _)| text.replace(name, window));
    let expression = parser::parse(&text).map_err(PromqlError)?;
    let mut found = Expression::default();
    let Ok(_) = walk_expr(&mut found, &expression);
    Ok(found)
}

impl ExprVisitor for Expression {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        match expression {
            Expr::VectorSelector(selector) => self.selector(selector.name.as_ref(), &selector.matchers),
            Expr::MatrixSelector(range) => self.selector(range.vs.name.as_ref(), &range.vs.matchers),
            Expr::Aggregate(aggregate) => {
                self.labels.extend(aggregate.modifier.iter().flat_map(|by| by.labels().labels.clone()));
            }
            Expr::Binary(binary) => {
                let modifier = binary.modifier.as_ref();
                let matching = modifier.and_then(|modifier| Some(modifier.matching.as_ref()?.labels()));
                let group = modifier.and_then(|modifier| modifier.card.labels());
                self.labels.extend(matching.into_iter().chain(group).flat_map(|names| names.labels.clone()));
            }
            Expr::Call(call) => {
                for argument in &call.args.args {
                    if let Expr::MatrixSelector(range) = argument.as_ref() {
                        self.windows.push((call.func.name.to_owned(), window(range.range)));
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

impl Expression {
    fn selector(&mut self, metric: Option<&String>, matchers: &Matchers) {
        self.metrics.extend(metric.cloned());
        for matcher in matchers.matchers.iter().chain(matchers.or_matchers.iter().flatten()) {
            self.labels.insert(matcher.name.clone());
            if matches!(matcher.op, MatchOp::Equal) {
                self.equals.insert((matcher.name.clone(), matcher.value.clone()));
            }
        }
    }
}

/// A window as it was written.
fn window(range: Duration) -> String {
    let variable = WINDOWS.iter().find(|(_, _, stand_in)| *stand_in == range);
    variable.map_or_else(|| display_duration(&range), |(name, _, _)| (*name).to_owned())
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
               unless on (stage) max_over_time(b[10m] offset 5m) > 1e3"#,
        )
        .unwrap();
        assert_eq!(found.metrics, set(&["a_bucket", "b"]));
        assert_eq!(found.labels, set(&["stage", "le", "x", "y"]));
        assert_eq!(found.equals, BTreeSet::from([("x".to_owned(), "1}".to_owned())]));
        let windows = [("rate", "$__rate_interval"), ("max_over_time", "10m")];
        assert_eq!(found.windows, windows.map(|(function, window)| (function.to_owned(), window.to_owned())));
    }

    #[test]
    fn an_unknown_function_an_open_bracket_and_a_matcher_without_value_are_refused() {
        for text in ["ratte(a[1m])", "rate(a[1m)", "a{b}", "rate(a)"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
