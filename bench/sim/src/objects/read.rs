//! Readers of history: manifest, footer, block, cache, as a gateway serves them.

use std::collections::BTreeMap;

use bytes::Bytes;
use esker_cache_core::manifest::{LeafEntry, Page, root_ref, segment_at};
use esker_cache_core::object::{Footer, Identity, unpack_block, verify_block, verify_cached};
use esker_metadata_core::{Command, ObjectPlace, Pin, RootPlace};
use esker_types::{Entry, ObjectKey, Offset, PartitionId, Rules, SegmentId};

use super::bucket::{Got, damaged};
use super::format;
use super::pages::Miss;
use crate::client::{Fetched, PendingFetch, checked_records_of};
use crate::oracle::Value;
use crate::plan::Fault;
use crate::sometimes::Case;
use crate::world::{What, World};

/// Blocks that a gateway keeps.
const CACHED_MAX: usize = 16;

/// Stored blocks by object and first byte.
pub type Cache = BTreeMap<(ObjectKey, u64), Bytes>;

/// A read that a gateway is about to make.
#[derive(Clone, Debug)]
pub struct BucketRead {
    pub gateway: usize,
    pub life: u64,
    pub partition: PartitionId,
    pub fetch: PendingFetch,
    pub of: Of,
}

#[derive(Clone, Debug)]
pub enum Of {
    /// A segment whose place metadata knew.
    Object(SegmentId, ObjectPlace),
    /// Whatever the manifest finds.
    Root(RootPlace),
}

impl<R: Rules> World<R> {
    /// What the gateway knows now is used some time later.
    pub fn read_from_bucket(&mut self, g: usize, partition: PartitionId, fetch: PendingFetch, of: Of) {
        let (Some(plan), Some(hosted)) = (self.plan.objects, self.gateways[g].hosted.get(&partition)) else { return };
        let life = hosted.life;
        if let Of::Root(root) = &of
            && self.objects.rng.chance(80)
        {
            self.pin(partition, root.ver);
        }
        let after = self.objects.rng.latency_ns(plan.request_us * 2);
        let read = BucketRead { gateway: g, life, partition, fetch, of };
        self.queue.after_ns(after, What::BucketRead(Box::new(read)));
    }

    /// Somebody attaches to a version for a while. Refused if it is not the current one any more.
    fn pin(&mut self, partition: PartitionId, root_ver: u64) {
        let Some(plan) = self.plan.objects else { return };
        self.objects.next_pin += 1;
        let ttl_ms = (plan.unit_ms as u64 * self.objects.rng.range(5, 40)) as u32;
        let pin = Pin { partition, id: self.objects.next_pin, root_ver, ttl_ms };
        if self.apply_now(&[Command::Pin(pin)]).first().is_some_and(Result::is_ok) {
            self.cases.hit(Case::Pinned);
        }
    }

    pub fn on_bucket_read(&mut self, read: BucketRead) {
        let BucketRead { gateway, life, partition, fetch, of } = read;
        if self.gateways[gateway].hosted.get(&partition).is_none_or(|hosted| hosted.life != life) {
            return;
        }
        let fetched = match self.read_history(gateway, partition, &fetch, &of) {
            Some(records) if !records.is_empty() => {
                self.cases.hit(Case::ReadFromBucket);
                Fetched::Records(records)
            }
            // Acked records are somewhere: a reason to ask again, never "not there".
            _ => Fetched::Later,
        };
        self.answer_fetch(gateway, fetch.reader, fetch.question, fetched);
    }

    fn read_history(
        &mut self,
        g: usize,
        partition: PartitionId,
        fetch: &PendingFetch,
        of: &Of,
    ) -> Option<Vec<(Offset, Value)>> {
        let (segment, place, end) = match of {
            Of::Object(segment, place) => (*segment, place.clone(), fetch.end_offset),
            Of::Root(root) => {
                let found = self.find(root, fetch.offset);
                if let Err(miss) = &found {
                    self.page_missed(Some(root), miss);
                }
                let entry = found.ok()??;
                (SegmentId { partition, n: entry.n }, entry.place, entry.end_offset)
            }
        };
        let (now, name) = (self.queue.now(), place.key.to_string());
        let objects = &mut self.objects;
        let object = match objects.bucket.get(now, &name, &mut objects.rng) {
            Got::Failed => return None,
            Got::NotFound => {
                self.object_missed(partition, of, &place);
                return None;
            }
            Got::Bytes(object) => object,
        };
        let identity = Identity { cluster: self.cluster_id(), key: place.key };
        let footer = format::footer(identity, segment, &place, &object)?;
        let number = footer.block_of(fetch.offset)?;
        let stored = self.block(g, &identity, segment, &footer, number, &object)?;
        let block = unpack_block(segment, number, &footer.blocks[number as usize], &stored).ok()?;
        let mut records = Vec::new();
        for entry in block.entries() {
            let entry: Entry = entry.ok()?;
            match checked_records_of(&entry) {
                Some(of_entry) => records.extend(of_entry),
                None => {
                    self.oracle.fail("I13", format!("{segment}: bytes are served that do not verify"));
                    return None;
                }
            }
        }
        records.retain(|(at, _)| (fetch.offset..end).contains(at));
        Some(records)
    }

