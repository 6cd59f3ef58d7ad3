use bytes::Bytes;
use esker_types::{Epoch, Frame, InstanceId, PartitionId, SegmentId, opcode};

use super::{FENCE_ITEMS_MAX, WireError, instance_bytes, instance_from};

/// "Take nothing below `epoch` for this partition any more, and tell what you hold of this segment" (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceItem {
    pub instance: InstanceId,
    pub segment: SegmentId,
    pub epoch: Epoch,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceRequest {
    pub items: Vec<FenceItem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceVerdict {
    /// The fence is fsynced. `durable` and `lac` are counts. With `limbo` the bookie may have held more than
    /// `durable`: it counts neither for coverage nor for the ack quorum.
    Ok {
        durable: u64,
        lac: u64,
        limbo: bool,
    },
    /// A higher epoch has fenced the partition.
    Fenced {
        max_epoch: Epoch,
    },
    WrongInstance,
}

/// One result per item, in the order of the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceResult {
    /// The instance that answers.
    pub instance: InstanceId,
    pub segment: SegmentId,
    pub req_epoch: Epoch,
    pub verdict: FenceVerdict,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceResponse {
    pub results: Vec<FenceResult>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FenceItemMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance: Bytes,
    #[prost(uint64, tag = "2")]
    pub partition: u64,
    #[prost(uint64, tag = "3")]
    pub n: u64,
    #[prost(uint32, tag = "4")]
    pub epoch: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FenceRequestMessage {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<FenceItemMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FenceResultMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub instance: Bytes,
    #[prost(uint64, tag = "2")]
    pub partition: u64,
    #[prost(uint64, tag = "3")]
    pub n: u64,
    #[prost(uint32, tag = "4")]
    pub req_epoch: u32,
    /// 0 ok, 1 fenced, 2 wrong instance.
    #[prost(uint32, tag = "5")]
    pub verdict: u32,
    #[prost(uint64, tag = "6")]
    pub durable: u64,
    #[prost(uint64, tag = "7")]
    pub lac: u64,
    #[prost(bool, tag = "8")]
    pub limbo: bool,
    #[prost(uint32, tag = "9")]
    pub max_epoch: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FenceResponseMessage {
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<FenceResultMessage>,
}

fn bounded(count: usize) -> Result<(), WireError> {
    if count > FENCE_ITEMS_MAX {
        return Err(WireError::TooMany { count, max: FENCE_ITEMS_MAX });
    }
    Ok(())
}

impl FenceRequest {
    pub fn to_message(&self) -> FenceRequestMessage {
        let item = |item: &FenceItem| FenceItemMessage {
            instance: instance_bytes(item.instance),
            partition: item.segment.partition.0,
            n: item.segment.n,
            epoch: item.epoch.0,
        };
        FenceRequestMessage { items: self.items.iter().map(item).collect() }
    }

    pub fn to_frame(&self, request_id: u64) -> Frame {
        Frame::new(opcode::bookie::FENCE, request_id, &self.to_message())
    }

    pub fn from_frame(frame: &Frame) -> Result<Self, WireError> {
        let message: FenceRequestMessage = frame.decode_control()?;
        bounded(message.items.len())?;
        let item = |item: &FenceItemMessage| {
            let segment = SegmentId { partition: PartitionId(item.partition), n: item.n };
            Ok(FenceItem { instance: instance_from(&item.instance)?, segment, epoch: Epoch(item.epoch) })
        };
        Ok(Self { items: message.items.iter().map(item).collect::<Result<_, WireError>>()? })
    }
}

impl FenceResponse {
    pub fn to_message(&self) -> FenceResponseMessage {
        FenceResponseMessage { results: self.results.iter().map(result_to_message).collect() }
    }

    pub fn from_frame(frame: &Frame) -> Result<Self, WireError> {
        let message: FenceResponseMessage = frame.decode_control()?;
        bounded(message.results.len())?;
        Ok(Self { results: message.results.iter().map(result_from_message).collect::<Result<_, _>>()? })
    }
}

fn result_to_message(result: &FenceResult) -> FenceResultMessage {
    let mut message = FenceResultMessage {
        instance: instance_bytes(result.instance),
        partition: result.segment.partition.0,
        n: result.segment.n,
        req_epoch: result.req_epoch.0,
        ..FenceResultMessage::default()
    };
    match result.verdict {
        FenceVerdict::Ok { durable, lac, limbo } => {
            (message.durable, message.lac, message.limbo) = (durable, lac, limbo);
        }
        FenceVerdict::Fenced { max_epoch } => (message.verdict, message.max_epoch) = (1, max_epoch.0),
        FenceVerdict::WrongInstance => message.verdict = 2,
    }
    message
}

fn result_from_message(message: &FenceResultMessage) -> Result<FenceResult, WireError> {
    let verdict = match message.verdict {
        0 => FenceVerdict::Ok { durable: message.durable, lac: message.lac, limbo: message.limbo },
        1 => FenceVerdict::Fenced { max_epoch: Epoch(message.max_epoch) },
        2 => FenceVerdict::WrongInstance,
        other => return Err(WireError::Value(other.into(), "fence verdict")),
    };
    Ok(FenceResult {
        instance: instance_from(&message.instance)?,
        segment: SegmentId { partition: PartitionId(message.partition), n: message.n },
        req_epoch: Epoch(message.req_epoch),
        verdict,
    })
}
