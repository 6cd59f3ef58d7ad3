//! Frees space: drops copies that metadata does not need (R14), then files in which nothing counts any more; copies
//! the rest of nearly empty files forward.

use std::collections::BTreeMap;
use std::time::Instant;

use esker_bookie_core::bookie::{FileUse, Refused};
use esker_bookie_core::journal::gc::{GcDecision, GcFacts, GcPolicy, SegmentFact, SegmentGc};
use esker_bookie_core::journal::space::SpaceLevel;
use esker_metadata_client::ReadError;
use esker_metadata_core::gc::Verdict;
use esker_metadata_core::{Answer, GcQuery, Query};
use esker_types::{PartitionId, SegmentId, Time, checksum};

use super::pace::Pace;
use super::{Stopping, Upkeep};
use crate::disk::JournalFiles;

/// Segments in one question.
const QUERY_MAX: usize = 10_000;
/// Passes between two ends of a file that was not a quarter full, when only space is to be gained by it.
const PASSES_PER_ROLL: u32 = 6;

/// What a pass remembers for the next.
struct Memory {
    gc: SegmentGc,
    began: Instant,
    since_roll: u32,
    pace: Pace,
}

impl Upkeep {
    pub(super) async fn collect_garbage(&self) {
        let mut memory = Memory {
            gc: SegmentGc::new(GcPolicy::default(), self.incarnation),
            began: Instant::now(),
            since_roll: 0,
            pace: Pace::new(self.config.upkeep.gc_bytes_per_second.0),
        };
        while self.sleep(self.config.upkeep.gc_interval.0).await.is_ok() {
            let Some(passed) = self.cancel.run_until_cancelled(self.pass(&mut memory)).await else { return };
            if let Err(error) = passed {
                tracing::debug!(%error, "nothing is dropped while metadata does not answer");
            }
        }
    }

    async fn pass(&self, memory: &mut Memory) -> Result<(), ReadError> {
        self.drop_segments(memory).await?;
        self.forget_partitions().await?;
        let pressed = self.room.usage().level > SpaceLevel::All;
        let files = self.journal.look(|state| state.file_uses());
        let (percent_max, gain) = if pressed { (90, 1) } else { (self.config.upkeep.gc_live_percent.into(), 2) };
        for file in light_files(&files, self.config.journal.file_bytes.0, percent_max, gain) {
            // Stopped or refused: the file simply stays.
            if self.copy_forward(file, &mut memory.pace).await.is_err() {
                break;
            }
        }
        // A LiveSet frees files when it no longer names them, and it is written when a file begins. Ending a file early
        // wastes what is left of it, so that is done at once only when space is short.
        memory.since_roll += 1;
        let worth = self.journal.written_in_file() * 4 >= self.config.journal.file_bytes.0;
        let empty = self.journal.look(|state| state.file_uses().iter().any(|file| file.live == 0));
        if empty && (pressed || worth || memory.since_roll >= PASSES_PER_ROLL) {
            memory.since_roll = 0;
            self.journal.change(|state| state.roll());
        }
        Ok(())
    }

