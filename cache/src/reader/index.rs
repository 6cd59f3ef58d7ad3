//! Pages and footers in the form in which they are searched. What is here was verified when it was decoded.

use std::sync::Arc;

use esker_cache_core::manifest::Page;
use esker_cache_core::object::Footer;
use esker_metadata_core::ObjectPlace;
use esker_types::units::ByteCount;
use esker_types::{ObjectKey, PageKey, SegmentId};
use foyer::{Cache, CacheBuilder, S3FifoConfig};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Page(PageKey),
    Footer(ObjectKey, SegmentId),
}

#[derive(Clone, Debug)]
enum Value {
    Page(Arc<Page>, usize),
    Footer(Arc<Footer>),
}

/// Bounded by its bytes.
#[derive(Debug)]
pub(super) struct Index {
    held: Cache<Key, Value>,
}

/// A decoded page takes about this many times its compressed bytes.
const PAGE_EXPANSION: usize = 6;
/// One entry of a footer in memory.
const BLOCK_BYTES: usize = 56;
const OVERHEAD: usize = 256;

impl Index {
    pub(super) fn new(memory: ByteCount) -> Self {
        let capacity = memory.as_usize();
        let held = CacheBuilder::new(capacity)
            .with_name("index")
            .with_shards((capacity / (8 << 20)).clamp(1, 8))
            .with_eviction_config(S3FifoConfig::default())
            .with_weighter(|_, value: &Value| match value {
                Value::Page(_, bytes) => bytes * PAGE_EXPANSION + OVERHEAD,
                Value::Footer(footer) => footer.blocks.len() * BLOCK_BYTES + OVERHEAD,
            })
            .build();
        Self { held }
    }

    pub(super) fn bytes(&self) -> usize {
        self.held.usage()
    }

    pub(super) fn page(&self, key: &PageKey) -> Option<Arc<Page>> {
        match self.held.get(&Key::Page(*key))?.value() {
            Value::Page(page, _) => Some(page.clone()),
            Value::Footer(_) => None,
        }
    }

    pub(super) fn keep_page(&self, key: PageKey, page: Page, bytes: usize) -> Arc<Page> {
        let page = Arc::new(page);
        self.held.insert(Key::Page(key), Value::Page(page.clone(), bytes));
        page
    }

    pub(super) fn footer(&self, segment: SegmentId, place: &ObjectPlace) -> Option<Arc<Footer>> {
        match self.held.get(&Key::Footer(place.key, segment))?.value() {
            Value::Footer(footer) => Some(footer.clone()),
            Value::Page(..) => None,
        }
    }

    pub(super) fn keep_footer(&self, segment: SegmentId, place: &ObjectPlace, footer: Footer) -> Arc<Footer> {
        let footer = Arc::new(footer);
        self.held.insert(Key::Footer(place.key, segment), Value::Footer(footer.clone()));
        footer
    }
}
