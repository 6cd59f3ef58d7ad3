//! What a bookie does besides serving. Each kind of work is a task of its own; all of it gives way to entries.

mod gc;
mod pace;
mod repair;
mod report;
mod room;
mod scrub;
mod session;

use std::sync::Arc;
use std::time::Duration;

use esker_bookie_core::bookie::{Damage, ReadPlan};
use esker_bookie_core::journal::JournalIds;
use esker_bookie_core::wire::{Read, ReadResponse};
use esker_metadata_client::MetadataStore;
use esker_net::Network;
use esker_types::{BootId, EntryId, SegmentId};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::disk_room::DiskRoom;
use super::register::Registered;
use crate::config::Config;
use crate::disk::JournalFiles;
use crate::journal::Journal;
use crate::metrics::Metrics;

/// Bytes that are read, fetched or copied in one step.
const STEP_BYTES: u32 = 1 << 20;

/// What all background tasks share.
pub(super) struct Upkeep {
    pub config: Arc<Config>,
    pub journal: Journal,
    pub room: Arc<DiskRoom>,
    pub network: Network,
    pub store: Arc<dyn MetadataStore>,
    pub metrics: Metrics,
    pub fault: watch::Sender<Option<String>>,
    pub cancel: CancellationToken,
    pub boot: BootId,
    pub registered: Registered,
    pub ids: JournalIds,
    pub incarnation: u8,
    /// Something that placement should know of before the next regular report.
    pub news: Notify,
}

/// The server is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stopping;

impl Upkeep {
    pub fn spawn(self: &Arc<Self>, tasks: &TaskTracker) {
        let me = || self.clone();
        let ((a, b, c), (d, e, f)) = ((me(), me(), me()), (me(), me(), me()));
        tasks.spawn(async move { a.keep_session().await });
        tasks.spawn(async move { b.watch_room().await });
        tasks.spawn(async move { c.report().await });
        tasks.spawn(async move { d.collect_garbage().await });
        tasks.spawn(async move { e.repair().await });
        tasks.spawn(async move { f.scrub().await });
    }

    /// The process must end; the first reason stays.
    fn fail(&self, reason: String) {
        tracing::error!(reason, "the bookie must stop");
        self.fault.send_if_modified(|fault| {
            let first = fault.is_none();
            fault.get_or_insert(reason);
            first
        });
    }

    async fn sleep(&self, time: Duration) -> Result<(), Stopping> {
        self.cancel.run_until_cancelled(tokio::time::sleep(time)).await.ok_or(Stopping)
    }

    /// Files read around the page cache: what the disk holds.
    fn verifying_files(&self) -> JournalFiles {
        JournalFiles::for_verifying(&self.config.data_dir, self.config.journal.direct_io)
    }

    /// Reads entries [from, to) of a local copy from the disk itself. The damage, if any, is behind the entries.
    async fn read_local(
        &self,
        files: &JournalFiles,
        segment: SegmentId,
        from: EntryId,
        to: EntryId,
    ) -> (ReadResponse, Option<Damage>) {
        let read = Read { instance: self.ids.instance, segment, from, to, max_bytes: STEP_BYTES };
        match self.journal.look(|state| state.plan_read(&read)) {
            ReadPlan::Answer(response) => (response, None),
            ReadPlan::Fetch(fetch) => {
                let files = files.clone();
                match tokio::task::spawn_blocking(move || fetch.run(&files)).await {
                    Ok(fetched) => (fetched.response, fetched.damage),
                    // The runtime is shutting down.
                    Err(_) => std::future::pending().await,
                }
            }
        }
    }

    /// Waits until record `seq` is durable, so that background writes never fill the queue.
    async fn durable(&self, seq: u64) -> Result<(), Stopping> {
        let mut moved = self.journal.durable();
        loop {
            if self.journal.look(|state| state.seqs().1) >= seq {
                return Ok(());
            }
            match self.cancel.run_until_cancelled(moved.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return Err(Stopping),
            }
        }
    }
}
