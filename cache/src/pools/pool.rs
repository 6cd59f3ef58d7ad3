//! One pool: memory over SSD over the store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, HybridCachePolicy,
    IoEngineConfig, PsyncIoEngineConfig, RecoverMode, S3FifoConfig,
};
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Semaphore;

use super::block::{BLOCK_MAX, Block, Want};
use super::disk::Folder;
use super::flight::{Flights, Lead, Pending};
use super::metrics::{Counters, From, PoolMetrics};
use super::pace::Pace;
use crate::config::{IoEngine, PoolConfig};
use crate::store::{Error, Kind};

/// Where the blocks of one object come from, and how to tell that they are whole.
pub trait Source: Send + Sync + 'static {
    /// Whether `bytes` are what `want` names. Called on every hit and after every fetch, so it must not block.
    fn check(&self, want: &Want, bytes: &Bytes) -> bool;

    /// Fetches neighbouring blocks, in order and each in memory of its own, in one request where possible.
    fn load(&self, wants: Vec<Want>) -> BoxFuture<'static, Result<Vec<Bytes>, Error>>;
}

/// A cache for blocks with its own bounds. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    name: &'static str,
    config: PoolConfig,
    cache: HybridCache<super::BlockKey, Block>,
    flights: Flights,
    /// One permit for each KiB on its way from the store.
    fetch: Semaphore,
    pace: Pace,
    counters: Counters,
    /// Keeps other processes out of the SSD folder.
    _folder: Option<Folder>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.inner.name)
    }
}

/// Longest wait for the SSD. Slower than this, the store is the better place.
const SSD_PATIENCE: Duration = Duration::from_secs(1);
/// Fetches of one block whose bytes fail their check, before the object itself counts as damaged: a bit may flip on
/// the way.
const FETCHES_MAX: usize = 3;
/// Memory that one cached block takes beside its bytes.
const OVERHEAD: usize = 160;
/// Space on SSD is freed in pieces of this size.
const SSD_BLOCK: usize = 16 << 20;

impl Pool {
    pub(super) async fn open(
        name: &'static str,
        config: PoolConfig,
        engine: IoEngine,
        folder: Option<Folder>,
        metrics: &PoolMetrics,
    ) -> Result<Self, Error> {
        let folder = folder.filter(|_| config.ssd.0 > 0);
        let cache = match &folder {
            Some(folder) => hybrid(name, &config, engine, &folder.pool(name)).await,
            None => None,
        };
        let (cache, folder) = match cache {
            Some(cache) => (cache, folder),
            None => (memory_only(name, &config).await?, None),
        };
        let permits = usize::try_from(config.fetch_bytes.0 >> 10).unwrap_or(usize::MAX);
        let inner = Inner {
            name,
            cache,
            flights: Flights::default(),
            fetch: Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)),
            pace: Pace::new(config.bytes_per_second.0),
            counters: metrics.of(name),
            config,
            _folder: folder,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn config(&self) -> &PoolConfig {
        &self.inner.config
    }

    /// Bytes of blocks in memory, and what each takes beside them.
    pub fn memory_bytes(&self) -> usize {
        self.inner.cache.memory().usage()
    }

    /// Whether there is an SSD tier.
    pub fn has_ssd(&self) -> bool {
        self.inner.cache.is_hybrid()
    }

    /// Blocks served so far from memory, SSD and store.
    pub fn served(&self) -> [u64; 3] {
        self.inner.counters.totals()
    }

    /// Blocks that failed their check so far, in memory, on SSD and from the store.
    pub fn bad(&self) -> [u64; 3] {
        self.inner.counters.bad_totals()
    }

