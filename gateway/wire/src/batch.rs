//! Kafka's record batch v2: the bytes that producers make, bookies and objects keep, and consumers get.
//!
//! ```text
//! byte  0 base_offset i64     8 length i32 (of what follows it)   12 leader_epoch i32
//!      16 magic i8 = 2       17 crc u32 = CRC-32C of bytes 21..    21 attributes i16
//!      23 last_offset_delta i32   27 base_ts i64   35 max_ts i64
//!      43 producer_id i64    51 producer_epoch i16 53 base_sequence i32
//!      57 count i32          61 records, compressed together
//! ```
//! Big-endian. Base offset and leader epoch are outside the CRC, so an owner sets them without touching the rest.
//! A [`Batch`] is checked once, where it comes in; behind that, tiers move bytes and never decode records.

mod body;
mod builder;
mod codec;
mod error;
mod header;
mod patch;
mod recompress;
mod records;
mod split;
mod varint;

pub use body::{Batch, BatchLimits};
pub use builder::{BatchBuilder, Header, ProducerStamp, RECORD_OVERHEAD_MAX};
pub use codec::{Compression, DecodeLimits};
pub use error::BatchError;
pub use header::{BATCH_HEADER_LEN, BatchHeader, MAGIC, NO_PRODUCER, next_sequence};
pub use records::{Record, Records};
pub use split::{Split, split};

#[cfg(test)]
mod tests;
