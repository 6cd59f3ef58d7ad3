use bytes::{Bytes, BytesMut};
use esker_types::checksum;

use super::body::Batch;
use super::codec::{Compression, DecodeLimits};
use super::error::BatchError;
use super::header::{AT_ATTRIBUTES, AT_CRC, AT_LENGTH, BATCH_HEADER_LEN, BatchHeader, CODEC_MASK, LENGTH_BASE};
use super::records::Records;

impl Batch {
    /// The same records, compressed by `to`, also where that makes them larger. They are read once to their end: what comes out
    /// can be read. Takes processor time and memory for the records twice; see `limits`.
    ///
    /// # Errors
    /// If the records can't be read, or are larger than `limits` when they are not compressed.
    pub fn recompressed(&self, to: Compression, limits: DecodeLimits) -> Result<Self, BatchError> {
        let header = self.header();
        let body = self.bytes().slice(BATCH_HEADER_LEN..);
        let plain: Bytes = header.compression()?.decompress(body, limits)?;
        for record in Records::new(header, plain.clone()) {
            record?;
        }
        // Writing to memory fails only if the codec can't have the memory it needs.
        let body = to.compress(&plain).map_err(|_| BatchError::Compress(to))?;
        let mut out = BytesMut::with_capacity(BATCH_HEADER_LEN + body.len());
        out.extend_from_slice(&self.bytes()[..BATCH_HEADER_LEN]);
        out.extend_from_slice(&body);
        let length = i32::try_from(out.len() - LENGTH_BASE);
        let length = length.map_err(|_| BatchError::TooLarge { bytes: out.len(), max: i32::MAX as usize })?;
        let attributes = header.attributes & !CODEC_MASK | to.bits();
        out[AT_LENGTH..AT_LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        out[AT_ATTRIBUTES..AT_ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
        let crc = checksum::crc32c(&out[AT_ATTRIBUTES..]);
        out[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
        let out = out.freeze();
        Ok(Self::trusted(BatchHeader::parse(&out)?, out))
    }
}
