//! What the bucket holds of one partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use esker_cache_core::manifest::{LeafEntry, PAGE_RAW_MAX, Page, PageRef, RootPage, decode_page, root_ref};
use esker_cache_core::object::SegmentFacts;
use esker_cache_core::recover::{self, Found, Held, Rebuilt};
use esker_metadata_core::{
    Bump, ClosedSegment, LostRange, ObjectPlace, PartitionRecord, RootPlace, State, TopicRecord,
};
use esker_types::{AllRules, ClusterId, ObjectKey, PageKey, PartitionId, SegmentId};

use super::CLASS;
use super::shared::Shared;
use crate::inspect::Inspect;
use crate::store::{Error, Kind, Store};

/// Names below one partition.
struct Names {
    objects: BTreeMap<ObjectKey, u64>,
    pages: BTreeSet<PageKey>,
}

pub(super) async fn rebuild(
    store: &Store,
    old: &State,
    bump: &Bump,
    topic: &TopicRecord,
    id: PartitionId,
    shared: &Shared,
) -> Result<(Rebuilt, Vec<String>), Error> {
    let cluster = old.cluster().map_or(ClusterId::NIL, |cluster| cluster.id);
    let settings = topic.settings.effective();
    let limited = settings.retention_ms >= 0 || settings.retention_bytes >= 0;
    let chain: Vec<Arc<ClosedSegment>> = old.chain(id).cloned().collect();
    let Some(record) = old.partition(id) else {
        return Err(Error::new(Kind::Damaged, "recover", format!("partition {id}"), "the backup has no record of it"));
    };
    let mut names = Names { objects: BTreeMap::new(), pages: BTreeSet::new() };
    // Also of lives that left no backup: what they put into objects is as good as any.
    for incarnation in 0..bump.incarnation {
        for listed in store.list_all(&folder(incarnation, id), CLASS).await? {
            if let Ok(key) = listed.key.parse() {
                names.objects.insert(key, listed.bytes);
            } else if let Ok(key) = listed.key.parse() {
                names.pages.insert(key);
            }
        }
    }
    let (seen, notes) = (BTreeMap::new(), Vec::new());
    let mut bucket = Bucket { store, cluster, names, shared: BTreeMap::new(), seen, notes };
    let root = bucket.root(record).await?;
    // Without the manifest any object may hold what it listed.
    let manifest_is_gone = root.as_ref().map(|(place, _)| &place.key) != record.root.as_ref().map(|place| &place.key);
    for object in shared.of(store, id, manifest_is_gone).await? {
        bucket.names.objects.insert(object.key, object.size);
        bucket.shared.insert(object.key, object.segments.clone());
    }
    loop {
        let found = Found { limited, ..bucket.found(record, &chain, root.as_ref()).await? };
        let rebuilt = recover::rebuild::<AllRules>(bump, record, &chain, found);
        // The partition opens with the producers of its newest segment, and nobody else has a copy: a size is no proof.
        if let Some(tail) = rebuilt.rows.last()
            && let Some(place) = &tail.object
            && bucket.whole(tail.segment, place).await?.is_none()
        {
            // It was seen now, and is taken for missing.
            continue;
        }
        return Ok((rebuilt, bucket.notes));
    }
}

/// Where the objects and pages of a partition are that one life wrote.
pub(super) fn folder(incarnation: u8, id: PartitionId) -> String {
    format!("{incarnation}/{id}")
}

struct Bucket<'a> {
    store: &'a Store,
    cluster: ClusterId,
    names: Names,
    /// Ordinals of the partition's segments in shared objects, whatever those are named after.
    shared: BTreeMap<ObjectKey, Vec<u64>>,
    /// What objects that were read in full hold of the partition: nothing if they are damaged.
    seen: BTreeMap<ObjectKey, Vec<Held>>,
    notes: Vec<String>,
}

/// What a manifest lists.
#[derive(Default)]
struct Walked {
    last: Option<LeafEntry>,
    absent: Vec<LostRange>,
}

