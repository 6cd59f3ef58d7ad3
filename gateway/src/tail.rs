//! The tail cache: the newest entries of all partitions that this gateway writes, under one byte budget.
//!
//! An entry is put in when it is sent to the bookies and may be read once the high watermark has passed it: the
//! reader brings the watermark, the cache knows nothing of it. Oldest entries go first, over all partitions, so a
//! busy partition can push out a quiet one; readers then go to the bookies. Nothing here is needed for safety.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use esker_types::{Offset, PartitionId};

/// Batches of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedEntry {
    pub base_offset: Offset,
    /// Exclusive.
    pub end_offset: Offset,
    /// Largest record timestamp.
    pub max_ts: i64,
    /// Whole record batches.
    pub batches: Bytes,
}

/// See the module. One lock per shard, held for a few map operations and never across an await.
pub struct TailCache {
    shards: Box<[Mutex<Shard>]>,
    /// Bytes of batches over all shards; may pass the budget by one entry per shard for a moment.
    used: AtomicUsize,
    budget: usize,
    next_age: AtomicU64,
}

#[derive(Default)]
struct Shard {
    partitions: HashMap<PartitionId, VecDeque<(u64, CachedEntry)>>,
    /// Insertion order; ages that were dropped otherwise are skipped when they come up.
    order: VecDeque<(u64, PartitionId)>,
    /// Length of `order` at which stale ages are looked for.
    sweep_at: usize,
}

impl Shard {
    /// Ages of entries that were dropped out of order must not pile up while the budget is far away.
    fn drop_stale_ages(&mut self) {
        let live: usize =
            if self.order.len() < self.sweep_at { return } else { self.partitions.values().map(VecDeque::len).sum() };
        if self.order.len() > 2 * live {
            let partitions = &self.partitions;
            self.order.retain(|(age, partition)| {
                partitions.get(partition).is_some_and(|held| held.binary_search_by_key(age, |(a, _)| *a).is_ok())
            });
        }
        self.sweep_at = (2 * self.order.len()).max(1024);
    }
}

/// Room an entry takes beside its batches; keeps a flood of tiny entries honest.
const ENTRY_OVERHEAD: usize = 128;

fn cost(entry: &CachedEntry) -> usize {
    entry.batches.len() + ENTRY_OVERHEAD
}

