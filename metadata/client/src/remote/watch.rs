//! Follows one metadata node; when the link breaks, another, from the revision that was reached.

use std::sync::Arc;
use std::time::Duration;

use esker_metadata_core::{Change, Delta, State};
use esker_net::{Address, Link};
use esker_types::{Frame, Role, opcode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::messages::{WatchPart, WatchRequest, pack, unpack};
use crate::store::WatchEvent;

/// Events that wait for a slow watcher; beyond it nothing more is read from the link.
pub(super) const EVENTS_AHEAD: usize = 64;
/// Changes of one event. More is a server gone mad: 100,000 partitions with 100 segments each stay below.
const CHANGES_MAX: usize = 50_000_000;
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Ends when the watcher or the store is gone.
pub(super) async fn run(inner: Arc<Inner>, to: mpsc::Sender<WatchEvent>, cancel: CancellationToken) {
    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        () = to.closed() => {}
        () = follow_for_ever(&inner, &to) => {}
    }
}

async fn follow_for_ever(inner: &Inner, to: &mpsc::Sender<WatchEvent>) {
    let mut revision = 0;
    let mut pause = inner.config.retry_pause;
    loop {
        let server = inner.leader.any();
        let before = revision;
        let why = follow(inner, &server, &mut revision, to).await;
        if to.is_closed() {
            return;
        }
        tracing::debug!(%server, why, revision, "metadata watch broke");
        pause = if revision > before { inner.config.retry_pause } else { (pause * 2).min(PAUSE_MAX) };
        tokio::time::sleep(pause).await;
    }
}

/// Passes on events of one link until it breaks; says why it did. `revision` is what the watcher holds.
async fn follow(inner: &Inner, server: &Address, revision: &mut u64, to: &mpsc::Sender<WatchEvent>) -> String {
    let Link { tx, mut rx, .. } = match inner.pool.network().connect(server, Role::Metadata).await {
        Ok(link) => link,
        Err(error) => return error.to_string(),
    };
    let request = pack(opcode::metadata::WATCH, 1, &WatchRequest { from: *revision });
    if let Err(error) = tx.send(request).await {
        return error.to_string();
    }
    let mut event = Assembly::default();
    while let Some(frame) = rx.recv().await {
        let whole = match accept(&frame, &mut event) {
            Ok(Some(whole)) => whole,
            Ok(None) => continue,
            Err(why) => return why,
        };
        let reached = match &whole {
            WatchEvent::Snapshot(state) => state.revision(),
            WatchEvent::Delta(delta) if delta.revision == *revision + 1 => delta.revision,
            WatchEvent::Delta(delta) if delta.revision <= *revision => continue,
            WatchEvent::Delta(delta) => {
                let why = format!("delta {} came after {revision}", delta.revision);
                *revision = 0;
                return why;
            }
        };
        // A follower may lag behind the server that we watched before: never go back in time.
        if reached < *revision {
            return format!("the server is at revision {reached}, the watcher at {revision}");
        }
        *revision = reached;
        if to.send(whole).await.is_err() {
            return "the watcher is gone".to_owned();
        }
    }
    rx.close_reason().unwrap_or_else(|| "the link closed".to_owned())
}

/// Pieces of one event that have come so far.
#[derive(Default)]
struct Assembly {
    changes: Vec<Change>,
}

fn accept(frame: &Frame, event: &mut Assembly) -> Result<Option<WatchEvent>, String> {
    if frame.is_error() {
        let info: esker_types::error::ErrorInfo = frame.decode_control().map_err(|error| error.to_string())?;
        return Err(info.message);
    }
    if frame.opcode != opcode::metadata::WATCH_EVENT {
        // The answer to the request itself.
        return Ok(None);
    }
    let part: WatchPart = unpack(frame).map_err(|error| error.to_string())?;
    event.changes.extend(part.changes);
    if event.changes.len() > CHANGES_MAX {
        return Err(format!("an event of over {CHANGES_MAX} changes"));
    }
    if part.more {
        return Ok(None);
    }
    let changes = std::mem::take(&mut event.changes);
    Ok(Some(match part.snapshot {
        true => WatchEvent::Snapshot(Arc::new(State::from_rows(part.revision, part.wall, changes))),
        false => WatchEvent::Delta(Arc::new(Delta { revision: part.revision, wall: part.wall, changes })),
    }))
}
