//! Every way to tear or flip a small journal, tried one after another.
//!
//! What is promised, whatever the bytes: no panic; no entry that was not written; nothing that was acknowledged is
//! "not there"; and a torn tail alone never causes limbo.

use std::collections::BTreeMap;

use esker_types::{AllRules, Epoch, PartitionId, SegmentId};
use proptest::prelude::*;

use super::*;
use crate::bookie::{BookieState, BootFacts, Limits, Ticket};
use crate::testing::{CONN, IDS, MemDisk, Node, add, entry_bytes, seg};
use crate::wire::{FenceItem, FenceRequest, FenceVerdict, Read, ReadStatus};

/// A disk with what was acknowledged from it.
struct Journal {
    disk: MemDisk,
    limits: Limits,
    /// Acknowledged count per segment.
    acked: BTreeMap<SegmentId, u64>,
    /// Entries that were ever written, acknowledged or not.
    written: BTreeMap<SegmentId, u64>,
    fences: BTreeMap<PartitionId, Epoch>,
    evidence: Evidence,
}

/// Four files: three full ones and one with an epilogue; entries of three segments, fences between them.
fn journal() -> Journal {
    let journal = journal_in_files_of(4 * 4096);
    assert_eq!(journal.disk.files.len(), 5, "four in use and a spare");
    journal
}

/// The same after a restart that found everything whole, and some more entries.
fn restarted() -> Journal {
    let journal = journal_in_files_of(1 << 20);
    let (mut node, _) =
        Node::<AllRules>::boot(journal.disk, journal.limits, BootFacts::default(), &Evidence::default());
    node.add(seg(1, 1), 5, 3);
    node.add(seg(3, 1), 0, 3);
    node.pump();
    node.state.idle();
    node.pump();
    of(&node, journal.limits)
}

fn journal_in_files_of(file_bytes: u64) -> Journal {
    let limits = Limits { file_bytes, ..Limits::default() };
    let mut node = Node::<AllRules>::fresh(limits);
    for entry in 0..5 {
        for segment in [seg(1, 1), seg(2, 1), seg(2, 2)] {
            node.add(segment, entry, 3);
        }
        node.pump();
        node.fence(seg(entry, 9), 2);
        node.pump();
    }
    node.state.idle();
    node.pump();
    of(&node, limits)
}

fn of(node: &Node<AllRules>, limits: Limits) -> Journal {
    let acked: BTreeMap<SegmentId, u64> =
        node.state.segment_ids().map(|id| (id, node.state.segment(id).expect("listed").1)).collect();
    let fences = (0..4).map(|p| (PartitionId(p), node.state.max_epoch(PartitionId(p)))).collect();
    Journal { disk: node.disk.clone(), limits, written: acked.clone(), acked, fences, evidence: Evidence::default() }
}

