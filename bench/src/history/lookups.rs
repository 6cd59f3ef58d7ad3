use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use esker_cache::pools::PoolMetrics;
use esker_cache::store::StoreMetrics;
use esker_cache::{Config, For, Pools, Reader, Store};
use esker_metadata_core::RootPlace;
use esker_types::{ClusterId, PartitionId, SegmentId};
use serde::Serialize;

use super::commands::Commands;

/// Records of one segment.
pub(super) const RECORDS: i64 = 10;
/// Places that warm lookups come back to.
const PLACES: usize = 64;
/// Cold lookups of each kind: each opens caches of its own.
const COLD: usize = 20;

/// From an offset, or a time, to the decoded block that holds it.
#[derive(Clone, Debug, Serialize)]
pub struct Lookups {
    /// The same few places again and again.
    pub warm_p50_us: f64,
    pub warm_p99_us: f64,
    /// Any place, with caches as they are by default.
    pub spread_p99_us: f64,
    pub cold_p50_us: f64,
    pub cold_requests_max: u64,
}

impl fmt::Display for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { warm_p50_us, warm_p99_us, spread_p99_us, cold_p50_us, cold_requests_max } = self;
        write!(f, "warm p50 {warm_p50_us:.0} us, p99 {warm_p99_us:.0} us; any place p99 {spread_p99_us:.0} us; ")?;
        write!(f, "cold p50 {cold_p50_us:.0} us, at most {cold_requests_max} requests")
    }
}

/// Looks into one version of the manifest.
pub(super) struct Looking<'a> {
    url: &'a str,
    cluster: ClusterId,
    partition: PartitionId,
    root: RootPlace,
    reader: Reader,
    records: u64,
}

impl<'a> Looking<'a> {
    pub async fn new(url: &'a str, commands: &Commands, root: RootPlace, segments: u64) -> Result<Self> {
        let Commands { cluster, partition, .. } = *commands;
        let (_, reader) = open(url, cluster).await?;
        Ok(Self { url, cluster, partition, root, reader, records: segments * RECORDS.unsigned_abs() })
    }

    pub fn index_bytes(&self) -> usize {
        self.reader.index_bytes()
    }

    pub async fn measure(&self, count: usize, by_time: bool) -> Result<Lookups> {
        let mut places = Places::new(self.records);
        let (mut cold, mut requests) = (Vec::new(), 0);
        for _ in 0..COLD {
            let (store, fresh) = open(self.url, self.cluster).await?;
            cold.push(self.look(&fresh, places.next(), by_time).await?);
            requests = requests.max(store.metrics().requests());
        }
        let mut spread = Vec::new();
        for _ in 0..count {
            spread.push(self.look(&self.reader, places.next(), by_time).await?);
        }
        let few: Vec<i64> = (0..PLACES).map(|_| places.next()).collect();
        for at in &few {
            self.look(&self.reader, *at, by_time).await?;
        }
        let mut warm = Vec::new();
        for at in few.iter().cycle().take(count.max(PLACES)) {
            warm.push(self.look(&self.reader, *at, by_time).await?);
        }
        Ok(Lookups {
            warm_p50_us: percentile(&mut warm, 50),
            warm_p99_us: percentile(&mut warm, 99),
            spread_p99_us: percentile(&mut spread, 99),
            cold_p50_us: percentile(&mut cold, 50),
            cold_requests_max: requests,
        })
    }

    /// The segments' times are their offsets.
    async fn look(&self, reader: &Reader, at: i64, by_time: bool) -> Result<Duration> {
        let began = Instant::now();
        let found = match by_time {
            true => reader.segment_at_time(&self.root, at, 0, For::Tail).await?,
            false => reader.segment_at(&self.root, at, For::Tail).await?,
        };
        let entry = found.with_context(|| format!("{at} was not found"))?;
        let segment = SegmentId { partition: self.partition, n: entry.n };
        let footer = reader.footer(segment, &entry.place, For::Tail).await?;
        let number = if by_time { footer.block_at(at) } else { footer.block_of(at) };
        let number = number.with_context(|| format!("segment {segment} does not hold {at}"))?;
        let block = reader.block(segment, &entry.place, &footer, number, For::Tail).await?;
        let took = began.elapsed();
        let held = block.entries().flatten().any(|e| (e.header.base_offset..e.header.end_offset()).contains(&at));
        ensure!(held, "block {number} of segment {segment} does not hold {at}");
        Ok(took)
    }
}

/// Offsets all over a log, the same for the same log.
pub(super) struct Places {
    state: u64,
    records: u64,
}

impl Places {
    pub fn new(records: u64) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15 ^ records, records }
    }

    pub fn next(&mut self) -> i64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % self.records) as i64
    }
}

/// In microseconds.
pub(super) fn percentile(all: &mut [Duration], p: usize) -> f64 {
    all.sort_unstable();
    let at = (all.len() * p / 100).min(all.len().saturating_sub(1));
    all.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e6)
}

/// Caches of their own, empty.
pub(super) async fn open(url: &str, cluster: ClusterId) -> Result<(Store, Reader)> {
    let config = Config::default();
    let store = Store::open(url, config.store.clone(), StoreMetrics::default())?;
    let pools = Pools::open(&config, &PoolMetrics::default()).await?;
    let reader = Reader::new(store.clone(), pools, cluster, config.index_memory);
    Ok((store, reader))
}
