//! What metadata knows of the bucket: where a segment's object is until it is folded into the manifest, and the
//! manifest's root after that.

use esker_types::{Epoch, ObjectKey, Offset, PageKey, PartitionId, WallMs};

use crate::wire::{Canon, DecodeError, Wire};

/// Versions of the manifest that forks and attached readers may hold of one partition.
pub const PINS_MAX: usize = 64;

crate::messages! {
    /// Where a segment's bytes are in the bucket.
    pub struct ObjectPlace {
        1 key: ObjectKey = [message, required],
        /// Of the segment's blocks in the object.
        2 position: u64 = [uint64],
        3 len: u64 = [uint64],
        4 footer_position: u64 = [uint64],
        5 footer_len: u32 = [uint32],
        /// CRC-32C of the footer's bytes.
        6 footer_crc: u32 = [fixed32],
        /// Bytes of the whole object.
        7 size: u64 = [uint64],
    }

    /// The newest version of a partition's manifest. Its size does not depend on how much is folded.
    pub struct RootPlace {
        1 key: PageKey = [message, required],
        /// Raised by one by every change; from 1.
        2 ver: u64 = [uint64],
        3 len: u32 = [uint32],
        4 crc: u32 = [fixed32],
        /// Segments with n up to this are in the manifest or below the log start. Inclusive. Never falls.
        5 folded_to: u64 = [uint64],
        6 segments: u64 = [uint64],
        /// Of entries, before compression.
        7 bytes: u64 = [uint64],
        /// Offsets [base_offset, end_offset) are found through it, 0 and 0 when it is empty.
        8 base_offset: Offset = [int64],
        9 end_offset: Offset = [int64],
    }

    /// Nothing that `root` reaches may be deleted before `expires`.
    pub struct PinRecord {
        /// Chosen by who pins; pinning again under the same number replaces.
        1 id: u64 = [uint64],
        2 root: RootPlace = [message, required],
        /// First millisecond of the state machine's wall clock at which the pin is void. Exclusive.
        3 expires: WallMs = [int64],
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectKeyProto {
    #[prost(uint32, tag = "1")]
    pub incarnation: u32,
    #[prost(uint64, tag = "2")]
    pub partition: u64,
    #[prost(uint64, tag = "3")]
    pub n: u64,
    #[prost(uint32, tag = "4")]
    pub epoch: u32,
    #[prost(uint64, tag = "5")]
    pub attempt: u64,
    #[prost(bool, tag = "6")]
    pub shared: bool,
}

impl Wire for ObjectKey {
    type Proto = ObjectKeyProto;
    fn to_wire(&self) -> ObjectKeyProto {
        ObjectKeyProto {
            incarnation: self.incarnation.into(),
            partition: self.partition.0,
            n: self.n,
            epoch: self.epoch.0,
            attempt: self.attempt,
            shared: self.shared,
        }
    }
    fn from_wire(proto: ObjectKeyProto) -> Result<Self, DecodeError> {
        Ok(Self {
            incarnation: u8::from_wire(proto.incarnation)?,
            partition: PartitionId(proto.partition),
            n: proto.n,
            epoch: Epoch(proto.epoch),
            attempt: proto.attempt,
            shared: proto.shared,
        })
    }
    fn digest(&self, into: &mut Canon) {
        let (incarnation, shared) = (u64::from(self.incarnation), u64::from(self.shared));
        for word in [incarnation, self.partition.0, self.n, self.epoch.0.into(), self.attempt, shared] {
            into.word(word);
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PageKeyProto {
    #[prost(uint32, tag = "1")]
    pub incarnation: u32,
    #[prost(uint64, tag = "2")]
    pub partition: u64,
    #[prost(uint32, tag = "3")]
    pub epoch: u32,
    #[prost(uint64, tag = "4")]
    pub seq: u64,
}

impl Wire for PageKey {
    type Proto = PageKeyProto;
    fn to_wire(&self) -> PageKeyProto {
        PageKeyProto {
            incarnation: self.incarnation.into(),
            partition: self.partition.0,
            epoch: self.epoch.0,
            seq: self.seq,
        }
    }
    fn from_wire(proto: PageKeyProto) -> Result<Self, DecodeError> {
        Ok(Self {
            incarnation: u8::from_wire(proto.incarnation)?,
            partition: PartitionId(proto.partition),
            epoch: Epoch(proto.epoch),
            seq: proto.seq,
        })
    }
    fn digest(&self, into: &mut Canon) {
        for word in [u64::from(self.incarnation), self.partition.0, self.epoch.0.into(), self.seq] {
            into.word(word);
        }
    }
}
