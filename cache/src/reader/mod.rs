//! Finds and reads what the bucket holds of a partition: root page, leaf, footer, block, each through the pools.
//!
//! Everything is verified before it is used, against the checksum that the part above it names, so neither a cache nor
//! a store can slip in other bytes. A question about an offset costs at most four requests when nothing is cached.

mod index;
mod scan;
mod source;

use std::sync::Arc;

use esker_cache_core::manifest::{self, LeafEntry, Need, PAGE_RAW_MAX, Page, PageRef, RootPage, root_ref};
use esker_cache_core::object::{BLOCKS_MAX, Block, Codec, Footer, Identity, unpack_block};
use esker_metadata_core::{ObjectPlace, RootPlace};
use esker_types::units::ByteCount;
use esker_types::{ClusterId, Offset, SegmentId};

use crate::pools::{Pool, Pools};
use crate::store::{Class, Error, Kind, Store};
use index::Index;
use source::Located;

pub use scan::{Scan, Start};

/// For whom something is read, which decides the pool and the bound on requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A live consumer.
    Tail,
    /// A replay or another scan.
    Scan,
}

impl For {
    fn class(self) -> Class {
        match self {
            Self::Tail => Class::Foreground,
            Self::Scan => Class::Replay,
        }
    }
}

/// Reads a cluster's bucket. Cheap to clone; clones share pools and the decoded index.
#[derive(Clone, Debug)]
pub struct Reader {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    pools: Pools,
    cluster: ClusterId,
    index: Index,
}

/// Pages that one question may touch. A damaged tree can't keep a reader busy for ever.
const PAGES_MAX: usize = 4_096;

