use esker_types::{AllRules, ErrorCode, ProducerId, Rules};
use proptest::prelude::*;

use super::*;
use crate::partition::Sequence;

mod model;

type Table = ProducerTable<AllRules>;

/// A batch of `count` records of producer 7.
fn batch(epoch: i16, first: i32, count: i32) -> Sequence {
    of(7, epoch, first, count)
}

fn of(producer: u64, epoch: i16, first: i32, count: i32) -> Sequence {
    let last = esker_wire::batch::next_sequence(first, count - 1);
    Sequence { producer: ProducerId(producer), epoch, first, last }
}

/// Admits and assigns, as an owner does.
fn append<R: Rules>(table: &mut ProducerTable<R>, batch: Sequence, max_ts: i64) -> Result<Admission, Refusal> {
    let admission = table.admit(Some(&batch))?;
    if admission == Admission::Append {
        let count = (i64::from(batch.last) - i64::from(batch.first)).rem_euclid(1 << 31) as u32 + 1;
        table.pend(Some(&batch), table.pending_end(), count, max_ts);
    }
    Ok(admission)
}

fn refused(table: &Table, batch: Sequence) -> ErrorCode {
    table.admit(Some(&batch)).unwrap_err().code()
}

fn restore(chunks: &[bytes::Bytes], limits: TableLimits) -> Result<Table, SnapshotError> {
    let mut reader = SnapshotReader::new(chunks[0].clone())?;
    for chunk in &chunks[1..] {
        reader.push(chunk.clone())?;
    }
    reader.finish(limits)
}

#[test]
fn a_repeated_batch_gets_the_outcome_or_the_offset_of_the_first() {
    let mut table = Table::default();
    assert_eq!(append(&mut table, batch(0, 0, 10), 1), Ok(Admission::Append));
    assert_eq!(append(&mut table, batch(0, 10, 5), 1), Ok(Admission::Append));
    assert_eq!(append(&mut table, batch(0, 10, 5), 1), Ok(Admission::DuplicatePending { base_offset: 10 }));
    table.commit_up_to(10);
    assert_eq!(append(&mut table, batch(0, 0, 10), 1), Ok(Admission::DuplicateCommitted { base_offset: 0 }));
    assert_eq!(append(&mut table, batch(0, 10, 5), 1), Ok(Admission::DuplicatePending { base_offset: 10 }));
    table.commit_up_to(15);
    assert_eq!(append(&mut table, batch(0, 10, 5), 1), Ok(Admission::DuplicateCommitted { base_offset: 10 }));
    assert_eq!((table.committed_end(), table.pending_end()), (15, 15));
}

#[test]
fn only_the_next_sequence_is_new() {
    let mut table = Table::default();
    assert_eq!(refused(&table, batch(0, 1, 1)), ErrorCode::UnknownProducer);
    append(&mut table, batch(0, 0, 10), 1).unwrap();
    assert_eq!(refused(&table, batch(0, 11, 1)), ErrorCode::OutOfOrderSequence, "gap behind a pending batch");
    assert_eq!(refused(&table, batch(0, 0, 9)), ErrorCode::OutOfOrderSequence, "overlaps, but is not the same batch");
    table.commit_up_to(10);
    assert_eq!(refused(&table, batch(0, 11, 1)), ErrorCode::OutOfOrderSequence);
    for first in 10..15 {
        append(&mut table, batch(0, first, 1), 1).unwrap();
    }
    table.commit_up_to(15);
    assert_eq!(refused(&table, batch(0, 0, 10)), ErrorCode::OutOfOrderSequence, "older than the last five");
    assert_eq!(table.admit(Some(&batch(0, 10, 1))), Ok(Admission::DuplicateCommitted { base_offset: 10 }));
}

#[test]
fn sequences_wrap_around() {
    let mut table = Table::default();
    append(&mut table, batch(0, 0, 1), 1).unwrap();
    // 2^31 records would take a while: begin close to the end, as a replayed log may.
    table.commit_up_to(1);
    let mut near_end = Table::default();
    near_end.pend(Some(&batch(0, i32::MAX - 4, 3)), 0, 3, 1);
    assert_eq!(append(&mut near_end, batch(0, i32::MAX - 1, 4), 1), Ok(Admission::Append));
    assert_eq!(append(&mut near_end, batch(0, 2, 1), 1), Ok(Admission::Append));
    near_end.commit_up_to(8);
    let wrapped = batch(0, i32::MAX - 1, 4);
    assert_eq!(wrapped.last, 1);
    assert_eq!(append(&mut near_end, wrapped, 1), Ok(Admission::DuplicateCommitted { base_offset: 3 }));
}

