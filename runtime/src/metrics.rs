//! Metrics: what [`metrics!`](crate::metrics!) declares, and the engine's own. No id, path or error text is a label.
//!
//! A metric is one line in the table of the crate that counts it: field, kind, labels, name and help. The struct's field, its
//! registration and what the checks of dashboards and alerts know of it follow from that line.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

crate::metrics! {
    /// What the engine counts of every role.
    pub struct Metrics {
        consumed: Counter["stage", "topic"] = "milestream_records_consumed_total", "Records taken from Kafka";
        /// `emit`, `drop`, `dead_letter`, `write`, `republish`. The sum equals `consumed` when idle.
        outcomes: Counter["stage", "outcome", "reason"] = "milestream_record_outcomes_total", "How each record ended";
        /// Of a batch for deciders and sinks; of a photo with its wait for a core.
        stage_seconds: Histogram["stage"] = "milestream_stage_seconds", "Time of one call of the stage";
        /// Act when it keeps growing: a dependency is down.
        retries: Counter["stage", "cause"] = "milestream_stage_retries_total", "Calls repeated after a retryable error";
        /// Act when it grows for 10 minutes.
        lag: Gauge["stage", "topic", "partition"] = "milestream_partition_lag_records", "Records behind the partition's end";
        /// For an unknown record name or a missing outcome. Act at once.
        halted: Gauge["stage", "topic", "partition"] = "milestream_partition_halted", "1 while a partition waits for an operator";
        /// By cause: `frozen`, `fenced`, `fatal`, `not_a_member`, … Act when it keeps growing.
        client_rebuilds: Counter["stage", "client", "cause"] = "milestream_client_rebuilds_total", "Kafka clients that were built anew";
        /// As each relay sees it, whoever publishes. Act above two minutes: no relay gets on.
        outbox_oldest: Gauge[] = "milestream_outbox_oldest_seconds", "Age of the oldest outbox row that is not published; 0 without one";
        /// The release is the label.
        build: Gauge["version"] = "milestream_build_info", "1";
    }
}

