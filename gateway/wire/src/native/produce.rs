//! The `Produce` stream: one partition, pipelined batches in, acknowledgements out in the same order.

use super::PartitionName;

/// `PRODUCE_OPEN`, the first frame of the stream. Answered by [`ProduceOpened`], or by an error, after which the
/// stream is over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProduceOpen {
    #[prost(message, optional, tag = "1")]
    pub partition: Option<PartitionName>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ProduceOpened {
    #[prost(bytes = "vec", tag = "1")]
    pub topic_id: Vec<u8>,
    /// Epoch of the partition under which this gateway owns it.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    /// Largest record batch that the topic takes, in bytes (`max.message.bytes`).
    #[prost(uint32, tag = "3")]
    pub batch_bytes_max: u32,
    /// Bytes of unacknowledged batches that the gateway holds for the partition before it stops reading its streams.
    #[prost(uint32, tag = "4")]
    pub window_bytes: u32,
}

/// `PRODUCE`: the payload is exactly one record batch v2. The frame's request id comes back in the answer; a request
/// id of 0 asks for no answer at all (`acks=0`): an error then shows only as the end of the stream.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Produce {}

/// Answer to `PRODUCE`: the batch is fsynced on an ack quorum of bookies.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Produced {
    /// Offset of the batch's first record; for a repeated batch the one that it got the first time.
    #[prost(int64, tag = "1")]
    pub base_offset: i64,
    /// Milliseconds since the epoch with `message.timestamp.type=LogAppendTime`, else -1.
    #[prost(int64, tag = "2")]
    pub append_time_ms: i64,
    #[prost(int64, tag = "3")]
    pub log_start: i64,
    /// The batch was in the log before this request: it was recognised by producer id and sequence.
    #[prost(bool, tag = "4")]
    pub duplicate: bool,
}

/// `CALL_INIT_PRODUCER`: asks for a producer id. Any gateway answers.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct InitProducer {
    /// An id given out before, to raise its epoch; 0 = a new one.
    #[prost(uint64, tag = "1")]
    pub producer_id: u64,
    /// The epoch held with that id.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct InitializedProducer {
    /// Below 2^63, never 0.
    #[prost(uint64, tag = "1")]
    pub producer_id: u64,
    /// 0..=32767.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
}
