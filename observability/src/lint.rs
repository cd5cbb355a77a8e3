//! The rules of dashboards and alerts. A complaint says where, and what to change.

use std::collections::{BTreeMap, BTreeSet};

use ingest::metrics::GatewayMetrics;
use processors::chain_submission::metrics::PayoutMetrics;
use processors::chain_submission::reconcile::ReconcileMetrics;
use runtime::metrics::{Declared, Kind, Metrics};
use runtime::timers::TimerMetrics;
use sinks::notices::NoticeMetrics;
use watch::metrics::WatchMetrics;

use crate::dashboard::{Dashboard, DataSource, Panel, Query, Target};
use crate::promql::{self, Expression};
use crate::variables::{fill_promql, fill_sql};

/// Grafana's ids of the units in use (`packages/grafana-data/src/valueFormats/categories.ts`): a misspelt one shows as text
/// behind the number.
const UNITS: &[&str] = &["short", "percentunit", "s", "cps", "cpm", "reqps", "ms", "currencyUSD"];
/// Panels that PromQL and SQL of these dashboards go to.
const KINDS: &[&str] = &["timeseries", "stat", "bargauge", "barchart", "state-timeline"];
/// A dashboard is used with other data sources too.
const FIXED_SOURCE: &str = "its data source is not ${…} of a data source variable of its type";
/// Labels that Prometheus adds to whatever it reads.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// Every metric of every role, by name.
#[must_use]
pub fn catalogue() -> Vec<Declared> {
    let sets = [
        Metrics::DECLARED,
        GatewayMetrics::DECLARED,
        PayoutMetrics::DECLARED,
        WatchMetrics::DECLARED,
        TimerMetrics::DECLARED,
        ReconcileMetrics::DECLARED,
        NoticeMetrics::DECLARED,
    ];
    let by_name: BTreeMap<_, _> = sets.into_iter().flatten().map(|metric| (metric.name, *metric)).collect();
    by_name.into_values().collect()
}

/// Every series that the catalogue makes, with its labels, and `up`.
#[must_use]
pub fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut series = BTreeMap::from([("up".to_owned(), BTreeSet::from(TARGET_LABELS))]);
    for Declared { name, kind, labels, .. } in catalogue() {
        let labels: BTreeSet<&str> = labels.iter().copied().chain(TARGET_LABELS).collect();
        // A histogram has no series of its bare name.
        if kind == Kind::Histogram {
            let mut buckets = labels.clone();
            buckets.insert("le");
            series.insert(format!("{name}_bucket"), buckets);
            series.insert(format!("{name}_sum"), labels.clone());
            series.insert(format!("{name}_count"), labels);
        } else {
            series.insert(name.to_owned(), labels);
        }
    }
    series
}

/// What is wrong with an expression's names.
#[must_use]
pub fn expression(text: &str) -> Vec<String> {
    match promql::read(text) {
        Ok(found) => names(&found),
        Err(error) => vec![error.to_string()],
    }
}

fn names(found: &Expression) -> Vec<String> {
    let series = series();
    let mut complaints = Vec::new();
    let mut labels: BTreeSet<&str> = BTreeSet::new();
    for metric in &found.metrics {
        match series.get(metric) {
            Some(known) => labels.extend(known),
            None => complaints.push(format!("metric {metric} is in no table of metrics")),
        }
    }
    let unknown = found.labels.iter().filter(|label| !labels.contains(label.as_str()));
    complaints.extend(unknown.map(|label| format!("label {label} is on none of the metrics")));
    complaints
}

/// What is wrong with a dashboard.
#[must_use]
pub fn dashboard(dashboard: &Dashboard) -> Vec<String> {
    let mut complaints = Vec::new();
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for one in &dashboard.panels {
        if !ids.insert(one.id) {
            complaints.push(format!("panel {}: its id {} is taken", one.title, one.id));
        }
        if !titles.insert(&one.title) {
            complaints.push(format!("panel {}: its title is taken", one.title));
        }
        let lies_on = |other: &&Panel| other.id < one.id && overlap(one, other);
        if let Some(other) = dashboard.panels.iter().find(lies_on) {
            complaints.push(format!("panel {}: lies on {}", one.title, other.title));
        }
    }
    for variable in dashboard.templating.list.iter().filter(|variable| variable.kind == "query") {
        let complaint = |what: String| format!("variable {}: {what}", variable.name);
        if !is_variable(dashboard, variable.datasource.as_ref()) {
            complaints.push(complaint(FIXED_SOURCE.to_owned()));
        }
        match variable.definition.strip_prefix("label_values(").and_then(|text| text.strip_suffix(')')) {
            Some(inner) => {
                let (metric, label) = inner.rsplit_once(',').unwrap_or((inner, ""));
                let text = format!("sum by ({}) ({metric})", label.trim());
                complaints.extend(expression(&text).into_iter().map(complaint));
            }
            None => complaints.push(complaint("its definition is not label_values(metric, label)".into())),
        }
    }
    for panel in dashboard.panels() {
        let found = self::panel(dashboard, panel);
        complaints.extend(found.into_iter().map(|what| format!("panel {}: {what}", panel.title)));
    }
    complaints
}

