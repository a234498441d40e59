//! The declaration of a metric, and the families of samples that a scrape makes of it.

use std::collections::HashMap;
use std::fmt::Display;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use crate::Kind;

/// A metric family: its name, its type and its help text.
///
/// Names follow <https://prometheus.io/docs/practices/naming/>: counters end in `_total`, values are in base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The name of the family.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The help text: one sentence.
    pub help: &'static str,
}

impl Declaration {
    /// Declares a counter.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    /// Declares a gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    /// Declares a histogram.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, help }
    }

    /// The family of a counter or gauge with one sample and no labels.
    #[must_use]
    pub fn value(&self, value: f64) -> proto::MetricFamily {
        self.samples([(LabelSet::new(), value)])
    }

    /// The family of a counter or gauge with these samples. Prometheus' values are floats: counts above 2^53 are rounded.
    #[must_use]
    pub fn samples(&self, samples: impl IntoIterator<Item = (LabelSet, f64)>) -> proto::MetricFamily {
        self.family(samples.into_iter().map(|(labels, value)| {
            let mut metric = proto::Metric::from_label(labels.0);
            if self.kind == Kind::Counter {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        }))
    }

    /// The family of a histogram with these samples.
    #[must_use]
    pub fn histograms<'a>(
        &self,
        samples: impl IntoIterator<Item = (LabelSet, Histogram<'a>)>,
    ) -> proto::MetricFamily {
        self.family(samples.into_iter().map(|(labels, histogram)| {
            let mut metric = proto::Metric::from_label(labels.0);
            metric.set_histogram(histogram.to_proto());
            metric
        }))
    }

    fn family(&self, metrics: impl Iterator<Item = proto::Metric>) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(metrics.collect());
        family
    }
}

/// The labels of one sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSet(Vec<proto::LabelPair>);

impl LabelSet {
    /// No labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a label. The value may be any text.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Display) -> Self {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_string());
        self.0.push(pair);
        self
    }
}

/// A histogram as counted: observations per bucket, not cumulative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Histogram<'a> {
    /// The upper bounds of the buckets, inclusive, in ascending order; `+Inf` is added.
    pub bounds: &'a [f64],
    /// Observations in each bucket. One more than bounds: the last is above all of them.
    pub counts: &'a [u64],
    /// The sum of all observations.
    pub sum: f64,
}

impl Histogram<'_> {
    fn to_proto(self) -> proto::Histogram {
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (bound, count) in self.bounds.iter().zip(self.counts) {
            cumulative += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(self.counts.iter().sum());
        histogram.set_sample_sum(self.sum);
        histogram
    }
}

/// A collector whose families are computed at each scrape. `declarations` are those that `collect` may return: a registry
/// refuses two collectors that declare the same name.
///
/// # Errors
/// A declaration has an invalid name or no help text.
pub fn collector(
    declarations: impl IntoIterator<Item = Declaration>,
    collect: impl Fn() -> Vec<proto::MetricFamily> + Send + Sync + 'static,
) -> prometheus::Result<Box<dyn Collector>> {
    let descs = declarations
        .into_iter()
        .map(|declared| {
            Desc::new(declared.name.to_owned(), declared.help.to_owned(), Vec::new(), HashMap::new())
        })
        .collect::<prometheus::Result<_>>()?;
    Ok(Box::new(Computed { descs, collect }))
}

struct Computed<F> {
    descs: Vec<Desc>,
    collect: F,
}

impl<F: Fn() -> Vec<proto::MetricFamily> + Send + Sync> Collector for Computed<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        (self.collect)()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    const X: Declaration = Declaration::counter("x_total", "Things.");
    const Y: Declaration = Declaration::histogram("y_bytes", "Lengths.");

    fn text(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn a_collector_is_read_at_each_scrape() {
        let registry = Registry::new();
        let collect = || {
            let labels = LabelSet::new().with("source", "a\"b\\c\nd").with("port", 7);
            let histogram = Histogram { bounds: &[64.0, 128.0], counts: &[1, 0, 2], sum: 300.0 };
            vec![X.samples([(labels, 3.0)]), Y.histograms([(LabelSet::new(), histogram)])]
        };
        registry.register(collector([X, Y], collect).unwrap()).unwrap();
        assert_eq!(
            text(&registry),
            "# HELP x_total Things.\n# TYPE x_total counter\nx_total{source=\"a\\\"b\\\\c\\nd\",port=\"7\"} 3\n\
             # HELP y_bytes Lengths.\n# TYPE y_bytes histogram\n\
             y_bytes_bucket{le=\"64\"} 1\ny_bytes_bucket{le=\"128\"} 1\ny_bytes_bucket{le=\"+Inf\"} 3\n\
             y_bytes_sum 300\ny_bytes_count 3\n"
        );
    }

    #[test]
    fn a_name_is_declared_once() {
        let registry = Registry::new();
        registry.register(collector([X], || vec![X.value(1.0)]).unwrap()).unwrap();
        assert!(registry.register(collector([X], Vec::new).unwrap()).is_err());
        assert!(collector([Declaration::gauge("not a name", "x")], Vec::new).is_err());
    }
}
