use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::*;

struct Quiet;
impl DiskHooks for Quiet {
    fn poisoned(&self, reason: &str) {
        panic!("{reason}");
    }
}

/// No room beyond the first step, once.
struct FullOnce(AtomicBool);
impl DiskHooks for FullOnce {
    fn before_fill(&self, _: &Path, from: u64, _: u64) -> io::Result<()> {
        let full = from > 0 && self.0.swap(false, Ordering::SeqCst);
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn poisoned(&self, reason: &str) {
        panic!("{reason}");
    }
}

type Ready = mpsc::Receiver<(FileId, io::Result<DiskFile>)>;

fn start(dir: &Path, hooks: impl DiskHooks) -> (Space, Ready) {
    let (tx, rx) = mpsc::channel();
    let config = SpaceConfig { dir: dir.to_owned(), file_bytes: 3 << 20, prepare_bytes: 1 << 20, direct: true };
    let on_ready = Box::new(move |id, file| tx.send((id, file)).unwrap());
    (Space::start(config, Vec::new(), Arc::new(hooks), on_ready).unwrap(), rx)
}

fn id(seq: u64) -> FileId {
    FileId { seq, uuid: [seq as u8; 16] }
}

fn create(space: &Space, ready: &Ready, seq: u64) -> DiskFile {
    space.create(id(seq));
    let (made, file) = ready.recv().unwrap();
    assert_eq!(made, id(seq));
    file.unwrap()
}

#[test]
fn room_runs_ahead_of_the_writer() {
    let temp = tempfile::tempdir().unwrap();
    let (space, ready) = start(temp.path(), Quiet);
    let file = create(&space, &ready, 1);
    space.ensure(id(1), PAGE as u64).unwrap();
    space.ensure(id(1), 3 << 20).unwrap();
    assert_eq!(file.length().unwrap(), 3 << 20);
    // A footer that needs more than what is left still finds room.
    space.ensure(id(1), (3 << 20) + 1).unwrap();
    assert_eq!(file.length().unwrap(), (3 << 20) + PAGE as u64);
}

#[test]
fn files_are_used_again() {
    let temp = tempfile::tempdir().unwrap();
    let (space, ready) = start(temp.path(), Quiet);
    let first = create(&space, &ready, 1);
    space.ensure(id(1), 3 << 20).unwrap();
    let second = create(&space, &ready, 2);
    space.ensure(id(2), PAGE as u64).unwrap();
    space.retire(first.path().to_owned());
    let third = create(&space, &ready, 3);
    assert_eq!(third.length().unwrap(), 3 << 20, "the retired file came back under a new name");
    assert!(!first.path().exists() && second.path().exists());
}

#[test]
fn a_full_disk_is_an_answer_and_not_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let (space, ready) = start(temp.path(), FullOnce(true.into()));
    create(&space, &ready, 1);
    let error = space.ensure(id(1), 3 << 20).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    space.ensure(id(1), 3 << 20).unwrap();
}
