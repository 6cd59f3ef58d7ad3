//! Frames on QUIC streams.

use bytes::{Bytes, BytesMut};
use esker_types::{Frame, FrameError, FrameLimits};
use quinn::{RecvStream, SendStream, VarInt};

/// Why a stream came to its end before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the stream was lost: {0}")]
    Lost(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream ended in the middle of a frame")]
    Cut,
}

/// Stream error code of a client that has no more use for the stream.
pub(crate) const NO_MORE: VarInt = VarInt::from_u32(0);

/// Reads frames. Cancel safe: what arrived stays in `buffer`.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    limits: FrameLimits,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new(), limits: FrameLimits::PEER }
    }

    /// The next frame; None at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer, self.limits)? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(StreamError::Cut),
                Err(e) => return Err(StreamError::Lost(e.to_string())),
            }
        }
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        // An error only says that the stream has ended already.
        let _ = self.stream.stop(NO_MORE);
    }
}

/// Writes a frame; its payload is not copied. Not cancel safe: after a cancelled write the stream is of no use.
pub(crate) async fn write_frame(stream: &mut SendStream, frame: &Frame) -> Result<(), quinn::WriteError> {
    let mut head = BytesMut::new();
    frame.encode_head(&mut head);
    let mut parts: Vec<Bytes> = Vec::with_capacity(1 + frame.payload.len());
    parts.push(head.freeze());
    parts.extend(frame.payload.iter().cloned());
    stream.write_all_chunks(&mut parts).await
}