/// Declares the metrics of a crate: a struct with a field for each, whose `new` and `register` make them.
///
/// ```
/// runtime::metrics! {
///     /// Metrics of a kettle.
///     pub struct KettleMetrics {
///         boiled: Counter["size"] = "kettle_boiled_total", "Times that water boiled";
///         /// Buckets in seconds of minutes, not of milliseconds.
///         heating: Histogram["size"] = "kettle_heating_seconds", "Time until the water boils", runtime::metrics::MINUTES;
///     }
/// }
/// let metrics = KettleMetrics::new()?;
/// metrics.boiled.with_label_values(&["small"]).inc();
/// assert!(metrics.exporter.render().contains(r#"kettle_boiled_total{size="small"} 1"#));
/// assert_eq!(KettleMetrics::DECLARED[0].help, "Times that water boiled");
/// # Ok::<(), runtime::metrics::MetricsError>(())
/// ```
///
/// A [`Counter`] only grows, a [`Gauge`] is a whole number that comes and goes, a [`Histogram`] counts seconds in buckets, those of
/// [`SECONDS`] unless the line names others. The number of labels is part of the type.
#[macro_export]
macro_rules! metrics {
    ($(#[$about:meta])* $visibility:vis struct $set:ident {
        $($(#[$note:meta])* $field:ident: $kind:ident[$($label:literal),*] = $name:literal, $help:literal $(, $bounds:expr)?;)+
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        $visibility struct $set {
            $(
                #[doc = concat!($help, ".")]
                #[doc = ""]
                $(#[$note])*
                pub $field: $crate::metrics::$kind<{ <[&str]>::len(&[$($label),*]) }>,
            )+
            /// Where they are registered.
            pub exporter: $crate::metrics::Exporter,
        }

        impl $set {
            /// Every metric of the set, in order.
            pub const DECLARED: &'static [$crate::metrics::Declared] = &[$($crate::metrics::Declared {
                name: $name,
                kind: $crate::metrics::Kind::$kind,
                labels: &[$($label),*],
                help: $help,
                bounds: $crate::metrics::bounds(&[$($bounds)?]),
            }),+];

            /// Registers the set with an exporter, which may show others too. Sets that declare a metric alike share it.
            ///
            /// # Errors
            /// When a metric of this name is declared otherwise.
            pub fn register(exporter: &$crate::metrics::Exporter) -> Result<Self, $crate::metrics::MetricsError> {
                let mut declared = Self::DECLARED.iter();
                Ok(Self {
                    $($field: exporter.family(declared.next())?,)+
                    exporter: exporter.clone(),
                })
            }

            /// The set with an exporter of its own.
            ///
            /// # Errors
            /// When two lines have one name; a test of the whole catalogue holds that they have not.
            pub fn new() -> Result<Self, $crate::metrics::MetricsError> {
                Self::register(&$crate::metrics::Exporter::default())
            }
        }
    };
}

/// Bounds for work from a database round trip (1 ms) to a hard photo (10 s).
pub const SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Bounds for phases of a payment, from a batch's wait (1 s) to a window of validity (30 min); seconds.
pub const MINUTES: &[f64] = &[0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 1_800.0];

/// The bounds that a line names, or [`SECONDS`].
#[must_use]
pub const fn bounds(named: &[&'static [f64]]) -> &'static [f64] {
    if named.is_empty() { SECONDS } else { named[0] }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// A number that comes and goes.
    Gauge,
    /// Seconds in buckets: the series `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// A line of a table of metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Declared {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// Upper bounds of a histogram's buckets, seconds; of no meaning for other kinds.
    pub bounds: &'static [f64],
}

/// Why metrics cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Two sets declare one name with other labels, kinds or helps.
    #[error("metric {0} is declared in two ways")]
    Declared(&'static str),
    /// A name or label that Prometheus does not allow.
    #[error(transparent)]
    Prometheus(#[from] prometheus::Error),
    /// A set has more fields than lines: a fault of the macro.
    #[error("a metric without its line")]
    Undeclared,
}

/// A counter with so many labels.
#[derive(Clone, Debug)]
pub struct Counter<const LABELS: usize>(IntCounterVec);

impl<const LABELS: usize> Counter<LABELS> {
    /// The series of these values, in the order of the labels.
    #[must_use]
    pub fn with_label_values(&self, values: &[&str; LABELS]) -> IntCounter {
        self.0.with_label_values(values)
    }
}

/// A gauge with so many labels.
#[derive(Clone, Debug)]
pub struct Gauge<const LABELS: usize>(IntGaugeVec);

impl<const LABELS: usize> Gauge<LABELS> {
    /// The series of these values, in the order of the labels.
    #[must_use]
    pub fn with_label_values(&self, values: &[&str; LABELS]) -> IntGauge {
        self.0.with_label_values(values)
    }
}

/// A histogram with so many labels.
#[derive(Clone, Debug)]
pub struct Histogram<const LABELS: usize>(HistogramVec);

impl<const LABELS: usize> Histogram<LABELS> {
    /// The series of these values, in the order of the labels.
    #[must_use]
    pub fn with_label_values(&self, values: &[&str; LABELS]) -> prometheus::Histogram {
        self.0.with_label_values(values)
    }
}

/// A metric whatever its number of labels.
#[derive(Clone, Debug)]
pub enum Family {
    /// A counter.
    Counter(IntCounterVec),
    /// A gauge.
    Gauge(IntGaugeVec),
    /// A histogram.
    Histogram(HistogramVec),
}

impl Family {
    fn of(declared: &Declared) -> prometheus::Result<Self> {
        let Declared { name, labels, help, .. } = *declared;
        Ok(match declared.kind {
            Kind::Counter => Self::Counter(IntCounterVec::new(Opts::new(name, help), labels)?),
            Kind::Gauge => Self::Gauge(IntGaugeVec::new(Opts::new(name, help), labels)?),
            Kind::Histogram => {
                let options = HistogramOpts::new(name, help).buckets(declared.bounds.to_vec());
                Self::Histogram(HistogramVec::new(options, labels)?)
            }
        })
    }

    fn collector(&self) -> Box<dyn Collector> {
        match self {
            Self::Counter(family) => Box::new(family.clone()),
            Self::Gauge(family) => Box::new(family.clone()),
            Self::Histogram(family) => Box::new(family.clone()),
        }
    }
}

/// A kind of metric with a number of labels, as [`metrics!`](crate::metrics!) names it in a field.
pub trait OfFamily: Sized {
    /// Itself, where the family is of its kind.
    fn of(family: Family) -> Option<Self>;
}

impl<const LABELS: usize> OfFamily for Counter<LABELS> {
    fn of(family: Family) -> Option<Self> {
        if let Family::Counter(family) = family { Some(Self(family)) } else { None }
    }
}

impl<const LABELS: usize> OfFamily for Gauge<LABELS> {
    fn of(family: Family) -> Option<Self> {
        if let Family::Gauge(family) = family { Some(Self(family)) } else { None }
    }
}

impl<const LABELS: usize> OfFamily for Histogram<LABELS> {
    fn of(family: Family) -> Option<Self> {
        if let Family::Histogram(family) = family { Some(Self(family)) } else { None }
    }
}

/// What `/metrics` of a process shows: the sets that were registered with it. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Exporter {
    registry: Registry,
    families: Arc<Mutex<BTreeMap<&'static str, (Declared, Family)>>>,
}

impl Exporter {
    /// The metric of a line, registered now or before; for [`metrics!`](crate::metrics!).
    ///
    /// # Errors
    /// [`MetricsError`].
    pub fn family<F: OfFamily>(&self, declared: Option<&Declared>) -> Result<F, MetricsError> {
        let declared = declared.ok_or(MetricsError::Undeclared)?;
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = match families.get(declared.name) {
            Some((known, family)) if known == declared => family.clone(),
            Some(_) => return Err(MetricsError::Declared(declared.name)),
            None => {
                let family = Family::of(declared)?;
                self.registry.register(family.collector())?;
                families.insert(declared.name, (*declared, family.clone()));
                family
            }
        };
        F::of(family).ok_or(MetricsError::Declared(declared.name))
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        let mut buffer = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut buffer) {
            tracing::error!(error = %error, "metrics do not render");
        }
        String::from_utf8_lossy(&buffer).into_owned()
    }

    /// Counts once more in every metric that has no series but this one: with `any` as every label's value.
    #[cfg(any(test, feature = "testing"))]
    pub fn use_what_is_unused(&self) {
        for (declared, family) in self.families.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let families = family.collector().collect();
            let mut series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
            if series.any(|one| one.get_label().iter().all(|label| label.value() != "any")) {
                continue;
            }
            let values = vec!["any"; declared.labels.len()];
            match family {
                Family::Counter(family) => family.with_label_values(&values).inc(),
                Family::Gauge(family) => family.with_label_values(&values).set(1),
                Family::Histogram(family) => family.with_label_values(&values).observe(0.02),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::metrics! {
        /// Shares a metric with the engine.
        pub struct Alike {
            consumed: Counter["stage", "topic"] = "milestream_records_consumed_total", "Records taken from Kafka";
        }
    }

    crate::metrics! {
        /// Takes a name of the engine for something else.
        pub struct Otherwise {
            consumed: Gauge[] = "milestream_records_consumed_total", "Records taken from Kafka";
        }
    }

    #[test]
    fn every_declared_metric_is_rendered_once_used() {
        let metrics = Metrics::new().unwrap();
        metrics.exporter.use_what_is_unused();
        let text = metrics.exporter.render();
        for Declared { name, help, .. } in Metrics::DECLARED {
            assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name} is missing");
        }
    }

    #[test]
    fn two_sets_that_declare_a_metric_alike_share_it_and_otherwise_are_refused() {
        let metrics = Metrics::new().unwrap();
        let alike = Alike::register(&metrics.exporter).unwrap();
        alike.consumed.with_label_values(&["a", "b"]).inc();
        assert_eq!(metrics.consumed.with_label_values(&["a", "b"]).get(), 1);
        assert_eq!(
            Alike::new().unwrap().consumed.with_label_values(&["a", "b"]).get(),
            0,
            "another exporter"
        );
        let refused = Otherwise::register(&alike.exporter).unwrap_err();
        assert_eq!(refused.to_string(), "metric milestream_records_consumed_total is declared in two ways");
        let otherwise = Otherwise::new().unwrap();
        otherwise.consumed.with_label_values(&[]).set(7);
        assert!(otherwise.exporter.render().contains("\nmilestream_records_consumed_total 7\n"));
    }
}
