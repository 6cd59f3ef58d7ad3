//! What travels between this crate and the metadata servers (opcodes in `esker_types::opcode::metadata`).
//!
//! The control part of every frame is an [`Envelope`]; the message itself is the frame's payload, so that a big topic
//! or chain is bounded by the frame limit, not the control limit. Error answers are plain `ErrorInfo` frames; with
//! `NotLeader`, `owner.addresses` names the leader's internal addresses if it is known.

use bytes::Bytes;
use esker_metadata_core::wire::{self, DecodeError, Wire};
use esker_metadata_core::{Answer, Change, Command, CommandResult, Query};
use esker_types::frame::Frame;
use esker_types::{BootId, SessionId, WallMs, checksum};
use prost::Message;

/// Bytes of changes that one watch frame carries, about.
pub const WATCH_PART_BYTES: usize = 1 << 20;

/// Control part: protects the payload, which the frame's own CRC leaves out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    #[prost(fixed32, tag = "1")]
    pub crc: u32,
}

esker_metadata_core::messages! {
    pub struct ProposeRequest {
        1 commands: Vec<Command> = [message, repeated],
    }

    pub struct ProposeAnswer {
        1 revision: u64 = [uint64],
        2 results: Vec<CommandResult> = [message, repeated],
    }

    pub struct ReadRequest {
        1 query: Query = [message, required],
    }

    pub struct ReadAnswer {
        1 answer: Answer = [message, required],
    }

    pub struct RenewRequest {
        1 session: SessionId = [uint64],
        2 boot: BootId = [bytes = "vec"],
    }

    pub struct RenewAnswer {
        1 ttl_ms: u32 = [uint32],
    }

    /// Asks for events on this link, by any voter. Answered with [`WatchAnswer`], then `WATCH_EVENT` frames with the same
    /// request id.
    pub struct WatchRequest {
        /// Revision that the watcher holds; the server goes on from there if it can, else it sends a snapshot. 0 = none.
        1 from: u64 = [uint64],
    }

    pub struct WatchAnswer {}

    /// A piece of a snapshot or of one delta.
    pub struct WatchPart {
        /// The state's revision after the last piece.
        1 revision: u64 = [uint64],
        2 wall: WallMs = [int64],
        /// Pieces of a snapshot: forget everything at the first one.
        3 snapshot: bool = [bool],
        4 changes: Vec<Change> = [message, repeated],
        /// More pieces of the same event follow.
        5 more: bool = [bool],
    }
}

/// A frame whose payload is `message`.
pub fn pack<T: Wire>(opcode: u16, request_id: u64, message: &T) -> Frame
where
    T::Proto: Message,
{
    let body = Bytes::from(wire::encode(message));
    Frame::new(opcode, request_id, &Envelope { crc: checksum::crc32c(&body) }).with_payload(body)
}

/// The answer to `request` whose payload is `message`.
pub fn pack_answer<T: Wire>(request: &Frame, message: &T) -> Frame
where
    T::Proto: Message,
{
    let body = Bytes::from(wire::encode(message));
    request.answer(&Envelope { crc: checksum::crc32c(&body) }).with_payload(body)
}

/// The message in a frame's payload.
pub fn unpack<T: Wire>(frame: &Frame) -> Result<T, DecodeError>
where
    T::Proto: Message,
{
    let envelope: Envelope = frame.decode_control()?;
    let body = frame.payload_bytes();
    if checksum::crc32c(&body) != envelope.crc {
        return Err(DecodeError::Malformed("payload does not verify".to_owned()));
    }
    wire::decode(&body)
}
