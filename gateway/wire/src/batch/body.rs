use bytes::{Bytes, BytesMut};
use esker_types::{Offset, checksum};

use super::builder::ProducerStamp;
use super::codec::DecodeLimits;
use super::error::BatchError;
use super::header::{
    AT_ATTRIBUTES, BATCH_HEADER_LEN, BatchHeader, CONTROL, DELETE_HORIZON, NO_PRODUCER, TRANSACTIONAL,
};
use super::patch;
use super::records::Records;

/// Smallest encoding of one record: length, attributes, two deltas, key length, value length, header count.
const RECORD_LEN_MIN: usize = 7;

/// What a partition takes from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Of the whole batch as sent (`max.message.bytes`).
    pub bytes_max: usize,
    /// Each record uses up an offset, however well it compresses.
    pub records_max: u32,
    /// No record may be dated later than this, in milliseconds. Log time, which decides about retention and idle
    /// producers, follows record timestamps: a gateway sets this to an hour ahead of its clock.
    pub timestamp_max_ms: i64,
}

impl Default for BatchLimits {
    fn default() -> Self {
        // Kafka's default: 1 MiB and a batch header that its first versions counted.
        Self { bytes_max: 1_048_588, records_max: 1 << 24, timestamp_max_ms: i64::MAX }
    }
}

/// One whole record batch whose header, length and CRC have been checked. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Takes a batch from a client: everything that can be known without decompressing it.
    pub fn check(bytes: Bytes, limits: BatchLimits) -> Result<Self, BatchError> {
        if bytes.len() > limits.bytes_max {
            return Err(BatchError::TooLarge { bytes: bytes.len(), max: limits.bytes_max });
        }
        let batch = Self::verify(bytes)?;
        let header = &batch.header;
        check_count(header, limits)?;
        check_attributes(header)?;
        check_timestamps(header, limits)?;
        check_producer(header)?;
        Ok(batch)
    }

    /// Takes a batch that was stored before: exactly one batch whose CRC fits.
    pub fn verify(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.total_len != bytes.len() {
            return Err(BatchError::Length { says: header.total_len as i64, have: bytes.len() });
        }
        let found = checksum::crc32c(&bytes[AT_ATTRIBUTES..]);
        if found != header.crc {
            return Err(BatchError::Crc { expected: header.crc, found });
        }
        Ok(Self { header, bytes })
    }

    /// Puts header and bytes together that were checked before. The caller vouches for the CRC.
    pub(super) fn trusted(header: BatchHeader, bytes: Bytes) -> Self {
        debug_assert_eq!(header.total_len, bytes.len());
        Self { header, bytes }
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Number of records, at least 1 in a batch that passed [`Batch::check`].
    pub fn count(&self) -> u32 {
        self.header.count.max(0) as u32
    }

    /// None: the batch is not idempotent.
    pub fn producer(&self) -> Option<ProducerStamp> {
        let header = &self.header;
        (header.producer_id != NO_PRODUCER).then_some(ProducerStamp {
            id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        })
    }

    /// CRC-32C over all bytes, from the batch's own CRC: only the first 21 bytes are summed.
    pub fn crc32c(&self) -> u32 {
        let front = checksum::crc32c(&self.bytes[..AT_ATTRIBUTES]);
        checksum::crc32c_combine(front, self.header.crc, (self.bytes.len() - AT_ATTRIBUTES) as u64)
    }

    /// Gives the batch its place in the log. In place if nobody else holds the bytes; otherwise they are copied.
    pub fn assign(&mut self, base_offset: Offset, leader_epoch: i32) {
        self.edit(|bytes| patch::assign(bytes, base_offset, leader_epoch));
    }

    /// Appends the batch to `out` with its place in the log set. Returns the CRC-32C over what was appended.
    pub fn copy_assigned(&self, out: &mut BytesMut, base_offset: Offset, leader_epoch: i32) -> u32 {
        let at = out.len();
        out.extend_from_slice(&self.bytes);
        patch::assign(&mut out[at..], base_offset, leader_epoch);
        let front = checksum::crc32c(&out[at..at + AT_ATTRIBUTES]);
        checksum::crc32c_combine(front, self.header.crc, (self.bytes.len() - AT_ATTRIBUTES) as u64)
    }

    /// LogAppendTime: the records are dated by the broker. Changes timestamp type, largest timestamp and CRC.
    pub fn stamp_append_time(&mut self, now_ms: i64) {
        self.edit(|bytes| patch::stamp_append_time(bytes, now_ms));
    }

    /// Renames the producer of a batch that was built before, as a client does after its epoch was raised.
    pub fn set_producer(&mut self, stamp: ProducerStamp) {
        self.edit(|bytes| patch::set_producer(bytes, stamp));
    }

    /// The records, decompressed within `limits`.
    pub fn records(&self, limits: DecodeLimits) -> Result<Records, BatchError> {
        let body = self.header.compression()?.decompress(self.bytes.slice(BATCH_HEADER_LEN..), limits)?;
        Ok(Records::new(&self.header, body))
    }

    fn edit(&mut self, change: impl FnOnce(&mut [u8])) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        change(&mut bytes);
        self.bytes = bytes.freeze();
        self.header = BatchHeader::parse(&self.bytes).expect("only field values were changed");
    }
}

fn check_count(header: &BatchHeader, limits: BatchLimits) -> Result<(), BatchError> {
    let (count, last_offset_delta) = (header.count, header.last_offset_delta);
    if count < 1 || last_offset_delta != count - 1 {
        return Err(BatchError::Count { count, last_offset_delta });
    }
    let body = header.total_len - BATCH_HEADER_LEN;
    let max = match header.compression()?.is_none() {
        // The count of uncompressed records can't be a lie of more than this.
        true => limits.records_max.min((body / RECORD_LEN_MIN) as u32),
        false => limits.records_max,
    };
    match count as u32 {
        count if count > max => Err(BatchError::TooManyRecords { count, max }),
        _ => Ok(()),
    }
}

fn check_attributes(header: &BatchHeader) -> Result<(), BatchError> {
    let refused = [
        (CONTROL, "the control bit"),
        // Transactions come with a protocol of their own; half of one would hide records for ever.
        (TRANSACTIONAL, "the transactional bit"),
        (DELETE_HORIZON, "the delete horizon bit"),
    ];
    match refused.iter().find(|(bit, _)| header.attributes & bit != 0) {
        Some((_, name)) => Err(BatchError::Attributes(name)),
        None => Ok(()),
    }
}

fn check_timestamps(header: &BatchHeader, limits: BatchLimits) -> Result<(), BatchError> {
    let BatchHeader { base_ts, max_ts, .. } = *header;
    // Only the broker dates records by append time.
    let too_late = header.largest_ts() > limits.timestamp_max_ms;
    if base_ts < -1 || max_ts < -1 || too_late || header.is_log_append_time() {
        return Err(BatchError::Timestamp { base_ts, max_ts });
    }
    Ok(())
}

fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let BatchHeader { producer_id: id, producer_epoch: epoch, base_sequence: sequence, .. } = *header;
    if id < NO_PRODUCER || (id >= 0 && (epoch < 0 || sequence < 0)) {
        return Err(BatchError::Producer { id, epoch, sequence });
    }
    Ok(())
}
