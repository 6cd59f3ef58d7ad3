//! History read back through the whole system with empty caches, against bare GETs of the same objects.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use esker_cache::config::StoreConfig;
use esker_cache::{Class, Config, Store};
use esker_types::units::ByteCount;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::history::{self, Shape, Since};
use super::median;
use super::world::{Setup, World, drop_page_cache};
use crate::cluster::metrics;
use crate::load::stats::CpuMeter;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub setup: Setup,
    pub bytes: ByteCount,
    pub partitions: u32,
    pub segment_bytes: ByteCount,
    pub compressible: bool,
    /// Pairs of measurements, bare and cold in turns; everything is started anew for each.
    pub rounds: usize,
    /// Measure also from an SSD cache that holds it all.
    pub warm: bool,
    /// Have the system drop what it keeps of files before each measurement, where it may: a folder is on its disk then.
    pub drop_page_cache: bool,
}

/// Bytes per second are those of the objects as they are stored.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub records: u64,
    pub objects: usize,
    pub stored_bytes: u64,
    /// Until all was acknowledged and read back once.
    pub written_seconds: f64,
    /// From then until it was in the bucket, and on bookies no more.
    pub offloaded_seconds: f64,
    /// The system kept no file in memory.
    pub page_cache_dropped: bool,
    pub rounds: Vec<Round>,
    pub ratio_median: f64,
    pub warm: Option<Warm>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub bare: f64,
    pub replay: f64,
    pub ratio: f64,
    /// Of the replay: CPU seconds for each GB of objects, by role; the client is this process.
    pub cpu_seconds_per_gb: std::collections::BTreeMap<String, f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Warm {
    pub rate: f64,
    pub blocks_from_ssd: f64,
    pub blocks_from_store: f64,
}

/// Requests of a gateway's scan at full window.
const REQUEST: u64 = 8 << 20;
/// The SSD cache is filled no faster than a disk takes it.
const FILL_RATE: ByteCount = ByteCount::mib(100);
/// Passes that may be needed for it.
const FILLS_MAX: usize = 4;

/// Fills a topic, lets the bucket have it, and reads it back.
///
/// # Errors
/// A step fails, or anything that comes back is not what was written.
pub async fn run(plan: &Plan, mut tell: impl FnMut(&str)) -> Result<Report> {
    ensure!(plan.rounds > 0 && plan.partitions > 0, "--rounds and --partitions must be at least 1");
    let per_partition = plan.bytes.0 / u64::from(plan.partitions);
    ensure!(per_partition >= 3 * plan.segment_bytes.0, "each partition needs three segments at least: more --bytes");
    let mut world = World::new(plan.setup.clone());
    let measured = measure(plan, &mut world, &mut tell).await;
    world.stop().await?;
    measured
}

async fn measure(plan: &Plan, world: &mut World, tell: &mut impl FnMut(&str)) -> Result<Report> {
    let shape = Shape {
        bytes: plan.bytes,
        partitions: plan.partitions,
        segment_bytes: plan.segment_bytes,
        compressible: plan.compressible,
        bookies: plan.setup.bookies,
    };
    tell("filling");
    let client = world.restart(&[]).await?;
    let began = Instant::now();
    let digests = history::fill(&client, shape).await?;
    let written = began.elapsed();
    tell("waiting for the bucket");
    history::settled(world, &client, Since::Written).await?;
    let offloaded = began.elapsed() - written;
    // Once more from the start: what was open is closed by its next owner, and follows.
    client.close().await;
    let client = world.restart(&[]).await?;
    let stored = history::settled(world, &client, Since::Started).await?;
    let objects: Vec<String> = stored.iter().flat_map(|stored| stored.objects.clone()).collect();
    let store = world.store(StoreConfig::default())?;
    let mut sizes = Vec::new();
    for object in &objects {
        sizes.push((object.clone(), store.size(object, Class::Replay).await?));
    }
    let stored_bytes: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    let rate = |took: Duration| stored_bytes as f64 / took.as_secs_f64();
    let (mut rounds, mut dropped) = (Vec::new(), true);
    for round in 1..=plan.rounds {
        tell(&format!("round {round}: bare"));
        dropped &= plan.drop_page_cache && drop_page_cache();
        let bare = rate(bare(&store, &sizes).await?);
        tell(&format!("round {round}: cold"));
        let client = world.restart(&[]).await?;
        history::settled(world, &client, Since::Started).await?;
        dropped &= plan.drop_page_cache && drop_page_cache();
        let meter = CpuMeter::start(&world.pids());
        let replay = rate(history::replay(&client, &stored, &digests).await?);
        let gb = stored_bytes as f64 / 1e9;
        let cpu = meter.spent().into_iter().map(|(role, seconds)| (role, seconds / gb)).collect();
        // Told at once: what comes after it may take long.
        tell(&format!("round {round}: bare {:.0} MB/s, cold {:.0} MB/s", bare / 1e6, replay / 1e6));
        rounds.push(Round { bare, replay, ratio: replay / bare, cpu_seconds_per_gb: cpu });
        client.close().await;
    }
    let warm = match plan.warm {
        true => Some(warm(plan, world, &stored, &digests, stored_bytes, tell).await?),
        false => None,
    };
    let ratios: Vec<f64> = rounds.iter().map(|round| round.ratio).collect();
    Ok(Report {
        records: digests.iter().map(|digest| digest.records).sum(),
        objects: objects.len(),
        stored_bytes,
        written_seconds: written.as_secs_f64(),
        offloaded_seconds: offloaded.as_secs_f64(),
        page_cache_dropped: dropped,
        rounds,
        ratio_median: median(&ratios),
        warm,
    })
}

