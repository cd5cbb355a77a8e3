//! A report as text, as JSON and as a page that needs nothing else.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use super::report::{Difference, Summary};

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line for each thing that differs.
    Text,
    /// One object: the summary, and a list of differences.
    Json,
    /// A page of HTML.
    Html,
}

/// A report that is being written.
pub struct Sheet<W> {
    form: Form,
    out: W,
    rows: u64,
}

impl<W: Write> Sheet<W> {
    /// Begins one.
    ///
    /// # Errors
    /// The writer's.
    pub fn begin(form: Form, mut out: W, summary: &Summary) -> io::Result<Self> {
        match form {
            Form::Text => {
                for line in lines(summary) {
                    writeln!(out, "{line}")?;
                }
            }
            Form::Json => write!(out, "{{\"summary\":{},\n\"differences\":[", json!(summary))?,
            Form::Html => {
                write!(
                    out,
                    "{HEAD}<title>Replay {0}</title></head><body><h1>Replay {0}</h1>",
                    escaped(&summary.name)
                )?;
                for line in lines(summary) {
                    write!(out, "<p>{}</p>", escaped(&line))?;
                }
                write!(out, "{TABLE}")?;
            }
        }
        Ok(Self { form, out, rows: 0 })
    }

    /// Adds a difference.
    ///
    /// # Errors
    /// The writer's.
    pub fn add(&mut self, difference: &Difference) -> io::Result<()> {
        let separator = if self.rows == 0 { "" } else { "," };
        self.rows += 1;
        let accepted = at(difference.accepted_at);
        match self.form {
            Form::Text => {
                for (what, was, is) in difference.each() {
                    writeln!(self.out, "{} {what}: {was} -> {is}", difference.effect)?;
                }
                writeln!(self.out, "{} promoted: {}", difference.effect, difference.promotion)
            }
            Form::Json => write!(self.out, "{separator}\n{}", json!(difference)),
            Form::Html => {
                for (what, was, is) in difference.each() {
                    let cells = [
                        &difference.effect,
                        &difference.user_id.to_string(),
                        &accepted,
                        what,
                        &was,
                        &is,
                        &difference.promotion,
                    ];
                    write!(self.out, "<tr>")?;
                    for cell in cells {
                        write!(self.out, "<td>{}</td>", escaped(cell))?;
                    }
                    writeln!(self.out, "</tr>")?;
                }
                Ok(())
            }
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// The writer's.
    pub fn end(mut self) -> io::Result<W> {
        match self.form {
            Form::Text => {}
            Form::Json => writeln!(self.out, "\n]}}")?,
            Form::Html => writeln!(self.out, "</tbody></table></body></html>")?,
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A page that loads nothing and runs nothing.
const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
<style>body{font:14px/1.4 sans-serif;margin:2em}table{border-collapse:collapse}td,th{border:1px solid #999;padding:.2em .5em;text-align:left}\
</style>";
const TABLE: &str = "<table><thead><tr><th>decision</th><th>driver</th><th>accepted</th><th>what</th><th>recorded</th>\
<th>replayed</th><th>promoted</th></tr></thead><tbody>\n";

/// The summary in sentences.
fn lines(summary: &Summary) -> Vec<String> {
    let Summary { name, stages, accepted, decided, compared, differences, .. } = summary;
    let (from, to) = (at(summary.from.to_utc()), at(summary.to.to_utc()));
    let rules = if summary.rules_of_a_file { "rules of a file" } else { "the rules that were in force" };
    let mut lines = vec![
        format!("replay {name}: uploads accepted from {from} to {to}, {stages} by {rules}"),
        format!(
            "{accepted} uploads, {decided} of them decided; {compared} decisions compared: {differences} differ"
        ),
        format!(
            "granted B3TR: {} recorded, {} replayed, {:+}",
            summary.granted_recorded,
            summary.granted_replayed,
            (summary.granted_replayed - summary.granted_recorded).normalize()
        ),
    ];
    if summary.cancels > 0 {
        let (rewards, granted) = (summary.cancels, summary.cancels_granted);
        lines.push(format!(
            "promoting it cancels {rewards} rewards of {granted} B3TR, where no transaction pays them"
        ));
    }
    if summary.lowers > 0 {
        let (rewards, by) = (summary.lowers, summary.lowers_by);
        lines.push(format!(
            "promoting it lowers {rewards} rewards by {by} B3TR, where no transaction pays them"
        ));
    }
    if summary.raises > 0 {
        let (rewards, by) = (summary.raises, summary.raises_by);
        lines.push(format!(
            "promoting it raises {rewards} rewards by {by} B3TR, where no transaction pays them and the budgets hold it"
        ));
    }
    if !summary.is_finished {
        lines.push(
            "it has not come to its end: started again with what it was begun with, it goes on".to_owned(),
        );
    }
    lines
}

fn at(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// For text and attributes of HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
