//! What pools hold, and under which key.

use std::io::{Error, ErrorKind, Read, Write};

use bytes::{Bytes, BytesMut};
use foyer::Code;
use xxhash_rust::xxh3::xxh3_128;

/// Identity of a block for ever: which object, which layout of it, which bytes. A new layout of the same bytes is
/// another key, so what an older program cached is never taken for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey {
    /// Digest of the object's key, which is never reused.
    object: u128,
    /// Position of the first byte in the object.
    start: u64,
    layout: u32,
}

impl BlockKey {
    /// The block that begins at byte `start` of the object `key`, in the sense of `layout`.
    pub fn new(key: &str, start: u64, layout: u32) -> Self {
        Self { object: xxh3_128(key.as_bytes()), start, layout }
    }
}

/// One block to be had: its identity, and where it stands if no cache has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    pub key: BlockKey,
    /// First byte in the object.
    pub start: u64,
    /// In bytes.
    pub length: usize,
}

impl Want {
    /// `length` bytes from `start` of the object `key`.
    pub fn new(key: &str, start: u64, length: usize, layout: u32) -> Self {
        Self { key: BlockKey::new(key, start, layout), start, length }
    }

    /// First byte behind it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length as u64)
    }
}

const KEY_BYTES: usize = 28;

impl Code for BlockKey {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        let mut bytes = [0; KEY_BYTES];
        bytes[..16].copy_from_slice(&self.object.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.start.to_le_bytes());
        bytes[24..].copy_from_slice(&self.layout.to_le_bytes());
        writer.write_all(&bytes).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let (mut object, mut start, mut layout) = ([0; 16], [0; 8], [0; 4]);
        let read = reader
            .read_exact(&mut object)
            .and_then(|()| reader.read_exact(&mut start))
            .and_then(|()| reader.read_exact(&mut layout));
        read.map_err(foyer::Error::io_error)?;
        Ok(Self {
            object: u128::from_le_bytes(object),
            start: u64::from_le_bytes(start),
            layout: u32::from_le_bytes(layout),
        })
    }

    fn estimated_size(&self) -> usize {
        KEY_BYTES
    }
}

/// Bytes of a block. Like `Bytes`, but a damaged length on disk can't ask for more memory than a block may have.
#[derive(Clone, Debug)]
pub(crate) struct Block(pub Bytes);

/// Largest block: more than the largest entry.
pub(crate) const BLOCK_MAX: usize = 32 << 20;

impl Code for Block {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        let length = (self.0.len() as u64).to_le_bytes();
        writer.write_all(&length).and_then(|()| writer.write_all(&self.0)).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let mut length = [0; 8];
        reader.read_exact(&mut length).map_err(foyer::Error::io_error)?;
        let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > BLOCK_MAX {
            return Err(foyer::Error::io_error(Error::new(ErrorKind::InvalidData, "longer than any block")));
        }
        let mut bytes = BytesMut::zeroed(length);
        reader.read_exact(&mut bytes).map_err(foyer::Error::io_error)?;
        Ok(Self(bytes.freeze()))
    }

    fn estimated_size(&self) -> usize {
        8 + self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_blocks_come_back_and_lying_lengths_are_refused() {
        let key = BlockKey::new("seg/1/0-1", 4096, 1);
        let mut bytes = Vec::new();
        key.encode(&mut bytes).expect("memory");
        assert_eq!((bytes.len(), BlockKey::decode(&mut bytes.as_slice()).expect("whole")), (KEY_BYTES, key));
        assert_ne!(key, BlockKey::new("seg/1/0-1", 4096, 2));

        let mut bytes = Vec::new();
        Block(Bytes::from_static(b"abc")).encode(&mut bytes).expect("memory");
        assert_eq!(Block::decode(&mut bytes.as_slice()).expect("whole").0.as_ref(), b"abc");
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Block::decode(&mut bytes.as_slice()).is_err());
    }
}
