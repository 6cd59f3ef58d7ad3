//! What a page holds, and its bytes.
//!
//! ```text
//! byte 0 magic "ESKP"  4 version u16  6 kind u8  7 codec u8  8 raw length u32  12 body ...  CRC-32C u32
//! ```
//! The body is protobuf, compressed by zstd when that makes it shorter. The checksum is seeded with cluster and key.

use bytes::Bytes;
use esker_metadata_core::wire::{self, Wire};
use esker_metadata_core::{ObjectPlace, RootPlace, messages, union};
use esker_types::{ClusterId, EntryId, Epoch, ObjectKey, Offset, PageKey, Rules, WallMs, checksum};
use prost::Message;

use super::{GRAVES_MAX, HEIGHT_MAX, INNER_MAX, LEAF_MAX, PAGE_RAW_MAX, PAGE_VERSION, ROOT_MAX};
use crate::error::FormatError;
use crate::input::{Input, checked, page_seed, put_checksum};
use crate::object::SegmentFacts;

const WHAT: &str = "manifest page";
const MAGIC: u32 = 0x504b_5345; // "ESKP"
const ZSTD_LEVEL: i32 = 1;

messages! {
    /// One segment and its place in the bucket.
    pub struct LeafEntry {
        1 n: u64 = [uint64],
        2 seg_epoch: Epoch = [uint32],
        3 base_offset: Offset = [int64],
        /// Exclusive.
        4 end_offset: Offset = [int64],
        /// Last entry, inclusive.
        5 last: EntryId = [uint64],
        6 digest: u64 = [fixed64],
        /// Of all entries, headers included.
        7 bytes: u64 = [uint64],
        8 first_ts: i64 = [int64],
        9 max_ts: i64 = [int64],
        10 closed: WallMs = [int64],
        11 place: ObjectPlace = [message, required],
    }

    /// A page that another one lists, and what all below it come to.
    pub struct PageRef {
        1 key: PageKey = [message, required],
        2 len: u32 = [uint32],
        /// CRC-32C of the page's bytes.
        3 crc: u32 = [fixed32],
        4 segments: u64 = [uint64],
        5 bytes: u64 = [uint64],
        6 first_n: u64 = [uint64],
        7 last_n: u64 = [uint64],
        8 base_offset: Offset = [int64],
        9 end_offset: Offset = [int64],
        10 max_ts: i64 = [int64],
        /// When the newest of its segments was closed.
        11 closed: WallMs = [int64],
    }

    pub struct Leaf {
        /// In order of n; not empty.
        1 entries: Vec<LeafEntry> = [message, repeated],
    }

    pub struct Inner {
        /// Levels below: 0 = the children are leaves.
        1 height: u8 = [uint32],
        2 children: Vec<PageRef> = [message, repeated],
    }

    /// A single page that was replaced.
    pub struct BuriedPage { 1 key: PageKey = [message, required] }
    /// The object of a retired segment. Of a shared one it is but a mark: see [`BuriedObject::deletes`].
    pub struct BuriedObject { 1 key: ObjectKey = [message, required] }
    /// A retired page with all below it, objects included.
    pub struct BuriedTree {
        1 page: PageRef = [message, required],
        2 height: u8 = [uint32],
    }

    /// To be deleted a grace after version `ver` was seen to be the current one. Not after `since`: the pointer may have
    /// been moved long after the pages were written, and until then readers began at the version before.
    pub struct Grave {
        1 what: Buried = [message, required],
        /// The writer's clock, for people.
        2 since: WallMs = [int64],
        /// Of the root that let it go.
        3 ver: u64 = [uint64],
    }

    pub struct RootPage {
        1 ver: u64 = [uint64],
        2 folded_to: u64 = [uint64],
        /// Levels of inner pages below: 0 = the children are leaves.
        3 height: u8 = [uint32],
        4 children: Vec<PageRef> = [message, repeated],
        /// Oldest first.
        5 graveyard: Vec<Grave> = [message, repeated],
    }
}

union! {
    pub enum Buried {
        1 Page(BuriedPage),
        2 Object(BuriedObject),
        3 Tree(BuriedTree),
    }
}

union! {
    pub enum Page {
        1 Leaf(Leaf),
        2 Inner(Inner),
        3 Root(RootPage),
    }
}

impl BuriedObject {
    /// Whether the object of a retired segment goes with its grave. One that other partitions have segments in does not:
    /// the sweep takes it when no part of it is reached, and until its grave is gone the part in it counts as reached,
    /// for those who still read an older version.
    pub fn deletes<R: Rules>(key: &ObjectKey) -> bool {
        !key.shared || !R::GRAVES_SPARE_SHARED
    }
}

