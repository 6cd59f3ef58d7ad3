//! What gateways are asked by the controller and by each other (opcodes in [`crate::opcode::gateway`]).

/// `MOVE`, to the owner: hand the partition over to a live session. Answered when it is done, or by an error:
/// `NotOwner` (with the owner, if known), `Recovering` (try again), `TimedOutUnknown` (the record will tell).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct MoveRequest {
    #[prost(uint64, tag = "1")]
    pub partition: u64,
    /// Epoch under which the receiver is thought to own it; 0 = whatever it is.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    #[prost(uint64, tag = "3")]
    pub to_session: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct MoveAnswer {
    /// The partition's epoch under the new owner.
    #[prost(uint32, tag = "1")]
    pub epoch: u32,
    /// How long the partition took no appends: from the old owner's freeze until the new owner was ready.
    #[prost(uint64, tag = "2")]
    pub pause_us: u64,
}

/// `STATE_TRANSFER`, from the old owner to the new one: what the new owner needs to start at once. The payload holds
/// the chunks of the producer snapshot one behind the other. Only a hint: used if the digest is the record's.
/// Answered by [`TransferAnswer`] when the new owner is ready, or after a short while in any case.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TransferRequest {
    #[prost(uint64, tag = "1")]
    pub partition: u64,
    /// The new owner's session: a process that has another one ignores the transfer.
    #[prost(uint64, tag = "2")]
    pub to_session: u64,
    /// Of the segment that the handover closed.
    #[prost(fixed64, tag = "3")]
    pub digest: u64,
    #[prost(int64, tag = "4")]
    pub end_offset: i64,
    #[prost(uint32, repeated, tag = "5")]
    pub chunk_lens: Vec<u32>,
    #[prost(fixed32, tag = "6")]
    pub payload_crc: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TransferAnswer {
    /// The receiver owns the partition and takes appends.
    #[prost(bool, tag = "1")]
    pub ready: bool,
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
}
