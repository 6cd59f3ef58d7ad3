use esker_types::Offset;

use super::codec::Compression;
use super::error::BatchError;

pub const BATCH_HEADER_LEN: usize = 61;
pub const MAGIC: i8 = 2;
/// Producer id, epoch and sequence of a batch that is not idempotent.
pub const NO_PRODUCER: i64 = -1;

pub(super) const AT_LENGTH: usize = 8;
pub(super) const AT_EPOCH: usize = 12;
pub(super) const AT_MAGIC: usize = 16;
pub(super) const AT_CRC: usize = 17;
/// First byte that the CRC covers.
pub(super) const AT_ATTRIBUTES: usize = 21;
pub(super) const AT_LAST_DELTA: usize = 23;
pub(super) const AT_BASE_TS: usize = 27;
pub(super) const AT_MAX_TS: usize = 35;
pub(super) const AT_PRODUCER: usize = 43;
pub(super) const AT_PRODUCER_EPOCH: usize = 51;
pub(super) const AT_SEQUENCE: usize = 53;
pub(super) const AT_COUNT: usize = 57;
/// Bytes in front of what the length field counts.
pub(super) const LENGTH_BASE: usize = 12;

pub(super) const CODEC_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;
pub(super) const DELETE_HORIZON: i16 = 0x40;

/// The fixed part of a batch, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Of the whole batch in bytes, header included.
    pub total_len: usize,
    pub leader_epoch: i32,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    /// Timestamp of the first record in milliseconds, -1 = none.
    pub base_ts: i64,
    pub max_ts: i64,
    /// [`NO_PRODUCER`] if the batch is not idempotent; then epoch and sequence mean nothing.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, which may hold more or less than the batch. Checks only what is
    /// needed to know where the batch ends: format and length.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(raw) = bytes.first_chunk::<BATCH_HEADER_LEN>() else {
            return Err(BatchError::Truncated { have: bytes.len(), need: BATCH_HEADER_LEN });
        };
        let i32_at = |at: usize| i32::from_be_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let i64_at = |at: usize| i64::from(i32_at(at)) << 32 | i64::from(i32_at(at + 4) as u32);
        let i16_at = |at: usize| i16::from_be_bytes([raw[at], raw[at + 1]]);
        let magic = raw[AT_MAGIC] as i8;
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let says = i64::from(i32_at(AT_LENGTH)) + LENGTH_BASE as i64;
        let total_len = usize::try_from(says).ok().filter(|len| *len >= BATCH_HEADER_LEN);
        Ok(Self {
            base_offset: i64_at(0),
            total_len: total_len.ok_or(BatchError::Length { says, have: bytes.len() })?,
            leader_epoch: i32_at(AT_EPOCH),
            crc: i32_at(AT_CRC) as u32,
            attributes: i16_at(AT_ATTRIBUTES),
            last_offset_delta: i32_at(AT_LAST_DELTA),
            base_ts: i64_at(AT_BASE_TS),
            max_ts: i64_at(AT_MAX_TS),
            producer_id: i64_at(AT_PRODUCER),
            producer_epoch: i16_at(AT_PRODUCER_EPOCH),
            base_sequence: i32_at(AT_SEQUENCE),
            count: i32_at(AT_COUNT),
        })
    }

    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_bits((self.attributes & CODEC_MASK) as u8)
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// The offset behind the last record, exclusive.
    pub fn end_offset(&self) -> Offset {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta)).saturating_add(1)
    }

    /// The largest timestamp, also if the producer filled in only the first one.
    pub fn largest_ts(&self) -> i64 {
        self.max_ts.max(self.base_ts)
    }

    /// Sequence of the last record. Sequences wrap from 2^31 - 1 to 0.
    pub fn last_sequence(&self) -> i32 {
        next_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// The sequence `by` records after `sequence`; both at least 0. Wraps from 2^31 - 1 to 0.
pub fn next_sequence(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) & i64::from(i32::MAX)) as i32
}
