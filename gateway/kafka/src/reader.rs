use bytes::{Buf, Bytes};

use crate::error::DecodeError;

/// What decoding one message may cost. Record data is not counted: it stays where it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Memory for everything but record data and other byte strings, in bytes. A count in a message makes at most this
    /// much, however small its elements are on the wire.
    pub memory_max: usize,
    /// Bytes of tagged fields, known and unknown, in the whole message. Clients send some tens.
    pub tags_max: usize,
}

impl Default for DecodeLimits {
    /// 32 MiB: some 300,000 topics or partitions in one request. 128 KiB of tags.
    fn default() -> Self {
        Self { memory_max: 32 << 20, tags_max: 128 << 10 }
    }
}

/// Takes fields off the front of a message. Every length and count is held against the bytes that are left before
/// anything is allocated.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    limits: DecodeLimits,
    memory: usize,
    tags: usize,
}

impl Reader {
    pub fn new(bytes: Bytes, limits: DecodeLimits) -> Self {
        Self { bytes, limits, memory: limits.memory_max, tags: limits.tags_max }
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The message must end here.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    fn need(&self, need: usize) -> Result<(), DecodeError> {
        match self.bytes.len() {
            have if have < need => Err(DecodeError::Truncated { need, have }),
            _ => Ok(()),
        }
    }

    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.need(1)?;
        Ok(self.bytes.get_i8())
    }

    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.need(2)?;
        Ok(self.bytes.get_i16())
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.need(4)?;
        Ok(self.bytes.get_i32())
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.bytes.get_i64())
    }

    pub fn uuid(&mut self) -> Result<[u8; 16], DecodeError> {
        self.need(16)?;
        let mut id = [0; 16];
        self.bytes.copy_to_slice(&mut id);
        Ok(id)
    }

    /// At most 5 bytes, at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            self.need(1)?;
            let byte = self.bytes.get_u8();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::Varint);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A length or count that a compact form holds plus one. None: null.
    fn compact(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok(self.uvarint()?.checked_sub(1).map(|len| len as usize))
    }

    fn plain(&self, len: i64) -> Result<Option<usize>, DecodeError> {
        match len {
            -1 => Ok(None),
            len => usize::try_from(len).map(Some).map_err(|_| DecodeError::Length(len)),
        }
    }

    /// None: null.
    pub fn string(&mut self, compact: bool) -> Result<Option<String>, DecodeError> {
        let len = match compact {
            true => self.compact()?,
            false => {
                let len = self.i16()?;
                self.plain(len.into())?
            }
        };
        let Some(len) = len else { return Ok(None) };
        self.need(len)?;
        self.charge(len)?;
        let text = std::str::from_utf8(&self.bytes[..len]).map_err(|_| DecodeError::Utf8)?.to_owned();
        self.bytes.advance(len);
        Ok(Some(text))
    }

    /// Shares the memory of the message. None: null.
    pub fn bytes(&mut self, compact: bool) -> Result<Option<Bytes>, DecodeError> {
        let len = match compact {
            true => self.compact()?,
            false => {
                let len = self.i32()?;
                self.plain(len.into())?
            }
        };
        let Some(len) = len else { return Ok(None) };
        self.need(len)?;
        Ok(Some(self.bytes.split_to(len)))
    }

    /// Number of elements of an array whose elements take at least `min_len` bytes here and `size` in memory. What it
    /// returns may be allocated. None: null.
    pub fn array(&mut self, compact: bool, min_len: usize, size: usize) -> Result<Option<usize>, DecodeError> {
        let count = match compact {
            true => self.compact()?,
            false => {
                let count = self.i32()?;
                self.plain(count.into())?
            }
        };
        let Some(count) = count else { return Ok(None) };
        let have = self.bytes.len();
        if count > have / min_len.max(1) {
            return Err(DecodeError::Count { count, min_len, have });
        }
        self.charge(count.saturating_mul(size))?;
        Ok(Some(count))
    }

    /// Counts memory that is about to be used.
    pub fn charge(&mut self, memory: usize) -> Result<(), DecodeError> {
        let left = self.memory.checked_sub(memory);
        self.memory = left.ok_or(DecodeError::TooLarge(self.limits.memory_max))?;
        Ok(())
    }

    /// Number of tagged fields that follow.
    pub fn tag_count(&mut self) -> Result<u32, DecodeError> {
        let count = self.uvarint()?;
        let have = self.bytes.len();
        // A tag and a size each take a byte.
        match count as usize > have / 2 {
            true => Err(DecodeError::Count { count: count as usize, min_len: 2, have }),
            false => Ok(count),
        }
    }

    /// Enters the next tagged field: until [`Reader::leave_tag`], its bytes are all there is. Returns its tag and what
    /// `leave_tag` wants back.
    pub fn enter_tag(&mut self) -> Result<(u32, Bytes), DecodeError> {
        let tag = self.uvarint()?;
        let size = self.uvarint()? as usize;
        self.need(size)?;
        let left = self.tags.checked_sub(size + 2);
        self.tags = left.ok_or(DecodeError::TagsTooLarge(self.limits.tags_max))?;
        let body = self.bytes.split_to(size);
        Ok((tag, std::mem::replace(&mut self.bytes, body)))
    }

    /// Goes on behind the tagged field, whose bytes must be used up if it was `known`.
    pub fn leave_tag(&mut self, rest: Bytes, known: bool) -> Result<(), DecodeError> {
        if known {
            self.finish()?;
        }
        self.bytes = rest;
        Ok(())
    }

    /// Passes over all tagged fields, for structures that have none of their own.
    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        for _ in 0..self.tag_count()? {
            let (_, rest) = self.enter_tag()?;
            self.leave_tag(rest, false)?;
        }
        Ok(())
    }
}
