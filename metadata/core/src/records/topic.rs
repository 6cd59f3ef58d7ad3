use esker_types::{PartitionId, Quorum, TopicId};

crate::codes! {
    /// Kafka's `message.timestamp.type`.
    pub enum TimestampType {
        #[default]
        CreateTime = 0,
        LogAppendTime = 1,
    }

    /// Kafka's `compression.type`.
    pub enum CompressionType {
        /// As the producer sent it.
        #[default]
        Producer = 0,
        Uncompressed = 1,
        Gzip = 2,
        Snappy = 3,
        Lz4 = 4,
        Zstd = 5,
    }
}

crate::messages! {
    /// What a topic's owner chose. None = the default, which [`crate::settings`] names.
    pub struct TopicSettings {
        /// Milliseconds, -1 = for ever.
        1 retention_ms: Option<i64> = [int64, optional],
        /// Bytes per partition, -1 = no bound.
        2 retention_bytes: Option<i64> = [int64, optional],
        3 segment_bytes: Option<u64> = [uint64, optional],
        4 segment_ms: Option<u64> = [uint64, optional],
        5 max_message_bytes: Option<u32> = [uint32, optional],
        6 timestamp_type: TimestampType = [uint32],
        /// How long bookies keep a segment after it is safe in the bucket.
        7 local_retention_ms: Option<i64> = [int64, optional],
        8 offload: Option<bool> = [bool, optional],
        /// Always explicit: the cluster's default at creation, or what was asked for.
        9 quorum: Quorum = [message, required],
        10 compression_type: CompressionType = [uint32],
        /// Kept for Kafka's tools; there is no compaction whose tombstones it could keep.
        11 delete_retention_ms: Option<i64> = [int64, optional],
        /// Kept for Kafka's tools; every record is on disks before it is acknowledged.
        12 flush_ms: Option<i64> = [int64, optional],
    }

    pub struct TopicRecord {
        1 id: TopicId = [bytes = "vec"],
        2 name: String = [string],
        /// By index.
        3 partitions: Vec<PartitionId> = [uint64, repeated],
        4 settings: TopicSettings = [message, required],
        /// Made by Esker for itself; its name begins with `__`.
        5 internal: bool = [bool],
    }
}
