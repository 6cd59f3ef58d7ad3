//! Segments and manifests made up for tests and measurements: what the offload would have written.

use std::sync::Arc;

use bytes::Bytes;
use esker_cache_core::manifest::{Edit, LeafEntry, Page, PageNames, PageRef, edit};
use esker_cache_core::object::{Encoder, EncoderOptions, Identity, SegmentFacts};
use esker_metadata_core::RootPlace;
use esker_types::entry::{CHAIN_START, NO_SNAPSHOT};
use esker_types::{
    ClusterId, Entry, EntryHeader, EntryKind, Epoch, ID_INCARNATION_SHIFT, ObjectKey, PartitionId, Quorum, SegmentId,
    WallMs, checksum,
};

use crate::store::{Class, Error, Kind, Store};

/// A closed segment as bookies would hold it.
#[derive(Clone, Debug)]
pub struct MadeSegment {
    pub facts: SegmentFacts,
    /// Header and payload of each entry.
    pub entries: Vec<Bytes>,
}

/// Payload bytes that a compressor can shorten to about half, or not at all.
pub fn payload(length: usize, seed: u64, compressible: bool) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
        if compressible {
            bytes.extend_from_slice(b"field=00");
        }
    }
    bytes.truncate(length);
    bytes
}

/// Segment `n` of a partition: `entries` entries of ten records each, whose timestamps are their offsets.
pub fn segment(
    partition: u64,
    n: u64,
    base_offset: i64,
    entries: u64,
    payload_bytes: usize,
    compressible: bool,
) -> MadeSegment {
    let seed = |entry: u64| partition << 40 ^ n << 20 ^ entry;
    segment_of(partition, n, base_offset, entries, |entry, _| payload(payload_bytes, seed(entry), compressible))
}

/// The same with entries whose bytes `payload` gives, by number and base offset.
pub fn segment_of(
    partition: u64,
    n: u64,
    base_offset: i64,
    entries: u64,
    payload: impl Fn(u64, i64) -> Vec<u8>,
) -> MadeSegment {
    let segment = SegmentId { partition: PartitionId(partition), n };
    let (mut made, mut chain, mut offset, mut bytes) = (Vec::new(), CHAIN_START, base_offset, 0);
    for entry in 0..entries {
        let payload = payload(entry, offset);
        let header = EntryHeader {
            kind: EntryKind::Data,
            segment,
            seg_epoch: Epoch(1),
            entry,
            base_offset: offset,
            count: 10,
            max_ts: offset + 9,
            snap: NO_SNAPSHOT,
            len: payload.len() as u32,
            payload_crc: checksum::crc32c(&payload),
            chain: 0,
        }
        .sealed(chain);
        (chain, offset) = (header.chain, header.end_offset());
        let whole = Entry::assemble(header, &payload).bytes;
        bytes += whole.len() as u64;
        made.push(whole);
    }
    let facts = SegmentFacts {
        segment,
        seg_epoch: Epoch(1),
        quorum: Quorum { write: 1, ack: 1 },
        base_offset,
        end_offset: offset,
        last: entries.saturating_sub(1),
        digest: chain,
        bytes,
        first_ts: base_offset,
        max_ts: offset - 1,
        opened: WallMs(0),
        closed: WallMs(offset),
    };
    MadeSegment { facts, entries: made }
}

/// Writes segments into one object and says how a manifest lists each.
///
/// # Errors
/// Those of the store.
pub async fn offload(store: &Store, cluster: ClusterId, segments: &[MadeSegment]) -> Result<Vec<LeafEntry>, Error> {
    let Some(first) = segments.first() else { return Ok(Vec::new()) };
    let key = ObjectKey {
        // That of the life that gave out the ordinal; the first ones count for life 1.
        incarnation: (first.facts.segment.n >> ID_INCARNATION_SHIFT).max(1) as u8,
        partition: first.facts.segment.partition,
        n: first.facts.segment.n,
        epoch: Epoch(1),
        attempt: 1,
        shared: segments.len() > 1,
    };
    let failed = |e: String| Error::new(Kind::Invalid, "write", key.to_string(), e);
    let mut encoder = Encoder::new(Identity { cluster, key }, EncoderOptions::default());
    let mut upload = store.upload(&key.to_string(), Class::Offload)?;
    for segment in segments {
        encoder.begin(segment.facts).map_err(|e| failed(e.to_string()))?;
        for entry in &segment.entries {
            encoder.push(entry).map_err(|e| failed(e.to_string()))?;
            while let Some(piece) = encoder.take() {
                upload.write(piece).await?;
            }
        }
        encoder.end().map_err(|e| failed(e.to_string()))?;
    }
    let finished = encoder.finish();
    while let Some(piece) = encoder.take() {
        upload.write(piece).await?;
    }
    let size = upload.finish().await?;
    let entry = |(part, made): (&esker_cache_core::object::Part, &MadeSegment)| {
        LeafEntry::new(&made.facts, part.place(key, size))
    };
    Ok(finished.parts.iter().zip(segments).map(entry).collect())
}

/// Writes the first manifest of a partition.
///
/// # Errors
/// Those of the store.
pub async fn manifest(
    store: &Store,
    cluster: ClusterId,
    partition: u64,
    entries: Vec<LeafEntry>,
) -> Result<RootPlace, Error> {
    let partition = PartitionId(partition);
    let folded_to = entries.last().map_or(0, |entry| entry.n);
    let change = Edit { append: entries, folded_to, ..Edit::default() };
    let mut names = PageNames { cluster, incarnation: 1, partition, epoch: Epoch(1), next_seq: 1 };
    let none = |_: &PageRef| None::<Arc<Page>>;
    let edited = edit(None, &change, &mut names, &none)
        .map_err(|need| Error::new(Kind::Invalid, "write", "a manifest", need.to_string()))?;
    for (key, bytes, _) in edited.pages {
        store.put(&key.to_string(), bytes, Class::Offload).await?;
    }
    Ok(edited.root)
}
