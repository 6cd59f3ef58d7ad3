//! The `Read` stream: one partition from an offset or a time on; the gateway pushes, QUIC flow control is the permit.

use super::PartitionName;

/// Where reading begins.
#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub enum Position {
    /// This offset, which must lie in [log start, high watermark].
    #[prost(int64, tag = "10")]
    Offset(i64),
    /// The first record whose timestamp is at or after this many milliseconds since the epoch; without one, the end.
    #[prost(int64, tag = "11")]
    TimeMs(i64),
    /// The log start.
    #[prost(bool, tag = "12")]
    Earliest(bool),
    /// The high watermark: only what is still to come.
    #[prost(bool, tag = "13")]
    Latest(bool),
}

/// `READ_OPEN`, the first and only frame from the client. Answered by [`ReadOpened`] or by an error, then `READ_BATCHES`
/// frames with the same request id until an error frame or the end of the stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadOpen {
    #[prost(message, optional, tag = "1")]
    pub partition: Option<PartitionName>,
    /// Required.
    #[prost(oneof = "Position", tags = "10, 11, 12, 13")]
    pub start: Option<Position>,
    /// Stop before this offset (exclusive): the gateway finishes the stream there. 0 = never.
    #[prost(int64, tag = "2")]
    pub end_offset: i64,
    /// Payload of one push at most, unless a single batch is larger. 0 = the gateway's choice (1 MiB).
    #[prost(uint32, tag = "3")]
    pub push_bytes_max: u32,
    /// Go on behind a range that was lost for good; it is then told in [`ReadBatches::lost`].
    /// Otherwise such a range ends the stream with `DataLoss`.
    #[prost(bool, tag = "4")]
    pub skip_lost: bool,
    /// Serve what is closed of the partition, even if another gateway owns it. The stream then ends with `NotOwner` where
    /// that ends; the owner has the rest, and only it knows the high watermark.
    #[prost(bool, tag = "5")]
    pub any_gateway: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadOpened {
    #[prost(bytes = "vec", tag = "1")]
    pub topic_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    /// The offset at which reading begins: what a time, the log start or the end stood for.
    #[prost(int64, tag = "3")]
    pub start_offset: i64,
    #[prost(int64, tag = "4")]
    pub log_start: i64,
    /// Offset behind the last readable record, exclusive.
    #[prost(int64, tag = "5")]
    pub high_watermark: i64,
}

/// `READ_BATCHES`, pushed: the payload is zero or more whole record batches in offset order. The first batch of a
/// stream may begin before the start offset; the client trims. A push without payload only tells the watermarks.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadBatches {
    #[prost(int64, tag = "1")]
    pub high_watermark: i64,
    #[prost(int64, tag = "2")]
    pub log_start: i64,
    /// Offset behind the last record that no open transaction can hide, exclusive. Equal to the high watermark today.
    #[prost(int64, tag = "3")]
    pub last_stable: i64,
    /// Where the client continues after a reconnect: the offset behind this push, exclusive.
    #[prost(int64, tag = "4")]
    pub next_offset: i64,
    /// A range directly before the payload that was lost for good, only with `skip_lost`.
    #[prost(message, optional, tag = "5")]
    pub lost: Option<OffsetRange>,
}

/// [from, to).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct OffsetRange {
    #[prost(int64, tag = "1")]
    pub from: i64,
    #[prost(int64, tag = "2")]
    pub to: i64,
}

/// `CALL_LIST_OFFSETS`: turns a position into an offset. Only the owner answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListOffsets {
    #[prost(message, optional, tag = "1")]
    pub partition: Option<PartitionName>,
    /// Required.
    #[prost(oneof = "Position", tags = "10, 11, 12, 13")]
    pub at: Option<Position>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ListedOffsets {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// Timestamp of the record at `offset` for a `TimeMs` that found one, else -1.
    #[prost(int64, tag = "2")]
    pub timestamp_ms: i64,
    #[prost(int64, tag = "3")]
    pub log_start: i64,
    #[prost(int64, tag = "4")]
    pub high_watermark: i64,
    #[prost(uint32, tag = "5")]
    pub epoch: u32,
}