impl Journal {
    /// Restarts on `disk` and checks the promises. Returns the verdict.
    fn check(&self, disk: &MemDisk, what: &dyn Fn() -> String) -> Verdict {
        let restored = restart::<AllRules, _>(IDS, disk, &self.evidence);
        let verdict = restored.verdict.clone();
        let loss = matches!(verdict, Verdict::Loss { .. });
        let named = self.acked.keys().copied().collect();
        let mut state = BookieState::<AllRules>::boot(IDS, self.limits, restored, BootFacts { open: vec![], named });
        for (segment, written) in &self.written {
            let acked = self.acked.get(segment).copied().unwrap_or(0);
            let mut held_all = true;
            for entry in 0..*written {
                let read = Read { instance: IDS.instance, segment: *segment, from: entry, to: entry + 1, max_bytes: 1 };
                let response = match state.plan_read(&read) {
                    crate::bookie::ReadPlan::Answer(response) => response,
                    crate::bookie::ReadPlan::Fetch(fetch) => fetch.run(disk).response,
                };
                match response.status {
                    ReadStatus::Data => {
                        assert_eq!(response.entries[0], entry_bytes(*segment, entry), "{}: invented", what());
                    }
                    ReadStatus::NoSuchEntry => {
                        assert!(entry >= acked, "{}: {segment} entry {entry} was acked, verdict {verdict:?}", what());
                    }
                    status => {
                        held_all = false;
                        assert!(entry < acked || loss, "{}: {status:?} without a loss", what());
                    }
                }
            }
            let (_, durable, limbo) = state.segment(*segment).unwrap_or((0, 0, false));
            assert!(limbo || durable >= acked, "{}: {segment} holds {durable} of {acked}", what());
            assert!(durable <= *written, "{}: more than was ever written", what());
            assert!(held_all || loss || durable >= acked, "{}", what());
        }
        for (partition, epoch) in &self.fences {
            assert!(loss || state.max_epoch(*partition) >= *epoch, "{}: fence of {partition} is gone", what());
        }
        // It must be able to go on.
        let file = FileId { seq: state.next_file_seq(), uuid: [0x77; 16] };
        state.offer_file(file);
        let header = state.next_write().expect("a header");
        assert!(header.head.lsn >= self.evidence.metadata_lsn, "{}", what());
        state.on_written(header.head.lsn);
        let items = self.acked.keys().map(|s| FenceItem { instance: IDS.instance, segment: *s, epoch: Epoch(99) });
        state.on_fence(Ticket(1), FenceRequest { items: items.collect() });
        state.on_add(CONN, add(seg(77, 1), 0, 1));
        while let Some(write) = state.next_write() {
            state.on_written(write.head.lsn);
        }
        assert_eq!(state.segment(seg(77, 1)), Some((1, 1, false)), "{}: a new segment is whole", what());
        while let Some(action) = state.poll() {
            let crate::bookie::Action::Fenced { response, .. } = action else { continue };
            for (result, acked) in response.results.iter().zip(self.acked.values()) {
                let FenceVerdict::Ok { durable, limbo, .. } = result.verdict else { panic!("{}", what()) };
                assert!(limbo || durable >= *acked, "{}: fence denies acked entries", what());
            }
        }
        verdict
    }
}

fn flipped(disk: &MemDisk, file: FileId, at: usize, mask: u8) -> MemDisk {
    let mut bad = disk.clone();
    bad.files.get_mut(&file).expect("listed")[at] ^= mask;
    bad
}

#[test]
fn an_untouched_journal_is_clean() {
    let journal = journal();
    assert_eq!(journal.check(&journal.disk, &|| "untouched".into()), Verdict::Clean);
    assert_eq!(restart::<AllRules, _>(IDS, &MemDisk::default(), &Evidence::default()).verdict, Verdict::Fresh);
}

/// Flips each byte in two ways; returns how many flips were a loss. All others were harmless: padding, or a part that
/// a footer or another file also knows.
fn flip_every_byte(name: &str, journal: &Journal) -> u64 {
    let (mut losses, mut tried) = (0, 0);
    for (file, bytes) in &journal.disk.files {
        for at in 0..bytes.len() {
            // Every bit of a block's first sector in turn; behind it, mostly padding, one flip a byte.
            let masks: &[u8] = if at % 4096 < 512 { &[1 << (at % 8), 0xff] } else { &[0xff] };
            for &mask in masks {
                let bad = flipped(&journal.disk, *file, at, mask);
                let verdict = journal.check(&bad, &|| format!("{name}: {file} byte {at} mask {mask:#04x}"));
                losses += u64::from(matches!(verdict, Verdict::Loss { .. }));
                tried += 1;
            }
        }
    }
    println!("{name}: {tried} flips, {losses} of them a loss, none unseen");
    losses
}

#[test]
fn every_byte_of_full_files_flipped() {
    assert!(flip_every_byte("full files", &journal()) > 700);
}

#[test]
fn every_byte_of_a_file_without_a_footer_flipped() {
    assert!(flip_every_byte("one file", &journal_in_files_of(1 << 20)) > 2000);
}

#[test]
fn every_byte_flipped_after_a_restart() {
    assert!(flip_every_byte("restarted", &restarted()) > 2000);
}

