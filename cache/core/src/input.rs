//! Reads little-endian numbers off a slice, and puts them; a slice that ends too early is an error.

use esker_types::{ClusterId, Epoch, ObjectKey, PageKey, PartitionId, checksum};

use crate::error::FormatError;

pub(crate) struct Input<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => FormatError::damaged(self.what, "cut off"),
        }
    }

    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn i64(&mut self) -> Result<i64, FormatError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub fn object_key(&mut self) -> Result<ObjectKey, FormatError> {
        let (incarnation, shared, _) = (self.u8()?, self.u8()?, self.u16()?);
        Ok(ObjectKey {
            incarnation,
            shared: shared == 1,
            epoch: Epoch(self.u32()?),
            partition: PartitionId(self.u64()?),
            n: self.u64()?,
            attempt: self.u64()?,
        })
    }

    /// Magic and version, the first thing in every part.
    pub fn tag(&mut self, magic: u32, known: u16) -> Result<u16, FormatError> {
        if self.u32()? != magic {
            return FormatError::damaged(self.what, "it begins with something else");
        }
        match self.u16()? {
            0 => FormatError::damaged(self.what, "version 0"),
            found if found > known => Err(FormatError::Newer { what: self.what, found, known }),
            found => Ok(found),
        }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// 32 bytes.
pub(crate) fn put_object_key(out: &mut Vec<u8>, key: &ObjectKey) {
    out.push(key.incarnation);
    out.push(u8::from(key.shared));
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&key.epoch.0.to_le_bytes());
    for word in [key.partition.0, key.n, key.attempt] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// The bytes before a part's checksum, if the checksum over `seed` and them is the one that ends it.
pub(crate) fn checked<'a>(what: &'static str, seed: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], FormatError> {
    match bytes.split_last_chunk::<4>() {
        None => FormatError::damaged(what, "cut off"),
        Some((body, crc)) if checksum::crc32c_parts([seed, body]) == u32::from_le_bytes(*crc) => Ok(body),
        Some(_) => FormatError::damaged(what, "checksum"),
    }
}

pub(crate) fn put_checksum(seed: &[u8], out: &mut Vec<u8>) {
    let crc = checksum::crc32c_parts([seed, &out[..]]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Seed of a page's checksum: a page that is read under another name does not verify.
pub(crate) fn page_seed(cluster: ClusterId, key: &PageKey) -> Vec<u8> {
    let mut seed = b"page".to_vec();
    seed.extend_from_slice(&cluster.0);
    seed.push(key.incarnation);
    for word in [key.partition.0, u64::from(key.epoch.0), key.seq] {
        seed.extend_from_slice(&word.to_le_bytes());
    }
    seed
}
