//! Gets copies out of limbo: what is missing or damaged is fetched from other holders, everything is verified against
//! the record that closed the segment, and only then the copy counts again (2.6, and R13's copying).

use std::time::Duration;

use bytes::Bytes;
use esker_bookie_core::bookie::Refused;
use esker_bookie_core::wire::{Read, ReadResponse};
use esker_metadata_client::{ReadError, View};
use esker_metadata_core::{Answer, ClosedSegment, PartitionQuery, Query};
use esker_net::{Address, Pool};
use esker_types::entry::CHAIN_START;
use esker_types::{Entry, EntryId, Member, Role, SegmentId};

use super::pace::Pace;
use super::{STEP_BYTES, Stopping, Upkeep};
use crate::disk::JournalFiles;

const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a segment stays in limbo for now.
#[derive(Debug, thiserror::Error)]
enum Unrepaired {
    #[error("the server is stopping")]
    Stopping,
    #[error("metadata does not answer: {0}")]
    Metadata(#[from] ReadError),
    #[error("the segment is not closed yet, or not known")]
    NotClosed,
    #[error("no other holder gives entry {0}")]
    NoSource(EntryId),
    #[error("the copy's digest is {found:#018x}, the record says {expected:#018x}")]
    Digest { expected: u64, found: u64 },
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl From<Stopping> for Unrepaired {
    fn from(_: Stopping) -> Self {
        Self::Stopping
    }
}

/// Where the entries of one segment may be had.
struct Sources {
    pool: Pool,
    holders: Vec<(Member, Address)>,
}

impl Upkeep {
    pub(super) async fn repair(&self) {
        let mut pace = Pace::new(self.config.upkeep.gc_bytes_per_second.0);
        while self.sleep(self.config.upkeep.repair_interval.0).await.is_ok() {
            let limbo: Vec<SegmentId> = self.journal.look(|state| state.limbo_segments().collect());
            if limbo.is_empty() {
                continue;
            }
            for segment in limbo {
                match self.cancel.run_until_cancelled(self.repair_segment(segment, &mut pace)).await {
                    None | Some(Err(Unrepaired::Stopping)) => return,
                    Some(Ok(fetched)) => {
                        self.metrics.repaired(fetched);
                        tracing::info!(%segment, fetched, "copy verified: it counts again");
                    }
                    Some(Err(Unrepaired::NotClosed)) => {}
                    Some(Err(error)) => tracing::warn!(%segment, %error, "copy stays in limbo"),
                }
            }
        }
    }

    /// Walks the whole copy in order: each entry must verify and follow the one before it. Returns how many had to be
    /// fetched.
    async fn repair_segment(&self, segment: SegmentId, pace: &mut Pace) -> Result<u64, Unrepaired> {
        let record = self.closed(segment).await?;
        let end = record.last + 1;
        let files = self.verifying_files();
        let (mut at, mut chain, mut fetched, mut last_seq) = (0, CHAIN_START, 0, 0);
        let mut sources = None;
        while at < end {
            let local = self.local_entries(&files, segment, at, end, chain).await;
            if let Some(last) = local.last() {
                (at, chain) = (last.header.entry + 1, last.header.chain);
                last_seq = self.rewrite_doubtful(segment, &local)?.unwrap_or(last_seq);
                let bytes = local.iter().map(|entry| entry.bytes.len() as u64).sum();
                self.sleep(pace.after(bytes)).await?;
                continue;
            }
            let sources = match &mut sources {
                Some(sources) => sources,
                none => none.insert(self.sources(&record).await?),
            };
            let entries = sources.fetch(segment, at, end, chain).await.ok_or(Unrepaired::NoSource(at))?;
            for entry in entries {
                let (number, crc) = (entry.header.entry, entry.crc());
                last_seq = self.journal.change(|state| state.repair(segment, number, crc, entry.bytes))?;
                (at, chain) = (number + 1, entry.header.chain);
                fetched += 1;
            }
            self.durable(last_seq).await?;
        }
        if chain != record.digest {
            return Err(Unrepaired::Digest { expected: record.digest, found: chain });
        }
        self.durable(last_seq).await?;
        let seq = self.journal.change(|state| state.clear_limbo(segment, end))?;
        self.durable(seq).await?;
        Ok(fetched)
    }

    /// Entries that could not be read once and verify now (a passing fault of the disk) are written again: only a fresh
    /// copy takes the mark of damage off them.
    fn rewrite_doubtful(&self, segment: SegmentId, entries: &[Entry]) -> Result<Option<u64>, Refused> {
        self.journal.change(|state| {
            let damaged = state.damaged(segment);
            let mut seq = None;
            for entry in entries.iter().filter(|entry| damaged.binary_search(&entry.header.entry).is_ok()) {
                seq = Some(state.repair(segment, entry.header.entry, entry.crc(), entry.bytes.clone())?);
            }
            Ok(seq)
        })
    }

    /// Local entries from `at` that verify and follow each other. None: the entry must be fetched.
    async fn local_entries(
        &self,
        files: &JournalFiles,
        segment: SegmentId,
        at: EntryId,
        end: EntryId,
        chain: u64,
    ) -> Vec<Entry> {
        let (response, damage) = self.read_local(files, segment, at, end).await;
        if let Some(damage) = damage {
            self.journal.damaged(damage);
        }
        linked(response.entries, segment, at, chain)
    }

    async fn closed(&self, segment: SegmentId) -> Result<ClosedSegment, Unrepaired> {
        let query = Query::Partition(PartitionQuery { partition: segment.partition });
        let Answer::Partition(answer) = self.store.read(query).await? else { return Err(Unrepaired::NotClosed) };
        let info = answer.info.ok_or(Unrepaired::NotClosed)?;
        let closed = info.chain.iter().find(|closed| closed.segment == segment);
        closed.map(|closed| (**closed).clone()).ok_or(Unrepaired::NotClosed)
    }

    /// Addresses of the other bookies that hold the segment. The metadata copy is made for this and let go again:
    /// limbo is rare, and a bookie needs no metadata otherwise.
    async fn sources(&self, record: &ClosedSegment) -> Result<Sources, Unrepaired> {
        let stop = self.cancel.child_token();
        let _stop = stop.clone().drop_guard();
        let view = View::follow(&*self.store, stop);
        view.ready().await;
        let others = record.holders.iter().chain(&record.members).filter(|m| m.instance != self.ids.instance);
        let mut holders: Vec<(Member, Address)> = view.read(|state| {
            let address = |member: &Member| Some((*member, state.member(*member)?.address.parse().ok()?));
            others.filter_map(address).collect()
        });
        holders.dedup_by_key(|(member, _)| *member);
        Ok(Sources { pool: Pool::new(self.network.clone()), holders })
    }
}

impl Sources {
    /// Entries from `at` that verify and follow each other, from the first holder that has them.
    async fn fetch(&self, segment: SegmentId, at: EntryId, end: EntryId, chain: u64) -> Option<Vec<Entry>> {
        for (member, address) in &self.holders {
            let read = Read { instance: member.instance, segment, from: at, to: end, max_bytes: STEP_BYTES };
            let frame = read.to_frame(0);
            let rpc = match self.pool.rpc(address, Role::Bookie).await {
                Ok(rpc) => rpc,
                Err(error) => {
                    tracing::debug!(%address, %error, "holder out of reach");
                    continue;
                }
            };
            let answer = rpc.call_frame(frame, READ_TIMEOUT).await;
            let response = answer.map(|frame| ReadResponse::from_frame(&frame));
            match response {
                Ok(Ok(response)) if response.instance == member.instance => {
                    let entries = linked(response.entries, segment, at, chain);
                    if !entries.is_empty() {
                        return Some(entries);
                    }
                }
                other => tracing::debug!(%address, ?other, "holder gives nothing"),
            }
        }
        None
    }
}

/// The longest prefix that is what it says and follows the chain.
fn linked(entries: Vec<Bytes>, segment: SegmentId, at: EntryId, chain: u64) -> Vec<Entry> {
    let (mut expected, mut chain) = (at, chain);
    let mut out = Vec::new();
    for bytes in entries {
        let Ok(entry) = Entry::parse(bytes) else { break };
        let header = &entry.header;
        if header.segment != segment || header.entry != expected || !header.follows(chain) {
            break;
        }
        (expected, chain) = (expected + 1, header.chain);
        out.push(entry);
    }
    out
}
