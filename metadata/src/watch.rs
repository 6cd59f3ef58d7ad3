//! Feeds one watcher: the state in pieces if need be, then every change.

use std::sync::Arc;

use esker_metadata_client::messages::{WATCH_PART_BYTES, WatchPart, pack};
use esker_metadata_core::{Change, Delta, State, wire};
use esker_net::FrameSender;
use esker_types::{Frame, WallMs, opcode};

use crate::raft::machine::Applied;

/// Changes fetched at a time. They are shared, not copied.
const DELTAS_AT_ONCE: usize = 64;

/// Sends until the link closes. `from` is the revision that the watcher holds, 0 for none. The link's own bounded
/// queue is the only buffer: a slow watcher falls behind in the kept changes, and gets a snapshot when they are gone.
pub async fn feed(applied: &Applied, to: &FrameSender, request_id: u64, from: u64) {
    let mut revisions = applied.news.revision();
    let mut at = from;
    let mut fresh = from == 0;
    loop {
        let newest = *revisions.borrow_and_update();
        if fresh {
            let state = applied.read(State::clone);
            if send_snapshot(&state, to, request_id).await.is_err() {
                return;
            }
            at = state.revision();
            fresh = false;
            continue;
        }
        // A watcher may come from a voter that is further: it waits until this one is there.
        if at >= newest {
            tokio::select! {
                biased;
                () = to.closed() => return,
                changed = revisions.changed() => if changed.is_err() { return },
            }
            continue;
        }
        match applied.news.after(at, DELTAS_AT_ONCE) {
            None => fresh = true,
            Some(deltas) => {
                for delta in deltas {
                    at = delta.revision;
                    if send_delta(&delta, to, request_id).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

struct Closed;

async fn send_snapshot(state: &State, to: &FrameSender, request_id: u64) -> Result<(), Closed> {
    let head = Head { revision: state.revision(), wall: state.wall(), snapshot: true };
    send_pieces(head, state.rows(), to, request_id).await
}

async fn send_delta(delta: &Arc<Delta>, to: &FrameSender, request_id: u64) -> Result<(), Closed> {
    let head = Head { revision: delta.revision, wall: delta.wall, snapshot: false };
    send_pieces(head, delta.changes.iter().cloned(), to, request_id).await
}

#[derive(Clone, Copy)]
struct Head {
    revision: u64,
    wall: WallMs,
    snapshot: bool,
}

impl Head {
    fn frame(self, changes: Vec<Change>, more: bool, request_id: u64) -> Frame {
        let Head { revision, wall, snapshot } = self;
        pack(opcode::metadata::WATCH_EVENT, request_id, &WatchPart { revision, wall, snapshot, changes, more })
    }
}

async fn send_pieces(
    head: Head,
    changes: impl Iterator<Item = Change>,
    to: &FrameSender,
    request_id: u64,
) -> Result<(), Closed> {
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for change in changes {
        let size = wire::encode(&change).len();
        if bytes + size > WATCH_PART_BYTES && !piece.is_empty() {
            let full = std::mem::take(&mut piece);
            to.send(head.frame(full, true, request_id)).await.map_err(|_| Closed)?;
            bytes = 0;
        }
        bytes += size;
        piece.push(change);
    }
    to.send(head.frame(piece, false, request_id)).await.map_err(|_| Closed)
}
