//! The pools: one fetch for many, separate budgets, warm after a restart, and never a wrong block.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use esker_cache::pools::{PoolMetrics, Source, Want};
use esker_cache::store::Error;
use esker_cache::{Config, IoEngine, Kind, Pools};
use esker_types::units::ByteCount;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::support::noise;

const BLOCK: usize = 100_000;

/// An object of numbered blocks that counts its fetches and can lie.
#[derive(Default)]
struct Object {
    fetches: AtomicUsize,
    blocks: AtomicUsize,
    /// Fetches that return damaged bytes before good ones come.
    lies: AtomicUsize,
    fail: Mutex<Option<Error>>,
    /// Fetches wait while this is locked.
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Checks that fail although the bytes are good, as if what is cached were damaged.
    distrust: AtomicUsize,
}

fn block(start: u64) -> Bytes {
    noise(BLOCK, start + 1)
}

fn wants(range: std::ops::Range<u64>) -> Vec<Want> {
    range.map(|n| Want::new("object", n * BLOCK as u64, BLOCK, 1)).collect()
}

fn take(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}

/// A handle, because fetches outlive the call that starts them.
struct Handle(Arc<Object>);

impl Source for Handle {
    fn check(&self, want: &Want, bytes: &Bytes) -> bool {
        !take(&self.0.distrust) && *bytes == block(want.start)
    }

    fn load(&self, wants: Vec<Want>) -> BoxFuture<'static, Result<Vec<Bytes>, Error>> {
        let object = self.0.clone();
        async move {
            object.fetches.fetch_add(1, Ordering::Relaxed);
            object.blocks.fetch_add(wants.len(), Ordering::Relaxed);
            let _open = object.gate.lock().await;
            if let Some(error) = object.fail.lock().clone() {
                return Err(error);
            }
            let lie = take(&object.lies);
            Ok(wants.iter().map(|want| if lie { noise(BLOCK, 999_999) } else { block(want.start) }).collect())
        }
        .boxed()
    }
}

fn config(dir: Option<&Path>) -> Config {
    let mut config = Config::default();
    for pool in [&mut config.tail, &mut config.scan] {
        pool.memory = ByteCount::mib(4);
        pool.ssd = if dir.is_some() { ByteCount::mib(64) } else { ByteCount(0) };
    }
    config.ssd_dir = dir.map(Path::to_owned).unwrap_or_default();
    config
}

