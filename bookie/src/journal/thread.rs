//! The journal's thread: takes what is queued, lets the state decide, writes one group, acknowledges, again.
//!
//! The group is whatever came while the last one was written: one entry when idle, megabytes under load. There is no
//! timer in the way of an entry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use esker_bookie_core::bookie::{Action, Ticket};
use esker_bookie_core::journal::FileId;
use esker_bookie_core::journal::block::BlockWrite;
use esker_bookie_core::wire::FenceResponse;
use tokio::sync::oneshot;

use super::handle::{Op, Shared};
use super::output::Output;
use super::queue::{Room, Taken};
use crate::disk::Space;
use crate::random;

/// Tried once; needs a right that a container may not have. Without it a busy machine can keep the thread off its core
/// for a whole scheduler tick (4 ms measured) after each sync.
const NICE: i32 = -15;

pub(super) struct Worker {
    pub shared: Arc<Shared>,
    pub space: Arc<Space>,
    pub output: Output,
    pub group_bytes: usize,
    pub idle_epilogue: Duration,
    pub ops: Vec<Op>,
    pub blocks: Vec<BlockWrite>,
    /// A block that could not join the last write.
    pub carry: Option<BlockWrite>,
    pub actions: Vec<Action>,
    pub fences: BTreeMap<Ticket, oneshot::Sender<FenceResponse>>,
    pub next_ticket: u64,
    /// Room of operations that are decided and not durable yet.
    pub held: u64,
}

/// The thread is at its end, for this reason.
enum End {
    Stopped,
    Failed(String),
}

impl Worker {
    pub fn run(mut self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "the journal's thread keeps its ordinary priority");
        }
        let end = self.work();
        self.shared.queue.close();
        let mut state = self.shared.state.lock();
        let durable = state.durable_lsn();
        let reason = match end {
            End::Stopped => {
                drop(state);
                self.shared.superblock(durable, false).err().map(|error| format!("the superblock: {error}"))
            }
            End::Failed(reason) => {
                state.on_write_failed();
                drop(state);
                // The disk may be gone or hang: this is a favour to the next start, not a condition.
                if let Err(error) = self.shared.superblock(durable, true) {
                    tracing::error!(%error, "the superblock can't be marked");
                }
                Some(reason)
            }
        };
        if let Some(reason) = reason {
            self.shared.fail(&reason);
        }
    }

    fn work(&mut self) -> End {
        // Nothing was written in the last round and the closing block is out: sleep until something comes.
        let mut quiet = false;
        let mut more = false;
        loop {
            let patience = if more { Some(Duration::ZERO) } else { Some(self.idle_epilogue).filter(|_| !quiet) };
            let mut closing = false;
            match self.shared.queue.take(&mut self.ops, patience) {
                Taken::Work => quiet = false,
                _ if more => {}
                Taken::Idle => {
                    self.shared.state.lock().idle();
                    quiet = true;
                }
                Taken::Closed => {
                    self.shared.state.lock().idle();
                    closing = true;
                }
            }
            if self.shared.killed.load(Ordering::Acquire) {
                return End::Stopped;
            }
            self.decide();
            if let Err(reason) = self.act() {
                return End::Failed(reason);
            }
            more = !self.blocks.is_empty();
            if more {
                if let Err(error) = self.output.write(&self.blocks) {
                    let file = self.blocks.first().map(|block| block.file().to_string()).unwrap_or_default();
                    return End::Failed(format!("writing {file}: {error}"));
                }
                if self.shared.killed.load(Ordering::Acquire) {
                    return End::Stopped;
                }
                self.complete();
                if let Err(reason) = self.act() {
                    return End::Failed(reason);
                }
            } else if closing {
                return End::Stopped;
            }
        }
    }

    /// Decides about all that was taken and gathers the next write.
    fn decide(&mut self) {
        let Self { ops, fences, next_ticket, held, output, .. } = self;
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        for op in ops.drain(..) {
            match op {
                Op::Add { conn, add, room } => {
                    *held += u64::from(room.0);
                    state.on_add(conn, add);
                }
                Op::Fence { request, reply } => {
                    let ticket = Ticket(*next_ticket);
                    *next_ticket += 1;
                    fences.insert(ticket, reply);
                    state.on_fence(ticket, request);
                }
                Op::Compared(compared) => state.on_compared(compared),
                Op::File(id, file) => {
                    output.add_file(id, file);
                    state.offer_file(id);
                }
                Op::Wake => {}
            }
        }
        let mut bytes = 0;
        while bytes < self.group_bytes {
            let Some(block) = self.carry.take().or_else(|| state.next_write()) else { break };
            let adjoins = |last: &BlockWrite| last.file() == block.file() && last.head.end() == block.offset();
            if !self.blocks.last().is_none_or(adjoins) {
                self.carry = Some(block);
                break;
            }
            bytes += block.len();
            self.blocks.push(block);
        }
        self.actions.extend(std::iter::from_fn(|| state.poll()));
        shared.report(&state);
    }

    /// The blocks are durable: moves the state on and gives their room back.
    fn complete(&mut self) {
        let (entries, bytes) = self.blocks.iter().fold((0, 0), |(entries, bytes), block| {
            let held = block.head.items.iter().filter(|item| item.entry().is_some()).count();
            (entries + held as u64, bytes + u64::from(block.head.payload_len))
        });
        let mut state = self.shared.state.lock();
        for block in self.blocks.drain(..) {
            state.on_written(block.head.lsn);
        }
        self.actions.extend(std::iter::from_fn(|| state.poll()));
        let pending = state.pending_bytes() as u64;
        drop(state);
        self.shared.metrics.entries_durable(entries, bytes);
        self.release(pending);
    }

    fn release(&mut self, pending: u64) {
        let done = self.held.saturating_sub(pending);
        self.held -= done;
        self.shared.queue.release(Room(u32::try_from(done).unwrap_or(u32::MAX)));
    }

    /// Does what the state asked for, in its order.
    fn act(&mut self) -> Result<(), String> {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::AddStatus { conn, status } => self.shared.send_status(conn, status),
                Action::Fenced { ticket, response } => {
                    if let Some(reply) = self.fences.remove(&ticket) {
                        self.shared.metrics.fence_answered(response.results.len() as u64);
                        // The connection may be gone; the fence holds all the same.
                        let _ = reply.send(response);
                    }
                }
                Action::Compare(compare) => self.shared.compare(compare),
                Action::WantFile => {
                    let seq = self.shared.state.lock().next_file_seq();
                    let uuid = random::bytes().map_err(|error| format!("no randomness: {error}"))?;
                    self.space.create(FileId { seq, uuid });
                }
                Action::FileStarted(_) => {
                    let durable = self.shared.state.lock().durable_lsn();
                    self.shared.superblock(durable, false).map_err(|error| format!("the superblock: {error}"))?;
                    self.shared.opened(durable);
                }
                Action::Unlink(file) => {
                    self.shared.files.forget(file);
                    self.space.retire(self.shared.files.path(file));
                    self.shared.metrics.file_freed();
                }
            }
        }
        self.actions = actions;
        // Refused entries are done with, too.
        if self.blocks.is_empty() && self.held > 0 {
            let pending = self.shared.state.lock().pending_bytes() as u64;
            self.release(pending);
        }
        Ok(())
    }
}
