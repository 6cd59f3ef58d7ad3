//! How fast history is read back: the tier reader against bare GETs of the same objects, in turns within one run.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use esker_cache::pools::PoolMetrics;
use esker_cache::store::StoreMetrics;
use esker_cache::testing::{offload, segment};
use esker_cache::{Class, Config, Error, For, Pools, Reader, Start, Store};
use esker_cache_core::manifest::LeafEntry;
use esker_types::units::ByteCount;
use esker_types::{ClusterId, PartitionId, SegmentId};
use futures_util::{StreamExt, stream};
use serde::Serialize;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// URL of the store. Credentials come from the environment.
    pub store: String,
    /// One for each reader; a multiple of `readers` is shared out evenly.
    pub objects: u64,
    pub object_bytes: ByteCount,
    /// Readers at once, each with up to four requests under way, bare or not.
    pub readers: usize,
    /// Pairs of measurements, bare and through the reader in turns.
    pub rounds: usize,
    /// Payloads that zstd shortens to about half.
    pub compressible: bool,
    /// With it, a last pair reads warm from an SSD cache in this folder.
    pub ssd_dir: Option<PathBuf>,
}

/// Bytes per second, of objects as they are stored.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub objects: u64,
    pub stored_bytes: u64,
    pub readers: usize,
    /// Of each round, bare GETs.
    pub bare: Vec<f64>,
    /// Of each round, through the reader with empty caches.
    pub replay: Vec<f64>,
    /// Replay by bare, of each round.
    pub ratios: Vec<f64>,
    pub ratio_median: f64,
    /// Bytes of entries per second in the median round, after decompression.
    pub entry_bytes_per_second: f64,
    /// From the SSD cache, with an empty memory.
    pub warm_ssd: Option<f64>,
}

/// Size of one request, bare and through the reader at full window.
const REQUEST: u64 = 8 << 20;
/// Requests of one reader under way.
const DEPTH: usize = 4;
const CLUSTER: ClusterId = ClusterId([0xbe; 16]);
const PAYLOAD: usize = 64 << 10;

/// Writes the objects, then reads them back in turns.
///
/// # Errors
/// The store can't be used, or what comes back is not what was written.
pub async fn run(plan: &Plan) -> Result<Report> {
    if plan.objects == 0 || plan.readers == 0 || plan.rounds == 0 || plan.object_bytes < ByteCount::mib(1) {
        bail!("--objects, --readers and --rounds must be at least 1, --object-bytes at least 1MiB");
    }
    let mut config = Config::default();
    config.store.replay_requests = (plan.readers * DEPTH) as u32;
    config.scan.fetch_bytes = ByteCount((plan.readers * DEPTH) as u64 * REQUEST);
    config.scan.read_ahead = ByteCount(DEPTH as u64 * REQUEST);
    config.validate().map_err(anyhow::Error::msg)?;
    let store = Store::open(&plan.store, config.store.clone(), StoreMetrics::default())?;
    store.probe().await?;
    let entries = prepare(&store, plan).await?;
    let stored: u64 = entries.iter().map(|entry| entry.place.len).sum();
    let raw: u64 = entries.iter().map(|entry| entry.bytes).sum();

    let (mut bare_rates, mut replay_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let bare_rate = rate(stored, bare(&store, &entries, plan.readers).await?);
        let pools = Pools::open(&config, &PoolMetrics::default()).await?;
        let replay_rate = rate(stored, replay(&store, &pools, &entries, plan.readers).await?);
        pools.close().await;
        ratios.push(replay_rate / bare_rate);
        bare_rates.push(bare_rate);
        replay_rates.push(replay_rate);
    }
    let warm_ssd = match &plan.ssd_dir {
        None => None,
        Some(dir) => Some(rate(stored, warm(&store, &config, dir, &entries, stored, plan.readers).await?)),
    };
    clean_up(&store, &entries).await?;
    let (ratio_median, replay_median) = (median(&ratios), median(&replay_rates));
    Ok(Report {
        objects: plan.objects,
        stored_bytes: stored,
        readers: plan.readers,
        bare: bare_rates,
        replay: replay_rates,
        ratios,
        ratio_median,
        entry_bytes_per_second: replay_median * raw as f64 / stored as f64,
        warm_ssd,
    })
}

async fn prepare(store: &Store, plan: &Plan) -> Result<Vec<LeafEntry>> {
    let count = plan.object_bytes.0.div_ceil(PAYLOAD as u64);
    let mut entries = Vec::new();
    for n in 0..plan.objects {
        let made = segment(1, n, n as i64 * count as i64 * 10, count, PAYLOAD, plan.compressible);
        entries.extend(offload(store, CLUSTER, &[made]).await.context("can't write the objects")?);
    }
    Ok(entries)
}

