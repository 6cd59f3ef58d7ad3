//! Runs a service on every link that comes in.

use std::sync::Arc;

use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Frame};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::NetConfig;
use crate::link::{Link, Peer};
use crate::network::Listener;
use crate::queue::FrameSender;
use crate::stats::NetStats;

/// One incoming connection, as its handlers see it.
#[derive(Clone, Debug)]
pub struct ConnectionCtx {
    pub peer: Arc<Peer>,
    /// For pushes and for answers that come later. Must not be kept after `on_close`.
    pub tx: FrameSender,
    /// Unique in this process.
    pub id: u64,
}

/// What a node does with frames.
///
/// `handle` of one connection's frames is called in the order of arrival, and each call runs until its first wait
/// before the next frame is looked at; after that up to `handlers_max` of them run side by side on the connection's
/// task, so a handler must not compute for long or block. A frame whose handling must be *complete* before the
/// next one is looked at says so with `in_order`: while it waits, nothing more is read, and the peer feels it.
/// A handler is dropped, at any wait, when the connection closes. A panic closes only its connection.
pub trait Service: Send + Sync + 'static {
    /// Some: the answer, sent by the caller. None: no answer, or one that comes later through `ctx.tx`.
    fn handle<'a>(&'a self, ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>>;

    /// True if the next frame must wait until this one is handled.
    fn in_order(&self, _opcode: u16) -> bool {
        false
    }

    fn on_open(&self, _ctx: &ConnectionCtx) {}

    /// Called once per connection, after its last handler ended.
    fn on_close(&self, _ctx: &ConnectionCtx) {}
}

/// The answer to a frame that this side does not know. The connection stays.
pub fn unknown_opcode(frame: &Frame) -> Option<Frame> {
    let text = format!("unknown opcode {}: this side is of another version", frame.opcode);
    refusal(frame, &ErrorInfo::new(ErrorCode::UnknownOpcode, text))
}

/// An error answer.
pub fn refusal(frame: &Frame, error: &ErrorInfo) -> Option<Frame> {
    Some(frame.error_answer(error))
}

/// Serves until `cancel`; then reads nothing more, lets running handlers finish within the drain time-out, and
/// returns when all connections are closed. The port closes at once.
pub async fn serve(mut listener: Listener, service: Arc<dyn Service>, cancel: CancellationToken) {
    let network = listener.network().clone();
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(network.config().connections_max));
    let mut next_id = 1;
    loop {
        let Some(Some(link)) = cancel.run_until_cancelled(listener.accept()).await else { break };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            NetStats::add(&network.stats().links_refused, 1);
            tracing::warn!(peer = link.peer.name, "connection closed: connections-max is reached");
            continue;
        };
        let (service, cancel, network) = (service.clone(), cancel.clone(), network.clone());
        let id = next_id;
        next_id += 1;
        connections.spawn(async move {
            connection(link, id, service, cancel, network.config()).await;
            drop(slot);
        });
    }
    listener.close().await;
    connections.close();
    connections.wait().await;
}

/// Tells the service of the end of a connection, also when a handler panics.
struct Closing {
    service: Arc<dyn Service>,
    ctx: ConnectionCtx,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.service.on_close(&self.ctx);
    }
}

async fn connection(link: Link, id: u64, service: Arc<dyn Service>, cancel: CancellationToken, config: &NetConfig) {
    let Link { peer, tx, mut rx } = link;
    let written = tx.state().written.clone();
    let ctx = ConnectionCtx { peer, tx, id };
    service.on_open(&ctx);
    let closing = Closing { service, ctx };
    let (service, ctx) = (&closing.service, &closing.ctx);
    let mut running = FuturesUnordered::new();
    // The handler of an `in_order` frame; while there is one nothing is read.
    let mut barrier: Option<BoxFuture<'_, ()>> = None;
    loop {
        let may_read = barrier.is_none() && running.len() < config.handlers_max;
        let frame = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            () = async { barrier.as_mut().expect("guarded by the condition").await }, if barrier.is_some() => {
                barrier = None;
                continue;
            }
            Some(()) = running.next(), if !running.is_empty() => continue,
            frame = rx.recv(), if may_read => frame,
            // `recv` notices the end of the link; while it is not asked, somebody else must.
            () = ctx.tx.closed(), if !may_read => None,
        };
        let Some(frame) = frame else {
            let reason = rx.close_reason().unwrap_or_default();
            tracing::debug!(peer = ctx.peer.name, role = ctx.peer.role.as_str(), reason, "connection closed");
            return;
        };
        let in_order = service.in_order(frame.opcode);
        let mut handler: BoxFuture<'_, ()> = Box::pin(answer(service.as_ref(), ctx, frame));
        // Most handlers are done at their first poll: nothing more is needed for them.
        if futures_util::poll!(&mut handler).is_ready() {
            continue;
        }
        if in_order {
            barrier = Some(handler);
        } else {
            running.push(handler);
        }
    }
    let drain = async {
        if let Some(barrier) = barrier {
            barrier.await;
        }
        while running.next().await.is_some() {}
    };
    if timeout(config.drain_timeout, drain).await.is_err() {
        tracing::warn!(peer = ctx.peer.name, "handlers did not end in time");
    }
    drop(running);
    drop(rx);
    written.cancelled().await;
}

async fn answer(service: &dyn Service, ctx: &ConnectionCtx, frame: Frame) {
    if let Some(answer) = service.handle(ctx, frame).await {
        // A failed send means a closed link, which the loop notices; an answer that is too large is our bug.
        if let Err(error @ crate::SendError::TooLarge { .. }) = ctx.tx.send(answer).await {
            tracing::error!(%error, peer = ctx.peer.name, "answer dropped");
            ctx.tx.close();
        }
    }
}
