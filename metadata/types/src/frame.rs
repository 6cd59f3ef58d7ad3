//! The frame: what travels on every stream and link, between clients and gateways and between nodes.
//!
//! ```text
//! byte 0 len u32          bytes that follow the header: control part + payload
//!      4 crc u32          CRC-32C of bytes 8..24, bytes 0..4 and the control part, in this order
//!      8 opcode u16      10 version u8     11 flags u8
//!     12 request_id u64  20 control_len u32
//!     24 control part (protobuf), then the payload (raw; protected by checksums of its own)
//! ```
//! Little-endian. `flags` bit 0 marks an answer, bit 1 an error answer (control part = `ErrorInfo`).
//! A request id is chosen by whoever asks and comes back in every answer to it; 0 means that none is expected.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::checksum;

pub const FRAME_HEADER_LEN: usize = 24;
pub const FRAME_VERSION: u8 = 1;
pub const FLAG_ANSWER: u8 = 1;
pub const FLAG_ERROR: u8 = 2;

/// Upper bounds for what a peer may make us buffer, checked on the header before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    pub control_max: u32,
    /// Control part and payload together.
    pub frame_max: u32,
}

impl FrameLimits {
    /// Before a peer has said who it is.
    pub const HELLO: FrameLimits = FrameLimits { control_max: 4 << 10, frame_max: 4 << 10 };
    /// A peer that has been let in: entries of up to 8 MiB with room to spare, control parts of up to 1 MiB.
    pub const PEER: FrameLimits = FrameLimits { control_max: 1 << 20, frame_max: 17 << 20 };
}

/// One frame. Cloning shares the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u16,
    pub version: u8,
    pub flags: u8,
    pub request_id: u64,
    pub control: Bytes,
    /// The pieces of the payload in order; a received frame has at most one.
    pub payload: Vec<Bytes>,
}

/// The stream is no longer a stream of frames: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame checksum does not match: the peer does not speak this protocol, or bytes were damaged on the way")]
    Crc,
    #[error(
        "frame of {len} bytes with a control part of {control_len} is over the limit of {frame_max} / {control_max}"
    )]
    TooLarge { len: u32, control_len: u32, frame_max: u32, control_max: u32 },
    #[error("frame version {0} is not supported")]
    Version(u8),
}

impl Frame {
    pub fn new(opcode: u16, request_id: u64, message: &impl prost::Message) -> Self {
        let control = Bytes::from(message.encode_to_vec());
        Self { opcode, version: FRAME_VERSION, flags: 0, request_id, control, payload: Vec::new() }
    }

    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload.push(payload.into());
        self
    }

    /// The answer to this frame.
    pub fn answer(&self, message: &impl prost::Message) -> Self {
        Self { flags: FLAG_ANSWER, ..Self::new(self.opcode, self.request_id, message) }
    }

    /// An error answer to this frame.
    pub fn error_answer(&self, error: &crate::error::ErrorInfo) -> Self {
        Self { flags: FLAG_ANSWER | FLAG_ERROR, ..Self::new(self.opcode, self.request_id, error) }
    }

    pub fn is_error(&self) -> bool {
        self.flags & FLAG_ERROR != 0
    }

    pub fn is_answer(&self) -> bool {
        self.flags & FLAG_ANSWER != 0
    }

    pub fn decode_control<M: prost::Message + Default>(&self) -> Result<M, prost::DecodeError> {
        M::decode(self.control.clone())
    }

    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }

    /// The payload in one piece; copies only if there are several.
    pub fn payload_bytes(&self) -> Bytes {
        match self.payload.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        FRAME_HEADER_LEN + self.control.len() + self.payload_len()
    }

    /// Appends header and control part; the pieces of `payload` must be written after it, in order.
    pub fn encode_head(&self, out: &mut BytesMut) {
        let control_len = u32::try_from(self.control.len()).expect("control parts are bounded far below 4 GiB");
        let len = u32::try_from(self.control.len() + self.payload_len()).expect("frames are bounded below 4 GiB");
        let mut tail = [0u8; 16];
        let mut to = &mut tail[..];
        to.put_u16_le(self.opcode);
        to.put_u8(self.version);
        to.put_u8(self.flags);
        to.put_u64_le(self.request_id);
        to.put_u32_le(control_len);
        out.reserve(FRAME_HEADER_LEN + self.control.len());
        out.put_u32_le(len);
        out.put_u32_le(header_crc(&tail, len, &self.control));
        out.put_slice(&tail);
        out.put_slice(&self.control);
    }

    /// The whole frame in one buffer; for tests and small frames.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.wire_len());
        self.encode_head(&mut out);
        for part in &self.payload {
            out.put_slice(part);
        }
        out.freeze()
    }

    /// Takes one frame off the front of `buf`. `Ok(None)`: more bytes are needed; `buf` has been reserved for the
    /// rest of the frame once its header passed the limits.
    pub fn decode(buf: &mut BytesMut, limits: FrameLimits) -> Result<Option<Frame>, FrameError> {
        let Some(head) = buf.first_chunk::<FRAME_HEADER_LEN>() else { return Ok(None) };
        let header = FrameHeader::parse(head);
        header.check(limits)?;
        let total = FRAME_HEADER_LEN + header.len as usize;
        if buf.len() < total {
            buf.reserve(total - buf.len());
            return Ok(None);
        }
        let mut frame = buf.split_to(total);
        let head = frame.split_to(FRAME_HEADER_LEN);
        let control = frame.split_to(header.control_len as usize).freeze();
        if header.crc != header_crc(&head[8..24], header.len, &control) {
            return Err(FrameError::Crc);
        }
        let payload = if frame.has_remaining() { vec![frame.freeze()] } else { Vec::new() };
        let FrameHeader { opcode, version, flags, request_id, .. } = header;
        Ok(Some(Frame { opcode, version, flags, request_id, control, payload }))
    }
}

