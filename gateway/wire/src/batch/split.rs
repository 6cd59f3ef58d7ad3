use bytes::Bytes;

use super::body::Batch;
use super::error::BatchError;
use super::header::BatchHeader;

/// Batches that lie one behind the other, as in an entry's payload or a `READ_BATCHES` push.
#[derive(Clone, Debug)]
pub struct Split {
    rest: Bytes,
    verify: bool,
}

/// Walks over `bytes`. With `verify` each batch's CRC is checked; without it only lengths are, which is right where
/// a checksum over the whole was checked already. After an error the walk is over.
pub fn split(bytes: Bytes, verify: bool) -> Split {
    Split { rest: bytes, verify }
}

impl Iterator for Split {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = self.take();
        if next.is_err() {
            self.rest.clear();
        }
        Some(next)
    }
}

impl Split {
    fn take(&mut self) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(&self.rest)?;
        if header.total_len > self.rest.len() {
            return Err(BatchError::Truncated { have: self.rest.len(), need: header.total_len });
        }
        let bytes = self.rest.split_to(header.total_len);
        match self.verify {
            true => Batch::verify(bytes),
            false => Ok(Batch::trusted(header, bytes)),
        }
    }
}
