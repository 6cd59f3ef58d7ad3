//! What befalls disks: rot, lost and misplaced writes, failing fsyncs, no space, wipes, old images and clones.

use esker_types::Rules;

use crate::disk::WriteFault;
use crate::plan::Fault;
use crate::sometimes::Case;
use crate::world::{What, World};

impl<R: Rules> World<R> {
    pub(super) fn fill_disk(&mut self, b: usize) {
        self.cases.hit(Case::DiskFull);
        let disk = &mut self.bookies[b].disk;
        disk.capacity = match disk.capacity {
            Some(_) => None,
            None => Some(disk.used() + self.plan.journal_file_bytes / 2),
        };
    }

    pub(super) fn flip_bit(&mut self, b: usize) {
        if !self.may_lose(b) {
            return;
        }
        let files = self.bookies[b].disk.lengths();
        if files.is_empty() {
            return;
        }
        self.cases.hit(Case::BitFlip);
        // The newest file has what is still being written; damage there decides recoveries.
        let newest = self.rng.chance(600).then(|| files[files.len() - 1]);
        let (file, len) = newest.unwrap_or_else(|| *self.rng.pick(&files));
        // Most of a file is empty: aim where the bytes are.
        let used = self.bookies[b].disk.bytes(file).iter().rposition(|byte| *byte != 0).unwrap_or(len - 1) + 1;
        for _ in 0..self.rng.range(1, 6) {
            let (byte, bit) = (self.rng.index(used), self.rng.below(8) as u8);
            self.bookies[b].disk.flip(file, byte, bit);
        }
        self.bookies[b].disturbed = true;
        if self.rng.chance(600) && self.bookies[b].alive {
            self.crash_bookie(b, None);
            self.plan_bookie_return(b);
        }
    }

    /// The next write of the disk goes wrong, if the model allows it then: see [`World::may_misplace`].
    pub(super) fn arm_write(&mut self, b: usize, fault: WriteFault) {
        self.bookies[b].disk.next_write = Some(fault);
    }

    /// Asked right before a write: books an armed fault, or disarms it.
    pub fn may_misplace(&mut self, b: usize) {
        let Some(fault) = self.bookies[b].disk.next_write else { return };
        if !self.may_lose(b) {
            self.bookies[b].disk.next_write = None;
            return;
        }
        self.bookies[b].disturbed = true;
        self.cases.hit(match fault {
            WriteFault::Lost => Case::LostWrite,
            WriteFault::Misdirected => Case::MisdirectedWrite,
        });
    }

    /// Asked right before a write completes: a bookie whose journal failed counts for nothing in its open segments, so
    /// the failure is booked like a loss, or does not happen.
    pub fn may_fail_sync(&mut self, b: usize) {
        if self.bookies[b].disk.next_sync_fails {
            if self.may_lose(b) {
                self.cases.hit(Case::FsyncError);
            } else {
                self.bookies[b].disk.next_sync_fails = false;
            }
        }
    }

    pub(super) fn wipe(&mut self, b: usize) {
        if !self.may_lose(b) {
            return;
        }
        self.cases.hit(Case::Wipe);
        self.nemesis.dead.insert(self.bookies[b].instance);
        self.crash_bookie(b, None);
        self.bookies[b].disk.wipe();
        // It comes back empty and sound.
        self.nemesis.harmed.remove(&b);
        self.plan_bookie_return(b);
    }

    /// First takes an image, at a later act puts it back.
    pub(super) fn roll_back(&mut self, b: usize) {
        match self.nemesis.images.remove(&b) {
            None => {
                let image = (self.bookies[b].instance, self.bookies[b].disk.image());
                self.nemesis.images.insert(b, image);
                // The second half of the same act, so that few acts still show it.
                let (fault, pause) = (Fault::RolledBack, self.rng.latency_ns(self.plan.nemesis_us * 3));
                self.queue.after_ns(pause, What::Strike { fault, bookie: b });
            }
            Some((instance, image)) => {
                if instance != self.bookies[b].instance || !self.may_lose(b) {
                    return;
                }
                self.cases.hit(Case::RolledBackImage);
                self.crash_bookie(b, None);
                self.bookies[b].disk = image;
                self.bookies[b].disturbed = true;
                self.plan_bookie_return(b);
            }
        }
    }

    /// A copy of the disk is started elsewhere under the same identity: the newer registration wins, and the older
    /// process may no more speak for the instance.
    pub(super) fn clone_disk(&mut self, b: usize) {
        if !self.bookies[b].is_serving() || self.nemesis.images.contains_key(&b) {
            return;
        }
        self.cases.hit(Case::ClonedDisk);
        let image = (self.bookies[b].instance, self.bookies[b].disk.image());
        self.nemesis.images.insert(b, image);
        let (fault, pause) = (Fault::Clone, self.rng.latency_ns(self.plan.nemesis_us));
        self.queue.after_ns(pause, What::Strike { fault, bookie: b });
    }

    pub(super) fn boot_clone(&mut self, b: usize) {
        let Some((instance, image)) = self.nemesis.images.remove(&b) else { return };
        if instance != self.bookies[b].instance || !self.bookies[b].is_serving() || !self.may_lose(b) {
            return;
        }
        let older = self.bookies[b].boot_no;
        // What the original took after the copy was made is lost with it.
        self.crash_bookie(b, None);
        self.bookies[b].disk = image;
        self.bookies[b].disturbed = true;
        self.start_bookie(b, 0);
        let boot = self.bookies[b].boot;
        self.on_bookie_boot(b, boot);
        let report = self.report_of(b, older, u64::MAX >> 8);
        match self.apply_now(&[report]).first() {
            Some(Err(_)) => self.cases.hit(Case::CloneEvicted),
            _ => self.oracle.fail("R11", format!("bookie {b}: the older of two clones was heard")),
        }
    }

    pub fn on_strike(&mut self, fault: Fault, b: usize) {
        if self.healed {
            return;
        }
        match fault {
            Fault::RolledBack => self.roll_back(b),
            Fault::Clone => self.boot_clone(b),
            _ => {}
        }
    }

    pub(super) fn lose_for_good(&mut self, b: usize) {
        // New segments need an ack quorum too.
        let others = self.bookies.iter().enumerate().filter(|(other, bookie)| *other != b && !bookie.gone).count();
        if self.bookies[b].gone || others < usize::from(self.plan.quorum.ack) || !self.may_lose(b) {
            return;
        }
        self.cases.hit(Case::MemberGoneForGood);
        if self.bookies[b].alive {
            self.crash_bookie(b, None);
        }
        self.bookies[b].gone = true;
        self.nemesis.dead.insert(self.bookies[b].instance);
    }
}
