use bytes::Bytes;
use esker_wire::batch::Header;

/// A record to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Records with one key go to one partition, in order.
    pub key: Option<Bytes>,
    /// None is a tombstone: "this key is gone".
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
    /// Milliseconds since the epoch; None = now.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    pub fn key_value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::value(value) }
    }
}
