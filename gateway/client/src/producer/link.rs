//! One `Produce` stream: a task of its own writes, so that a slow network never keeps answers from being read.

use std::sync::Arc;

use esker_types::{Frame, opcode};
use esker_wire::batch::Batch;
use esker_wire::native::{PartitionName, Produce, ProduceOpen, ProduceOpened, Produced};
use quinn::SendStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::error::{Error, RemoteError};
use crate::stream::{FrameReader, NO_MORE, StreamError, write_frame};

/// Frames between driver and writer. At least the largest window, so that the driver never waits for it.
const QUEUE: usize = 64;

/// What the gateway said about the oldest batch.
#[derive(Debug)]
pub(super) enum Answer {
    Stored {
        request: u64,
        produced: Produced,
    },
    Refused {
        request: u64,
        error: RemoteError,
    },
    /// The stream is over.
    Over(String),
}

#[derive(Debug)]
pub(super) struct Link {
    frames: FrameReader,
    out: Option<mpsc::Sender<Frame>>,
    writer: JoinHandle<()>,
    abort: CancellationToken,
    pub(super) connection: Arc<Connection>,
    pub(super) epoch: u32,
}

impl Link {
    /// Opens a stream for `partition`. An error of the gateway comes as [`Error::Refused`].
    pub(super) async fn open(connection: Arc<Connection>, partition: PartitionName) -> Result<Self, Error> {
        let lost = |reason: String| Error::Unreachable(format!("{}: {reason}", connection.server));
        let malformed =
            |e: prost::DecodeError| Error::Protocol { server: connection.server.clone(), reason: e.to_string() };
        let (mut send, mut frames) = connection.open_stream().await?;
        let open = Frame::new(opcode::client::PRODUCE_OPEN, 1, &ProduceOpen { partition: Some(partition) });
        write_frame(&mut send, &open).await.map_err(|e| lost(e.to_string()))?;
        let answer = frames.next().await.map_err(|e| lost(e.to_string()))?;
        let answer = answer.ok_or_else(|| lost("the stream ended without an answer".to_owned()))?;
        if answer.is_error() {
            return Err(Error::Refused(RemoteError::of(&answer).map_err(malformed)?));
        }
        let opened: ProduceOpened = answer.decode_control().map_err(malformed)?;
        let (out, queue) = mpsc::channel(QUEUE);
        let abort = CancellationToken::new();
        let writer = tokio::spawn(write_all(send, queue, abort.clone()));
        Ok(Self { frames, out: Some(out), writer, abort, connection, epoch: opened.epoch })
    }

    /// Hands a batch to the writer. False: the stream is over. Waits only if more is queued than a window holds.
    pub(super) async fn send(&self, request: u64, batch: Batch) -> bool {
        let frame = Frame::new(opcode::client::PRODUCE, request, &Produce {}).with_payload(batch.into_bytes());
        match &self.out {
            Some(out) => out.send(frame).await.is_ok(),
            None => false,
        }
    }

    /// The next answer. Cancel safe.
    pub(super) async fn answer(&mut self) -> Answer {
        let frame = match self.frames.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Answer::Over("the gateway ended the stream".to_owned()),
            Err(StreamError::Lost(_)) if self.connection.is_closed() => {
                return Answer::Over(self.connection.why_closed());
            }
            Err(e) => return Answer::Over(e.to_string()),
        };
        let request = frame.request_id;
        let decoded = match frame.is_error() {
            true => RemoteError::of(&frame).map(|error| Answer::Refused { request, error }),
            false => frame.decode_control().map(|produced| Answer::Stored { request, produced }),
        };
        decoded.unwrap_or_else(|e| Answer::Over(format!("an answer does not parse: {e}")))
    }

    /// Ends the stream in order: everything queued reaches the gateway. For producers without acknowledgements.
    pub(super) async fn finish(mut self) {
        self.out = None;
        // An error means that the writer panicked: nothing is left to wait for.
        let _ = (&mut self.writer).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.abort.cancel();
    }
}

async fn write_all(mut send: SendStream, mut queue: mpsc::Receiver<Frame>, abort: CancellationToken) {
    // Not cancel safe on purpose: after `abort` the stream is reset, so a half-written frame does no harm.
    let work = async {
        while let Some(frame) = queue.recv().await {
            if write_frame(&mut send, &frame).await.is_err() {
                return;
            }
        }
        if send.finish().is_ok() {
            let _ = send.stopped().await;
        }
    };
    let aborted = tokio::select! {
        biased;
        () = abort.cancelled() => true,
        () = work => false,
    };
    if aborted {
        // Already finished or stopped: fine as well.
        let _ = send.reset(NO_MORE);
    }
}
