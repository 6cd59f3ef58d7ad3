//! Latencies and rates of a run, and the CPU time that servers spent on it.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cpu;

/// Latencies from 1 us to 1 min, three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are constant and valid")
}

pub fn observe(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
}

#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), max_ms: histogram.max() as f64 / 1e3 }
    }
}

/// CPU seconds used by groups of processes between two moments.
pub struct CpuMeter {
    groups: BTreeMap<String, Vec<(u32, f64)>>,
}

impl CpuMeter {
    /// `pids` by group, for example `bookie`; this process is the group `client`.
    pub fn start(pids: &BTreeMap<String, Vec<u32>>) -> Self {
        let mut groups = pids.clone();
        groups.insert("client".to_owned(), vec![std::process::id()]);
        let begin = |pids: Vec<u32>| pids.into_iter().filter_map(|pid| Some((pid, cpu::seconds(pid)?))).collect();
        Self { groups: groups.into_iter().map(|(name, pids)| (name, begin(pids))).collect() }
    }

    /// Seconds per group since the start. Processes that ended meanwhile do not count.
    pub fn spent(&self) -> BTreeMap<String, f64> {
        let sum = |pids: &Vec<(u32, f64)>| pids.iter().filter_map(|(pid, from)| Some(cpu::seconds(*pid)? - from)).sum();
        self.groups.iter().map(|(name, pids)| (name.clone(), sum(pids))).collect()
    }
}
