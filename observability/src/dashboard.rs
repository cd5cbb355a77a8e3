//! The parts of Grafana's dashboard model that the checks look at (JSON model of Grafana 12, `schemaVersion` 41).

use serde::Deserialize;

/// A dashboard.
#[derive(Clone, Debug, Deserialize)]
pub struct Dashboard {
    /// In its address; stable over imports.
    pub uid: String,
    /// What is on top of it.
    pub title: String,
    /// Its variables.
    pub templating: Templating,
    /// Its panels in order; rows among them.
    pub panels: Vec<Panel>,
}

/// The variables.
#[derive(Clone, Debug, Deserialize)]
pub struct Templating {
    /// In the order in which they are shown.
    pub list: Vec<Variable>,
}

/// A variable: `$name` or `${name}` in queries.
#[derive(Clone, Debug, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// `datasource`, `query`, `custom`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a data source variable: the type to choose of. Of a query variable: an object, see `definition`.
    #[serde(default)]
    pub query: serde_json::Value,
    /// Whom a query variable asks.
    pub datasource: Option<DataSource>,
    /// The query in one line.
    #[serde(default)]
    pub definition: String,
}

/// A panel, or the headline of a row (`type` is `row`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    /// Unique in the dashboard.
    pub id: u32,
    /// `timeseries`, `stat`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its headline.
    #[serde(default)]
    pub title: String,
    /// What it shows and when to act.
    #[serde(default)]
    pub description: String,
    /// Where it lies.
    pub grid_pos: Place,
    /// What its targets ask, unless they say otherwise.
    pub datasource: Option<DataSource>,
    /// Units and the like.
    #[serde(default)]
    pub field_config: FieldConfig,
    /// Its queries.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Of a collapsed row: its panels.
    #[serde(default)]
    pub panels: Vec<Panel>,
}

/// A rectangle on a grid of 24 columns.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Place {
    /// Column, from 0.
    pub x: u32,
    /// Line, from 0.
    pub y: u32,
    /// Width, columns.
    pub w: u32,
    /// Height, lines.
    pub h: u32,
}

/// A data source by type and uid.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DataSource {
    /// `prometheus`, `grafana-postgresql-datasource`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Its uid, or a variable that stands for one.
    #[serde(default)]
    pub uid: String,
}

/// How values are shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct FieldConfig {
    /// For every field without an override.
    #[serde(default)]
    pub defaults: FieldDefaults,
}

/// How values are shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct FieldDefaults {
    /// One of Grafana's unit ids, e.g. `s`.
    pub unit: Option<String>,
}

/// A query of a panel.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Unique in the panel.
    pub ref_id: String,
    /// Whom to ask.
    pub datasource: Option<DataSource>,
    /// PromQL.
    pub expr: Option<String>,
    /// SQL.
    pub raw_sql: Option<String>,
    /// Of SQL: `time_series` or `table`.
    pub format: Option<String>,
    /// Name of a series, with `{{label}}`.
    pub legend_format: Option<String>,
}

/// What a target asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query<'a> {
    /// Of Prometheus.
    Promql(&'a str),
    /// Of PostgreSQL.
    Sql(&'a str),
}

impl Dashboard {
    /// Reads a dashboard's JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Every panel, also of collapsed rows, without the rows.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        let all = self.panels.iter().flat_map(|panel| std::iter::once(panel).chain(&panel.panels));
        all.filter(|panel| panel.kind != "row")
    }

    /// Panel, target and query of everything that is asked.
    pub fn queries(&self) -> impl Iterator<Item = (&Panel, &Target, Query<'_>)> {
        self.panels().flat_map(|panel| {
            panel.targets.iter().filter_map(move |target| Some((panel, target, target.query()?)))
        })
    }
}

impl Target {
    /// What it asks; `None` when that is not exactly one of PromQL and SQL.
    #[must_use]
    pub fn query(&self) -> Option<Query<'_>> {
        match (&self.expr, &self.raw_sql) {
            (Some(expr), None) => Some(Query::Promql(expr)),
            (None, Some(sql)) => Some(Query::Sql(sql)),
            _ => None,
        }
    }
}
