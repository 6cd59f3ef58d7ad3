use bytes::Bytes;

/// What a bookie takes at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum BookieMode {
    Writable = 0,
    /// Only ADDs of recoveries and repairs, fences and reads.
    RecoveryOnly = 1,
    /// Only fences and reads.
    ReadOnly = 2,
    /// The journal failed: reads only, the process is about to end.
    Poisoned = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequestMessage {}

/// STATUS: for the controller, placement and people. Nothing in it decides about safety.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponseMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance: Bytes,
    #[prost(enumeration = "BookieMode", tag = "2")]
    pub mode: i32,
    #[prost(uint64, tag = "3")]
    pub free_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub total_bytes: u64,
    /// Bytes that wait for the journal.
    #[prost(uint64, tag = "5")]
    pub queued_bytes: u64,
    #[prost(uint64, tag = "6")]
    pub segments: u64,
    #[prost(uint64, tag = "7")]
    pub limbo_segments: u64,
    #[prost(uint64, tag = "8")]
    pub durable_lsn: u64,
}
