//! One immutable object: closed segments in compressed blocks, and what is needed to find anything in it.
//!
//! ```text
//! head | blocks of segment 1 | blocks of segment 2 | ... | footer 1 | footer 2 | ... | directory | trailer
//!                                                                                              ^ fixed size, the end
//! ```
//! A reader that has a footer's place needs that footer and one block; one that has nothing but the object reads its end
//! and finds the rest. Every checksum is seeded with the object's identity and the part's place in it: bytes that were
//! read from another object or another place do not verify.

mod block;
mod encoder;
mod footer;
mod trailer;
mod verifier;

pub use block::{Block, Codec, Entries, decode_block, unpack_block, verify_block, verify_cached};
pub use encoder::{EncodeError, Encoder, EncoderOptions, Finished};
pub use footer::{BlockInfo, Footer, SegmentFacts};
pub use trailer::{DIRECTORY_MAX, Directory, Part, TRAILER_LEN, Trailer, head, parse_head};
pub use verifier::{Each, Verifier, VerifyError};

use esker_types::{ClusterId, ObjectKey, SegmentId};

use crate::input::put_object_key;

/// Version of the object format that this build writes, and the newest that it reads.
pub const OBJECT_VERSION: u16 = 1;
/// Bytes of the head at the start of every object.
pub const HEAD_LEN: usize = 60;
/// Raw bytes at which a block is ended, for segments up to 32 GiB.
pub const BLOCK_TARGET: usize = 1 << 20;
/// Above it the blocks of a larger segment do not grow.
pub const BLOCK_TARGET_MAX: usize = 16 << 20;
/// Raw bytes of one block: the target and one entry of the largest size that bookies take.
pub const BLOCK_RAW_MAX: usize = BLOCK_TARGET_MAX + (16 << 20);
/// Blocks of one segment: bounds a footer to 3 MiB.
pub const BLOCKS_MAX: usize = 1 << 16;
/// Segments that one object may hold: bounds its directory to 256 KiB.
pub const SEGMENTS_MAX: usize = 4096;

/// Who an object is: part of every checksum in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub key: ObjectKey,
}

impl Identity {
    pub(crate) fn seed(&self, part: &[u8; 4]) -> Vec<u8> {
        let mut seed = Vec::with_capacity(88);
        seed.extend_from_slice(part);
        seed.extend_from_slice(&self.cluster.0);
        put_object_key(&mut seed, &self.key);
        seed
    }

    /// Seed of a part that belongs to one segment: the footer, or block `number` at byte `position` of the object.
    pub(crate) fn segment_seed(&self, part: &[u8; 4], segment: SegmentId, number: u32, position: u64) -> Vec<u8> {
        let mut seed = self.seed(part);
        for word in [segment.partition.0, segment.n, u64::from(number), position] {
            seed.extend_from_slice(&word.to_le_bytes());
        }
        seed
    }
}

/// The block size for a segment of `bytes`, so that its footer stays within its bound.
pub fn block_target(bytes: u64) -> usize {
    usize::try_from(bytes / (BLOCKS_MAX as u64 / 2)).unwrap_or(usize::MAX).clamp(BLOCK_TARGET, BLOCK_TARGET_MAX)
}
