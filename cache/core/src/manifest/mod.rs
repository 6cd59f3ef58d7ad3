//! The history of a partition: a tree of immutable pages in the bucket, whose root metadata points to.
//!
//! ```text
//! metadata: root place ──> root page ──> leaf page: up to 1,024 segments, oldest first
//!                              │    └──> leaf page ...
//!                              └ (above 2,048 leaves: inner pages between)
//! ```
//! A change writes new pages, the root last, and then moves the pointer in metadata; what it replaced goes into the
//! graveyard of the new root and is deleted after a grace. So a reader that began at an older root reads on, and a
//! change that was not committed leaves nothing behind but pages that nobody reaches.
//!
//! Nothing here reads or writes: functions take the pages that are at hand, and answer [`Need`] for the one that is not.

mod edit;
mod find;
mod page;

pub use edit::{Edit, Edited, PageNames, edit, worth_trimming};
pub use find::{first_at_or_after, from_ordinal, overlapping, reaches, segment_at, segment_at_time, tree_pages};
pub use page::{
    Buried, BuriedObject, BuriedPage, BuriedTree, Grave, Inner, Leaf, LeafEntry, Page, PageRef, RootPage, decode_page,
    encode_page, root_ref,
};

use std::sync::Arc;

use esker_metadata_core::RootPlace;

/// Version of the page format that this build writes, and the newest that it reads.
pub const PAGE_VERSION: u16 = 1;
/// Entries of a leaf: about 60 KiB on the wire.
pub const LEAF_MAX: usize = 1_024;
/// Children of an inner page.
pub const INNER_MAX: usize = 1_024;
/// Children of the root: with full leaves 2 million segments are found through root, leaf, footer and block.
pub const ROOT_MAX: usize = 2_048;
/// Graves of one root page. Retention waits while it is full.
pub const GRAVES_MAX: usize = 4_096;
/// Dead entries at which the first leaf is written anew without them; fewer if they are half of it.
pub const TRIM_MIN: usize = 64;
/// Bytes of one page, decompressed: a foreign page can't ask for more.
pub const PAGE_RAW_MAX: usize = 4 << 20;
/// Levels of inner pages between the root and its leaves.
pub const HEIGHT_MAX: u8 = 4;

/// Fetch this page, verify it by [`decode_page`], and ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("manifest page {} is not at hand", .0.key)]
pub struct Need(pub PageRef);

/// The pages at hand.
pub trait Pages {
    fn page(&self, of: &PageRef) -> Option<Arc<Page>>;
}

impl<F: Fn(&PageRef) -> Option<Arc<Page>>> Pages for F {
    fn page(&self, of: &PageRef) -> Option<Arc<Page>> {
        self(of)
    }
}

/// The root page that metadata's pointer names, if it is at hand.
pub fn root_page(place: &RootPlace, pages: &impl Pages) -> Result<Arc<Page>, Need> {
    let of = root_ref(place);
    pages.page(&of).ok_or(Need(of))
}