struct FrameHeader {
    len: u32,
    crc: u32,
    opcode: u16,
    version: u8,
    flags: u8,
    request_id: u64,
    control_len: u32,
}

impl FrameHeader {
    fn parse(mut head: &[u8]) -> Self {
        Self {
            len: head.get_u32_le(),
            crc: head.get_u32_le(),
            opcode: head.get_u16_le(),
            version: head.get_u8(),
            flags: head.get_u8(),
            request_id: head.get_u64_le(),
            control_len: head.get_u32_le(),
        }
    }

    fn check(&self, limits: FrameLimits) -> Result<(), FrameError> {
        if self.version != FRAME_VERSION {
            return Err(FrameError::Version(self.version));
        }
        let FrameLimits { control_max, frame_max } = limits;
        if self.len > frame_max || self.control_len > control_max || self.control_len > self.len {
            return Err(FrameError::TooLarge { len: self.len, control_len: self.control_len, frame_max, control_max });
        }
        Ok(())
    }
}

fn header_crc(tail: &[u8], len: u32, control: &[u8]) -> u32 {
    checksum::crc32c_parts([tail, &len.to_le_bytes(), control])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Frame {
        Frame {
            opcode: 7,
            version: FRAME_VERSION,
            flags: FLAG_ANSWER,
            request_id: 99,
            control: Bytes::from_static(b"control"),
            payload: vec![Bytes::from_static(b"payload")],
        }
    }

    #[test]
    fn round_trip_byte_by_byte() {
        let wire = [sample().encode(), sample().encode()].concat();
        let (mut buf, mut seen) = (BytesMut::new(), 0);
        for byte in wire {
            buf.put_u8(byte);
            if let Some(frame) = Frame::decode(&mut buf, FrameLimits::PEER).expect("own bytes") {
                assert_eq!(frame, sample());
                seen += 1;
            }
        }
        assert_eq!((seen, buf.len()), (2, 0));
    }

    #[test]
    fn golden_header() {
        let hex: String = sample().encode()[..24].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((&hex[..8], &hex[16..]), ("0e000000", "07000101630000000000000007000000"));
    }

    #[test]
    fn damage_in_header_or_control_is_refused() {
        let good = sample().encode();
        for bit in 0..(FRAME_HEADER_LEN + 7) * 8 {
            let mut bytes = BytesMut::from(&good[..]);
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A longer length only waits for more bytes; everything else must be an error.
            assert!(!matches!(Frame::decode(&mut bytes, FrameLimits::PEER), Ok(Some(_))), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buf = BytesMut::from(&bytes[..]);
            let _ = Frame::decode(&mut buf, FrameLimits::HELLO);
        }
    }
}