    async fn drop_segments(&self, memory: &mut Memory) -> Result<(), ReadError> {
        // What is held is noted before the question: a copy that grows after it is wanted by somebody.
        let before: BTreeMap<SegmentId, (u64, u64, bool)> =
            self.journal.look(|state| state.segment_ids().filter_map(|id| Some((id, state.segment(id)?))).collect());
        let local: Vec<SegmentId> = before.keys().copied().collect();
        let mut facts = GcFacts { incarnation: self.incarnation, segments: BTreeMap::new() };
        for chunk in local.chunks(QUERY_MAX) {
            let (verdicts, incarnation) = self.verdicts(chunk.to_vec()).await?;
            if incarnation != self.incarnation {
                facts.incarnation = incarnation;
            }
            facts.segments.extend(chunk.iter().copied().zip(verdicts.into_iter().map(fact)));
        }
        let now = Time(u64::try_from(memory.began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let drop = match memory.gc.decide(now, &local, &facts) {
            GcDecision::Drop(segments) => segments,
            GcDecision::Refuse(alarm) => {
                tracing::warn!(%alarm, "garbage collection refused");
                return Ok(());
            }
        };
        let dropped = self.journal.change(|state| {
            let unchanged = |id: &&SegmentId| state.segment(**id).as_ref() == before.get(id);
            let unchanged: Vec<SegmentId> = drop.iter().filter(unchanged).copied().collect();
            unchanged.into_iter().filter(|segment| state.drop_segment(*segment).is_ok()).count()
        });
        if dropped > 0 {
            tracing::info!(dropped, "copies dropped that the cluster does not need");
        }
        Ok(())
    }

    /// Fences of partitions that are gone for good need not be remembered (I8).
    async fn forget_partitions(&self) -> Result<(), ReadError> {
        let idle: Vec<PartitionId> = self.journal.look(|state| {
            let held: std::collections::BTreeSet<PartitionId> = state.segment_ids().map(|id| id.partition).collect();
            state.fenced_partitions().filter(|partition| !held.contains(partition)).collect()
        });
        for chunk in idle.chunks(QUERY_MAX) {
            // A segment that can't exist: only for a deleted partition is such a one to be dropped.
            let ask = |partition: &PartitionId| SegmentId { partition: *partition, n: u64::MAX };
            let (verdicts, incarnation) = self.verdicts(chunk.iter().map(ask).collect()).await?;
            if incarnation != self.incarnation {
                return Ok(());
            }
            let gone: Vec<PartitionId> =
                chunk.iter().zip(verdicts).filter(|(_, v)| *v == Verdict::Drop).map(|(p, _)| *p).collect();
            if !gone.is_empty() {
                self.journal.change(|state| {
                    for partition in gone {
                        // Refused: a segment came in the meantime; the partition is asked about in the next pass.
                        let _ = state.forget_partition(partition);
                    }
                });
            }
        }
        Ok(())
    }

    async fn verdicts(&self, segments: Vec<SegmentId>) -> Result<(Vec<Verdict>, u8), ReadError> {
        let asked = segments.len();
        let query = GcQuery { instance: self.ids.instance, segments };
        match self.store.read(Query::BookieGc(query)).await? {
            Answer::BookieGc(answer) if answer.verdicts.len() == asked => Ok((answer.verdicts, answer.incarnation)),
            _ => Err(ReadError::Unavailable("metadata answered another question than the one asked".to_owned())),
        }
    }

    /// Writes what counts in `file` again, at the end of the journal.
    async fn copy_forward(&self, file: FileUse, pace: &mut Pace) -> Result<(), Stopping> {
        let files = self.verifying_files();
        let segments = self.journal.look(|state| state.segments_in(file.id.seq));
        tracing::debug!(file = %file.id, live = file.live, segments = segments.len(), "copying a file forward");
        for (segment, _) in segments {
            if !self.copy_segment(&files, segment, file.id.seq, pace).await? {
                continue;
            }
            self.journal.change(|state| state.retire_when_durable(segment, file.id.seq));
        }
        Ok(())
    }

    /// False: not all of it could be copied; it stays where it is.
    async fn copy_segment(
        &self,
        files: &JournalFiles,
        segment: SegmentId,
        file: u64,
        pace: &mut Pace,
    ) -> Result<bool, Stopping> {
        for (from, to) in self.journal.look(|state| state.entries_in(segment, file)) {
            let mut at = from;
            while at < to {
                let (response, damage) = self.read_local(files, segment, at, to).await;
                if let Some(damage) = damage {
                    self.journal.damaged(damage);
                }
                if response.entries.is_empty() {
                    return Ok(false);
                }
                let bytes: u64 = response.entries.iter().map(|entry| entry.len() as u64).sum();
                let copied = self.journal.change(|state| {
                    let mut last = Ok(0);
                    for entry in response.entries {
                        last = state.copy_forward(segment, at, checksum::crc32c(&entry), entry);
                        at += 1;
                    }
                    last
                });
                let seq = match copied {
                    Ok(seq) => seq,
                    Err(Refused::ReadOnly) => return Err(Stopping),
                    Err(_) => return Ok(false),
                };
                self.metrics.copied_forward(bytes);
                self.durable(seq).await?;
                self.sleep(pace.after(bytes)).await?;
            }
        }
        Ok(true)
    }
}

/// The fewest files, emptiest first, whose copying frees at least `gain` more files than the copies fill; none if there
/// are no such. Files of which more than `percent_max` counts stay.
///
/// A file takes its room on the disk however little of it counts, and a file that is ended early is a nearly empty one
/// again: with a rule that looks at one file alone the same entries would go round and round.
fn light_files(files: &[FileUse], file_bytes: u64, percent_max: u64, gain: u64) -> Vec<FileUse> {
    let light = |file: &&FileUse| file.live > 0 && file.live.saturating_mul(100) <= file_bytes * percent_max;
    let mut light: Vec<FileUse> = files.iter().filter(light).copied().collect();
    light.sort_by_key(|file| (file.live, file.id.seq));
    let mut live = 0;
    for count in 1..=light.len() {
        live += light[count - 1].live;
        // Block heads and padding take a little beside the entries.
        let filled = (live + live / 8).div_ceil(file_bytes);
        if count as u64 >= filled + gain {
            light.truncate(count);
            return light;
        }
    }
    Vec::new()
}

fn fact(verdict: Verdict) -> SegmentFact {
    match verdict {
        Verdict::Keep => SegmentFact::Needed,
        Verdict::Drop => SegmentFact::NotNamed,
        Verdict::Quarantine => SegmentFact::Absent,
    }
}

#[cfg(test)]
mod tests {
    use esker_bookie_core::journal::FileId;

    use super::*;

    fn files(live: &[u64]) -> Vec<FileUse> {
        let file = |(seq, live): (usize, &u64)| FileUse {
            id: FileId { seq: seq as u64, uuid: [0; 16] },
            len: 1000,
            live: *live,
        };
        live.iter().enumerate().map(file).collect()
    }

    fn picked(live: &[u64], percent_max: u64, gain: u64) -> Vec<u64> {
        light_files(&files(live), 1000, percent_max, gain).iter().map(|file| file.live).collect()
    }

    const NONE: [u64; 0] = [];

    #[test]
    fn copying_must_gain_files() {
        assert_eq!(picked(&[5, 0, 6, 900], 50, 2), NONE, "two light files make one: not worth it");
        assert_eq!(picked(&[5, 0, 6, 900, 7], 50, 2), [5, 6, 7]);
        assert_eq!(picked(&[5, 0, 6, 900], 90, 1), [5, 6], "when space is short it is");
        assert_eq!(picked(&[400, 450, 500, 10], 50, 2), [10, 400, 450]);
        assert_eq!(picked(&[900, 900], 90, 1), NONE);
        assert_eq!(picked(&[], 90, 1), NONE);
    }
}