#[test]
fn every_flip_that_hits_a_single_payload_names_its_victim() {
    let journal = journal();
    let victim = entry_bytes(seg(2, 1), 2);
    let (file, at) = journal
        .disk
        .files
        .iter()
        .find_map(|(id, bytes)| Some((*id, bytes.windows(victim.len()).position(|w| *w == victim[..])?)))
        .expect("stored");
    let footered = restart::<AllRules, _>(IDS, &journal.disk, &journal.evidence).footered.contains(&file.seq);
    for byte in at..at + victim.len() {
        let bad = flipped(&journal.disk, file, byte, 0x10);
        let verdict = journal.check(&bad, &|| format!("byte {byte}"));
        // Under a footer nothing is read at a restart: a read or the scrub finds it.
        let expected = Verdict::Loss { damaged: vec![(seg(2, 1), 2)], unknown: false };
        assert_eq!(verdict, if footered { Verdict::Clean } else { expected });
    }
}

/// A journal whose last `blocks` writes were on their way when the power went: they may be there in part.
fn unsynced(blocks: usize) -> (Journal, Vec<(FileId, usize, Vec<u8>)>) {
    let limits = Limits { file_bytes: 1 << 20, group_bytes: 400, ..Limits::default() };
    let mut node = Node::<AllRules>::fresh(limits);
    node.prefill = 64 << 10;
    (0..3).for_each(|entry| node.add(seg(1, 1), entry, 1));
    node.fence(seg(3, 1), 2);
    node.pump();
    let mut journal = of(&node, limits);
    let mut writes = Vec::new();
    for entry in 3..3 + 3 * blocks as u64 {
        node.add(seg(1, 1), entry, 1);
        node.add(seg(2, 1), entry - 3, 1);
    }
    while writes.len() < blocks {
        let write = node.state.next_write().expect("enough is queued");
        writes.push((write.file(), write.offset() as usize, write.to_bytes().to_vec()));
    }
    journal.written = BTreeMap::from([(seg(1, 1), 3 + 3 * blocks as u64), (seg(2, 1), 3 * blocks as u64)]);
    (journal, writes)
}

#[test]
fn every_tear_of_the_last_blocks_is_cut_without_limbo() {
    let (journal, writes) = unsynced(3);
    let mut torn = 0;
    for (last, (_, _, bytes)) in writes.iter().enumerate() {
        for cut in 0..=bytes.len() {
            for garbage in [None, Some(0u8), Some(0xff)] {
                let mut disk = journal.disk.clone();
                for (file, offset, bytes) in &writes[..last] {
                    put(&mut disk, *file, *offset, bytes);
                }
                let (file, offset, bytes) = &writes[last];
                if let Some(fill) = garbage {
                    put(&mut disk, *file, *offset, &vec![fill; bytes.len()]);
                }
                put(&mut disk, *file, *offset, &bytes[..cut]);
                let verdict = journal.check(&disk, &|| format!("block {last} cut at {cut}, {garbage:?} behind"));
                assert!(!matches!(verdict, Verdict::Loss { .. }), "block {last} cut at {cut}: {verdict:?}");
                torn += u64::from(verdict == Verdict::Torn);
            }
        }
    }
    assert!(torn > 100, "{torn}");
}

#[test]
fn every_subset_of_the_last_sectors_is_cut_without_limbo() {
    let (journal, writes) = unsynced(2);
    let sectors: Vec<(FileId, usize, &[u8])> = writes
        .iter()
        .flat_map(|(file, offset, bytes)| {
            bytes.chunks(512).enumerate().map(move |(i, sector)| (*file, offset + 512 * i, sector))
        })
        .collect();
    assert_eq!(sectors.len(), 16);
    for kept in 0u32..1 << sectors.len() {
        let mut disk = journal.disk.clone();
        for (i, (file, offset, sector)) in sectors.iter().enumerate() {
            if kept & (1 << i) != 0 {
                put(&mut disk, *file, *offset, sector);
            }
        }
        let verdict = journal.check(&disk, &|| format!("sectors {kept:#018b}"));
        assert!(!matches!(verdict, Verdict::Loss { .. }), "sectors {kept:#018b}: {verdict:?}");
    }
}

