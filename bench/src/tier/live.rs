//! Live traffic beside a replay from the bucket: what the replay costs those who write and those who follow.
//!
//! Three loads, each with the live one alone before it: the replay as fast as it goes, and held by its IO budget to half of
//! that. The replay's reader is a process of its own, as it would be.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use esker_client::{Client, ProducerConfig, Record, Start};
use esker_types::units::ByteCount;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::history::{self, Shape, Since};
use super::median;
use super::world::{Setup, World};
use crate::cluster::metrics;
use crate::load::stats::{self, Latency};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub setup: Setup,
    /// Of the history that is replayed.
    pub bytes: ByteCount,
    pub partitions: u32,
    pub segment_bytes: ByteCount,
    /// Live records per second, of `record_bytes` each.
    pub rate: u64,
    pub record_bytes: usize,
    pub live_partitions: u32,
    /// Of one measurement.
    pub window: Duration,
    /// Pairs of measurements with the held replay, and with the free one.
    pub rounds: usize,
    /// This program, for the replay's reader.
    pub program: PathBuf,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Bytes per second that the replay took from the store.
    pub free_rate: f64,
    /// Half of it, by configuration, and what came of it.
    pub budget: u64,
    pub held_rate: f64,
    pub free: Vec<Pair>,
    pub held: Vec<Pair>,
    pub free_ratios: Ratios,
    pub held_ratios: Ratios,
}

/// p99 with the replay by p99 without, the median of all pairs.
#[derive(Clone, Debug, Serialize)]
pub struct Ratios {
    pub produce: f64,
    pub tail: f64,
}

/// The live load alone, then beside the replay.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    pub alone: Live,
    pub beside: Live,
}

#[derive(Clone, Debug, Serialize)]
pub struct Live {
    /// From the moment a record was due to its acknowledgement.
    pub produce: Latency,
    /// From then to a reader that follows the log.
    pub tail: Latency,
    pub records: u64,
}

const LIVE: &str = "live";
/// Of the same load before each measurement.
const WARM_UP: Duration = Duration::from_secs(2);
/// Time for the last records to reach their readers.
const LINGER: Duration = Duration::from_secs(5);
/// Records of one producer: half a minute of them at the usual rate. What is late beyond that counts from when it was due.
const UNDER_WAY: usize = 1 << 14;

/// Fills a history, then measures.
///
/// # Errors
/// A step fails.
pub async fn run(plan: &Plan, mut tell: impl FnMut(&str)) -> Result<Report> {
    ensure!(plan.rounds > 0 && plan.live_partitions > 0 && plan.rate > 0, "there must be something to measure");
    let mut world = World::new(plan.setup.clone());
    let measured = measure(plan, &mut world, &mut tell).await;
    world.stop().await?;
    measured
}

async fn measure(plan: &Plan, world: &mut World, tell: &mut impl FnMut(&str)) -> Result<Report> {
    tell("filling");
    let client = world.restart(&[]).await?;
    let Plan { bytes, partitions, segment_bytes, .. } = *plan;
    let bookies = plan.setup.bookies;
    history::fill(&client, Shape { bytes, partitions, segment_bytes, compressible: false, bookies }).await?;
    client.admin().create_topic(LIVE, plan.live_partitions, &history::copies(bookies)).await?;
    tell("waiting for the bucket");
    history::settled(world, &client, Since::Written).await?;
    client.close().await;

    let client = world.restart(&[]).await?;
    history::settled(world, &client, Since::Started).await?;
    let (free, free_rate) = pairs(plan, world, &client, "free", tell).await?;
    client.close().await;
    let budget = ByteCount((free_rate / 2.0) as u64);
    let held_to = format!("gateway.objects.cache.scan.bytes-per-second={}", budget.0);
    let client = world.restart(&[held_to]).await?;
    history::settled(world, &client, Since::Started).await?;
    let (held, held_rate) = pairs(plan, world, &client, "held", tell).await?;
    client.close().await;
    Ok(Report {
        free_rate,
        budget: budget.0,
        held_rate,
        free_ratios: ratios(&free),
        held_ratios: ratios(&held),
        free,
        held,
    })
}

fn ratios(pairs: &[Pair]) -> Ratios {
    let by = |of: fn(&Live) -> &Latency| {
        let each: Vec<f64> = pairs.iter().map(|pair| of(&pair.beside).p99_ms / of(&pair.alone).p99_ms).collect();
        median(&each)
    };
    Ratios { produce: by(|live| &live.produce), tail: by(|live| &live.tail) }
}

/// Pairs, and the rate of the replay in them.
async fn pairs(
    plan: &Plan,
    world: &World,
    client: &Client,
    which: &str,
    tell: &mut impl FnMut(&str),
) -> Result<(Vec<Pair>, f64)> {
    let (mut pairs, mut rates) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        tell(&format!("round {round}: alone"));
        let alone = live(plan, client).await?;
        tell(&format!("round {round}: beside a replay that is {which}"));
        let mut reader = replay(plan, world)?;
        let (before, began) = (taken(world).await?, Instant::now());
        let beside = live(plan, client).await?;
        let (after, took) = (taken(world).await?, began.elapsed());
        ensure!(reader.try_wait()?.is_none(), "the replay ended before the measurement");
        reader.kill().await?;
        rates.push((after - before) / took.as_secs_f64());
        pairs.push(Pair { alone, beside });
    }
    Ok((pairs, median(&rates)))
}