async fn clean_up(store: &Store, entries: &[LeafEntry]) -> Result<()> {
    for entry in entries {
        store.delete(&entry.place.key.to_string(), Class::Background).await?;
    }
    Ok(())
}

/// Each reader's share, in order.
fn shares(entries: &[LeafEntry], readers: usize) -> Vec<Vec<LeafEntry>> {
    (0..readers).map(|reader| entries.iter().skip(reader).step_by(readers).cloned().collect()).collect()
}

/// Ranged GETs of all blocks, the bytes thrown away.
async fn bare(store: &Store, entries: &[LeafEntry], readers: usize) -> Result<Duration> {
    let started = Instant::now();
    let tasks = shares(entries, readers).into_iter().map(|share| {
        let mut requests = Vec::new();
        for place in share.iter().map(|entry| &entry.place) {
            let (key, end) = (place.key.to_string(), place.position + place.len);
            let ranges = (place.position..end).step_by(REQUEST as usize);
            requests.extend(ranges.map(|at| (store.clone(), key.clone(), at..end.min(at + REQUEST))));
        }
        tokio::spawn(async move {
            let mut reads = stream::iter(requests.into_iter().map(get)).buffered(DEPTH);
            let mut sum = 0;
            while let Some(bytes) = reads.next().await {
                sum += bytes?;
            }
            Ok::<u64, Error>(sum)
        })
    });
    let mut read = 0;
    for task in tasks.collect::<Vec<_>>() {
        read += task.await??;
    }
    let expected: u64 = entries.iter().map(|entry| entry.place.len).sum();
    anyhow::ensure!(read == expected, "{read} bytes came back of {expected}");
    Ok(started.elapsed())
}

async fn get((store, key, range): (Store, String, Range<u64>)) -> Result<u64, Error> {
    store.read(&key, range, Class::Replay).await.map(|bytes| bytes.len() as u64)
}

/// All entries through the reader, each one parsed.
async fn replay(store: &Store, pools: &Pools, entries: &[LeafEntry], readers: usize) -> Result<Duration> {
    let reader = Reader::new(store.clone(), pools.clone(), CLUSTER, ByteCount::mib(32));
    let started = Instant::now();
    let tasks = shares(entries, readers).into_iter().map(|share| {
        let mut scan = reader.scan(Start::Begin, For::Scan);
        tokio::spawn(async move {
            for entry in &share {
                scan.feed(SegmentId { partition: PartitionId(1), n: entry.n }, entry.place.clone());
            }
            let (mut bytes, mut next) = (0, share.first().map_or(0, |entry| entry.base_offset));
            let mut ends = share.iter();
            while let Some(block) = scan.next().await? {
                for entry in block.entries() {
                    let entry = entry?;
                    if entry.header.entry == 0 {
                        next = ends.next().map_or(0, |segment| segment.base_offset);
                    }
                    anyhow::ensure!(entry.header.base_offset == next, "an entry is missing before offset {next}");
                    next = entry.header.end_offset();
                    bytes += entry.bytes.len() as u64;
                }
            }
            Ok::<u64, anyhow::Error>(bytes)
        })
    });
    let mut read = 0;
    for task in tasks.collect::<Vec<_>>() {
        read += task.await??;
    }
    let expected: u64 = entries.iter().map(|entry| entry.bytes).sum();
    anyhow::ensure!(read == expected, "{read} bytes of entries came back of {expected}");
    Ok(started.elapsed())
}

/// Once to fill the SSD, then again by another process's eyes: pools opened anew.
async fn warm(
    store: &Store,
    config: &Config,
    dir: &std::path::Path,
    entries: &[LeafEntry],
    stored: u64,
    readers: usize,
) -> Result<Duration> {
    let mut config = config.clone();
    config.ssd_dir = dir.to_owned();
    // Room for all of it, and for what block borders waste.
    config.scan.ssd = ByteCount(stored * 5 / 4 + (256 << 20));
    config.scan.write_queue = ByteCount::mib(256);
    // The device can't take what the line brings, and what it can't take in time is not kept: in slices it can.
    for slice in entries.chunks(readers) {
        let pools = Pools::open(&config, &PoolMetrics::default()).await?;
        replay(store, &pools, slice, readers).await?;
        pools.scan.settle().await;
        pools.close().await;
    }
    let pools = Pools::open(&config, &PoolMetrics::default()).await?;
    let took = replay(store, &pools, entries, readers).await?;
    let [_, ssd, from_store] = pools.scan.served();
    pools.close().await;
    anyhow::ensure!(ssd * 10 >= from_store * 9, "only {ssd} blocks came from the SSD, {from_store} from the store");
    Ok(took)
}

fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
