//! Frames on QUIC streams.
//!
//! The reader grows its buffer with the bytes that have come, never with what a header claims, and takes room for
//! a large frame from the connection's ingress budget before it collects it: a client that announces much and
//! sends little holds nothing but its own budget.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use esker_types::frame::FRAME_HEADER_LEN;
use esker_types::{Frame, FrameError, FrameLimits};

/// Frames up to this size take nothing from the ingress budget: calls and small batches.
const SMALL_FRAME: usize = 64 << 10;
/// Least room asked for when the buffer is full.
const READ_CHUNK: usize = 64 << 10;

/// Why no further frame comes from a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream ended inside a frame")]
    Truncated,
    #[error("no frame came within {0:?}")]
    Deadline(Duration),
    #[error("the stream broke: {0}")]
    Read(#[from] quinn::ReadError),
}

/// A frame with the share of the connection's ingress budget that it uses until it is answered.
#[derive(Debug)]
pub struct Received {
    pub frame: Frame,
    pub room: Option<OwnedSemaphorePermit>,
}

pub struct FrameReader {
    stream: quinn::RecvStream,
    buffer: BytesMut,
    limits: FrameLimits,
    ingress: Arc<Semaphore>,
}

impl FrameReader {
    pub fn new(stream: quinn::RecvStream, limits: FrameLimits, ingress: Arc<Semaphore>) -> Self {
        Self { stream, buffer: BytesMut::new(), limits, ingress }
    }

    /// The next frame; none when the peer finished the stream between frames.
    ///
    /// Not cancel-safe against the ingress permit of a half-read frame being given back, which is harmless: bytes
    /// already read stay in the buffer and the next call goes on with them.
    pub async fn next(&mut self) -> Result<Option<Received>, StreamError> {
        let mut room = None;
        loop {
            if let Some(total) = self.announced()? {
                if total > SMALL_FRAME && room.is_none() {
                    let permits = u32::try_from(total).unwrap_or(u32::MAX);
                    room = self.ingress.clone().acquire_many_owned(permits).await.ok();
                }
                if self.buffer.len() >= total {
                    let frame = Frame::decode(&mut self.buffer, self.limits)?;
                    return Ok(frame.map(|frame| Received { frame, room }));
                }
            }
            // A full buffer doubles, so that a frame of n bytes is copied at most twice while it is collected.
            if self.buffer.capacity() == self.buffer.len() {
                self.buffer.reserve(self.buffer.len().max(READ_CHUNK));
            }
            match self.stream.read_chunk(usize::MAX, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(StreamError::Truncated),
            }
        }
    }

    /// The same with a deadline, for frames that a well-behaved peer sends at once.
    pub async fn next_within(&mut self, deadline: Duration) -> Result<Option<Received>, StreamError> {
        tokio::time::timeout(deadline, self.next()).await.map_err(|_| StreamError::Deadline(deadline))?
    }

    /// Tells the peer to send no more on this stream.
    pub fn stop(&mut self, code: u32) {
        // An error means that the stream is over already.
        let _ = self.stream.stop(code.into());
    }

    /// Length of the frame at the front, once its header is there and within the limits.
    fn announced(&mut self) -> Result<Option<usize>, StreamError> {
        let Some(head) = self.buffer.first_chunk::<FRAME_HEADER_LEN>() else { return Ok(None) };
        let total = FRAME_HEADER_LEN + u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if total > FRAME_HEADER_LEN + self.limits.frame_max as usize {
            // Decoding checks the limits before anything else, and so names what is wrong.
            Frame::decode(&mut self.buffer, self.limits)?;
            return Err(FrameError::Crc.into());
        }
        Ok(Some(total))
    }
}

/// Writes frames without copying payloads.
pub struct FrameWriter {
    stream: quinn::SendStream,
    head: BytesMut,
}

impl FrameWriter {
    pub fn new(stream: quinn::SendStream) -> Self {
        Self { stream, head: BytesMut::new() }
    }

    /// Not cancel-safe: a frame may be cut off. Only for tasks that write and do nothing else.
    pub async fn write(&mut self, frame: &Frame) -> Result<(), quinn::WriteError> {
        self.write_all(std::slice::from_ref(frame)).await
    }

    /// Several frames in one go, so that small answers share packets. Not cancel-safe either.
    pub async fn write_all(&mut self, frames: &[Frame]) -> Result<(), quinn::WriteError> {
        let mut chunks: Vec<Bytes> = Vec::with_capacity(frames.len() + 1);
        for frame in frames {
            frame.encode_head(&mut self.head);
            if frame.payload.iter().any(|part| !part.is_empty()) {
                chunks.push(self.head.split().freeze());
                chunks.extend(frame.payload.iter().filter(|part| !part.is_empty()).cloned());
            }
        }
        if !self.head.is_empty() {
            chunks.push(self.head.split().freeze());
        }
        self.stream.write_all_chunks(&mut chunks).await
    }

    /// Ends the stream in good order: all that was written still arrives.
    pub fn finish(&mut self) {
        // An error means that the peer stopped it already.
        let _ = self.stream.finish();
    }

    /// Resolves when the peer has everything, or wants no more.
    pub async fn stopped(&mut self) {
        let _ = self.stream.stopped().await;
    }
}