/// Reads the history from its start, again and again, until it is killed.
fn replay(plan: &Plan, world: &World) -> Result<Child> {
    let (server, ca) = world.doors()?;
    let secs = (plan.window + WARM_UP + LINGER).as_secs() * 10;
    let mut command = Command::new(&plan.program);
    command.args(["consume", "--topic", history::TOPIC, "--again", "--secs", &secs.to_string(), "--server", &server]);
    command.arg("--ca").arg(ca).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().with_context(|| format!("can't start {}", plan.program.display()))
}

/// Bytes that were taken from the store so far; what live readers read is in memory.
async fn taken(world: &World) -> Result<f64> {
    let text = world.gateway().await?;
    let tiers = metrics::by_label(&text, "esker_cache_served_bytes_total", "tier");
    tiers.get("store").copied().context("the gateway does not say what it took from the store")
}

/// When a record was due, on its way through the log: nanoseconds since the start, big-endian, at its beginning.
const STAMP: usize = 8;

struct Clock {
    origin: Instant,
    /// Records due in [begin, end) count.
    begin: Instant,
    end: Instant,
}

impl Clock {
    fn stamp(&self, due: Instant) -> [u8; STAMP] {
        u64::try_from(due.duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX).to_be_bytes()
    }

    fn due(&self, value: &[u8]) -> Option<Instant> {
        let stamp = value.first_chunk::<STAMP>()?;
        self.origin.checked_add(Duration::from_nanos(u64::from_be_bytes(*stamp)))
    }

    fn counts(&self, due: Instant) -> bool {
        (self.begin..self.end).contains(&due)
    }
}

/// The live load once, with its readers.
async fn live(plan: &Plan, client: &Client) -> Result<Live> {
    let origin = Instant::now();
    let mut tails = Vec::new();
    for partition in 0..plan.live_partitions {
        let mut reader = client.reader(LIVE, partition, Start::Latest);
        reader.open().await?;
        tails.push(reader);
    }
    let begin = Instant::now() + WARM_UP;
    let clock = Arc::new(Clock { origin, begin, end: begin + plan.window });
    let tail = Arc::new(Mutex::new(stats::histogram()));
    let mut readers = JoinSet::new();
    for reader in tails {
        readers.spawn(follow(reader, clock.clone(), tail.clone()));
    }
    let mut producers = JoinSet::new();
    for partition in 0..plan.live_partitions {
        producers.spawn(produce(client.clone(), plan.clone(), partition, clock.clone()));
    }
    let (mut acked, mut due) = (stats::histogram(), 0);
    while let Some(done) = producers.join_next().await {
        let (seen, sent) = done.context("a producer's task failed")??;
        acked.add(seen)?;
        due += sent;
    }
    let until = Instant::now() + LINGER;
    while tail.lock().len() < due && Instant::now() < until {
        sleep(Duration::from_millis(10)).await;
    }
    readers.abort_all();
    let tail = tail.lock().clone();
    ensure!(
        acked.len() == due && tail.len() == due,
        "of {due} records {} were acked, {} read",
        acked.len(),
        tail.len()
    );
    Ok(Live { produce: Latency::of(&acked), tail: Latency::of(&tail), records: due })
}

/// Sends at an even pace; gives latencies of the measured records, and how many those are.
async fn produce(client: Client, plan: Plan, partition: u32, clock: Arc<Clock>) -> Result<(Histogram<u64>, u64)> {
    let producer = client.producer(ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() })?;
    let interval = Duration::from_secs_f64(f64::from(plan.live_partitions) / plan.rate as f64);
    // Producers take turns.
    let first = Instant::now() + interval * partition / plan.live_partitions;
    // Waited for beside the sending, in the order in which they are acked.
    let (open, mut waiting) = mpsc::channel::<(Instant, esker_client::Delivery)>(UNDER_WAY);
    let counting = clock.clone();
    let acks = tokio::spawn(async move {
        let mut seen = stats::histogram();
        while let Some((due, delivery)) = waiting.recv().await {
            delivery.await?;
            if counting.counts(due) {
                stats::observe(&mut seen, due.elapsed());
            }
        }
        Ok::<_, anyhow::Error>(seen)
    });
    let (mut number, mut counted) = (0u32, 0);
    loop {
        let due = first + interval * number;
        if due >= clock.end {
            break;
        }
        sleep_until(due).await;
        let mut value = vec![b'.'; plan.record_bytes.max(STAMP)];
        value[..STAMP].copy_from_slice(&clock.stamp(due));
        let delivery = producer.send(LIVE, Some(partition), Record::value(Bytes::from(value))).await?;
        counted += u64::from(clock.counts(due));
        number += 1;
        if open.send((due, delivery)).await.is_err() {
            break;
        }
    }
    drop(open);
    let seen = acks.await??;
    producer.close().await;
    Ok((seen, counted))
}

async fn follow(mut reader: esker_client::Reader, clock: Arc<Clock>, tail: Arc<Mutex<Histogram<u64>>>) -> Result<()> {
    // Ends by being aborted; the bound is for a cluster that died.
    let until = clock.end + 10 * LINGER;
    while let Ok(Some(fetched)) = timeout_at(until, reader.next()).await {
        let fetched = fetched?;
        let now = Instant::now();
        for record in fetched.records()? {
            let due = record?.value.as_deref().and_then(|value| clock.due(value));
            if let Some(due) = due.filter(|due| clock.counts(*due)) {
                stats::observe(&mut tail.lock(), now.saturating_duration_since(due));
            }
        }
    }
    Ok(())
}