#[test]
fn a_damaged_footer_costs_no_entry() {
    let journal = journal();
    let restored = restart::<AllRules, _>(IDS, &journal.disk, &journal.evidence);
    let first = &restored.files[0];
    let at = first.footer.expect("full").offset as usize + 130;
    let disk = flipped(&journal.disk, first.id, at, 1);
    assert_eq!(journal.check(&disk, &|| "footer at the restart".into()), Verdict::Clean);
    let (mut node, _) =
        Node::<AllRules>::boot(journal.disk.clone(), journal.limits, BootFacts::default(), &journal.evidence);
    node.disk.files.insert(first.id, disk.files[&first.id].clone());
    assert_eq!(node.read(seg(1, 1), 0, u64::MAX).entries.len(), 5, "found damaged while running");
}

#[test]
fn a_newer_format_is_seen_before_it_is_taken_for_damage() {
    use crate::journal::scan::newer_format;

    let journal = journal();
    assert_eq!(newer_format(&journal.disk, IDS), None);
    let file = *journal.disk.files.keys().next().expect("some");
    assert_eq!(newer_format(&flipped(&journal.disk, file, 4, 3), IDS), Some(2));
    let garbage = flipped(&flipped(&journal.disk, file, 4, 3), file, 8, 1);
    assert_eq!(newer_format(&garbage, IDS), None);
}

#[test]
fn files_cut_short_or_gone_are_a_loss_or_nothing() {
    let journal = journal();
    for (file, bytes) in &journal.disk.files {
        for len in (0..bytes.len()).step_by(512) {
            let mut disk = journal.disk.clone();
            disk.files.insert(*file, bytes[..len].to_vec());
            let cut_known = Journal { evidence: full_evidence(&journal), ..copy(&journal) };
            cut_known.check(&disk, &|| format!("{file} cut to {len}"));
        }
        let mut disk = journal.disk.clone();
        disk.files.remove(file);
        let cut_known = Journal { evidence: full_evidence(&journal), ..copy(&journal) };
        let verdict = cut_known.check(&disk, &|| format!("{file} is gone"));
        assert_eq!(matches!(verdict, Verdict::Loss { .. }), !bytes.is_empty(), "{file}: {verdict:?}");
    }
}

/// What metadata would know: the journal's whole durable length but for the epilogue.
fn full_evidence(journal: &Journal) -> Evidence {
    let restored = restart::<AllRules, _>(IDS, &journal.disk, &journal.evidence);
    Evidence { metadata_lsn: Lsn(restored.next_lsn.0 - 4096), superblock: None }
}

fn copy(journal: &Journal) -> Journal {
    Journal {
        disk: journal.disk.clone(),
        limits: journal.limits,
        acked: journal.acked.clone(),
        written: journal.written.clone(),
        fences: journal.fences.clone(),
        evidence: journal.evidence.clone(),
    }
}

