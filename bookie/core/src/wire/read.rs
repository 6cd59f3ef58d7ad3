use bytes::{Buf, Bytes};
use esker_types::entry::ENTRY_HEADER_LEN;
use esker_types::{Entry, EntryHeader, EntryId, Frame, InstanceId, PartitionId, SegmentId, opcode};

use super::{WireError, instance_bytes, instance_from};

/// READ: entries [from, to) of a segment, as many as fit `max_bytes`, at least one if it is there (R10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub instance: InstanceId,
    pub segment: SegmentId,
    pub from: EntryId,
    /// Exclusive. `u64::MAX`: as far as the bookie holds fsynced entries.
    pub to: EntryId,
    pub max_bytes: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance: Bytes,
    #[prost(uint64, tag = "2")]
    pub partition: u64,
    #[prost(uint64, tag = "3")]
    pub n: u64,
    #[prost(uint64, tag = "4")]
    pub from: u64,
    #[prost(uint64, tag = "5")]
    pub to: u64,
    #[prost(uint32, tag = "6")]
    pub max_bytes: u32,
}

/// What became of entry `from` (R10). "It is not there" is said only where that is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ReadStatus {
    /// At least entry `from` is in the answer.
    Data = 0,
    /// The copy is known whole and ends before `from`.
    NoSuchEntry = 1,
    /// The entry was held and does not verify any more.
    Damaged = 2,
    /// The bookie does not know whether it held the entry.
    Limbo = 3,
    WrongInstance = 4,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadResponse {
    pub instance: InstanceId,
    pub segment: SegmentId,
    pub status: ReadStatus,
    /// Entry behind the last one in the answer; `from` without data.
    pub next: EntryId,
    /// Fsynced count of the copy.
    pub durable: u64,
    /// Highest acked count that the bookie was told.
    pub lac: u64,
    /// Whole entries with their headers, in order from `from`.
    pub entries: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadResponseMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance: Bytes,
    #[prost(uint64, tag = "2")]
    pub partition: u64,
    #[prost(uint64, tag = "3")]
    pub n: u64,
    #[prost(enumeration = "ReadStatus", tag = "4")]
    pub status: i32,
    #[prost(uint64, tag = "5")]
    pub next: u64,
    #[prost(uint64, tag = "6")]
    pub durable: u64,
    #[prost(uint64, tag = "7")]
    pub lac: u64,
}

impl Read {
    pub fn to_frame(&self, request_id: u64) -> Frame {
        let message = ReadMessage {
            instance: instance_bytes(self.instance),
            partition: self.segment.partition.0,
            n: self.segment.n,
            from: self.from,
            to: self.to,
            max_bytes: self.max_bytes,
        };
        Frame::new(opcode::bookie::READ, request_id, &message)
    }

    pub fn from_frame(frame: &Frame) -> Result<Self, WireError> {
        let message: ReadMessage = frame.decode_control()?;
        Ok(Self {
            instance: instance_from(&message.instance)?,
            segment: SegmentId { partition: PartitionId(message.partition), n: message.n },
            from: message.from,
            to: message.to,
            max_bytes: message.max_bytes,
        })
    }
}

impl ReadResponse {
    /// Answers `request`; the entries ride as the frame's payload without a copy.
    pub fn to_frame(&self, request: &Frame) -> Frame {
        let message = ReadResponseMessage {
            instance: instance_bytes(self.instance),
            partition: self.segment.partition.0,
            n: self.segment.n,
            status: self.status as i32,
            next: self.next,
            durable: self.durable,
            lac: self.lac,
        };
        let mut frame = request.answer(&message);
        frame.payload.extend(self.entries.iter().cloned());
        frame
    }

    /// Cuts the payload into entries by their own headers. Each entry is verified, header and payload.
    pub fn from_frame(frame: &Frame) -> Result<Self, WireError> {
        let message: ReadResponseMessage = frame.decode_control()?;
        let status =
            ReadStatus::try_from(message.status).map_err(|_| WireError::Value(message.status.into(), "read status"))?;
        let mut rest = frame.payload_bytes();
        let mut entries = Vec::new();
        while rest.has_remaining() {
            let header = EntryHeader::decode(&rest)?;
            let need = ENTRY_HEADER_LEN + header.len as usize;
            if rest.len() < need {
                return Err(esker_types::entry::EntryError::Truncated { have: rest.len(), need }.into());
            }
            entries.push(Entry::parse(rest.split_to(need))?.bytes);
        }
        Ok(Self {
            instance: instance_from(&message.instance)?,
            segment: SegmentId { partition: PartitionId(message.partition), n: message.n },
            status,
            next: message.next,
            durable: message.durable,
            lac: message.lac,
            entries,
        })
    }
}
