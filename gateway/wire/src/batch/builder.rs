use bytes::{BufMut, Bytes, BytesMut};
use esker_types::checksum;

use super::body::Batch;
use super::codec::Compression;
use super::header::{
    AT_ATTRIBUTES, AT_BASE_TS, AT_COUNT, AT_CRC, AT_EPOCH, AT_LAST_DELTA, AT_LENGTH, AT_MAGIC, AT_MAX_TS, AT_PRODUCER,
    AT_PRODUCER_EPOCH, AT_SEQUENCE, BATCH_HEADER_LEN, BatchHeader, LENGTH_BASE, MAGIC, NO_PRODUCER,
};
use super::varint;

/// Bytes that a record without headers takes besides key and value, at most: five lengths and deltas, attributes
/// and the header count.
pub const RECORD_OVERHEAD_MAX: usize = 3 * varint::VARINT_MAX + varint::VARLONG_MAX + varint::VARINT_MAX + 2;

/// Who wrote a batch: what makes a repetition of it recognisable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// At least 0.
    pub id: i64,
    pub epoch: i16,
    /// Of the first record; the others follow it one by one.
    pub base_sequence: i32,
}

/// A named value beside key and value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 by convention, not checked.
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// Collects records into one batch. Records are encoded as they come, into one buffer that becomes the batch.
#[derive(Debug)]
pub struct BatchBuilder {
    /// The header's room, then encoded records.
    out: BytesMut,
    compression: Compression,
    base_ts: i64,
    max_ts: i64,
    count: i32,
}

impl BatchBuilder {
    /// `capacity` is a hint: bytes of records expected.
    pub fn new(compression: Compression, capacity: usize) -> Self {
        let mut out = BytesMut::with_capacity(BATCH_HEADER_LEN + capacity);
        out.put_bytes(0, BATCH_HEADER_LEN);
        Self { out, compression, base_ts: -1, max_ts: -1, count: 0 }
    }

    /// Appends a record. `timestamp_ms` is milliseconds since the epoch, -1 = none.
    pub fn push(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) {
        if self.count == 0 {
            self.base_ts = timestamp_ms;
        }
        self.max_ts = self.max_ts.max(timestamp_ms);
        let ts_delta = timestamp_ms.saturating_sub(self.base_ts);
        let offset_delta = i64::from(self.count);
        let len = record_body_len(ts_delta, offset_delta, key, value, headers);
        self.out.reserve(len + varint::VARINT_MAX);
        varint::put(&mut self.out, len as i64);
        self.out.put_u8(0); // attributes: none are defined
        varint::put(&mut self.out, ts_delta);
        varint::put(&mut self.out, offset_delta);
        put_bytes(&mut self.out, key);
        put_bytes(&mut self.out, value);
        varint::put(&mut self.out, headers.len() as i64);
        for header in headers {
            put_bytes(&mut self.out, Some(&header.key));
            put_bytes(&mut self.out, header.value.as_deref());
        }
        self.count += 1;
    }

    /// Bytes of the batch if it were built now, before compression.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> u32 {
        self.count as u32
    }

    /// Bytes of an uncompressed batch that holds this record alone: the smallest that it fits into.
    pub fn alone_len(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
        let body = record_body_len(0, 0, key, value, headers);
        BATCH_HEADER_LEN + varint::len(body as i64) + body
    }

    /// Upper bound of what [`BatchBuilder::push`] would add.
    pub fn record_len_max(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
        let bytes = |b: Option<&[u8]>| b.map_or(0, <[u8]>::len);
        let headers: usize = headers.iter().map(|h| bytes(Some(&h.key)) + bytes(h.value.as_deref()) + 10).sum();
        RECORD_OVERHEAD_MAX + bytes(key) + bytes(value) + headers
    }

    /// The batch at base offset 0 and without a leader epoch: the owner sets both. If compression does not make it
    /// smaller, the records stay as they are.
    ///
    /// # Panics
    /// If there is no record in it.
    pub fn build(self, producer: Option<ProducerStamp>) -> Batch {
        assert!(self.count > 0, "a record batch holds at least one record");
        let Self { mut out, compression, base_ts, max_ts, count } = self;
        let compression = compress_in_place(&mut out, compression);
        let stamp = producer.unwrap_or(ProducerStamp { id: NO_PRODUCER, epoch: -1, base_sequence: -1 });
        let length = i32::try_from(out.len() - LENGTH_BASE).expect("batches are bounded far below 2 GiB");
        let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
        put(AT_LENGTH, &length.to_be_bytes());
        put(AT_EPOCH, &(-1i32).to_be_bytes());
        put(AT_MAGIC, &MAGIC.to_be_bytes());
        put(AT_ATTRIBUTES, &compression.bits().to_be_bytes());
        put(AT_LAST_DELTA, &(count - 1).to_be_bytes());
        put(AT_BASE_TS, &base_ts.to_be_bytes());
        put(AT_MAX_TS, &max_ts.to_be_bytes());
        put(AT_PRODUCER, &stamp.id.to_be_bytes());
        put(AT_PRODUCER_EPOCH, &stamp.epoch.to_be_bytes());
        put(AT_SEQUENCE, &stamp.base_sequence.to_be_bytes());
        put(AT_COUNT, &count.to_be_bytes());
        let crc = checksum::crc32c(&out[AT_ATTRIBUTES..]);
        out[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
        let bytes = out.freeze();
        Batch::trusted(BatchHeader::parse(&bytes).expect("just written"), bytes)
    }
}

/// Replaces the records behind the header by their compressed form; tells what they are now.
fn compress_in_place(out: &mut BytesMut, compression: Compression) -> Compression {
    if compression.is_none() {
        return Compression::None;
    }
    let records = &out[BATCH_HEADER_LEN..];
    match compression.compress(records) {
        Ok(small) if small.len() < records.len() => {
            out.truncate(BATCH_HEADER_LEN);
            out.put_slice(&small);
            compression
        }
        // Writing to memory fails only if the codec can't have the memory it needs: send as it is.
        Ok(_) | Err(_) => Compression::None,
    }
}

fn record_body_len(ts_delta: i64, offset_delta: i64, key: Option<&[u8]>, value: Option<&[u8]>, h: &[Header]) -> usize {
    let headers: usize = h.iter().map(|h| bytes_len(Some(&h.key)) + bytes_len(h.value.as_deref())).sum();
    1 + varint::len(ts_delta)
        + varint::len(offset_delta)
        + bytes_len(key)
        + bytes_len(value)
        + varint::len(h.len() as i64)
        + headers
}

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(varint::len(-1), |b| varint::len(b.len() as i64) + b.len())
}

fn put_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(out, -1),
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}