fn put(disk: &mut MemDisk, file: FileId, offset: usize, bytes: &[u8]) {
    let content = disk.files.entry(file).or_default();
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn every_block_written_to_every_other_place_or_not_at_all() {
    let journal = journal();
    let places: Vec<(FileId, usize)> =
        journal.disk.files.iter().flat_map(|(id, bytes)| (0..bytes.len()).step_by(4096).map(|at| (*id, at))).collect();
    assert!(places.len() >= 12);
    let mut losses = 0;
    for (to_file, to) in &places {
        let lost = [vec![0u8; 4096], vec![0xaa; 4096]];
        let others = places.iter().map(|(file, at)| journal.disk.files[file][*at..*at + 4096].to_vec());
        for content in lost.into_iter().chain(others) {
            let mut disk = journal.disk.clone();
            if disk.files[to_file][*to..*to + 4096] == content[..] {
                continue;
            }
            put(&mut disk, *to_file, *to, &content);
            let verdict = journal.check(&disk, &|| format!("{to_file} at {to} overwritten"));
            losses += u64::from(matches!(verdict, Verdict::Loss { .. }));
        }
    }
    assert!(losses > 30, "{losses}");
}

#[test]
fn a_recycled_file_shows_nothing_of_its_earlier_life() {
    let journal = journal();
    let mut disk = journal.disk.clone();
    let spare = *disk.files.keys().next_back().expect("a spare");
    assert!(disk.files[&spare].is_empty());
    for donor in journal.disk.files.values().filter(|bytes| !bytes.is_empty()) {
        disk.files.insert(spare, donor.clone());
        assert_eq!(journal.check(&disk, &|| "recycled".into()), Verdict::Clean);
    }
}

#[test]
fn evidence_from_outside_turns_a_cut_tail_into_a_loss() {
    let (journal, writes) = unsynced(1);
    assert_eq!(journal.check(&journal.disk, &|| "nothing arrived".into()), Verdict::Clean);
    let mut known = copy(&journal);
    let restored = restart::<AllRules, _>(IDS, &journal.disk, &journal.evidence);
    known.evidence.metadata_lsn = Lsn(restored.next_lsn.0 + writes[0].2.len() as u64);
    let verdict = known.check(&journal.disk, &|| "known to be durable".into());
    assert_eq!(verdict, Verdict::Loss { damaged: vec![], unknown: true });
    let superblock = Superblock {
        cluster: IDS.cluster,
        bookie: esker_types::BookieId(1),
        instance: IDS.instance,
        directory: [0; 16],
        durable: Lsn(0),
        poisoned: true,
    };
    known.evidence = Evidence { metadata_lsn: Lsn(0), superblock: Some(superblock) };
    let verdict = known.check(&journal.disk, &|| "poisoned".into());
    assert_eq!(verdict, Verdict::Loss { damaged: vec![], unknown: true });
}

#[test]
fn a_loss_is_found_once_and_limbo_stays() {
    let journal = journal();
    let (file, bytes) = journal.disk.files.iter().rev().find(|(_, bytes)| !bytes.is_empty()).expect("the last");
    let epilogue = bytes.len() - 4096;
    let disk = flipped(&journal.disk, *file, epilogue - 4096 + 60, 1);
    let facts = BootFacts { open: vec![], named: journal.acked.keys().copied().collect() };
    let (node, restored) = Node::<AllRules>::boot(disk, journal.limits, facts, &journal.evidence);
    assert_eq!(restored.verdict, Verdict::Loss { damaged: vec![], unknown: true });
    let (node, restored) = Node::<AllRules>::boot(node.disk, journal.limits, BootFacts::default(), &journal.evidence);
    assert_eq!(restored.verdict, Verdict::Clean, "a known hole is no new loss");
    assert_eq!(node.state.limbo_segments().count(), journal.acked.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Several faults at once: copies of ranges, garbage, cuts.
    #[test]
    fn many_faults_at_once(ops in proptest::collection::vec((0usize..8, any::<u16>(), any::<u16>(), 1usize..6000, any::<u8>()), 1..6)) {
        let journal = journal();
        let mut disk = journal.disk.clone();
        let ids: Vec<FileId> = disk.files.keys().copied().collect();
        for (kind, from, to, len, fill) in ops {
            let source = disk.files[&ids[usize::from(from) % ids.len()]].clone();
            let target = disk.files.get_mut(&ids[usize::from(to) % ids.len()]).expect("listed");
            if target.is_empty() || source.is_empty() {
                continue;
            }
            let (at, start) = (usize::from(to) % target.len(), usize::from(from) % source.len());
            let len = len.min(target.len() - at).min(source.len() - start);
            match kind {
                0 => target.truncate(at),
                1 | 2 => target[at..at + len].fill(fill),
                3 | 4 => target[at..at + len].copy_from_slice(&source[start..start + len]),
                _ => target[at] ^= fill,
            }
        }
        let journal = Journal { evidence: full_evidence(&journal), ..journal };
        journal.check(&disk, &|| "many faults".into());
    }

    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), heads in proptest::collection::vec(0usize..5, 0..5)) {
        let mut bytes = bytes;
        for head in heads {
            if let Some(at) = bytes.get_mut(head * 4096..head * 4096 + 6) {
                at.copy_from_slice(&[0x45, 0x53, 0x4b, 0x4a, 1, 2]);
            }
        }
        let mut disk = MemDisk::default();
        disk.files.insert(FileId { seq: 1, uuid: [1; 16] }, bytes);
        let restored = restart::<AllRules, _>(IDS, &disk, &Evidence::default());
        prop_assert_eq!(restored.verdict, Verdict::Fresh);
        prop_assert!(restored.runs.is_empty());
    }
}