impl TailCache {
    pub fn new(budget: usize, shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Mutex::default()).collect();
        Self { shards, used: AtomicUsize::new(0), budget, next_age: AtomicU64::new(0) }
    }

    /// Adds the next entry of a partition. One that begins below the end of what is held replaces that end (the
    /// same offsets were written again in a new segment); one that leaves a hole replaces everything.
    pub fn insert(&self, partition: PartitionId, entry: CachedEntry) {
        let (age, added) = (self.next_age.fetch_add(1, Ordering::Relaxed), cost(&entry));
        // Counted before it is visible, so that whoever drops it never takes the count below zero.
        self.used.fetch_add(added, Ordering::Relaxed);
        let mut freed = 0;
        {
            let mut shard = self.shard(partition).lock();
            let held = shard.partitions.entry(partition).or_default();
            while held.back().is_some_and(|(_, last)| last.end_offset > entry.base_offset) {
                freed += held.pop_back().map_or(0, |(_, gone)| cost(&gone));
            }
            if held.back().is_some_and(|(_, last)| last.end_offset < entry.base_offset) {
                freed += held.drain(..).map(|(_, gone)| cost(&gone)).sum::<usize>();
            }
            held.push_back((age, entry));
            shard.order.push_back((age, partition));
            shard.drop_stale_ages();
        }
        self.used.fetch_sub(freed, Ordering::Relaxed);
        while self.used.load(Ordering::Relaxed) > self.budget && self.evict_oldest() {}
    }

    /// Entries from the one that holds `offset` on, up to `limit` (exclusive, the high watermark) and about
    /// `max_bytes`, but at least one. None: not cached, ask the bookies. The first may begin below `offset`.
    pub fn read(
        &self,
        partition: PartitionId,
        offset: Offset,
        limit: Offset,
        max_bytes: usize,
    ) -> Option<Vec<CachedEntry>> {
        let shard = self.shard(partition).lock();
        let held = shard.partitions.get(&partition)?;
        let first = held.partition_point(|(_, e)| e.end_offset <= offset);
        if held.get(first)?.1.base_offset > offset {
            return None;
        }
        let mut bytes = 0;
        let found: Vec<CachedEntry> = held
            .range(first..)
            .map(|(_, entry)| entry)
            .take_while(|entry| {
                let fits = bytes == 0 || bytes + entry.batches.len() <= max_bytes;
                bytes += entry.batches.len();
                fits && entry.end_offset <= limit
            })
            .cloned()
            .collect();
        (!found.is_empty()).then_some(found)
    }

    /// The partition is no longer ours: what lies above the watermark may never become true.
    pub fn forget(&self, partition: PartitionId) {
        let gone = self.shard(partition).lock().partitions.remove(&partition);
        let freed: usize = gone.iter().flatten().map(|(_, entry)| cost(entry)).sum();
        self.used.fetch_sub(freed, Ordering::Relaxed);
    }

    /// Bytes held, overhead included.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn shard(&self, partition: PartitionId) -> &Mutex<Shard> {
        &self.shards[(partition.0 % self.shards.len() as u64) as usize]
    }

    /// False when there is nothing left to drop.
    fn evict_oldest(&self) -> bool {
        let age_of = |shard: &Mutex<Shard>| shard.lock().order.front().map(|(age, _)| *age);
        let oldest = self.shards.iter().filter_map(|s| age_of(s).map(|age| (age, s))).min_by_key(|(age, _)| *age);
        let Some((_, shard)) = oldest else { return false };
        let mut shard = shard.lock();
        let Some((age, partition)) = shard.order.pop_front() else { return true };
        let Some(held) = shard.partitions.get_mut(&partition) else { return true };
        if held.front().is_some_and(|(front, _)| *front == age) {
            let freed = held.pop_front().map_or(0, |(_, gone)| cost(&gone));
            self.used.fetch_sub(freed, Ordering::Relaxed);
        }
        if held.is_empty() {
            shard.partitions.remove(&partition);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(4);

    fn entry(base: Offset, end: Offset, len: usize) -> CachedEntry {
        CachedEntry { base_offset: base, end_offset: end, max_ts: 0, batches: Bytes::from(vec![base as u8; len]) }
    }

    fn bases(found: Option<Vec<CachedEntry>>) -> Vec<Offset> {
        found.into_iter().flatten().map(|e| e.base_offset).collect()
    }

    #[test]
    fn reads_stop_at_watermark_and_size_but_give_one_entry() {
        let cache = TailCache::new(1 << 20, 2);
        for i in 0..10 {
            cache.insert(P, entry(i * 10, i * 10 + 10, 100));
        }
        assert_eq!(bases(cache.read(P, 25, 50, 1 << 20)), [20, 30, 40]);
        assert_eq!(bases(cache.read(P, 25, 100, 1)), [20]);
        assert_eq!(bases(cache.read(P, 25, 29, 1 << 20)), Vec::<Offset>::new(), "half an entry is not below the mark");
        assert_eq!(cache.read(PartitionId(6), 0, 100, 100), None);
    }

    #[test]
    fn rewritten_offsets_replace_and_holes_start_anew() {
        let cache = TailCache::new(1 << 20, 1);
        for i in 0..4 {
            cache.insert(P, entry(i * 10, i * 10 + 10, 1));
        }
        cache.insert(P, entry(20, 40, 7));
        assert_eq!(bases(cache.read(P, 0, 100, 1 << 20)), [0, 10, 20]);
        cache.insert(P, entry(60, 70, 1));
        assert_eq!(bases(cache.read(P, 60, 100, 1 << 20)), [60]);
        assert_eq!(cache.read(P, 30, 100, 1 << 20), None);
        assert_eq!(cache.used(), 1 + ENTRY_OVERHEAD);
    }

    #[test]
    fn the_budget_holds_over_partitions_and_the_oldest_go_first() {
        let cache = TailCache::new(10 * (1000 + ENTRY_OVERHEAD), 3);
        for i in 0..100 {
            cache.insert(PartitionId(i as u64 % 7), entry(i, i + 1, 1000));
            assert!(cache.used() <= 10 * (1000 + ENTRY_OVERHEAD));
        }
        assert_eq!(cache.used(), 7 * (1000 + ENTRY_OVERHEAD), "every insert left a hole in its partition");
        cache.insert(PartitionId(1), entry(0, 1, 20_000));
        assert!(cache.used() <= 10 * (1000 + ENTRY_OVERHEAD), "too large for the budget: not kept");
        for i in 0..7 {
            cache.forget(PartitionId(i));
        }
        assert_eq!(cache.used(), 0);
    }
}
