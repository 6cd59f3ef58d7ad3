//! Frames on a byte stream: one task writes, the receiver reads in place.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use esker_types::{Frame, FrameError, FrameLimits};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::queue::{LinkState, QueueReceiver};
use crate::stats::NetStats;

/// Frames taken from the queue for one write; the queue's byte bound holds too.
const BATCH_FRAMES: usize = 256;
/// A payload piece below this is copied behind its head: cheaper than one more slice for the kernel.
const INLINE_MAX: usize = 1024;
/// Room offered to each read. Large enough for many small frames per system call.
const READ_CHUNK: usize = 256 << 10;
/// After the close, what was queued gets this long.
const LINGER: Duration = Duration::from_secs(1);

/// Writes queued frames until the link closes. All that is queued goes out with one vectored write (or as few as
/// the socket allows), so frames share system calls under load and none waits when idle.
pub(crate) async fn write_loop<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut queue: QueueReceiver,
    state: Arc<LinkState>,
    stall: Duration,
    stats: Arc<NetStats>,
) {
    let closed = state.closed.clone();
    let work = write_until_closed(&mut writer, &mut queue, &state, stall, &stats);
    let deadline = async {
        closed.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    let result = tokio::select! {
        biased;
        result = work => result,
        () = deadline => Ok(()),
    };
    match result {
        Ok(()) => state.close("closed by this side"),
        Err(error) => state.close(format!("write: {error}")),
    }
    let _ = timeout(LINGER, writer.shutdown()).await;
    state.written.cancel();
}

async fn write_until_closed<W: AsyncWrite + Unpin>(
    writer: &mut W,
    queue: &mut QueueReceiver,
    state: &LinkState,
    stall: Duration,
    stats: &NetStats,
) -> io::Result<()> {
    let mut frames = Vec::with_capacity(BATCH_FRAMES);
    let mut heads = BytesMut::new();
    let mut pieces = Pieces::default();
    loop {
        tokio::select! {
            biased;
            _ = queue.recv_many(&mut frames, BATCH_FRAMES) => {}
            () = state.closed.cancelled() => {
                queue.close();
                while frames.len() < BATCH_FRAMES && let Some(frame) = queue.try_recv() {
                    frames.push(frame);
                }
            }
        }
        if frames.is_empty() {
            return Ok(());
        }
        let weight = frames.iter().map(|frame| queue.weight(frame)).sum();
        NetStats::add(&stats.frames_out, frames.len() as u64);
        for frame in frames.drain(..) {
            pieces.push_frame(frame, &mut heads);
        }
        pieces.push_heads(&mut heads);
        NetStats::add(&stats.bytes_out, pieces.remaining() as u64);
        while pieces.has_remaining() {
            NetStats::add(&stats.writes, 1);
            let written = timeout(stall, writer.write_buf(&mut pieces)).await;
            if written.map_err(|_| stalled(stall))?? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        timeout(stall, writer.flush()).await.map_err(|_| stalled(stall))??;
        queue.release(weight);
    }
}

fn stalled(stall: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the peer took no byte for {} s", stall.as_secs()))
}

/// Bytes to be written, in pieces that are never joined.
#[derive(Default)]
struct Pieces {
    queue: VecDeque<Bytes>,
    len: usize,
}

impl Pieces {
    /// Heads and small pieces gather in `heads`; large pieces are put behind them without a copy.
    fn push_frame(&mut self, frame: Frame, heads: &mut BytesMut) {
        frame.encode_head(heads);
        for piece in frame.payload {
            if piece.len() < INLINE_MAX {
                heads.put_slice(&piece);
            } else {
                self.push_heads(heads);
                self.push(piece);
            }
        }
    }

    fn push_heads(&mut self, heads: &mut BytesMut) {
        self.push(heads.split().freeze());
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.queue.push_back(piece);
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.queue.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, piece) in into.iter_mut().zip(&self.queue) {
            *slot = IoSlice::new(piece);
            n += 1;
        }
        n
    }

    fn advance(&mut self, mut by: usize) {
        assert!(by <= self.len, "advanced behind the end: {by} of {}", self.len);
        self.len -= by;
        while by > 0 {
            let front = self.queue.front_mut().expect("len counts the bytes of all pieces");
            let step = by.min(front.len());
            front.advance(step);
            by -= step;
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
    }
}

/// Reads frames off a byte stream.
pub(crate) struct StreamReader {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    buf: BytesMut,
    pub limits: FrameLimits,
    stats: Arc<NetStats>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("read: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the peer closed in the middle of a frame")]
    CutOff,
}

impl StreamReader {
    pub fn new(reader: Box<dyn AsyncRead + Send + Unpin>, limits: FrameLimits, stats: Arc<NetStats>) -> Self {
        Self { reader, buf: BytesMut::new(), limits, stats }
    }

    /// The next frame, none at the end of the stream. Cancel-safe: bytes read so far stay in the buffer.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buf, self.limits)? {
                return Ok(Some(frame));
            }
            // Before a peer is known it may not make us hold more than its Hello.
            let chunk = READ_CHUNK.min(self.limits.frame_max as usize);
            if self.buf.capacity() - self.buf.len() < chunk / 4 {
                self.buf.reserve(chunk);
            }
            let n = self.reader.read_buf(&mut self.buf).await?;
            NetStats::add(&self.stats.bytes_in, n as u64);
            if n == 0 {
                return if self.buf.is_empty() { Ok(None) } else { Err(ReadError::CutOff) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_are_not_copied_and_small_ones_share_a_slice() {
        let large = Bytes::from(vec![7; INLINE_MAX]);
        let frame = |payload: Vec<Bytes>| Frame { version: 1, payload, ..Frame::default() };
        let (mut pieces, mut heads) = (Pieces::default(), BytesMut::new());
        let frames = [
            frame(vec![]),
            frame(vec![Bytes::from_static(b"small")]),
            frame(vec![Bytes::from_static(b"head"), large.clone()]),
            frame(vec![]),
        ];
        let wire: Vec<u8> = frames.iter().flat_map(|f| f.encode()).collect();
        for frame in frames {
            pieces.push_frame(frame, &mut heads);
        }
        pieces.push_heads(&mut heads);
        assert_eq!(pieces.queue.len(), 3);
        assert_eq!(pieces.queue[1].as_ptr(), large.as_ptr());
        assert_eq!(pieces.remaining(), wire.len());
        let mut out = Vec::new();
        while pieces.has_remaining() {
            let step = pieces.chunk().len().min(100);
            out.extend_from_slice(&pieces.chunk()[..step]);
            pieces.advance(step);
        }
        assert_eq!(out, wire);
    }
}
