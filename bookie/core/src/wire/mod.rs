//! What gateways and bookies say to each other. Each message has a typed form, which the cores and the simulator
//! use, and a prost form (`*Message`), which is on the wire.
//!
//! All positions are *counts*: "next expected entry", 0 = nothing held. So no message needs a -1.

mod add;
mod fence;
mod read;
mod status;

pub use add::{Add, AddMessage, AddStatus, AddStatusKind, AddStatusMessage};
pub use fence::{
    FenceItem, FenceItemMessage, FenceRequest, FenceRequestMessage, FenceResponse, FenceResponseMessage, FenceResult,
    FenceResultMessage, FenceVerdict,
};
pub use read::{Read, ReadMessage, ReadResponse, ReadResponseMessage, ReadStatus};
pub use status::{BookieMode, StatusRequestMessage, StatusResponseMessage};

/// Items of one FENCE request. A gateway that fences more sends several.
pub const FENCE_ITEMS_MAX: usize = 4096;
/// Largest entry, header included, that a bookie stores. Leaves room for the control part in a peer's frame.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;
/// Upper bound for one READ answer, unless its first entry alone is larger.
pub const READ_BYTES_MAX: u32 = 8 << 20;

/// The message breaks the protocol: a bug of the sender, or damage behind the frame's checksum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the instance id is {0} bytes, must be 16")]
    Instance(usize),
    #[error("{0} is not a known value of {1}")]
    Value(i64, &'static str),
    #[error("{count} items in one request, the limit is {max}")]
    TooMany { count: usize, max: usize },
    #[error("the entry is {0} bytes, the limit is {ENTRY_BYTES_MAX}")]
    TooLarge(usize),
    #[error("crc of the entry is {found:#010x}, the request says {expected:#010x}")]
    Crc { expected: u32, found: u32 },
    #[error("the request names {request}, its entry says {entry}")]
    Misnamed { request: String, entry: String },
    #[error(transparent)]
    Entry(#[from] esker_types::entry::EntryError),
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
}

fn instance_from(bytes: &[u8]) -> Result<esker_types::InstanceId, WireError> {
    esker_types::InstanceId::from_slice(bytes).ok_or(WireError::Instance(bytes.len()))
}

fn instance_bytes(instance: esker_types::InstanceId) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&instance.0)
}

#[cfg(test)]
mod tests;
