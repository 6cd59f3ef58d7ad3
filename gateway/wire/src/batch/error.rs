use esker_types::ErrorCode;

use super::codec::Compression;

/// Why bytes are not a record batch that may be stored or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("record batch is cut off: {have} bytes, needs {need}")]
    Truncated { have: usize, need: usize },
    #[error("record batch says it is {says} bytes long, but {have} were sent")]
    Length { says: i64, have: usize },
    #[error("record batch of {bytes} bytes is over the limit of {max} (max.message.bytes)")]
    TooLarge { bytes: usize, max: usize },
    #[error("record format {0} is not supported: only version 2 is")]
    Magic(i8),
    #[error("record batch does not verify: crc {found:#010x}, header says {expected:#010x}")]
    Crc { expected: u32, found: u32 },
    #[error("record batch of {count} records ends at offset delta {last_offset_delta}: they must be 0..count-1")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("record batch of {count} records is over the limit of {max}")]
    TooManyRecords { count: u32, max: u32 },
    #[error("compression type {0} is unknown")]
    UnknownCompression(u8),
    #[error("a client may not set {0} in the attributes of a record batch")]
    Attributes(&'static str),
    #[error("record batch timestamps are invalid: first {base_ts}, largest {max_ts}")]
    Timestamp { base_ts: i64, max_ts: i64 },
    #[error("producer id {id}, epoch {epoch}, sequence {sequence} are not valid together")]
    Producer { id: i64, epoch: i16, sequence: i32 },
    #[error("{0:?} data does not decompress")]
    Decompress(Compression),
    #[error("the records can't be compressed by {0:?}: memory is short")]
    Compress(Compression),
    #[error("{compression:?} data of {from} bytes decompresses to more than {max} bytes")]
    DecompressedTooLarge { compression: Compression, from: usize, max: usize },
    #[error("record {index} of the batch is malformed: {what}")]
    Record { index: u32, what: &'static str },
    #[error("record batch has {0} bytes behind its last record")]
    TrailingBytes(usize),
}

impl BatchError {
    /// The code that the client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } | Self::DecompressedTooLarge { .. } => ErrorCode::BatchTooLarge,
            Self::Compress(_) => ErrorCode::Internal,
            Self::Crc { .. } | Self::Truncated { .. } | Self::Length { .. } => ErrorCode::CorruptBatch,
            Self::Decompress(_) => ErrorCode::CorruptBatch,
            Self::UnknownCompression(_) => ErrorCode::UnsupportedCompression,
            Self::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            _ => ErrorCode::InvalidBatch,
        }
    }
}