#[test]
fn a_higher_epoch_resets_and_fences() {
    let mut table = Table::default();
    append(&mut table, batch(0, 0, 10), 1).unwrap();
    assert_eq!(refused(&table, batch(1, 10, 1)), ErrorCode::OutOfOrderSequence, "a new epoch begins at 0");
    assert_eq!(append(&mut table, batch(1, 0, 2), 1), Ok(Admission::Append));
    assert_eq!(refused(&table, batch(0, 10, 1)), ErrorCode::ProducerFenced, "fenced while the new epoch is pending");
    table.commit_up_to(12);
    assert_eq!(refused(&table, batch(0, 0, 10)), ErrorCode::ProducerFenced, "not even a duplicate");
    assert_eq!(append(&mut table, batch(1, 2, 1), 1), Ok(Admission::Append));
}

#[test]
fn what_fails_is_forgotten_with_all_behind_it() {
    let mut table = Table::default();
    for first in 0..4 {
        append(&mut table, batch(0, first, 1), 1).unwrap();
    }
    append(&mut table, of(8, 0, 0, 1), 1).unwrap();
    table.commit_up_to(1);
    assert_eq!(table.fail_from(2), 3, "offsets 2, 3 and the other producer's 4");
    assert_eq!(refused(&table, batch(0, 3, 1)), ErrorCode::OutOfOrderSequence, "n+1 fails if n failed");
    assert_eq!(append(&mut table, batch(0, 2, 1), 1), Ok(Admission::Append));
    assert_eq!(table.fail_from(0), 2, "a committed batch stays");
    assert_eq!(append(&mut table, batch(0, 0, 1), 1), Ok(Admission::DuplicateCommitted { base_offset: 0 }));
    assert_eq!(append(&mut table, of(8, 0, 0, 1), 1), Ok(Admission::Append));
}

#[test]
fn a_full_table_forgets_only_the_idle() {
    let limits = TableLimits { producers_max: 2, idle_ms: 1000 };
    let mut table = Table::new(limits);
    append(&mut table, of(1, 0, 0, 1), 5_000).unwrap();
    append(&mut table, of(2, 0, 0, 1), 5_500).unwrap();
    assert_eq!(refused(&table, of(3, 0, 0, 1)), ErrorCode::TooManyProducers, "pending producers count");
    table.commit_up_to(2);
    assert_eq!(refused(&table, of(3, 0, 0, 1)), ErrorCode::TooManyProducers, "nobody is idle for long enough");
    assert_eq!(append(&mut table, of(2, 0, 1, 1), 6_001), Ok(Admission::Append), "known ones go on");
    table.commit_up_to(3);
    assert_eq!(append(&mut table, of(3, 0, 0, 1), 6_001), Ok(Admission::Append), "producer 1 is idle");
    assert_eq!(refused(&table, of(4, 0, 0, 1)), ErrorCode::TooManyProducers, "but makes room only once");
    table.commit_up_to(4);
    assert_eq!(table.len(), 2);
    assert_eq!(refused(&table, of(1, 0, 1, 1)), ErrorCode::UnknownProducer);
    // Log time comes from all batches, also those that are not idempotent.
    table.pend(None, 4, 1, 60_000);
    table.commit_up_to(5);
    assert_eq!(append(&mut table, of(4, 0, 0, 1), 60_000), Ok(Admission::Append));
}

