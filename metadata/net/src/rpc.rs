//! Requests and their answers over one link.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_types::Frame;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::error::{RpcError, SendError};
use crate::link::{FrameReceiver, Link, Peer, is_answer};
use crate::queue::FrameSender;

/// Many callers share one link; clones are the same link. It closes when all clones are dropped.
#[derive(Clone)]
pub struct Rpc {
    inner: Arc<Inner>,
}

struct Inner {
    peer: Arc<Peer>,
    tx: FrameSender,
    next_id: AtomicU64,
    pending: Arc<Pending>,
}

/// Callers that wait, by request id. None once the link is closed. As many as there are waiting tasks.
type Waiting = Option<HashMap<u64, oneshot::Sender<Frame>>>;

#[derive(Default)]
struct Pending {
    waiting: Mutex<Waiting>,
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rpc").field("peer", &self.inner.peer.name).field("closed", &self.is_closed()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What is queued is still written; the reading task ends with the link.
        self.tx.close();
    }
}

/// Takes a caller out of the table when it stops waiting.
struct Waiter<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.pending.waiting.lock().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

impl Rpc {
    /// Takes over `link`. Frames that answer no call go to `pushes`, in order; while that channel is full nothing
    /// more is read from the link, answers included. Once its receiver is gone they are dropped.
    pub fn new(link: Link, pushes: mpsc::Sender<Frame>) -> Self {
        let Link { peer, tx, rx } = link;
        let pending = Arc::new(Pending { waiting: Mutex::new(Some(HashMap::new())) });
        tokio::spawn(read(rx, pending.clone(), pushes));
        Self { inner: Arc::new(Inner { peer, tx, next_id: AtomicU64::new(1), pending }) }
    }

    /// As [`Rpc::new`] where the peer pushes nothing.
    pub fn without_pushes(link: Link) -> Self {
        Self::new(link, mpsc::channel(1).0)
    }

    pub fn peer(&self) -> &Arc<Peer> {
        &self.inner.peer
    }

    /// Sends a request and waits for its answer, at most `timeout` in all. A call that is dropped is not taken
    /// back: the peer may still do it.
    pub async fn call(
        &self,
        opcode: u16,
        message: &impl prost::Message,
        payload: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Frame, RpcError> {
        let mut frame = Frame::new(opcode, 0, message);
        frame.payload = payload;
        self.call_frame(frame, timeout).await
    }

    /// As [`Rpc::call`] with a frame made by the caller; its request id is set here.
    pub async fn call_frame(&self, mut frame: Frame, timeout: Duration) -> Result<Frame, RpcError> {
        let deadline = Instant::now() + timeout;
        let Inner { tx, next_id, pending, .. } = &*self.inner;
        let id = next_id.fetch_add(1, Ordering::Relaxed);
        frame.request_id = id;
        let (answer_tx, answer) = oneshot::channel();
        match pending.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(id, answer_tx),
            None => return Err(RpcError::NotSent("the link is closed".to_owned())),
        };
        let _waiter = Waiter { pending, id };
        match timeout_at(deadline, tx.send(frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(RpcError::NotSent(error.to_string())),
            Err(_) => return Err(RpcError::NotSent("the link's queue stayed full".to_owned())),
        }
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let frame = timeout_at(deadline, answer).await.map_err(|_| RpcError::Timeout(millis))?;
        let frame = frame.map_err(|_| RpcError::Closed)?;
        if frame.is_error() {
            let info = frame.decode_control().map_err(|error| RpcError::BadAnswer(error.to_string()))?;
            return Err(RpcError::Remote(info));
        }
        Ok(frame)
    }

    /// [`Rpc::call`] without payload whose answer is one message.
    pub async fn ask<A: prost::Message + Default>(
        &self,
        opcode: u16,
        message: &impl prost::Message,
        timeout: Duration,
    ) -> Result<A, RpcError> {
        let frame = self.call(opcode, message, Vec::new(), timeout).await?;
        frame.decode_control().map_err(|error| RpcError::BadAnswer(error.to_string()))
    }

    /// Sends a frame that is answered by pushes or not at all.
    pub async fn send(&self, frame: Frame) -> Result<(), SendError> {
        self.inner.tx.send(frame).await
    }

    pub fn sender(&self) -> &FrameSender {
        &self.inner.tx
    }

    pub async fn closed(&self) {
        self.inner.tx.closed().await;
    }

    pub fn is_closed(&self) -> bool {
        self.inner.tx.is_closed()
    }

    /// Closes the link under all clones.
    pub fn close(&self) {
        self.inner.tx.close();
    }
}

async fn read(mut rx: FrameReceiver, pending: Arc<Pending>, pushes: mpsc::Sender<Frame>) {
    while let Some(frame) = rx.recv().await {
        if is_answer(&frame) && frame.request_id != 0 {
            let waiter = pending.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&frame.request_id));
            if let Some(waiter) = waiter {
                let _ = waiter.send(frame);
                continue;
            }
            if !pushes.is_closed() {
                tracing::trace!(opcode = frame.opcode, "answer nobody waits for");
            }
            continue;
        }
        let _ = pushes.send(frame).await;
    }
    // Dropping the table wakes all callers with `Closed`.
    pending.waiting.lock().take();
}