impl Bucket<'_> {
    async fn found(
        &mut self,
        record: &PartitionRecord,
        chain: &[Arc<ClosedSegment>],
        root: Option<&(RootPlace, RootPage)>,
    ) -> Result<Found, Error> {
        let mut found = Found::default();
        if let Some((place, page)) = root {
            found.root = Some(place.clone());
            loop {
                let walked = self.walk(page, record).await?;
                if let Some(entry) = walked.last {
                    let segment = SegmentId { partition: record.id, n: entry.n };
                    found.root_tail = self.whole(segment, &entry.place).await?;
                    if found.root_tail.is_none() {
                        // Seen now, and missing at the next look.
                        continue;
                    }
                }
                found.absent = walked.absent;
                break;
            }
        }
        let folded_to = root.map_or(0, |(place, _)| place.folded_to);
        found.held = self.held(record.id, chain, folded_to).await?;
        Ok(found)
    }

    /// The manifest that the backup names or, if its pages are gone, the newest one that is whole: the pages of an older
    /// version are deleted when a newer one has been in use for a while.
    async fn root(&mut self, record: &PartitionRecord) -> Result<Option<(RootPlace, RootPage)>, Error> {
        if let Some(place) = &record.root {
            match self.tree(&root_ref(place)).await? {
                Some(page) => return Ok(Some((place.clone(), page))),
                None => self.notes.push(format!("manifest {} is not whole: another version is looked for", place.key)),
            }
        }
        let least = record.root.as_ref().map_or(0, |root| root.ver);
        let mut newest: Vec<PageKey> = self.names.pages.iter().copied().collect();
        newest.sort_unstable_by_key(|key| std::cmp::Reverse((key.incarnation, key.epoch, key.seq)));
        for key in newest.into_iter().filter(|_| record.root.is_some()) {
            let Some(bytes) = self.page_bytes(&key.to_string()).await? else { continue };
            let of = PageRef::alone(key, &bytes);
            let Ok(Page::Root(page)) = decode_page(self.cluster, &of, &bytes) else { continue };
            if page.ver >= least && self.tree(&of).await?.is_some() {
                return Ok(Some((place_of(&of, &page), page)));
            }
        }
        if record.root.is_some() {
            self.notes.push("no manifest is whole: its segments are looked for one by one".to_owned());
        }
        Ok(None)
    }

    /// The root page, if it and all pages below it are there and whole.
    async fn tree(&self, of: &PageRef) -> Result<Option<RootPage>, Error> {
        let Some(Page::Root(root)) = self.page(of).await? else { return Ok(None) };
        let mut todo: Vec<PageRef> = root.children.clone();
        while let Some(of) = todo.pop() {
            match self.page(&of).await? {
                None => return Ok(None),
                Some(Page::Inner(inner)) => todo.extend(inner.children),
                Some(_) => {}
            }
        }
        Ok(Some(root))
    }

    async fn walk(&self, root: &RootPage, record: &PartitionRecord) -> Result<Walked, Error> {
        let mut walked = Walked::default();
        let mut todo: Vec<PageRef> = root.children.iter().rev().cloned().collect();
        while let Some(of) = todo.pop() {
            match self.page(&of).await? {
                Some(Page::Leaf(leaf)) => {
                    for entry in leaf.entries.into_iter().filter(|entry| entry.end_offset > record.log_start) {
                        if self.there(entry.n, &entry.place).await? {
                            walked.last = Some(entry);
                        } else {
                            walked.absent.push(LostRange { from: entry.base_offset, to: entry.end_offset });
                        }
                    }
                }
                Some(Page::Inner(inner)) => todo.extend(inner.children.into_iter().rev()),
                _ => return Err(Error::new(Kind::Damaged, "read", of.key.to_string(), "it was whole a moment ago")),
            }
        }
        Ok(walked)
    }

    /// Whether an object of this size is there; of one that was read in full, whether it holds segment `n` at this place.
    /// Of a shared one the name belongs to another partition.
    async fn there(&self, n: u64, place: &ObjectPlace) -> Result<bool, Error> {
        if let Some(held) = self.seen.get(&place.key) {
            return Ok(held.iter().any(|held| held.facts.segment.n == n && held.place == *place));
        }
        if let Some(size) = self.names.objects.get(&place.key) {
            return Ok(*size == place.size);
        }
        if !place.key.shared {
            return Ok(false);
        }
        match self.store.size(&place.key.to_string(), CLASS).await {
            Ok(size) => Ok(size == place.size),
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Segments behind the manifest. What metadata committed was verified then; anything else is read in full now.
    async fn held(
        &mut self,
        id: PartitionId,
        chain: &[Arc<ClosedSegment>],
        folded_to: u64,
    ) -> Result<Vec<Held>, Error> {
        let mut held = Vec::new();
        let mut committed = BTreeSet::new();
        for row in chain.iter().filter(|row| row.segment.n > folded_to) {
            if let Some(place) = &row.object
                && self.there(row.segment.n, place).await?
            {
                committed.insert(row.segment.n);
                held.push(Held { facts: SegmentFacts::from(&**row), place: place.clone() });
            }
        }
        // A name says which segment is in an object; of a shared one it may be another partition's.
        let wanted = |n: u64| n > folded_to && !committed.contains(&n);
        let others = self.names.objects.keys().copied().filter(|key| match self.shared.get(key) {
            Some(segments) => segments.iter().any(|n| wanted(*n)),
            None => wanted(key.n),
        });
        for key in others.collect::<Vec<ObjectKey>>() {
            held.extend(
                self.segments_of(&key, id)
                    .await?
                    .into_iter()
                    .filter(|one| one.facts.segment.n > folded_to && !committed.contains(&one.facts.segment.n)),
            );
        }
        Ok(held)
    }

    /// A segment, if its object, read in full, holds it at this place.
    async fn whole(&mut self, segment: SegmentId, place: &ObjectPlace) -> Result<Option<Held>, Error> {
        let found = self.segments_of(&place.key, segment.partition).await?;
        Ok(found.into_iter().find(|held| held.facts.segment == segment && held.place == *place))
    }

    /// The segments of `id` in an object, each read in full. None of an object that is damaged or foreign.
    async fn segments_of(&mut self, key: &ObjectKey, id: PartitionId) -> Result<Vec<Held>, Error> {
        if let Some(held) = self.seen.get(key) {
            return Ok(held.clone());
        }
        let held = match self.read(key, id).await {
            Ok(held) => held,
            Err(error) if matches!(error.kind, Kind::Damaged | Kind::Invalid | Kind::NotFound) => {
                self.notes.push(format!("object {key} is left out: {error}"));
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        self.seen.insert(*key, held.clone());
        Ok(held)
    }

    async fn read(&self, key: &ObjectKey, id: PartitionId) -> Result<Vec<Held>, Error> {
        let object = Inspect::of(self.store, &key.to_string()).await?;
        if (object.identity().cluster, &object.identity().key) != (self.cluster, key) {
            return Err(Error::new(Kind::Damaged, "read", key.to_string(), "it is of another cluster or name"));
        }
        let mut held = Vec::new();
        for (at, part) in object.directory().parts.iter().enumerate() {
            if part.segment.partition == id {
                let footer = object.footer(at).await?;
                let facts = footer.facts;
                object.entries(at, footer, &mut |_| Ok(())).await?;
                held.push(Held { facts, place: part.place(*key, object.size()) });
            }
        }
        Ok(held)
    }

    /// None: it is not there, or not whole.
    async fn page(&self, of: &PageRef) -> Result<Option<Page>, Error> {
        let Some(bytes) = self.page_bytes(&of.key.to_string()).await? else { return Ok(None) };
        Ok(decode_page(self.cluster, of, &bytes).ok())
    }

    async fn page_bytes(&self, key: &str) -> Result<Option<Bytes>, Error> {
        match self.store.read_whole(key, PAGE_RAW_MAX as u64, CLASS).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Invalid) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn place_of(of: &PageRef, root: &RootPage) -> RootPlace {
    RootPlace {
        key: of.key,
        ver: root.ver,
        len: of.len,
        crc: of.crc,
        folded_to: root.folded_to,
        segments: root.children.iter().map(|child| child.segments).sum(),
        bytes: root.children.iter().map(|child| child.bytes).sum(),
        base_offset: root.children.first().map_or(0, |child| child.base_offset),
        end_offset: root.children.last().map_or(0, |child| child.end_offset),
    }
}
