use bytes::Bytes;
use esker_types::entry::ENTRY_HEADER_LEN;
use esker_types::{EntryHeader, EntryId, Epoch, Frame, InstanceId, PartitionId, SegmentId, checksum, opcode};

use super::{ENTRY_BYTES_MAX, WireError, instance_bytes, instance_from};

/// ADD: store one entry (R5). Answered by [`AddStatus`], not one to one: an OK speaks for all entries below `next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    pub instance: InstanceId,
    pub segment: SegmentId,
    pub entry: EntryId,
    /// Epoch under which the sender owns the partition; a fence above it refuses the entry.
    pub req_epoch: Epoch,
    /// Count of acked entries of the segment as the sender knows it. A hint that recovery starts from.
    pub lac: u64,
    /// CRC-32C over `bytes`.
    pub crc: u32,
    /// Written back by a recovery or copied by a repair: still taken when ordinary ADDs are refused for lack of space.
    pub recovery: bool,
    /// Entry header and payload.
    pub bytes: Bytes,
}

/// Control part of an ADD frame; the entry is the frame's payload.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance: Bytes,
    #[prost(uint64, tag = "2")]
    pub partition: u64,
    #[prost(uint64, tag = "3")]
    pub n: u64,
    #[prost(uint64, tag = "4")]
    pub entry: u64,
    #[prost(uint32, tag = "5")]
    pub req_epoch: u32,
    #[prost(uint64, tag = "6")]
    pub lac: u64,
    #[prost(fixed32, tag = "7")]
    pub crc: u32,
    #[prost(bool, tag = "8")]
    pub recovery: bool,
}

impl Add {
    pub fn to_frame(&self, request_id: u64) -> Frame {
        let message = AddMessage {
            instance: instance_bytes(self.instance),
            partition: self.segment.partition.0,
            n: self.segment.n,
            entry: self.entry,
            req_epoch: self.req_epoch.0,
            lac: self.lac,
            crc: self.crc,
            recovery: self.recovery,
        };
        Frame::new(opcode::bookie::ADD, request_id, &message).with_payload(self.bytes.clone())
    }

    /// Parses and verifies an ADD: CRC over all bytes (the bookie's only pass over them), and that the entry's own
    /// header names the same segment and number as the request.
    pub fn from_frame(frame: &Frame) -> Result<Self, WireError> {
        let message: AddMessage = frame.decode_control()?;
        let add = Self {
            instance: instance_from(&message.instance)?,
            segment: SegmentId { partition: PartitionId(message.partition), n: message.n },
            entry: message.entry,
            req_epoch: Epoch(message.req_epoch),
            lac: message.lac,
            crc: message.crc,
            recovery: message.recovery,
            bytes: frame.payload_bytes(),
        };
        add.verify()?;
        Ok(add)
    }

    pub fn verify(&self) -> Result<(), WireError> {
        if self.bytes.len() > ENTRY_BYTES_MAX {
            return Err(WireError::TooLarge(self.bytes.len()));
        }
        let header = EntryHeader::decode(&self.bytes)?;
        if header.segment != self.segment || header.entry != self.entry {
            let request = format!("{} entry {}", self.segment, self.entry);
            return Err(WireError::Misnamed { request, entry: format!("{} entry {}", header.segment, header.entry) });
        }
        let need = ENTRY_HEADER_LEN + header.len as usize;
        if self.bytes.len() != need {
            return Err(esker_types::entry::EntryError::Truncated { have: self.bytes.len(), need }.into());
        }
        let found = checksum::crc32c(&self.bytes);
        if found != self.crc {
            return Err(WireError::Crc { expected: self.crc, found });
        }
        Ok(())
    }
}

/// What a bookie says about ADDs. `Ok` and `Gap` move the sender's picture of the copy; the rest are refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum AddStatusKind {
    /// All entries below `next` are fsynced. One per segment and group of the journal.
    Ok = 0,
    /// The entry is not the next one: `next` is. Resend from there.
    Gap = 1,
    /// `max_epoch` has fenced the sender's epoch.
    Fenced = 2,
    /// Entry `next` is held with other bytes: a bug, stop the partition.
    Conflict = 3,
    /// No space, draining, or the journal failed.
    ReadOnly = 4,
    /// The copy's state is not known after damage; it takes nothing.
    Limbo = 5,
    /// The directories behind this address are not the instance that was asked for.
    WrongInstance = 6,
}

/// ADD_STATUS, pushed by the bookie on the connection that sent the ADD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddStatus {
    pub segment: SegmentId,
    /// The instance that answers.
    pub instance: InstanceId,
    pub kind: AddStatusKind,
    /// `Ok`: durable count. `Gap`: accepted count. `Conflict`: the entry. Otherwise the entry that was refused.
    pub next: u64,
    /// Epoch of the ADD that this answers.
    pub req_epoch: Epoch,
    /// The partition's fence, [`Epoch`] 0 if there is none.
    pub max_epoch: Epoch,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AddStatusMessage {
    #[prost(uint64, tag = "1")]
    pub partition: u64,
    #[prost(uint64, tag = "2")]
    pub n: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub instance: Bytes,
    #[prost(enumeration = "AddStatusKind", tag = "4")]
    pub kind: i32,
    #[prost(uint64, tag = "5")]
    pub next: u64,
    #[prost(uint32, tag = "6")]
    pub req_epoch: u32,
    #[prost(uint32, tag = "7")]
    pub max_epoch: u32,
}

impl AddStatus {
    pub fn to_frame(&self) -> Frame {
        let message = AddStatusMessage {
            partition: self.segment.partition.0,
            n: self.segment.n,
            instance: instance_bytes(self.instance),
            kind: self.kind as i32,
            next: self.next,
            req_epoch: self.req_epoch.0,
            max_epoch: self.max_epoch.0,
        };
        Frame::new(opcode::bookie::ADD_STATUS, 0, &message)
    }

    pub fn from_frame(frame: &Frame) -> Result<Self, WireError> {
        let message: AddStatusMessage = frame.decode_control()?;
        let kind =
            AddStatusKind::try_from(message.kind).map_err(|_| WireError::Value(message.kind.into(), "add status"))?;
        Ok(Self {
            segment: SegmentId { partition: PartitionId(message.partition), n: message.n },
            instance: instance_from(&message.instance)?,
            kind,
            next: message.next,
            req_epoch: Epoch(message.req_epoch),
            max_epoch: Epoch(message.max_epoch),
        })
    }
}
