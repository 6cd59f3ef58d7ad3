//! Segments to encode, and pages at hand.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use esker_cache_core::manifest::{Edit, Edited, LeafEntry, Page, PageNames, PageRef, decode_page, edit};
use esker_cache_core::object::{Directory, Encoder, EncoderOptions, Finished, Footer, Identity, SegmentFacts, Trailer};
use esker_metadata_core::{ClosedSegment, ObjectPlace, RootPlace};
use esker_types::entry::{CHAIN_START, NO_SNAPSHOT};
use esker_types::*;

pub const CLUSTER: ClusterId = ClusterId([0xc1; 16]);

pub fn object_key(n: u64) -> ObjectKey {
    ObjectKey { incarnation: 0, partition: PartitionId(7), n, epoch: Epoch(3), attempt: 1, shared: false }
}

/// A segment's row when no bookie holds it any more.
pub fn closed_row(facts: &SegmentFacts, object: Option<ObjectPlace>) -> ClosedSegment {
    let SegmentFacts { segment, seg_epoch, quorum, base_offset, end_offset, last, digest, bytes, .. } = *facts;
    ClosedSegment {
        segment,
        seg_epoch,
        quorum,
        members: Vec::new(),
        holders: Vec::new(),
        base_offset,
        end_offset,
        last,
        digest,
        bytes,
        first_ts: facts.first_ts,
        max_ts: facts.max_ts,
        opened: facts.opened,
        closed: facts.closed,
        ver: 0,
        object,
    }
}

pub fn identity(n: u64) -> Identity {
    Identity { cluster: CLUSTER, key: object_key(n) }
}

/// A segment whose entry `i` holds `i % 4` records; entry 0 is a snapshot.
pub fn segment(n: u64, base_offset: Offset, payloads: &[Vec<u8>]) -> (SegmentFacts, Vec<Bytes>) {
    let segment = SegmentId::new(7, n);
    let (mut chain, mut offset, mut entries, mut max_ts) = (CHAIN_START, base_offset, Vec::new(), -1);
    for (i, payload) in payloads.iter().enumerate() {
        let count = if i == 0 { 0 } else { 1 + (i % 4) as u32 };
        let ts = if count == 0 { -1 } else { 1_000 + i as i64 * 10 };
        let header = EntryHeader {
            kind: if count == 0 { EntryKind::Snapshot } else { EntryKind::Data },
            segment,
            seg_epoch: Epoch(2),
            entry: i as u64,
            base_offset: offset,
            count,
            max_ts: ts,
            snap: NO_SNAPSHOT,
            len: payload.len() as u32,
            payload_crc: checksum::crc32c(payload),
            chain: 0,
        }
        .sealed(chain);
        (chain, offset, max_ts) = (header.chain, header.end_offset(), max_ts.max(ts));
        entries.push(Entry::assemble(header, payload).bytes);
    }
    let facts = SegmentFacts {
        segment,
        seg_epoch: Epoch(2),
        quorum: Quorum { write: 3, ack: 2 },
        base_offset,
        end_offset: offset,
        last: entries.len() as u64 - 1,
        digest: chain,
        bytes: entries.iter().map(|entry| entry.len() as u64).sum(),
        first_ts: 1_010,
        max_ts,
        opened: WallMs(5),
        closed: WallMs(9),
    };
    (facts, entries)
}

/// Bytes that no compressor makes shorter, the same ones every time.
pub fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&(seed >> 16).to_le_bytes()[..6]);
    }
    out.truncate(len);
    out
}

pub fn encode(identity: Identity, block_target: usize, segments: &[(SegmentFacts, Vec<Bytes>)]) -> (Vec<u8>, Finished) {
    let mut encoder = Encoder::new(identity, EncoderOptions { block_target, level: 1 });
    let mut out = Vec::new();
    for (facts, entries) in segments {
        encoder.begin(*facts).unwrap();
        for entry in entries {
            encoder.push(entry).unwrap();
            while let Some(chunk) = encoder.take() {
                out.extend_from_slice(&chunk);
            }
        }
        encoder.end().unwrap();
    }
    let finished = encoder.finish();
    while let Some(chunk) = encoder.take() {
        out.extend_from_slice(&chunk);
    }
    assert_eq!((finished.len, finished.crc), (out.len() as u64, checksum::crc32c(&out)));
    (out, finished)
}

/// What a reader finds from the end of an object.
pub fn index(object: &[u8]) -> Result<(Trailer, Directory, Vec<Footer>), esker_cache_core::FormatError> {
    let trailer = Trailer::parse(object, object.len() as u64)?;
    let from = trailer.directory_position as usize;
    let directory = Directory::decode(&trailer, &object[from..from + trailer.directory_len as usize])?;
    let mut footers = Vec::new();
    for part in &directory.parts {
        let at = part.footer_position as usize;
        let bytes = &object[at..at + part.footer_len as usize];
        footers.push(Footer::decode(&trailer.identity, part.segment, part.footer_position, bytes)?);
    }
    Ok((trailer, directory, footers))
}

/// A bucket of pages that counts what is fetched.
pub struct Bucket {
    pub stored: BTreeMap<PageKey, Bytes>,
    pub fetched: RefCell<Vec<PageKey>>,
    pub names: PageNames,
    pub root: Option<RootPlace>,
}

impl Bucket {
    pub fn new() -> Self {
        let names =
            PageNames { cluster: CLUSTER, incarnation: 0, partition: PartitionId(7), epoch: Epoch(3), next_seq: 1 };
        Self { stored: BTreeMap::new(), fetched: RefCell::new(Vec::new()), names, root: None }
    }

    pub fn get(&self, of: &PageRef) -> Option<Arc<Page>> {
        self.fetched.borrow_mut().push(of.key);
        let bytes = self.stored.get(&of.key)?;
        Some(Arc::new(decode_page(CLUSTER, of, bytes).expect("a page that was written")))
    }

    pub fn edit(&mut self, change: &Edit) -> Edited {
        let mut names = self.names;
        let edited = edit(self.root.as_ref(), change, &mut names, &|of: &PageRef| self.get(of)).expect("all at hand");
        self.names = names;
        for (key, bytes, _) in &edited.pages {
            assert!(self.stored.insert(*key, bytes.clone()).is_none(), "page {key} was written twice");
        }
        self.root = Some(edited.root.clone());
        edited
    }

    pub fn root(&self) -> Arc<Page> {
        esker_cache_core::manifest::root_page(self.root.as_ref().unwrap(), &|of: &PageRef| self.get(of)).unwrap()
    }
}

/// Segment `n` holds offsets [10 n, 10 n + 10) and times up to 100 n.
pub fn leaf_entry(n: u64) -> LeafEntry {
    LeafEntry {
        n,
        seg_epoch: Epoch(2),
        base_offset: n as i64 * 10,
        end_offset: n as i64 * 10 + 10,
        last: 9,
        digest: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        bytes: 64 << 20,
        first_ts: n as i64 * 100 - 99,
        max_ts: n as i64 * 100,
        closed: WallMs(n as i64 * 100),
        place: ObjectPlace {
            key: object_key(n),
            position: 60,
            len: 60 << 20,
            footer_position: 61 << 20,
            footer_len: 3_180,
            footer_crc: n as u32,
            size: (61 << 20) + 4_000,
        },
    }
}
