use std::sync::Arc;

use esker_bookie_core::bookie::ConnId;
use esker_bookie_core::journal::restart::Verdict;
use esker_bookie_core::wire::{AddStatusKind, FenceItem, FenceRequest, FenceVerdict, ReadStatus};
use esker_types::{Epoch, SegmentId};

use crate::disk::JournalFiles;
use crate::testing::{Bench, FailingDisk, INSTANCE, add, entry, restored, superblock};

const S: SegmentId = SegmentId::new(7, 1);
const T: SegmentId = SegmentId::new(8, 3);

#[tokio::test]
async fn acknowledged_entries_are_read_back_and_survive_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(dir.path()).await;
    for number in 0..50 {
        bench.add(add(S, number, 1000, 1)).await;
        bench.add(add(T, number, 10, 1)).await;
    }
    bench.acked(S, 50).await;
    let read = bench.read(S, 10).await;
    assert_eq!((read.status, read.next, read.durable), (ReadStatus::Data, 50, 50));
    assert_eq!(read.entries[0], entry(S, 10, 1000).bytes);
    assert_eq!(bench.read(S, 50).await.status, ReadStatus::NoSuchEntry);
    bench.journal.kill().await;

    let bench = Bench::open(dir.path()).await;
    let all = bench.read_all(S).await;
    assert_eq!(all.len(), 50);
    assert!(all.iter().enumerate().all(|(number, bytes)| *bytes == entry(S, number as u64, 1000).bytes));
}

#[tokio::test]
async fn a_crash_at_any_point_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0;
    for round in 0..20u64 {
        let mut bench = Bench::open(dir.path()).await;
        let (_, durable, limbo) = bench.journal.look(|state| state.segment(S)).unwrap_or_default();
        assert!(durable >= acked && !limbo, "round {round}: {durable} durable, {acked} acknowledged, limbo {limbo}");
        for number in durable..durable + 40 {
            bench.add(add(S, number, 3000, 1)).await;
        }
        // Wait for some answers, a different number each time, then stop dead.
        acked = durable + round * 2;
        bench.acked(S, acked.min(durable + 40)).await;
        bench.journal.kill().await;
        while let Ok(status) = bench.answers.try_recv() {
            acked = acked.max(status.next);
        }
    }
    let bench = Bench::open(dir.path()).await;
    let all = bench.read_all(S).await;
    assert!(all.len() as u64 >= acked);
    assert!(all.iter().enumerate().all(|(number, bytes)| *bytes == entry(S, number as u64, 3000).bytes));
}

#[tokio::test]
async fn a_fence_holds_at_once_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(dir.path()).await;
    bench.add(add(S, 0, 10, 1)).await;
    let item = |epoch| FenceItem { instance: INSTANCE, segment: S, epoch: Epoch(epoch) };
    let fence = bench.journal.fence(FenceRequest { items: vec![item(5)] }).await.unwrap();
    assert_eq!(fence.results[0].verdict, FenceVerdict::Ok { durable: 1, lac: 0, limbo: false });
    bench.acked(S, 1).await;
    bench.journal.kill().await;

    let mut bench = Bench::open(dir.path()).await;
    bench.add(add(S, 1, 10, 4)).await;
    let status = bench.answers.recv().await.unwrap();
    assert_eq!((status.kind, status.max_epoch), (AddStatusKind::Fenced, Epoch(5)));
    let fence = bench.journal.fence(FenceRequest { items: vec![item(4)] }).await.unwrap();
    assert_eq!(fence.results[0].verdict, FenceVerdict::Fenced { max_epoch: Epoch(5) });
    bench.add(add(S, 1, 10, 5)).await;
    bench.acked(S, 2).await;
}

#[tokio::test]
async fn entries_that_come_twice_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(dir.path()).await;
    for number in 0..20 {
        bench.add(add(S, number, 100, 1)).await;
    }
    bench.acked(S, 20).await;
    // From memory, from the file, and with other bytes.
    bench.add(add(S, 19, 100, 1)).await;
    bench.acked(S, 20).await;
    bench.add(add(S, 0, 100, 1)).await;
    bench.acked(S, 20).await;
    bench.add(add(S, 0, 101, 1)).await;
    let status = bench.answers.recv().await.unwrap();
    assert_eq!((status.kind, status.next), (AddStatusKind::Conflict, 0));
    bench.add(add(S, 21, 100, 1)).await;
    let status = bench.answers.recv().await.unwrap();
    assert_eq!((status.kind, status.next), (AddStatusKind::Gap, 20));
}