#[test]
fn a_snapshot_folds_exactly_what_lies_before_it() {
    let mut table = Table::default();
    append(&mut table, batch(0, 0, 10), 1).unwrap();
    append(&mut table, batch(0, 10, 10), 1).unwrap();
    append(&mut table, of(8, 0, 0, 1), 1).unwrap();
    table.commit_up_to(10);
    let limits = TableLimits::default();
    let closed = restore(&table.snapshot_at(10), limits).unwrap();
    assert_eq!(closed.admit(Some(&batch(0, 10, 10))), Ok(Admission::Append), "a pending batch may still fail");
    assert_eq!(closed.len(), 1);
    // A snapshot in the open segment stands behind entries that are not acknowledged yet.
    let inside = restore(&table.snapshot_at(20), limits).unwrap();
    assert_eq!(inside.admit(Some(&batch(0, 10, 10))), Ok(Admission::DuplicateCommitted { base_offset: 10 }));
    assert_eq!((inside.len(), inside.committed_end()), (1, 20));
    assert_eq!(table.committed_end(), 10, "making a snapshot changes nothing");
}

#[derive(Clone, Copy, Debug, Default)]
struct SnapshotOfLiveTable;
impl Rules for SnapshotOfLiveTable {
    const NAME: &'static str = "snapshot of the live table";
    const SNAPSHOT_FOLDS_PREFIX: bool = false;
}

#[derive(Clone, Copy, Debug, Default)]
struct PendingIgnored;
impl Rules for PendingIgnored {
    const NAME: &'static str = "pending ignored";
    const DEDUPE_PENDING: bool = false;
}

#[derive(Clone, Copy, Debug, Default)]
struct NewOffsets;
impl Rules for NewOffsets {
    const NAME: &'static str = "duplicates at new offsets";
    const DUPLICATE_KEEPS_OFFSET: bool = false;
}

#[test]
fn the_mutants_do_harm() {
    let mut live = ProducerTable::<SnapshotOfLiveTable>::default();
    append(&mut live, batch(0, 0, 1), 1).unwrap();
    let restored = restore(&live.snapshot_at(0), TableLimits::default()).unwrap();
    assert_eq!(restored.admit(Some(&batch(0, 0, 1))), Ok(Admission::DuplicateCommitted { base_offset: 0 }));

    let mut ignoring = ProducerTable::<PendingIgnored>::default();
    append(&mut ignoring, batch(0, 0, 1), 1).unwrap();
    assert_eq!(append(&mut ignoring, batch(0, 1, 1), 1), Ok(Admission::Append), "healthy traffic goes on");
    assert_eq!(append(&mut ignoring, batch(0, 0, 1), 1), Ok(Admission::Append), "twice in the log");

    let mut moving = ProducerTable::<NewOffsets>::default();
    append(&mut moving, batch(0, 0, 3), 1).unwrap();
    moving.commit_up_to(3);
    assert_eq!(append(&mut moving, batch(0, 0, 3), 1), Ok(Admission::DuplicateCommitted { base_offset: 3 }));
}

#[test]
fn large_tables_come_in_small_chunks() {
    let mut table = Table::default();
    for id in 0..30_000u64 {
        for first in 0..5 {
            append(&mut table, of(1 << 50 | id, 3, first, 1), 1_700_000_000_000).unwrap();
        }
    }
    table.commit_up_to(150_000);
    let chunks = table.snapshot_at(150_000);
    assert!(chunks.len() > 2 && chunks.iter().all(|chunk| chunk.len() <= SNAPSHOT_CHUNK_MAX));
    let restored = restore(&chunks, TableLimits::default()).unwrap();
    assert_eq!(restored, table);

    let partial = restore(&chunks[..2], TableLimits::default()).unwrap_err();
    assert!(matches!(partial, SnapshotError::Incomplete { have: 2, .. }));
    let mut reader = SnapshotReader::new(chunks[0].clone()).unwrap();
    assert!(matches!(reader.push(chunks[2].clone()), Err(SnapshotError::Order { found: 2, expected: 1, .. })));
    assert!(SnapshotReader::new(chunks[1].clone()).is_err(), "begins with the first");
}

#[test]
fn snapshot_bytes_are_frozen() {
    let mut table = Table::default();
    append(&mut table, batch(3, 0, 10), 1_700_000_000_000).unwrap();
    table.commit_up_to(10);
    let hex: String = table.snapshot_at(10)[0].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "08011801200a2880d095ffbc313216080710031880d095ffbc31220910092080d095ffbc31");
}

proptest! {
    #[test]
    fn arbitrary_chunks_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(mut reader) = SnapshotReader::new(bytes.clone().into()) {
            let _ = reader.push(bytes.into());
            let _ = reader.finish::<AllRules>(TableLimits::default());
        }
    }
}
