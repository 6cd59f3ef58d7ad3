use esker_cache::{Pools, Reader, Store};
use esker_types::ClusterId;
use prometheus_client::registry::Registry;

use super::ObjectsConfig;

/// The cluster's bucket, as this process uses it.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub store: Store,
    pub reader: Reader,
    pub cluster: ClusterId,
    pools: Pools,
}

impl Bucket {
    /// None when no bucket is configured. A store that can't be reached is no reason not to start: offload and reads
    /// of old segments wait for it, produce does not.
    pub async fn open(
        config: &ObjectsConfig,
        cluster: ClusterId,
        registry: &mut Registry,
    ) -> Result<Option<Self>, esker_cache::Error> {
        if config.url.is_empty() {
            return Ok(None);
        }
        let store =
            Store::open(&config.url, config.cache.store.clone(), esker_cache::store::StoreMetrics::register(registry))?;
        let pools = Pools::open(&config.cache, &esker_cache::pools::PoolMetrics::register(registry)).await?;
        let reader = Reader::new(store.clone(), pools.clone(), cluster, config.cache.index_memory);
        Ok(Some(Self { store, reader, cluster, pools }))
    }

    /// Bytes of blocks, and of decoded pages and footers, in memory.
    pub fn memory(&self) -> (usize, usize) {
        (self.pools.tail.memory_bytes() + self.pools.scan.memory_bytes(), self.reader.index_bytes())
    }

    /// Writes out what the caches keep for the next start.
    pub async fn close(&self) {
        self.pools.close().await;
    }
}
