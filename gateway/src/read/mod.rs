//! Reading acked records of partitions that this gateway owns: from the tail cache, else from bookies, else from the
//! bucket.

mod bucket;
mod cold;
mod entries;
mod position;

pub use cold::ColdReader;
pub use entries::object_entries;
pub use position::{Found, find_position, out_of_range, outside};

use esker_types::Offset;
use esker_types::error::ErrorInfo;

use crate::tail::CachedEntry;

/// What lies at an offset.
#[derive(Debug)]
pub enum Chunk {
    /// Entries in offset order; the first holds the offset asked for, or is the first behind it.
    Entries(Vec<CachedEntry>),
    /// [from, to) is lost for good.
    Lost { from: Offset, to: Offset },
    /// The high watermark is here.
    End,
}

/// Why nothing can be read here; the client is told.
pub type ReadError = ErrorInfo;