    fn find(&mut self, root: &RootPlace, offset: Offset) -> Result<Option<LeafEntry>, Miss> {
        let top = self.fetch_page(&root_ref(root))?;
        let Page::Root(page) = &*top else { return Ok(None) };
        self.ask_pages(|pages| segment_at(page, offset, pages))
    }

    /// Block `number` from the gateway's cache, else from the object, verified either way.
    fn block(
        &mut self,
        g: usize,
        identity: &Identity,
        segment: SegmentId,
        footer: &Footer,
        number: u32,
        object: &Bytes,
    ) -> Option<Bytes> {
        let info = &footer.blocks[number as usize];
        let at = (identity.key, info.position);
        if let Some(cached) = self.gateways[g].cache.get(&at).cloned() {
            let rots = !self.healed && self.plan.faults.has(Fault::CacheRot) && self.objects.rng.chance(300);
            let cached = if rots { damaged(&cached, &mut self.objects.rng) } else { cached };
            if verify_cached::<R>(identity, segment, number, info, &cached) {
                self.cases.hit(Case::ReadFromCache);
                return Some(cached);
            }
            self.cases.hit(Case::CacheDamaged);
        }
        let range = info.position as usize..info.position as usize + info.stored as usize;
        let stored = object.get(range.clone()).map(|_| object.slice(range))?;
        if !verify_block(identity, segment, number, info, &stored) {
            return None;
        }
        let cache = &mut self.gateways[g].cache;
        while cache.len() >= CACHED_MAX {
            cache.pop_first();
        }
        cache.insert(at, stored.clone());
        Some(stored)
    }

    fn object_missed(&mut self, partition: PartitionId, of: &Of, place: &ObjectPlace) {
        match of {
            Of::Root(root) => self.reader_missed(partition, root, &format!("object {}", place.key)),
            Of::Object(segment, _) => {
                // The tail's row stays when its records are deleted; its object goes a grace later.
                let grace = self.plan.objects.map_or(0, |plan| plan.grace_ms());
                let deleted = self.objects.deleted_tails.get(segment);
                let row = self.metadata.state.segment(*segment);
                let row = row.filter(|_| deleted.is_none_or(|at| self.wall_ms() - at < grace));
                if row.and_then(|row| row.object.as_ref()).is_some_and(|held| held.key == place.key) {
                    let text = format!("{segment}: its object {} is deleted while metadata names it", place.key);
                    self.oracle.fail("R16", text);
                }
            }
        }
    }

    // --- the end of a run

    /// What a manifest lists from `log_start` on.
    pub fn folded(&self, root: &RootPlace, log_start: Offset) -> Result<Vec<LeafEntry>, String> {
        let tree = self.tree(root).map_err(|key| format!("page {key} of its manifest is not there"))?;
        Ok(tree.entries.into_iter().filter(|entry| entry.end_offset > log_start).collect())
    }

    /// All records of a segment in the bucket, read without faults. None: it is not the segment.
    pub fn read_object(
        &self,
        segment: SegmentId,
        place: &ObjectPlace,
        digest_and_end: (u64, Offset),
    ) -> Option<Vec<(Offset, Value)>> {
        let stored = &self.objects.bucket.held(&place.key.to_string())?.bytes;
        let identity = Identity { cluster: self.cluster_id(), key: place.key };
        let footer = format::footer(identity, segment, place, stored)?;
        if (footer.facts.digest, footer.facts.end_offset) != digest_and_end
            || !format::holds(identity, footer.facts, place, stored)
        {
            return None;
        }
        let mut records = Vec::new();
        for (number, info) in (0..).zip(&footer.blocks) {
            let range = info.position as usize..info.position as usize + info.stored as usize;
            let block = unpack_block(segment, number, info, &stored.slice(range)).ok()?;
            for entry in block.entries() {
                records.extend(checked_records_of(&entry.ok()?)?);
            }
        }
        Some(records)
    }
}
