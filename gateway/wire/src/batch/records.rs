use bytes::Bytes;
use esker_types::Offset;

use super::builder::Header;
use super::error::BatchError;
use super::header::BatchHeader;
use super::varint;

/// One record. Key, value and headers share the memory of the (decompressed) batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    /// Milliseconds since the epoch, -1 = none.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    /// None is a tombstone.
    pub value: Option<Bytes>,
    /// In the order given; a key may come twice.
    pub headers: Vec<Header>,
}

/// Reads the records of one batch, in order. After an error it is over.
#[derive(Clone, Debug)]
pub struct Records {
    rest: Bytes,
    base_offset: Offset,
    base_ts: i64,
    append_ts: Option<i64>,
    index: u32,
    count: u32,
    finished: bool,
}

impl Records {
    pub(super) fn new(header: &BatchHeader, body: Bytes) -> Self {
        Self {
            rest: body,
            base_offset: header.base_offset,
            base_ts: header.base_ts,
            append_ts: header.is_log_append_time().then_some(header.max_ts),
            index: 0,
            count: header.count.max(0) as u32,
            finished: false,
        }
    }

    fn bad(&self, what: &'static str) -> BatchError {
        BatchError::Record { index: self.index, what }
    }

    fn read(&mut self) -> Result<Record, BatchError> {
        let mut front = &self.rest[..];
        let len = varint::take(&mut front).ok_or_else(|| self.bad("no length"))?;
        let len = usize::try_from(len).ok().filter(|len| *len <= front.len());
        let len = len.ok_or_else(|| self.bad("length beyond the batch"))?;
        let start = self.rest.len() - front.len();
        let body = self.rest.slice(start..start + len);
        let record = self.parse(&body)?;
        self.rest = self.rest.slice(start + len..);
        Ok(record)
    }

    fn parse(&self, body: &Bytes) -> Result<Record, BatchError> {
        let mut at = Cursor { all: body, rest: &body[..] };
        let (_attributes, rest) = at.rest.split_first().ok_or_else(|| self.bad("no attributes"))?;
        at.rest = rest;
        let ts_delta = at.number().ok_or_else(|| self.bad("no timestamp"))?;
        let offset_delta = at.number().ok_or_else(|| self.bad("no offset"))?;
        // Offsets within a batch are consecutive: a hole or a repetition would be two truths about one offset.
        if offset_delta != i64::from(self.index) {
            return Err(self.bad("offsets are not consecutive"));
        }
        let key = at.bytes().ok_or_else(|| self.bad("key beyond the record"))?;
        let value = at.bytes().ok_or_else(|| self.bad("value beyond the record"))?;
        let headers = at.headers().ok_or_else(|| self.bad("headers beyond the record"))?;
        if !at.rest.is_empty() {
            return Err(self.bad("bytes behind its headers"));
        }
        Ok(Record {
            offset: self.base_offset.saturating_add(offset_delta),
            timestamp_ms: self.append_ts.unwrap_or(self.base_ts.saturating_add(ts_delta)),
            key,
            value,
            headers,
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        if self.index == self.count {
            self.finished = true;
            return (!self.rest.is_empty()).then(|| Err(BatchError::TrailingBytes(self.rest.len())));
        }
        let record = self.read();
        self.index += 1;
        self.finished = record.is_err();
        Some(record)
    }
}

struct Cursor<'a> {
    all: &'a Bytes,
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn number(&mut self) -> Option<i64> {
        varint::take(&mut self.rest)
    }

    /// A length and so many bytes; `Some(None)` for the length -1.
    fn bytes(&mut self) -> Option<Option<Bytes>> {
        let len = match self.number()? {
            -1 => return Some(None),
            len => usize::try_from(len).ok()?,
        };
        if len > self.rest.len() {
            return None;
        }
        let start = self.all.len() - self.rest.len();
        self.rest = &self.rest[len..];
        Some(Some(self.all.slice(start..start + len)))
    }

    fn headers(&mut self) -> Option<Vec<Header>> {
        let count = usize::try_from(self.number()?).ok()?;
        // Each takes two bytes at least; only then is it safe to believe the count.
        if count > self.rest.len() / 2 {
            return None;
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let key = self.bytes()??;
            headers.push(Header { key, value: self.bytes()? });
        }
        Some(headers)
    }
}