    /// One block.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub async fn get(&self, want: Want, source: Arc<dyn Source>) -> Result<Bytes, Error> {
        let mut pending = self.request(vec![want], source);
        match pending.pop() {
            Some(mut pending) => pending.wait().await,
            None => Err(Error::new(Kind::Invalid, "read", "a block", "none asked for")),
        }
    }

    /// Asks for blocks of one object, in the order of their positions, without waiting. Blocks that no tier has are
    /// fetched with one request for each gapless run of them; the fetch goes on when the result is dropped, for others
    /// that joined it and for the cache.
    ///
    /// Must be called inside a runtime.
    pub fn request(&self, wants: Vec<Want>, source: Arc<dyn Source>) -> Vec<Pending> {
        let inner = &self.inner;
        let (mut pending, mut leads) = (Vec::with_capacity(wants.len()), Vec::new());
        for want in wants {
            let held = inner.cache.memory().get(&want.key).map(|entry| entry.value().0.clone());
            let mut fresh = false;
            if let Some(bytes) = held {
                if source.check(&want, &bytes) {
                    inner.counters.served(From::Memory, bytes.len());
                    pending.push(Pending::ready(bytes));
                    continue;
                }
                inner.counters.bad(From::Memory);
                // The SSD holds the same bytes. Only the store has better ones, and they replace these.
                fresh = true;
            }
            let (waiting, lead) = inner.flights.join(want.key);
            pending.push(waiting);
            match lead {
                Some(lead) => leads.push(Job { want, lead, fresh }),
                None => drop(inner.counters.joined.inc()),
            }
        }
        if !leads.is_empty() {
            let pool = self.clone();
            tokio::spawn(async move { pool.serve(leads, source).await });
        }
        pending
    }

    async fn serve(&self, jobs: Vec<Job>, source: Arc<dyn Source>) {
        let bytes: u64 = jobs.iter().map(|job| job.want.length as u64).sum();
        self.inner.pace.pass(bytes).await;
        let found = join_all(jobs.into_iter().map(|job| self.look_on_ssd(job, &source))).await;
        let missing: Vec<Job> = found.into_iter().flatten().collect();
        join_all(runs(missing, self.run_max()).into_iter().map(|run| self.fetch(run, &source))).await;
        self.inner.counters.memory.set(self.memory_bytes() as i64);
    }

    /// Most bytes of one request: four of them share the budget, or latency hides the line.
    fn run_max(&self) -> u64 {
        (self.inner.config.fetch_bytes.0 / 4).clamp(1 << 20, BLOCK_MAX as u64)
    }

    /// Finishes the job from the SSD, or gives it back.
    async fn look_on_ssd(&self, job: Job, source: &Arc<dyn Source>) -> Option<Job> {
        let inner = &self.inner;
        if job.fresh || !inner.cache.is_hybrid() || !inner.cache.storage().may_contains(&job.want.key) {
            return Some(job);
        }
        match tokio::time::timeout(SSD_PATIENCE, inner.cache.get(&job.want.key)).await {
            Ok(Ok(Some(entry))) => {
                let bytes = entry.value().0.clone();
                if source.check(&job.want, &bytes) {
                    inner.counters.served(From::Ssd, bytes.len());
                    job.lead.finish(Ok(bytes));
                    return None;
                }
                inner.counters.bad(From::Ssd);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                inner.counters.faults.inc();
                tracing::debug!(pool = inner.name, %error, "SSD cache failed, served from the store");
            }
            Err(_) => drop(inner.counters.faults.inc()),
        }
        Some(job)
    }

    /// Fetches neighbours from the store and keeps them.
    async fn fetch(&self, jobs: Vec<Job>, source: &Arc<dyn Source>) {
        let inner = &self.inner;
        let wants: Vec<Want> = jobs.iter().map(|job| job.want).collect();
        let bytes: usize = wants.iter().map(|want| want.length).sum();
        let all = u32::try_from(inner.config.fetch_bytes.0 >> 10).unwrap_or(u32::MAX);
        let permits = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).clamp(1, all.max(1));
        let Ok(_permits) = inner.fetch.acquire_many(permits).await else { return };
        inner.counters.fetching.inc_by(bytes as i64);
        let result = source.load(wants.clone()).await;
        let mut blocks = match result {
            Ok(blocks) => blocks.into_iter(),
            Err(error) => {
                inner.counters.fetching.dec_by(bytes as i64);
                jobs.into_iter().for_each(|job| job.lead.finish(Err(error.clone())));
                return;
            }
        };
        for job in jobs {
            let result = self.good(&job.want, blocks.next().unwrap_or_default(), source).await;
            if let Ok(block) = &result {
                inner.counters.served(From::Store, block.len());
                inner.cache.insert(job.want.key, Block(block.clone()));
            }
            job.lead.finish(result);
        }
        inner.counters.fetching.dec_by(bytes as i64);
    }

    /// The block if it passes its check, or as it comes when it is fetched again, alone: the others of its run may be
    /// good.
    async fn good(&self, want: &Want, mut block: Bytes, source: &Arc<dyn Source>) -> Result<Bytes, Error> {
        for fetch in 1.. {
            if block.len() == want.length && source.check(want, &block) {
                return Ok(block);
            }
            self.inner.counters.bad(From::Store);
            if fetch == FETCHES_MAX {
                break;
            }
            block = source.load(vec![*want]).await?.into_iter().next().unwrap_or_default();
        }
        let detail = format!("bytes {}..{} fail their check", want.start, want.end());
        Err(Error::new(Kind::Damaged, "read", "a block", detail))
    }

    /// Waits until the SSD has what was given to it so far. For tests and measurements.
    pub async fn settle(&self) {
        self.inner.cache.storage().wait().await;
    }

    pub(super) async fn close(&self) {
        if let Err(error) = self.inner.cache.close().await {
            tracing::warn!(pool = self.inner.name, %error, "the cache did not close cleanly: it will be colder");
        }
    }
}

