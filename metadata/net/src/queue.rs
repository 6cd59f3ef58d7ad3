//! The queue in front of a link: bounded in frames and in bytes.

use std::sync::Arc;

use esker_types::{Frame, FrameLimits};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::error::{SendError, TrySendError};
use crate::stats::NetStats;

/// What both directions of a link share.
#[derive(Debug)]
pub(crate) struct LinkState {
    /// Set once by whoever finds the link broken or lets go of its receiver.
    pub closed: CancellationToken,
    /// Set when everything queued before the close has been written, or given up.
    pub written: CancellationToken,
    pub reason: Mutex<Option<String>>,
}

impl LinkState {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { closed: CancellationToken::new(), written: CancellationToken::new(), reason: Mutex::new(None) })
    }

    /// Closes the link; the first reason stays.
    pub fn close(&self, reason: impl Into<String>) {
        self.reason.lock().get_or_insert_with(|| reason.into());
        self.closed.cancel();
    }
}

/// The sending half of a [`crate::Link`]. Clones share the queue; frames of one task keep their order.
/// When all clones are dropped, what is queued is written and the link is closed.
#[derive(Clone, Debug)]
pub struct FrameSender {
    frames: mpsc::Sender<Frame>,
    budget: Arc<Budget>,
    state: Arc<LinkState>,
}

#[derive(Debug)]
struct Budget {
    bytes: Semaphore,
    bytes_max: u32,
    limits: FrameLimits,
    stats: Arc<NetStats>,
}

/// Lets the receiving half answer PINGs without keeping the link open.
#[derive(Debug)]
pub(crate) struct WeakFrameSender {
    frames: mpsc::WeakSender<Frame>,
    budget: Arc<Budget>,
    state: Arc<LinkState>,
}

#[derive(Debug)]
pub(crate) struct QueueReceiver {
    frames: mpsc::Receiver<Frame>,
    budget: Arc<Budget>,
}

pub(crate) struct QueueBounds {
    pub frames: usize,
    pub bytes: usize,
    pub limits: FrameLimits,
}

pub(crate) fn queue(
    bounds: &QueueBounds,
    state: &Arc<LinkState>,
    stats: &Arc<NetStats>,
) -> (FrameSender, QueueReceiver) {
    let (tx, rx) = mpsc::channel(bounds.frames.max(1));
    // A semaphore holds fewer permits than u32::MAX; a queue of 1 GiB is beyond any sense anyway.
    let bytes_max = u32::try_from(bounds.bytes.clamp(1, 1 << 30)).expect("clamped below 2^30");
    let budget = Arc::new(Budget {
        bytes: Semaphore::new(bytes_max as usize),
        bytes_max,
        limits: bounds.limits,
        stats: stats.clone(),
    });
    let sender = FrameSender { frames: tx, budget: budget.clone(), state: state.clone() };
    (sender, QueueReceiver { frames: rx, budget })
}

impl Budget {
    /// A frame larger than the whole queue takes all of it, and so still gets through alone.
    fn weight(&self, frame: &Frame) -> u32 {
        u32::try_from(frame.wire_len()).unwrap_or(u32::MAX).min(self.bytes_max)
    }

    fn oversize(&self, frame: &Frame) -> Option<(usize, usize)> {
        let (control, body) = (frame.control.len(), frame.control.len() + frame.payload_len());
        let FrameLimits { control_max, frame_max } = self.limits;
        if control > control_max as usize {
            return Some((control, control_max as usize));
        }
        (body > frame_max as usize).then_some((body, frame_max as usize))
    }
}

impl FrameSender {
    /// Queues `frame`; waits while the queue is full. Cancel-safe: dropped early, nothing was queued.
    /// Ok means queued, not received.
    pub async fn send(&self, frame: Frame) -> Result<(), SendError> {
        let frame = match self.try_send(frame) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(frame)) => frame,
            Err(TrySendError::Closed(_)) => return Err(SendError::Closed),
            Err(TrySendError::TooLarge { len, max }) => return Err(SendError::TooLarge { len, max }),
        };
        NetStats::add(&self.budget.stats.send_waits, 1);
        let room = async {
            let bytes = self.budget.bytes.acquire_many(self.budget.weight(&frame)).await.ok()?;
            let slot = self.frames.reserve().await.ok()?;
            Some((bytes, slot))
        };
        let room = tokio::select! {
            biased;
            () = self.state.closed.cancelled() => None,
            room = room => room,
        };
        let (bytes, slot) = room.ok_or(SendError::Closed)?;
        bytes.forget();
        slot.send(frame);
        Ok(())
    }

    /// Queues `frame` if there is room at once.
    pub fn try_send(&self, frame: Frame) -> Result<(), TrySendError> {
        if self.state.closed.is_cancelled() {
            return Err(TrySendError::Closed(frame));
        }
        if let Some((len, max)) = self.budget.oversize(&frame) {
            return Err(TrySendError::TooLarge { len, max });
        }
        let Ok(bytes) = self.budget.bytes.try_acquire_many(self.budget.weight(&frame)) else {
            return Err(TrySendError::Full(frame));
        };
        match self.frames.try_send(frame) {
            Ok(()) => {
                bytes.forget();
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(frame)) => Err(TrySendError::Full(frame)),
            Err(mpsc::error::TrySendError::Closed(frame)) => Err(TrySendError::Closed(frame)),
        }
    }

    /// Completes when the link is closed, from whichever side.
    pub async fn closed(&self) {
        self.state.closed.cancelled().await;
    }

    pub fn is_closed(&self) -> bool {
        self.state.closed.is_cancelled()
    }

    /// Closes the link. What is queued is still written, within a second.
    pub fn close(&self) {
        self.state.close("closed by this side");
    }

    pub(crate) fn state(&self) -> &Arc<LinkState> {
        &self.state
    }

    pub(crate) fn downgrade(&self) -> WeakFrameSender {
        WeakFrameSender { frames: self.frames.downgrade(), budget: self.budget.clone(), state: self.state.clone() }
    }
}

impl WeakFrameSender {
    /// Queues if there is room and somebody still holds the sender. A full queue needs no PING: its own frames
    /// will tell whether the peer lives.
    pub fn offer(&self, frame: Frame) {
        if let Some(frames) = self.frames.upgrade() {
            let sender = FrameSender { frames, budget: self.budget.clone(), state: self.state.clone() };
            let _ = sender.try_send(frame);
        }
    }
}

impl QueueReceiver {
    /// One frame; its bytes are free again at once. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        self.release(self.weight(&frame));
        Some(frame)
    }

    /// Everything that is queued, up to `max` frames; waits for the first. 0: all senders are gone. Cancel-safe.
    /// The frames still count against the queue until [`QueueReceiver::release`].
    pub async fn recv_many(&mut self, into: &mut Vec<Frame>, max: usize) -> usize {
        self.frames.recv_many(into, max).await
    }

    /// A frame that is queued right now. Counted like those of [`QueueReceiver::recv_many`].
    pub fn try_recv(&mut self) -> Option<Frame> {
        self.frames.try_recv().ok()
    }

    /// No more frames may be queued.
    pub fn close(&mut self) {
        self.frames.close();
    }

    pub fn weight(&self, frame: &Frame) -> usize {
        self.budget.weight(frame) as usize
    }

    pub fn release(&self, weight: usize) {
        self.budget.bytes.add_permits(weight);
    }
}
