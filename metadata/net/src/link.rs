//! A link: two queues of frames and a peer that has said who it is.

use std::sync::Arc;
use std::time::Duration;

use esker_types::frame::FLAG_ANSWER;
use esker_types::{BootId, ClusterId, Frame, FrameLimits, Hello, Role, opcode};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::queue::{FrameSender, LinkState, QueueReceiver, WeakFrameSender};
use crate::stats::NetStats;
use crate::stream::{ReadError, StreamReader};

/// Who is on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub role: Role,
    pub name: String,
    /// Nil if the peer did not tell.
    pub boot: BootId,
    /// None: the peer does not know its cluster yet.
    pub cluster: Option<ClusterId>,
    /// Program version, for logs.
    pub build: String,
    /// Protocol version that both sides use.
    pub version: u32,
    /// Where it is, for logs.
    pub address: String,
    /// A certificate vouches for role and name; otherwise they are the peer's own word.
    pub certified: bool,
}

/// An open connection. Dropping `rx` closes it; dropping all clones of `tx` closes it after the queue is written.
#[derive(Debug)]
pub struct Link {
    pub peer: Arc<Peer>,
    pub tx: FrameSender,
    pub rx: FrameReceiver,
}

/// The receiving half of a link. PINGs are answered in here and never come out.
pub struct FrameReceiver {
    source: Source,
    state: Arc<LinkState>,
    sender: WeakFrameSender,
    hello: Arc<dyn Fn() -> Hello + Send + Sync>,
    ping: Option<Interval>,
    ping_misses: u32,
    silent_ticks: u32,
    stats: Arc<NetStats>,
}

pub(crate) enum Source {
    Stream(StreamReader),
    Queue(QueueReceiver),
}

impl std::fmt::Debug for FrameReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReceiver").field("closed", &self.state.closed.is_cancelled()).finish_non_exhaustive()
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        self.state.close("closed by this side");
        NetStats::add(&self.stats.links_closed, 1);
    }
}

impl FrameReceiver {
    pub(crate) fn new(
        source: Source,
        sender: &FrameSender,
        hello: Arc<dyn Fn() -> Hello + Send + Sync>,
        stats: Arc<NetStats>,
    ) -> Self {
        NetStats::add(&stats.links_opened, 1);
        Self {
            source,
            state: sender.state().clone(),
            sender: sender.downgrade(),
            hello,
            ping: None,
            ping_misses: 0,
            silent_ticks: 0,
            stats,
        }
    }

    /// The next frame; none once the link is closed and what had arrived is taken. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Frame> {
        loop {
            let closed = self.state.closed.clone();
            let event = tokio::select! {
                biased;
                frame = self.source.next() => Event::Frame(frame),
                () = closed.cancelled() => return None,
                () = tick(&mut self.ping) => Event::Tick,
            };
            match event {
                Event::Frame(Ok(Some(frame))) => {
                    self.silent_ticks = 0;
                    if frame.opcode != opcode::PING {
                        return Some(frame);
                    }
                    if !frame.is_answer() {
                        self.sender.offer(frame.answer(&(self.hello)()));
                    }
                }
                Event::Frame(Ok(None)) => {
                    self.state.close("closed by the peer");
                    return None;
                }
                Event::Frame(Err(error)) => {
                    self.state.close(error.to_string());
                    return None;
                }
                Event::Tick => self.on_silence(),
            }
        }
    }

    /// Why the link is closed, once it is.
    pub fn close_reason(&self) -> Option<String> {
        self.state.reason.lock().clone()
    }

    fn on_silence(&mut self) {
        if self.silent_ticks >= self.ping_misses {
            self.state.close("the peer is silent");
        } else if self.silent_ticks > 0 {
            self.sender.offer(Frame::new(opcode::PING, u64::MAX, &(self.hello)()));
        }
        self.silent_ticks += 1;
    }

    pub(crate) fn set_limits(&mut self, limits: FrameLimits) {
        if let Source::Stream(stream) = &mut self.source {
            stream.limits = limits;
        }
    }

    /// Queues inside a process need no PING: a role that is gone has dropped its end.
    pub(crate) fn start_pings(&mut self, every: Duration, misses: u32) {
        if matches!(self.source, Source::Stream(_)) {
            let mut interval = interval_at(Instant::now() + every, every);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            self.ping = Some(interval);
            self.ping_misses = misses;
        }
    }
}

enum Event {
    Frame(Result<Option<Frame>, ReadError>),
    Tick,
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

impl Source {
    async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        match self {
            Self::Stream(stream) => stream.next().await,
            Self::Queue(queue) => Ok(queue.recv().await.map(|mut frame| {
                // A received frame has at most one piece of payload, as from a stream.
                if frame.payload.len() > 1 {
                    frame.payload = vec![frame.payload_bytes()];
                }
                frame.payload.retain(|piece| !piece.is_empty());
                frame
            })),
        }
    }
}

/// True if `frame` answers something, rather than asking or telling it.
pub(crate) fn is_answer(frame: &Frame) -> bool {
    frame.flags & FLAG_ANSWER != 0
}
