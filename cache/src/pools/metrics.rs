//! What is told about the pools.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tier {
    pool: &'static str,
    tier: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    pool: &'static str,
}

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct PoolMetrics {
    blocks: Family<Tier, Counter>,
    bytes: Family<Tier, Counter>,
    bad: Family<Tier, Counter>,
    faults: Family<Name, Counter>,
    joined: Family<Name, Counter>,
    fetching: Family<Name, Gauge>,
    memory: Family<Name, Gauge>,
}

impl PoolMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let to = registry.sub_registry_with_prefix("esker_cache");
        let m = Self::default();
        to.register("blocks", "Blocks served, by where they were: memory, ssd, store", m.blocks.clone());
        to.register_with_unit("served", "Bytes of blocks served, by where they were", Unit::Bytes, m.bytes.clone());
        to.register("bad_blocks", "Blocks that failed their check, by where they were", m.bad.clone());
        to.register("faults", "Failures inside the cache, served as misses", m.faults.clone());
        to.register("joined", "Requests that waited for another's fetch of the same block", m.joined.clone());
        to.register_with_unit("fetching", "Bytes on their way from the store", Unit::Bytes, m.fetching.clone());
        to.register_with_unit("memory", "Bytes held in memory", Unit::Bytes, m.memory.clone());
        m
    }

    pub(crate) fn of(&self, pool: &'static str) -> Counters {
        let tier = |family: &Family<Tier, Counter>| {
            ["memory", "ssd", "store"].map(|tier| family.get_or_create(&Tier { pool, tier }).clone())
        };
        let name = Name { pool };
        Counters {
            blocks: tier(&self.blocks),
            bytes: tier(&self.bytes),
            bad: tier(&self.bad),
            faults: self.faults.get_or_create(&name).clone(),
            joined: self.joined.get_or_create(&name).clone(),
            fetching: self.fetching.get_or_create(&name).clone(),
            memory: self.memory.get_or_create(&name).clone(),
        }
    }
}

/// Where a block was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Memory,
    Ssd,
    Store,
}

/// One pool's series, looked up once.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    blocks: [Counter; 3],
    bytes: [Counter; 3],
    bad: [Counter; 3],
    pub faults: Counter,
    pub joined: Counter,
    pub fetching: Gauge,
    pub memory: Gauge,
}

impl Counters {
    pub(crate) fn served(&self, from: From, bytes: usize) {
        self.blocks[from as usize].inc();
        self.bytes[from as usize].inc_by(bytes as u64);
    }

    pub(crate) fn bad(&self, from: From) {
        self.bad[from as usize].inc();
    }

    /// Blocks served so far from memory, SSD and store.
    pub(crate) fn totals(&self) -> [u64; 3] {
        [0, 1, 2].map(|i| self.blocks[i].get())
    }

    pub(crate) fn bad_totals(&self) -> [u64; 3] {
        [0, 1, 2].map(|i| self.bad[i].get())
    }
}