/// A block that this task must find.
struct Job {
    want: Want,
    lead: Lead,
    /// The caches hold something wrong under this key.
    fresh: bool,
}

/// Splits into gapless runs of at most `most` bytes, or one block.
fn runs(jobs: Vec<Job>, most: u64) -> Vec<Vec<Job>> {
    let mut runs: Vec<Vec<Job>> = Vec::new();
    for job in jobs {
        let joins = runs.last().and_then(|run| Some((run.first()?, run.last()?))).is_some_and(|(first, last)| {
            last.want.end() == job.want.start && job.want.end().saturating_sub(first.want.start) <= most
        });
        match runs.last_mut() {
            Some(run) if joins => run.push(job),
            _ => runs.push(vec![job]),
        }
    }
    runs
}

fn shards(memory: usize) -> usize {
    // Each shard is bounded on its own, so it must hold a good number of the largest usual blocks.
    (memory / (32 << 20)).clamp(1, 8)
}

type Built = HybridCache<super::BlockKey, Block>;

async fn memory_only(name: &'static str, config: &PoolConfig) -> Result<Built, Error> {
    let memory = config.memory.as_usize();
    let built = HybridCacheBuilder::new()
        .with_name(name)
        .memory(memory)
        .with_shards(shards(memory))
        .with_eviction_config(S3FifoConfig::default())
        .with_weighter(|_, block: &Block| block.0.len() + OVERHEAD)
        .storage()
        .build()
        .await;
    built.map_err(|e| Error::new(Kind::Disk, "open", "the cache", e.to_string()))
}

/// None if the SSD can't be used.
async fn hybrid(name: &'static str, config: &PoolConfig, engine: IoEngine, dir: &Path) -> Option<Built> {
    if engine == IoEngine::IoUring {
        match build(name, config, io_uring(), dir).await {
            Ok(cache) => return Some(cache),
            Err(error) => tracing::warn!(pool = name, %error, "no io_uring here, using ordinary reads and writes"),
        }
    }
    match build(name, config, Box::new(PsyncIoEngineConfig::new()), dir).await {
        Ok(cache) => Some(cache),
        Err(error) => {
            tracing::warn!(pool = name, %error, "the cache can't use its SSD folder: it works in memory only");
            None
        }
    }
}

#[cfg(target_os = "linux")]
fn io_uring() -> Box<dyn IoEngineConfig> {
    Box::new(foyer::UringIoEngineConfig::new())
}

#[cfg(not(target_os = "linux"))]
fn io_uring() -> Box<dyn IoEngineConfig> {
    Box::new(PsyncIoEngineConfig::new())
}

async fn build(
    name: &'static str,
    config: &PoolConfig,
    engine: Box<dyn IoEngineConfig>,
    dir: &Path,
) -> foyer::Result<Built> {
    let memory = config.memory.as_usize();
    let queue = config.write_queue.as_usize();
    let capacity = config.ssd.as_usize() / SSD_BLOCK * SSD_BLOCK;
    let device = FsDeviceBuilder::new(dir).with_capacity(capacity).build()?;
    let storage = BlockEngineConfig::new(device)
        .with_block_size(SSD_BLOCK)
        .with_buffer_pool_size(queue)
        .with_submit_queue_size_threshold(queue);
    HybridCacheBuilder::new()
        .with_name(name)
        // Once per block, by the fetch that brought it: after a kill -9 the SSD is still warm.
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .with_flush_on_close(false)
        .memory(memory)
        .with_shards(shards(memory))
        .with_eviction_config(S3FifoConfig::default())
        .with_weighter(|_, block: &Block| block.0.len() + OVERHEAD)
        .storage()
        .with_io_engine_config(engine)
        .with_engine_config(storage)
        .with_recover_mode(RecoverMode::Quiet)
        .build()
        .await
}
