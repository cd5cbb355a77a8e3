//! What Grafana writes into a query before it sends it: variables, and the macros of its PostgreSQL data source
//! (`pkg/tsdb/grafana-postgresql-datasource/macros.go` of Grafana 12), for a dashboard that shows the last hour.

/// Why a query could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// Nothing is known by this name.
    #[error("${0} is unknown")]
    Unknown(String),
    /// A macro without its arguments.
    #[error("${0} wants its arguments in brackets")]
    Arguments(String),
}

/// An interval that holds several scrapes of the local stack (every 2 s).
const RATE_INTERVAL: &str = "1m";

/// The PromQL that Grafana would send; every choice of the dashboard stands on "All".
///
/// # Errors
/// [`VariableError::Unknown`].
pub fn fill_promql(text: &str, chosen: &[&str]) -> Result<String, VariableError> {
    fill(text, |name, _| match name {
        "__rate_interval" | "__interval" => Ok(RATE_INTERVAL.to_owned()),
        "__range" => Ok("1h".to_owned()),
        name if chosen.contains(&name) => Ok(".*".to_owned()),
        unknown => Err(VariableError::Unknown(unknown.to_owned())),
    })
}

/// The SQL that Grafana would send.
///
/// # Errors
/// [`VariableError`].
pub fn fill_sql(text: &str) -> Result<String, VariableError> {
    fill(text, |name, rest| {
        let mut arguments = || {
            let bad = || VariableError::Arguments(name.to_owned());
            let inner = rest.strip_prefix('(').ok_or_else(bad)?;
            let (inner, after) = inner.split_once(')').ok_or_else(bad)?;
            *rest = after;
            Ok(inner.split(',').next().unwrap_or_default().trim().to_owned())
        };
        match name {
            "__timeFilter" => Ok(format!("{} between now() - interval '1 hour' and now()", arguments()?)),
            "__timeGroup" => Ok(format!("floor(extract(epoch from {}) / 60) * 60", arguments()?)),
            "__timeGroupAlias" => {
                Ok(format!("floor(extract(epoch from {}) / 60) * 60 as \"time\"", arguments()?))
            }
            "__interval" => Ok(RATE_INTERVAL.to_owned()),
            unknown => Err(VariableError::Unknown(unknown.to_owned())),
        }
    })
}

/// Replaces every `$name` and `${name}` by what `value` says; it may take arguments off the rest.
fn fill(
    text: &str,
    value: impl Fn(&str, &mut &str) -> Result<String, VariableError>,
) -> Result<String, VariableError> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        let name = if let Some((name, after)) = after.strip_prefix('{').and_then(|name| name.split_once('}'))
        {
            rest = after;
            name
        } else {
            let end = after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            let (name, after) = after.split_at(end.unwrap_or(after.len()));
            rest = after;
            name
        };
        filled.push_str(&value(name, &mut rest)?);
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_macros_are_filled_in_and_unknown_ones_refused() {
        assert_eq!(
            fill_promql(r#"rate(a{s=~"$stage", t=~"${stage}"}[$__rate_interval])"#, &["stage"]).unwrap(),
            r#"rate(a{s=~".*", t=~".*"}[1m])"#
        );
        assert_eq!(fill_promql("$stagge", &["stage"]), Err(VariableError::Unknown("stagge".into())));
        assert_eq!(
            fill_sql("select $__timeGroupAlias(at, $__interval) where $__timeFilter(u.at)").unwrap(),
            "select floor(extract(epoch from at) / 60) * 60 as \"time\" \
             where u.at between now() - interval '1 hour' and now()"
        );
        assert_eq!(fill_sql("$__timeFilter"), Err(VariableError::Arguments("__timeFilter".into())));
        assert_eq!(fill_sql("$__nope(a)"), Err(VariableError::Unknown("__nope".into())));
    }
}
