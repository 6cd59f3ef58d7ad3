use bytes::{BufMut, Bytes, BytesMut};

/// Collects a message. Record data is referred to, never copied: the message comes out as a list of buffers.
#[derive(Debug, Default)]
pub struct Writer {
    own: BytesMut,
    /// Buffers that are not ours, each with the length of `own` in front of it.
    shared: Vec<(usize, Bytes)>,
    shared_len: usize,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.own.len() + self.shared_len
    }

    pub fn i8(&mut self, value: i8) {
        self.own.put_i8(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.own.put_i16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.own.put_i32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.own.put_i64(value);
    }

    pub fn uuid(&mut self, value: &[u8; 16]) {
        self.own.put_slice(value);
    }

    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.own.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.own.put_u8(value as u8);
    }

    /// # Panics
    /// If the text is longer than the form holds. What the door answers is bounded far below that: names by metadata,
    /// messages by [`crate::bounded`].
    pub fn string(&mut self, value: Option<&str>, compact: bool) {
        let len = value.map(str::len);
        match compact {
            true => self.compact(len),
            false => self.i16(len.map_or(-1, |len| i16::try_from(len).expect("strings are bounded below 32 KiB"))),
        }
        self.own.put_slice(value.unwrap_or_default().as_bytes());
    }

    pub fn bytes(&mut self, value: Option<&[u8]>, compact: bool) {
        self.count(value.map(<[u8]>::len), compact);
        self.own.put_slice(value.unwrap_or_default());
    }

    /// Byte strings that lie one behind the other and are shared with the message.
    pub fn shared(&mut self, parts: &[Bytes], compact: bool) {
        self.count(Some(parts.iter().map(Bytes::len).sum()), compact);
        for part in parts.iter().filter(|part| !part.is_empty()) {
            self.shared_len += part.len();
            self.shared.push((self.own.len(), part.clone()));
        }
    }

    /// The count of an array, or the length of bytes. None: null.
    pub fn count(&mut self, count: Option<usize>, compact: bool) {
        match compact {
            true => self.compact(count),
            false => self.i32(count.map_or(-1, |n| i32::try_from(n).expect("messages are bounded below 2 GiB"))),
        }
    }

    fn compact(&mut self, count: Option<usize>) {
        self.uvarint(count.map_or(0, |n| u32::try_from(n + 1).expect("messages are bounded below 2 GiB")));
    }

    /// A tagged field that was written by itself.
    pub fn tag(&mut self, tag: u32, body: Writer) {
        debug_assert!(body.shared.is_empty(), "record data is never in a tagged field");
        self.uvarint(tag);
        self.uvarint(u32::try_from(body.own.len()).expect("messages are bounded below 2 GiB"));
        self.own.put_slice(&body.own);
    }

    /// The message in pieces, to be sent one behind the other. With `prefix`, its length as an i32 goes first.
    pub fn finish(self, prefix: bool) -> Vec<Bytes> {
        let len = i32::try_from(self.len()).expect("messages are bounded below 2 GiB");
        let mut out = Vec::with_capacity(2 * self.shared.len() + 2);
        if prefix {
            out.push(Bytes::copy_from_slice(&len.to_be_bytes()));
        }
        let mut own = self.own.freeze();
        let mut taken = 0;
        for (at, part) in self.shared {
            if at > taken {
                out.push(own.split_to(at - taken));
                taken = at;
            }
            out.push(part);
        }
        if !own.is_empty() {
            out.push(own);
        }
        out
    }
}
