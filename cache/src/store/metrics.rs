//! What is told about a store. Outcomes are `ok` or the word of an error's kind.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::class::Class;
use super::error::Error;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    total: Counter,
    attempts: Family<Outcome, Counter>,
    operations: Family<Outcome, Counter>,
    seconds: Family<Operation, Histogram>,
    read: Counter,
    written: Counter,
    refused: Counter,
    active: Family<ClassLabel, Gauge>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            total: Counter::default(),
            attempts: Family::default(),
            operations: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(500e-6, 2.0, 18))),
            read: Counter::default(),
            written: Counter::default(),
            refused: Counter::default(),
            active: Family::default(),
        }
    }
}

impl StoreMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let to = registry.sub_registry_with_prefix("esker_store");
        let m = Self::default();
        to.register("requests", "Requests to the object store, each try counted", m.attempts.clone());
        to.register("operations", "Operations on the object store, retries not counted", m.operations.clone());
        to.register_with_unit("operation", "Time of an operation with its retries", Unit::Seconds, m.seconds.clone());
        to.register_with_unit("read", "Bytes read from the object store", Unit::Bytes, m.read.clone());
        to.register_with_unit("written", "Bytes written to the object store", Unit::Bytes, m.written.clone());
        to.register("retries_refused", "Retries not made because the budget was spent", m.refused.clone());
        to.register("requests_active", "Requests under way", m.active.clone());
        m
    }

    pub(crate) fn attempted<T>(&self, operation: &'static str, result: &Result<T, Error>) {
        let outcome = result.as_ref().map_or_else(|e| e.kind.word(), |_| "ok");
        self.total.inc();
        self.attempts.get_or_create(&Outcome { operation, outcome }).inc();
    }

    pub(crate) fn finished<T>(&self, operation: &'static str, result: &Result<T, Error>, took: Duration) {
        let outcome = result.as_ref().map_or_else(|e| e.kind.word(), |_| "ok");
        self.operations.get_or_create(&Outcome { operation, outcome }).inc();
        self.seconds.get_or_create(&Operation { operation }).observe(took.as_secs_f64());
    }

    pub(crate) fn retry_refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn bytes_read(&self, bytes: u64) {
        self.read.inc_by(bytes);
    }

    pub(crate) fn bytes_written(&self, bytes: u64) {
        self.written.inc_by(bytes);
    }

    /// Counts one request as under way until dropped.
    pub(crate) fn active(&self, class: Class) -> Active {
        let gauge = self.active.get_or_create(&ClassLabel { class: class.word() }).clone();
        gauge.inc();
        Active(gauge)
    }

    /// Tries of an operation that ended so. For tests and measurements.
    pub fn attempts(&self, operation: &'static str, outcome: &'static str) -> u64 {
        self.attempts.get_or_create(&Outcome { operation, outcome }).get()
    }

    /// Requests of all kinds since the start, retries included.
    pub fn requests(&self) -> u64 {
        self.total.get()
    }
}

pub(crate) struct Active(Gauge);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}