impl LeafEntry {
    pub fn new(facts: &SegmentFacts, place: ObjectPlace) -> Self {
        let SegmentFacts { segment, seg_epoch, base_offset, end_offset, last, digest, bytes, first_ts, max_ts, .. } =
            *facts;
        let (n, closed) = (segment.n, facts.closed);
        Self { n, seg_epoch, base_offset, end_offset, last, digest, bytes, first_ts, max_ts, closed, place }
    }
}

impl PageRef {
    /// A page that nothing refers to vouches for itself: its own checksum is seeded with its name.
    pub fn alone(key: PageKey, bytes: &[u8]) -> Self {
        Self {
            key,
            len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            crc: checksum::crc32c(bytes),
            segments: 0,
            bytes: 0,
            first_n: 0,
            last_n: 0,
            base_offset: 0,
            end_offset: 0,
            max_ts: 0,
            closed: WallMs(0),
        }
    }
}

/// Where a root page is, in the form in which pages are asked for.
pub fn root_ref(place: &RootPlace) -> PageRef {
    PageRef {
        key: place.key,
        len: place.len,
        crc: place.crc,
        segments: place.segments,
        bytes: place.bytes,
        first_n: 0,
        last_n: place.folded_to,
        base_offset: place.base_offset,
        end_offset: place.end_offset,
        max_ts: 0,
        closed: WallMs(0),
    }
}

pub fn encode_page(cluster: ClusterId, key: &PageKey, page: &Page) -> Bytes {
    let raw = wire::encode(page);
    let packed = zstd::bulk::compress(&raw, ZSTD_LEVEL).expect("zstd compresses from memory to memory");
    let (codec, body) = if packed.len() < raw.len() { (1, &packed) } else { (0, &raw) };
    let mut out = Vec::with_capacity(body.len() + 16);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&PAGE_VERSION.to_le_bytes());
    out.extend_from_slice(&[kind(page), codec]);
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
    put_checksum(&page_seed(cluster, key), &mut out);
    out.into()
}

/// Verifies and reads the page that `of` names. Allocates at most a few times [`PAGE_RAW_MAX`].
pub fn decode_page(cluster: ClusterId, of: &PageRef, bytes: &[u8]) -> Result<Page, FormatError> {
    if bytes.len() != of.len as usize || checksum::crc32c(bytes) != of.crc {
        return FormatError::damaged(WHAT, "its length or checksum is not what its parent says");
    }
    let body = checked(WHAT, &page_seed(cluster, &of.key), bytes)?;
    let mut input = Input::new(body, WHAT);
    input.tag(MAGIC, PAGE_VERSION)?;
    let (found, codec, raw_len) = (input.u8()?, input.u8()?, input.u32()? as usize);
    if raw_len > PAGE_RAW_MAX {
        return FormatError::damaged(WHAT, "it is too large");
    }
    let unpacked = match codec {
        0 => input.rest().to_vec(),
        1 => match zstd::bulk::decompress(input.rest(), raw_len) {
            Ok(raw) => raw,
            Err(_) => return FormatError::damaged(WHAT, "compression"),
        },
        _ => return FormatError::damaged(WHAT, "an unknown compression"),
    };
    let parsed = <Page as Wire>::Proto::decode(&unpacked[..]).ok().map(Page::from_wire);
    let Some(Ok(page)) = parsed.filter(|_| unpacked.len() == raw_len) else {
        return FormatError::damaged(WHAT, "its contents do not parse");
    };
    if kind(&page) != found {
        return FormatError::damaged(WHAT, "its kind");
    }
    check(&page)?;
    Ok(page)
}

fn kind(page: &Page) -> u8 {
    match page {
        Page::Leaf(_) => 1,
        Page::Inner(_) => 2,
        Page::Root(_) => 3,
    }
}

/// What a correct writer always writes: order and bounds, so that searches need not look again.
fn check(page: &Page) -> Result<(), FormatError> {
    let ok = match page {
        Page::Leaf(leaf) => {
            let ordered = leaf.entries.windows(2).all(|w| w[0].n < w[1].n && w[0].end_offset <= w[1].base_offset);
            let whole = leaf.entries.iter().all(|e| e.base_offset < e.end_offset && e.base_offset >= 0);
            ordered && whole && (1..=LEAF_MAX).contains(&leaf.entries.len())
        }
        Page::Inner(inner) => {
            in_order(&inner.children) && (1..=INNER_MAX).contains(&inner.children.len()) && inner.height < HEIGHT_MAX
        }
        Page::Root(root) => {
            let bounded = root.children.len() <= ROOT_MAX && root.graveyard.len() <= GRAVES_MAX;
            in_order(&root.children) && bounded && root.height <= HEIGHT_MAX
        }
    };
    if ok { Ok(()) } else { FormatError::damaged(WHAT, "the order or number of its entries") }
}

fn in_order(children: &[PageRef]) -> bool {
    children.windows(2).all(|w| w[0].last_n < w[1].first_n && w[0].end_offset <= w[1].base_offset)
        && children.iter().all(|c| c.base_offset < c.end_offset && c.first_n <= c.last_n)
}