/// As many requests at once as a gateway's scans have, and as large.
async fn bare(store: &Store, objects: &[(String, u64)]) -> Result<Duration> {
    let config = Config::default();
    let at_once = (config.scan.fetch_bytes.0 / REQUEST).min(config.store.replay_requests.into()) as usize;
    let requests: Vec<(String, Range<u64>)> = objects
        .iter()
        .flat_map(|(key, size)| {
            let starts = (0..*size).step_by(REQUEST as usize);
            starts.map(|at| (key.clone(), at..(at + REQUEST).min(*size)))
        })
        .collect();
    let expected: u64 = objects.iter().map(|(_, size)| size).sum();
    let began = Instant::now();
    let reads = requests.into_iter().map(|(key, range)| {
        let store = store.clone();
        // A task each, as in a gateway: one task would be one core.
        tokio::spawn(async move { store.read(&key, range, Class::Replay).await.map(|bytes| bytes.len() as u64) })
    });
    let mut reads = stream::iter(reads).buffer_unordered(at_once);
    let mut read = 0;
    while let Some(bytes) = reads.next().await {
        read += bytes??;
    }
    let took = began.elapsed();
    ensure!(read == expected, "{read} bytes came back of {expected}");
    Ok(took)
}

/// Fills an SSD cache with everything, then reads with an empty memory.
async fn warm(
    plan: &Plan,
    world: &mut World,
    stored: &[history::Stored],
    digests: &[history::Digest],
    stored_bytes: u64,
    tell: &mut impl FnMut(&str),
) -> Result<Warm> {
    let ssd = ByteCount((stored_bytes * 3 / 2).next_multiple_of(16 << 20) + (256 << 20));
    let ssd_dir = world.folder("ssd").display().to_string();
    let settings = |rate: ByteCount| {
        vec![
            format!("gateway.objects.cache.ssd-dir={}", ssd_dir),
            format!("gateway.objects.cache.scan.ssd={ssd}"),
            "gateway.objects.cache.scan.write-queue=256MiB".to_owned(),
            format!("gateway.objects.cache.scan.bytes-per-second={rate}"),
        ]
    };
    let blocks = |text: &str, tier: &str| {
        metrics::by_label(text, "esker_cache_blocks_total", "tier").get(tier).copied().unwrap_or(0.0)
    };
    let client = world.restart(&settings(FILL_RATE)).await?;
    history::settled(world, &client, Since::Started).await?;
    let mut before = 0.0;
    for pass in 1..=FILLS_MAX {
        tell(&format!("filling the SSD cache, pass {pass}"));
        history::replay(&client, stored, digests).await?;
        let from_store = blocks(&world.gateway().await?, "store");
        if from_store - before < 32.0 {
            break;
        }
        before = from_store;
    }
    client.close().await;
    tell("warm");
    let client = world.restart(&settings(ByteCount(0))).await?;
    history::settled(world, &client, Since::Started).await?;
    if plan.drop_page_cache {
        drop_page_cache();
    }
    let text = world.gateway().await?;
    let (ssd_before, store_before) = (blocks(&text, "ssd"), blocks(&text, "store"));
    let took = history::replay(&client, stored, digests).await?;
    let text = world.gateway().await?;
    client.close().await;
    Ok(Warm {
        rate: stored_bytes as f64 / took.as_secs_f64(),
        blocks_from_ssd: blocks(&text, "ssd") - ssd_before,
        blocks_from_store: blocks(&text, "store") - store_before,
    })
}
