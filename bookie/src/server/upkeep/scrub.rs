//! Reads everything again within the scrub interval, so that damage is found while other copies exist.

use std::collections::BTreeSet;
use std::time::Duration;

use esker_bookie_core::bookie::FileUse;
use esker_bookie_core::journal::FileId;
use esker_bookie_core::journal::scan::{Piece, ScanLimits, scan_file};

use super::{Stopping, Upkeep};

/// With nothing to read, look again after this long at most.
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl Upkeep {
    /// One file after another, spread evenly over the interval.
    pub(super) async fn scrub(&self) {
        let mut done: BTreeSet<FileId> = BTreeSet::new();
        loop {
            let files = self.journal.look(|state| state.file_uses());
            let count = u32::try_from(files.len()).unwrap_or(u32::MAX).max(1);
            let interval = self.config.upkeep.scrub_interval.0;
            let pause = if files.is_empty() { interval.min(PAUSE_MAX) } else { interval / count };
            if self.sleep(pause).await.is_err() {
                return;
            }
            done.retain(|id| files.iter().any(|file| file.id == *id));
            let next = files.iter().find(|file| !done.contains(&file.id));
            let Some(file) = next.or(files.first()) else { continue };
            if next.is_none() {
                done.clear();
            }
            done.insert(file.id);
            if self.scrub_file(*file).await.is_err() {
                return;
            }
        }
    }

    /// Verifies every block of a file; where one is not as it was written, every entry that counts in the file.
    async fn scrub_file(&self, file: FileUse) -> Result<(), Stopping> {
        let (files, ids) = (self.verifying_files(), self.ids);
        let (storage, limits) = (files.clone(), ScanLimits { valid_len: Some(file.len), ..ScanLimits::default() });
        let scan = tokio::task::spawn_blocking(move || {
            let len = std::fs::metadata(storage.path(file.id)).map_or(0, |meta| meta.len());
            scan_file(&storage, ids, file.id, len, &limits)
        });
        let scan = scan.await.map_err(|_| Stopping)?;
        let sound = |piece: &Piece| matches!(piece, Piece::Block(block) if block.whole && block.linked);
        let mut damaged = 0;
        if !scan.pieces.iter().all(sound) {
            damaged = self.scrub_entries(&files, file.id).await?;
        }
        self.metrics.scrubbed(file.len, damaged);
        if damaged > 0 {
            tracing::error!(file = %file.id, damaged, "the scrub found damaged entries: they are repaired from copies");
        }
        Ok(())
    }

    async fn scrub_entries(&self, files: &crate::disk::JournalFiles, file: FileId) -> Result<u64, Stopping> {
        let mut damaged = 0;
        for (segment, _) in self.journal.look(|state| state.segments_in(file.seq)) {
            for (from, to) in self.journal.look(|state| state.entries_in(segment, file.seq)) {
                let mut at = from;
                while at < to {
                    if self.cancel.is_cancelled() {
                        return Err(Stopping);
                    }
                    let (response, damage) = self.read_local(files, segment, at, to).await;
                    at = response.next.max(at);
                    match damage {
                        Some(damage) => {
                            damaged += u64::from(self.journal.damaged(damage));
                            at = damage.entry + 1;
                        }
                        // Known already, or dropped in the meantime.
                        None if response.entries.is_empty() => at += 1,
                        None => {}
                    }
                }
            }
        }
        Ok(damaged)
    }
}