async fn open(config: &Config) -> Pools {
    Pools::open(config, &PoolMetrics::default()).await.expect("opened")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fetch_serves_all_that_wait_and_neighbours_share_a_request() {
    let (pools, object) = (open(&config(None)).await, Arc::new(Object::default()));
    let gate = object.gate.clone().lock_owned().await;
    let source: Arc<dyn Source> = Arc::new(Handle(object.clone()));
    let mut pending: Vec<_> = (0..64).map(|_| pools.tail.request(wants(0..8), source.clone())).collect();
    drop(gate);
    for all in &mut pending {
        for (n, one) in all.iter_mut().enumerate() {
            assert_eq!(one.wait().await.expect("fetched"), block(n as u64 * BLOCK as u64));
        }
    }
    assert_eq!((object.fetches.load(Ordering::Relaxed), object.blocks.load(Ordering::Relaxed)), (1, 8));
    // A hole of blocks in memory splits the request; the rest still goes in one piece each.
    let mut more = pools.tail.request(wants(4..12), source.clone());
    for one in &mut more {
        one.wait().await.expect("fetched");
    }
    assert_eq!((object.fetches.load(Ordering::Relaxed), object.blocks.load(Ordering::Relaxed)), (2, 12));
    assert_eq!(pools.tail.served(), [4, 0, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_does_not_stop_the_fetch_for_the_others() {
    let (pools, object) = (open(&config(None)).await, Arc::new(Object::default()));
    let gate = object.gate.clone().lock_owned().await;
    let source: Arc<dyn Source> = Arc::new(Handle(object.clone()));
    let first = pools.tail.request(wants(0..1), source.clone());
    let mut second = pools.tail.request(wants(0..1), source);
    drop(first);
    drop(gate);
    assert_eq!(second[0].wait().await.expect("fetched"), block(0));
    assert_eq!(object.fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_evicts_nothing_of_the_tail() {
    let (pools, object) = (open(&config(None)).await, Arc::new(Object::default()));
    let source: Arc<dyn Source> = Arc::new(Handle(object.clone()));
    for want in wants(0..10) {
        pools.tail.get(want, source.clone()).await.expect("fetched");
    }
    for want in wants(100..400) {
        pools.scan.get(want, source.clone()).await.expect("fetched");
    }
    for want in wants(0..10) {
        pools.tail.get(want, source.clone()).await.expect("still there");
    }
    assert_eq!(pools.tail.served(), [10, 0, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_the_ssd_warm() {
    for engine in [IoEngine::Psync, IoEngine::IoUring] {
        let dir = tempfile::tempdir().expect("temporary folder");
        let config = Config { io_engine: engine, ..config(Some(dir.path())) };
        let object = Arc::new(Object::default());
        let source: Arc<dyn Source> = Arc::new(Handle(object.clone()));
        let pools = open(&config).await;
        assert!(pools.scan.has_ssd());
        for want in wants(0..50) {
            pools.scan.get(want, source.clone()).await.expect("fetched");
        }
        pools.scan.settle().await;
        pools.close().await;
        drop(pools);

        let pools = open(&config).await;
        for want in wants(0..50) {
            assert_eq!(pools.scan.get(want, source.clone()).await.expect("cached"), block(want.start));
        }
        let [_, ssd, store] = pools.scan.served();
        assert!(ssd > 40 && ssd + store == 50, "{engine:?}: {ssd} from SSD, {store} from the store");
        pools.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_ssd_is_a_miss() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let config = config(Some(dir.path()));
    let source: Arc<dyn Source> = Arc::new(Handle(Arc::new(Object::default())));
    let pools = open(&config).await;
    for want in wants(0..50) {
        pools.scan.get(want, source.clone()).await.expect("fetched");
    }
    pools.scan.settle().await;
    pools.close().await;
    drop(pools);
    flip_everywhere(dir.path());

    let pools = open(&config).await;
    for want in wants(0..50) {
        assert_eq!(pools.scan.get(want, source.clone()).await.expect("fetched again"), block(want.start));
    }
    pools.close().await;
}

/// One bit in every 64 KiB of every file.
fn flip_everywhere(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("readable").flatten() {
        if entry.path().is_dir() {
            flip_everywhere(&entry.path());
            continue;
        }
        let mut bytes = std::fs::read(entry.path()).expect("readable");
        bytes.iter_mut().skip(10_000).step_by(65_536).for_each(|byte| *byte ^= 4);
        std::fs::write(entry.path(), bytes).expect("writable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_block_that_fails_its_check_is_fetched_anew_and_replaced() {
    let (pools, object) = (open(&config(None)).await, Arc::new(Object::default()));
    let source: Arc<dyn Source> = Arc::new(Handle(object.clone()));
    let want = wants(0..1)[0];
    pools.tail.get(want, source.clone()).await.expect("fetched");
    object.distrust.store(1, Ordering::Relaxed);
    assert_eq!(pools.tail.get(want, source.clone()).await.expect("fetched anew"), block(0));
    assert_eq!(pools.tail.get(want, source).await.expect("in memory"), block(0));
    assert_eq!((pools.tail.served(), pools.tail.bad()), ([1, 0, 2], [1, 0, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_on_the_way_is_fetched_again_and_a_damaged_object_is_an_error() {
    let (pools, object) = (open(&config(None)).await, Arc::new(Object::default()));
    let source: Arc<dyn Source> = Arc::new(Handle(object.clone()));
    object.lies.store(1, Ordering::Relaxed);
    let mut all = pools.tail.request(wants(0..3), source.clone());
    for (n, one) in all.iter_mut().enumerate() {
        assert_eq!(one.wait().await.expect("fetched again"), block(n as u64 * BLOCK as u64));
    }
    object.lies.store(usize::MAX, Ordering::Relaxed);
    let error = pools.tail.get(wants(9..10)[0], source.clone()).await.expect_err("damaged");
    assert_eq!(error.kind, Kind::Damaged, "{error}");
    object.lies.store(0, Ordering::Relaxed);
    assert_eq!(pools.tail.get(wants(9..10)[0], source).await.expect("errors are not kept"), block(9 * BLOCK as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_store_reach_all_that_wait_and_are_not_kept() {
    let (pools, object) = (open(&config(None)).await, Arc::new(Object::default()));
    let source: Arc<dyn Source> = Arc::new(Handle(object.clone()));
    *object.fail.lock() = Some(Error::new(Kind::Unavailable, "read", "object", ""));
    let gate = object.gate.clone().lock_owned().await;
    let mut pending: Vec<_> = (0..5).flat_map(|_| pools.tail.request(wants(0..2), source.clone())).collect();
    drop(gate);
    for one in &mut pending {
        assert_eq!(one.wait().await.expect_err("out").kind, Kind::Unavailable);
    }
    *object.fail.lock() = None;
    assert_eq!(pools.tail.get(wants(0..1)[0], source).await.expect("healed"), block(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_ssd_folder_leaves_memory() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("writable");
    let pools = open(&config(Some(&file))).await;
    assert!(!pools.tail.has_ssd());
    let source: Arc<dyn Source> = Arc::new(Handle(Arc::new(Object::default())));
    assert_eq!(pools.tail.get(wants(0..1)[0], source).await.expect("fetched"), block(0));
}
