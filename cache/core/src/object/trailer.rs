//! The two ends of an object: a head that names it, and a trailer from which everything else is found.

use esker_metadata_core::ObjectPlace;
use esker_types::{ClusterId, ObjectKey, PartitionId, SegmentId, checksum};

use super::{HEAD_LEN, Identity, OBJECT_VERSION, SEGMENTS_MAX};
use crate::error::FormatError;
use crate::input::{Input, checked, put_checksum, put_object_key};

const HEAD: &str = "object head";
const TRAILER: &str = "object trailer";
const DIRECTORY: &str = "object directory";
const HEAD_MAGIC: u32 = 0x484b_5345; // "ESKH"
const TRAILER_MAGIC: u32 = 0x544b_5345; // "ESKT"
/// Bytes of the trailer, the last ones of every object.
pub const TRAILER_LEN: usize = 88;
const PART_LEN: usize = 48;
/// Bytes of the largest directory.
pub const DIRECTORY_MAX: usize = SEGMENTS_MAX * PART_LEN;

/// The first [`HEAD_LEN`] bytes.
pub fn head(identity: &Identity) -> Vec<u8> {
    let mut out = begin(HEAD_MAGIC, identity);
    put_checksum(b"head", &mut out);
    debug_assert_eq!(out.len(), HEAD_LEN);
    out
}

pub fn parse_head(bytes: &[u8]) -> Result<Identity, FormatError> {
    let Some(bytes) = bytes.get(..HEAD_LEN) else { return FormatError::damaged(HEAD, "cut off") };
    let mut input = Input::new(checked(HEAD, b"head", bytes)?, HEAD);
    identity(&mut input, HEAD_MAGIC)
}

/// The last [`TRAILER_LEN`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub identity: Identity,
    /// Bytes of the whole object, trailer included.
    pub len: u64,
    pub directory_position: u64,
    pub directory_len: u32,
    pub directory_crc: u32,
}

impl Trailer {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = begin(TRAILER_MAGIC, &self.identity);
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.directory_position.to_le_bytes());
        out.extend_from_slice(&self.directory_len.to_le_bytes());
        out.extend_from_slice(&self.directory_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        put_checksum(b"tail", &mut out);
        debug_assert_eq!(out.len(), TRAILER_LEN);
        out
    }

    /// From any suffix of an object that holds its end. `object_len` is what the store says of it: an object that is
    /// longer or shorter than it was written is damaged.
    pub fn parse(suffix: &[u8], object_len: u64) -> Result<Self, FormatError> {
        let Some(bytes) = suffix.last_chunk::<TRAILER_LEN>() else { return FormatError::damaged(TRAILER, "cut off") };
        let mut input = Input::new(checked(TRAILER, b"tail", bytes)?, TRAILER);
        let identity = identity(&mut input, TRAILER_MAGIC)?;
        let trailer = Self {
            identity,
            len: input.u64()?,
            directory_position: input.u64()?,
            directory_len: input.u32()?,
            directory_crc: input.u32()?,
        };
        let end = trailer.directory_position.checked_add(u64::from(trailer.directory_len));
        let fits = end.and_then(|end| end.checked_add(TRAILER_LEN as u64)) == Some(trailer.len);
        if trailer.len != object_len || !fits || trailer.directory_len as usize > DIRECTORY_MAX {
            return FormatError::damaged(TRAILER, "it does not fit the object's length");
        }
        Ok(trailer)
    }
}

/// One segment of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub segment: SegmentId,
    /// Where its blocks are.
    pub position: u64,
    pub len: u64,
    pub footer_position: u64,
    pub footer_len: u32,
    /// CRC-32C of the footer's bytes, its own checksum included.
    pub footer_crc: u32,
}

impl Part {
    /// What metadata keeps of it: the part of an object of `size` bytes named `key`.
    pub fn place(&self, key: ObjectKey, size: u64) -> ObjectPlace {
        let Self { segment: _, position, len, footer_position, footer_len, footer_crc } = *self;
        ObjectPlace { key, position, len, footer_position, footer_len, footer_crc, size }
    }
}

/// All segments of an object, in the order of their blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    pub parts: Vec<Part>,
}

impl Directory {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.parts.len() * PART_LEN);
        for part in &self.parts {
            let words = [part.segment.partition.0, part.segment.n, part.position, part.len, part.footer_position];
            words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
            out.extend_from_slice(&part.footer_len.to_le_bytes());
            out.extend_from_slice(&part.footer_crc.to_le_bytes());
        }
        out
    }

    /// `bytes` are the `trailer.directory_len` bytes at `trailer.directory_position`.
    pub fn decode(trailer: &Trailer, bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() != trailer.directory_len as usize || bytes.is_empty() || !bytes.len().is_multiple_of(PART_LEN) {
            return FormatError::damaged(DIRECTORY, "its length");
        }
        if checksum::crc32c_parts([&trailer.identity.seed(b"dirc")[..], bytes]) != trailer.directory_crc {
            return FormatError::damaged(DIRECTORY, "checksum");
        }
        let mut input = Input::new(bytes, DIRECTORY);
        let mut parts = Vec::with_capacity(bytes.len() / PART_LEN);
        let mut at = HEAD_LEN as u64;
        while !input.rest().is_empty() {
            let segment = SegmentId { partition: PartitionId(input.u64()?), n: input.u64()? };
            let (position, len, footer_position) = (input.u64()?, input.u64()?, input.u64()?);
            let part =
                Part { segment, position, len, footer_position, footer_len: input.u32()?, footer_crc: input.u32()? };
            let footer_end = part.footer_position.checked_add(u64::from(part.footer_len));
            let end = part.position.checked_add(part.len);
            let placed = part.position == at && footer_end.is_some_and(|end| end <= trailer.directory_position);
            match end {
                Some(end) if placed && end <= part.footer_position => at = end,
                _ => return FormatError::damaged(DIRECTORY, "the place of a segment"),
            }
            parts.push(part);
        }
        Ok(Self { parts })
    }

    pub(super) fn crc(identity: &Identity, bytes: &[u8]) -> u32 {
        checksum::crc32c_parts([&identity.seed(b"dirc")[..], bytes])
    }
}

fn begin(magic: u32, identity: &Identity) -> Vec<u8> {
    let mut out = Vec::with_capacity(TRAILER_LEN);
    out.extend_from_slice(&magic.to_le_bytes());
    out.extend_from_slice(&OBJECT_VERSION.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&identity.cluster.0);
    put_object_key(&mut out, &identity.key);
    out
}

fn identity(input: &mut Input<'_>, magic: u32) -> Result<Identity, FormatError> {
    input.tag(magic, OBJECT_VERSION)?;
    input.u16()?;
    let cluster = ClusterId(input.array()?);
    let key: ObjectKey = input.object_key()?;
    Ok(Identity { cluster, key })
}
