//! Blocks kept in memory and on SSD. Two pools, so that a replay from offset 0 never evicts what live consumers read.
//!
//! A block is immutable and its key is never reused, so a cache can be cold but not stale. Whatever goes wrong inside
//! a cache is a miss, and every block is checked by its reader's own checksum on every hit.

mod block;
mod disk;
mod flight;
mod metrics;
mod pace;
mod pool;

use crate::config::Config;
use crate::store::Error;

pub use block::{BlockKey, Want};
pub use flight::Pending;
pub use metrics::PoolMetrics;
pub use pool::{Pool, Source};

/// The two pools of a process.
#[derive(Clone, Debug)]
pub struct Pools {
    /// For live consumers.
    pub tail: Pool,
    /// For replays and other scans.
    pub scan: Pool,
}

impl Pools {
    /// Opens both, warm with what their SSD tiers still hold. A disk that can't be used leaves a pool in memory only.
    ///
    /// # Errors
    /// Only those of memory itself; none are known.
    pub async fn open(config: &Config, metrics: &PoolMetrics) -> Result<Self, Error> {
        let folder = disk::Folder::open(&config.ssd_dir);
        let tail = Pool::open("tail", config.tail.clone(), config.io_engine, folder.clone(), metrics).await?;
        let scan = Pool::open("scan", config.scan.clone(), config.io_engine, folder, metrics).await?;
        Ok(Self { tail, scan })
    }

    /// Writes out what waits for the SSD. Without it the pools are only colder after a restart.
    pub async fn close(&self) {
        self.tail.close().await;
        self.scan.close().await;
    }
}
