//! Where the parts of the bucket come from, and how each is recognised.

use std::sync::Arc;

use bytes::Bytes;
use esker_cache_core::manifest::{PAGE_VERSION, PageRef};
use esker_cache_core::object::{Footer, Identity, OBJECT_VERSION, verify_cached};
use esker_metadata_core::ObjectPlace;
use esker_types::{AllRules, SegmentId, checksum};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::pools::{Source, Want};
use crate::store::{Class, Error, Store};

/// Cached pages and cached parts of objects are told apart, and so are versions of both.
const PAGES: u32 = 1 << 16 | PAGE_VERSION as u32;
const OBJECTS: u32 = OBJECT_VERSION as u32;

/// Something whose checksum its parent names.
struct Summed {
    store: Store,
    key: String,
    class: Class,
    crc: u32,
}

pub(super) fn page(store: &Store, of: &PageRef, class: Class) -> (Want, Arc<dyn Source>) {
    let key = of.key.to_string();
    let want = Want::new(&key, 0, of.len as usize, PAGES);
    (want, Arc::new(Summed { store: store.clone(), key, class, crc: of.crc }))
}

pub(super) fn footer(store: &Store, place: &ObjectPlace, class: Class) -> (Want, Arc<dyn Source>) {
    let key = place.key.to_string();
    let want = Want::new(&key, place.footer_position, place.footer_len as usize, OBJECTS);
    (want, Arc::new(Summed { store: store.clone(), key, class, crc: place.footer_crc }))
}

impl Source for Summed {
    fn check(&self, _: &Want, bytes: &Bytes) -> bool {
        checksum::crc32c(bytes) == self.crc
    }

    fn load(&self, wants: Vec<Want>) -> BoxFuture<'static, Result<Vec<Bytes>, Error>> {
        load(self.store.clone(), self.key.clone(), self.class, wants)
    }
}

/// The blocks of one segment in its object.
#[derive(Debug)]
pub(super) struct Located {
    store: Store,
    key: String,
    class: Class,
    identity: Identity,
    segment: SegmentId,
    footer: Arc<Footer>,
}

impl Located {
    pub(super) fn new(store: Store, identity: Identity, segment: SegmentId, footer: Arc<Footer>, class: Class) -> Self {
        Self { store, key: identity.key.to_string(), class, identity, segment, footer }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn segment(&self) -> SegmentId {
        self.segment
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// None if there is no such block.
    pub(super) fn want(&self, number: u32) -> Option<Want> {
        let info = self.footer.blocks.get(number as usize)?;
        Some(Want::new(&self.key, info.position, info.stored as usize, OBJECTS))
    }
}

impl Source for Located {
    fn check(&self, want: &Want, bytes: &Bytes) -> bool {
        // Blocks are in the order of their positions.
        let Ok(at) = self.footer.blocks.binary_search_by_key(&want.start, |block| block.position) else { return false };
        verify_cached::<AllRules>(&self.identity, self.segment, at as u32, &self.footer.blocks[at], bytes)
    }

    fn load(&self, wants: Vec<Want>) -> BoxFuture<'static, Result<Vec<Bytes>, Error>> {
        load(self.store.clone(), self.key.clone(), self.class, wants)
    }
}

fn load(store: Store, key: String, class: Class, wants: Vec<Want>) -> BoxFuture<'static, Result<Vec<Bytes>, Error>> {
    async move {
        let start = wants.first().map_or(0, |want| want.start);
        let lengths: Vec<usize> = wants.iter().map(|want| want.length).collect();
        store.read_parts(&key, start, &lengths, class).await
    }
    .boxed()
}