fn overlap(one: &Panel, other: &Panel) -> bool {
    let (a, b) = (one.grid_pos, other.grid_pos);
    a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
}

fn panel(dashboard: &Dashboard, panel: &Panel) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut want = |good: bool, what: &str| {
        if !good {
            complaints.push(what.to_owned());
        }
    };
    want(!panel.title.trim().is_empty(), "has no title");
    want(!panel.description.trim().is_empty(), "has no description");
    want(KINDS.contains(&panel.kind.as_str()), "its type is not in the list of lint.rs");
    want(panel.grid_pos.x + panel.grid_pos.w <= 24, "leaves the grid of 24 columns");
    want(!panel.targets.is_empty(), "asks nothing");
    match &panel.field_config.defaults.unit {
        None => want(false, "has no unit"),
        Some(unit) => want(UNITS.contains(&unit.as_str()), "its unit is not in the list of lint.rs"),
    }
    want(is_variable(dashboard, panel.datasource.as_ref()), FIXED_SOURCE);
    for target in &panel.targets {
        let found = self::target(dashboard, target);
        complaints.extend(found.into_iter().map(|what| format!("query {}: {what}", target.ref_id)));
    }
    complaints
}

/// Whether a data source is given by a variable that chooses of its type.
fn is_variable(dashboard: &Dashboard, source: Option<&DataSource>) -> bool {
    let Some(source) = source else { return false };
    dashboard.templating.list.iter().any(|variable| {
        variable.kind == "datasource"
            && source.uid == format!("${{{}}}", variable.name)
            && variable.query == source.kind.as_str()
    })
}

fn target(dashboard: &Dashboard, target: &Target) -> Vec<String> {
    let kind = match &target.datasource {
        Some(source) if is_variable(dashboard, Some(source)) => source.kind.as_str(),
        _ => return vec![FIXED_SOURCE.to_owned()],
    };
    match (kind, target.query()) {
        ("prometheus", Some(Query::Promql(text))) => self::promql(dashboard, target, text),
        ("grafana-postgresql-datasource", Some(Query::Sql(text))) => self::sql(target, text),
        _ => vec![format!("asks {kind} in the wrong language")],
    }
}

fn promql(dashboard: &Dashboard, target: &Target, text: &str) -> Vec<String> {
    let found = match promql::read(text) {
        Ok(found) => found,
        Err(error) => return vec![error.to_string()],
    };
    let mut complaints = names(&found);
    let chosen: Vec<&str> = dashboard.templating.list.iter().map(|variable| variable.name.as_str()).collect();
    if let Err(error) = fill_promql(text, &chosen) {
        complaints.push(error.to_string());
    }
    for (function, window) in &found.windows {
        let whole = function == "increase" && window == "$__range";
        if window != "$__rate_interval" && !whole {
            complaints.push(format!(
                "{function} over [{window}]: write $__rate_interval, which fits the scrape interval"
            ));
        }
    }
    let legend = target.legend_format.as_deref().unwrap_or_default();
    if legend.is_empty() {
        complaints.push("has no legendFormat".to_owned());
    }
    let shown = legend.split("{{").skip(1).filter_map(|part| Some(part.split_once("}}")?.0.trim()));
    let unknown = shown.filter(|label| !found.labels.contains(*label));
    complaints.extend(unknown.map(|label| format!("the legend's {label} is not in the expression")));
    complaints
}

fn sql(target: &Target, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Err(error) = fill_sql(text) {
        complaints.push(error.to_string());
    }
    let series = target.format.as_deref() == Some("time_series");
    if series && !(text.contains("$__timeGroupAlias(") && text.contains("$__timeFilter(")) {
        complaints.push("a time series wants $__timeGroupAlias and $__timeFilter".to_owned());
    }
    complaints
}

#[cfg(test)]
mod tests;