impl Reader {
    /// `index_memory` bounds the decoded pages and footers.
    pub fn new(store: Store, pools: Pools, cluster: ClusterId, index_memory: ByteCount) -> Self {
        Self { inner: Arc::new(Inner { store, pools, cluster, index: Index::new(index_memory) }) }
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Bytes of decoded pages and footers in memory.
    pub fn index_bytes(&self) -> usize {
        self.inner.index.bytes()
    }

    /// The segment that holds `offset`; none if it lies in a declared gap or outside of the manifest.
    ///
    /// # Errors
    /// Those of the store; `Damaged` if a page is not what it should be.
    pub async fn segment_at(&self, root: &RootPlace, offset: Offset, by: For) -> Result<Option<LeafEntry>, Error> {
        self.ask(root, by, |page, pages| manifest::segment_at(page, offset, &pages)).await
    }

    /// The first segment with a record at or after `timestamp`, ms, of those that end above `log_start`.
    ///
    /// # Errors
    /// As [`Reader::segment_at`].
    pub async fn segment_at_time(
        &self,
        root: &RootPlace,
        timestamp: i64,
        log_start: Offset,
        by: For,
    ) -> Result<Option<LeafEntry>, Error> {
        self.ask(root, by, |page, pages| manifest::segment_at_time(page, timestamp, log_start, &pages)).await
    }

    /// Up to `limit` segments that hold offsets of [from, to), oldest first.
    ///
    /// # Errors
    /// As [`Reader::segment_at`].
    pub async fn segments(
        &self,
        root: &RootPlace,
        from: Offset,
        to: Offset,
        limit: usize,
        by: For,
    ) -> Result<Vec<LeafEntry>, Error> {
        self.ask(root, by, |page, pages| manifest::overlapping(page, from, to, limit, &pages)).await
    }

    /// Puts a question to the manifest, fetching each page that it turns out to need.
    async fn ask<T>(
        &self,
        root: &RootPlace,
        by: For,
        question: impl Fn(&RootPage, PagesAtHand<'_>) -> Result<T, Need>,
    ) -> Result<T, Error> {
        let top = root_ref(root);
        let page = self.page(&top, by).await?;
        let Page::Root(page) = &*page else { return Err(damaged(&top, "a page of another kind is the root")) };
        let mut at_hand: Vec<(PageRef, Arc<Page>)> = Vec::new();
        loop {
            let answer = question(page, &|of: &PageRef| {
                at_hand.iter().find(|(held, _)| held.key == of.key).map(|(_, page)| page.clone())
            });
            match answer {
                Ok(found) => return Ok(found),
                Err(Need(of)) if at_hand.len() < PAGES_MAX => {
                    let page = self.page(&of, by).await?;
                    at_hand.push((of, page));
                }
                Err(Need(of)) => return Err(damaged(&of, "more pages than any manifest has")),
            }
        }
    }

    /// One page of a manifest, verified.
    ///
    /// # Errors
    /// As [`Reader::segment_at`].
    pub async fn page(&self, of: &PageRef, by: For) -> Result<Arc<Page>, Error> {
        if let Some(page) = self.inner.index.page(&of.key) {
            return Ok(page);
        }
        if of.len as usize > PAGE_RAW_MAX {
            return Err(damaged(of, "longer than any page"));
        }
        // Lookups of scans are few, and what they touch serves all: the tail pool keeps the index of both.
        let (want, source) = source::page(&self.inner.store, of, by.class());
        let bytes = self.inner.pools.tail.get(want, source).await?;
        let page = manifest::decode_page(self.inner.cluster, of, &bytes).map_err(|e| damaged(of, &e.to_string()))?;
        Ok(self.inner.index.keep_page(of.key, page, bytes.len()))
    }

    /// The index of one segment.
    ///
    /// # Errors
    /// As [`Reader::segment_at`]; `NotFound` if the object is gone: ask metadata again.
    pub async fn footer(&self, segment: SegmentId, place: &ObjectPlace, by: For) -> Result<Arc<Footer>, Error> {
        if let Some(footer) = self.inner.index.footer(segment, place) {
            return Ok(footer);
        }
        let broken = |why: &str| Error::new(Kind::Damaged, "read", place.key.to_string(), why);
        if place.footer_len as usize > Footer::encoded_len(BLOCKS_MAX) {
            return Err(broken("its footer is longer than any"));
        }
        let (want, source) = source::footer(&self.inner.store, place, by.class());
        let bytes = self.inner.pools.tail.get(want, source).await?;
        let identity = self.identity(place);
        let footer =
            Footer::decode(&identity, segment, place.footer_position, &bytes).map_err(|e| broken(&e.to_string()))?;
        // What is stored is never longer than what it unpacks to: memory for it is bounded.
        if footer.blocks.iter().any(|block| block.stored > block.raw) {
            return Err(broken("a block is longer than its entries"));
        }
        Ok(self.inner.index.keep_footer(segment, place, footer))
    }

    /// Block `number` of a segment, verified and decompressed.
    ///
    /// # Errors
    /// As [`Reader::footer`].
    pub async fn block(
        &self,
        segment: SegmentId,
        place: &ObjectPlace,
        footer: &Arc<Footer>,
        number: u32,
        by: For,
    ) -> Result<Block, Error> {
        let located = self.located(segment, place, footer.clone(), by);
        let want = located.want(number).ok_or_else(|| {
            Error::new(Kind::Invalid, "read", place.key.to_string(), format!("no block {number} of segment {segment}"))
        })?;
        let stored = self.pool(by).get(want, located.clone()).await?;
        decode(located, number, stored).await
    }

    /// A sequential reader over the segments that it is fed, from `start` in the first one.
    pub fn scan(&self, start: Start, by: For) -> Scan {
        Scan::new(self.clone(), start, by)
    }

    fn pool(&self, by: For) -> &Pool {
        match by {
            For::Tail => &self.inner.pools.tail,
            For::Scan => &self.inner.pools.scan,
        }
    }

    fn identity(&self, place: &ObjectPlace) -> Identity {
        Identity { cluster: self.inner.cluster, key: place.key }
    }

    fn located(&self, segment: SegmentId, place: &ObjectPlace, footer: Arc<Footer>, by: For) -> Arc<Located> {
        Arc::new(Located::new(self.inner.store.clone(), self.identity(place), segment, footer, by.class()))
    }
}

type PagesAtHand<'a> = &'a dyn Fn(&PageRef) -> Option<Arc<Page>>;

fn damaged(of: &PageRef, why: &str) -> Error {
    Error::new(Kind::Damaged, "read", of.key.to_string(), why)
}

/// Bytes that come from a pool are verified. Blocks that are stored as they are need no work; unpacking the others takes
/// most of a millisecond, too long for a task that shares its thread.
async fn decode(located: Arc<Located>, number: u32, stored: bytes::Bytes) -> Result<Block, Error> {
    if located.footer().blocks[number as usize].codec == Codec::Raw {
        return unpack(&located, number, &stored);
    }
    let subject = located.key().to_owned();
    let unpacked = tokio::task::spawn_blocking(move || unpack(&located, number, &stored)).await;
    unpacked.unwrap_or_else(|_| Err(Error::new(Kind::Shutdown, "read", subject, "")))
}

fn unpack(located: &Located, number: u32, stored: &bytes::Bytes) -> Result<Block, Error> {
    let info = &located.footer().blocks[number as usize];
    unpack_block(located.segment(), number, info, stored)
        .map_err(|e| Error::new(Kind::Damaged, "read", located.key(), e.to_string()))
}
