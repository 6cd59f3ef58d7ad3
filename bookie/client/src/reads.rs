//! Reading entries back: from one member for recovery, from whichever answers for readers.

use std::time::Duration;

use bytes::Bytes;
use esker_bookie_core::wire::{READ_BYTES_MAX, ReadMessage, ReadResponse, ReadStatus};
use esker_types::{EntryId, Member, Role, SegmentId, opcode};

use crate::client::BookieClient;

/// Entries `from..to` of a segment, as many as fit `bytes_max`, but at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    pub segment: SegmentId,
    pub from: EntryId,
    /// Exclusive.
    pub to: EntryId,
    pub bytes_max: u32,
}

/// No entries came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// The copy is known whole and ends before `from`. Of a closed segment's holder this is never true: report it.
    #[error("segment {segment} has no entry {entry} there")]
    NoSuchEntry { segment: SegmentId, entry: EntryId },
    /// Damaged, limbo, another instance, unreachable, too late: another copy may have it.
    #[error("segment {segment} can't be read: {reason}")]
    Failed { segment: SegmentId, reason: String },
}

impl BookieClient {
    /// Reads from one member. Every entry is verified, header and payload, and follows `from` without a hole.
    pub async fn read_from(&self, member: Member, range: ReadRange) -> Result<Vec<Bytes>, ReadFailure> {
        self.read_within(member, range, self.inner.config.read_timeout).await
    }

    /// Reads from the first of `members` that has the entries, in the order given; those without a connection come
    /// last, because they are likely down.
    pub async fn read(&self, members: &[Member], range: ReadRange) -> Result<Vec<Bytes>, ReadFailure> {
        let mut order: Vec<Member> = members.to_vec();
        order.sort_by_key(|member| !self.is_connected(member.bookie));
        let mut last = ReadFailure::Failed { segment: range.segment, reason: "it has no members".to_owned() };
        for member in order {
            match self.read_from(member, range).await {
                Ok(entries) => return Ok(entries),
                Err(failure) => {
                    tracing::debug!(bookie = %member.bookie, %failure, "trying another copy");
                    // A failure says more than an absence: the failed member may have what the other lacks.
                    if !matches!((&last, &failure), (ReadFailure::Failed { .. }, ReadFailure::NoSuchEntry { .. }))
                        || members.len() == 1
                    {
                        last = failure;
                    }
                }
            }
        }
        Err(last)
    }

    async fn read_within(
        &self,
        member: Member,
        range: ReadRange,
        timeout: Duration,
    ) -> Result<Vec<Bytes>, ReadFailure> {
        let failed = |reason: String| ReadFailure::Failed { segment: range.segment, reason };
        let ReadRange { segment, from, to, bytes_max } = range;
        let inner = &self.inner;
        let _slot = inner.reads.acquire().await.map_err(|e| failed(e.to_string()))?;
        let address = inner
            .directory
            .address(member.bookie)
            .ok_or_else(|| failed(format!("metadata knows no address of bookie {}", member.bookie)))?;
        let request = ReadMessage {
            instance: Bytes::copy_from_slice(&member.instance.0),
            partition: segment.partition.0,
            n: segment.n,
            from,
            to,
            max_bytes: bytes_max.min(READ_BYTES_MAX),
        };
        let read = opcode::bookie::READ;
        let answer = inner.calls.call(&address, Role::Bookie, read, &request, Vec::new(), timeout).await;
        let answer = answer.map_err(|e| failed(format!("bookie {}: {e}", member.bookie)))?;
        let response =
            ReadResponse::from_frame(&answer).map_err(|e| failed(format!("bookie {}: {e}", member.bookie)))?;
        check(member, range, response)
    }
}

fn check(member: Member, range: ReadRange, response: ReadResponse) -> Result<Vec<Bytes>, ReadFailure> {
    let ReadRange { segment, from, to, .. } = range;
    let failed = |reason: &str| ReadFailure::Failed { segment, reason: format!("bookie {}: {reason}", member.bookie) };
    if response.instance != member.instance || response.segment != segment {
        return Err(failed("another instance or segment answered"));
    }
    match response.status {
        ReadStatus::Data => {}
        ReadStatus::NoSuchEntry => return Err(ReadFailure::NoSuchEntry { segment, entry: from }),
        ReadStatus::Damaged => return Err(failed("the entry is damaged")),
        ReadStatus::Limbo => return Err(failed("the copy is in limbo")),
        ReadStatus::WrongInstance => return Err(failed("the instance is gone")),
    }
    let wanted = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    if response.entries.is_empty() || response.entries.len() > wanted {
        return Err(failed("it answered with entries that were not asked for"));
    }
    for (entry, bytes) in (from..).zip(&response.entries) {
        let header = esker_types::EntryHeader::decode(bytes).map_err(|e| failed(&e.to_string()))?;
        if header.segment != segment || header.entry != entry {
            return Err(failed("it answered with other entries than asked for"));
        }
    }
    Ok(response.entries)
}