#[tokio::test]
async fn full_files_are_not_scanned_by_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(dir.path()).await;
    let (entries, payload) = (160, 60_000);
    for number in 0..entries {
        bench.add(add(S, number, payload, 1)).await;
    }
    bench.acked(S, entries).await;
    bench.journal.stop().await;

    let (restored, read) = restored(dir.path());
    let total = entries * payload as u64;
    assert_eq!(restored.verdict, Verdict::Clean);
    assert!(restored.files.len() >= 8 && read < total / 3, "{} files, {read} of {total} bytes", restored.files.len());
    let bench = Bench::open(dir.path()).await;
    assert_eq!(bench.read_all(S).await.len() as u64, entries);
    assert_eq!(bench.read(S, 77).await.entries[0], entry(S, 77, payload).bytes);
}

#[tokio::test]
async fn a_failed_sync_ends_everything() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FailingDisk::sound();
    let mut bench = Bench::open_on(dir.path(), disk.clone()).await;
    disk.fail();
    // The entry, or the closing block before it, is the first to fail.
    let _ = bench.journal.add(CONN2, add(S, 0, 100, 1)).await;
    let failed = bench.journal.failed().await;
    assert!(failed.0.contains("injected"), "{failed}");
    assert!(disk.poisoned.lock().is_some());
    assert!(bench.answers.try_recv().is_err(), "nothing is acknowledged after a failed sync");
    assert!(bench.journal.add(CONN2, add(S, 1, 100, 1)).await.is_err());
    assert!(superblock(dir.path()).read().unwrap().unwrap().poisoned);

    // What was never proven durable is not known: limbo, not "not there".
    let (restored, _) = restored(dir.path());
    assert!(restored.needs_names());
}

const CONN2: ConnId = ConnId(2);

#[tokio::test]
async fn dropped_segments_give_their_files_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(dir.path()).await;
    for number in 0..80 {
        bench.add(add(S, number, 60_000, 1)).await;
    }
    bench.add(add(T, 0, 100, 1)).await;
    bench.acked(S, 80).await;
    let before = JournalFiles::list(dir.path()).unwrap().files.len();
    assert!(before >= 5, "{before} files");
    bench.journal.change(|state| state.drop_segment(S)).unwrap();
    // The next file's header no longer names the files; small entries until it is durable.
    bench.journal.change(|state| state.roll());
    let mut number = 1;
    while bench.journal.look(|state| state.file_uses().len()) > 2 {
        bench.add(add(T, number, 100, 1)).await;
        number += 1;
        bench.acked(T, number).await;
    }
    bench.journal.stop().await;
    drop(bench);
    let bench = Bench::open(dir.path()).await;
    assert_eq!(bench.journal.look(|state| state.segment(S)), None);
    assert_eq!(bench.read_all(T).await.len() as u64, number);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let mut tasks = Vec::new();
    for n in 0..8u64 {
        let journal = bench.journal.clone();
        tasks.push(tokio::spawn(async move {
            let segment = SegmentId::new(100 + n, 1);
            let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
            let conn = ConnId(10 + n);
            journal.connect(
                conn,
                Arc::new(move |status| {
                    let _ = tx.send(status);
                }),
            );
            for number in 0..100 {
                journal.add(conn, add(segment, number, 5000, 1)).await.unwrap();
            }
            while rx.recv().await.unwrap().next < 100 {}
            journal.disconnect(conn);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..8 {
        assert_eq!(bench.read_all(SegmentId::new(100 + n, 1)).await.len(), 100);
    }
    assert_eq!(bench.journal.queued_bytes(), 0);
    bench.journal.kill().await;
    let bench = Bench::open(dir.path()).await;
    assert_eq!(bench.read_all(SegmentId::new(100, 1)).await.len(), 100);
}
