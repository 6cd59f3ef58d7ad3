//! How a bookie starts: whose directory is it, what does the journal hold, what does metadata say.

use esker_bookie_core::bookie::{BookieState, BootFacts};
use esker_bookie_core::journal::gc::{GcPolicy, SegmentGc};
use esker_bookie_core::journal::restart::{Evidence, Verdict, restart};
use esker_bookie_core::journal::superblock::Superblock;
use esker_bookie_core::journal::{JournalIds, Lsn};
use esker_metadata_core::{Answer, Command, InstanceQuery, Query, RegisterBookie, Reply};
use esker_types::{AllRules, BootId, Epoch, InstanceId, Rules, SegmentId};

use crate::sometimes::Case;
use crate::world::{What, World};

impl<R: Rules> World<R> {
    pub fn start_bookie(&mut self, b: usize, after_ns: u64) {
        if self.bookies[b].gone {
            return;
        }
        let boot_id = BootId::from_random(self.rng.uuid());
        let bookie = &mut self.bookies[b];
        bookie.alive = true;
        bookie.boot += 1;
        bookie.boot_id = boot_id;
        let boot = bookie.boot;
        self.queue.after_ns(after_ns, What::BookieBoot { bookie: b, boot });
    }

    pub fn on_bookie_boot(&mut self, b: usize, boot: u64) {
        if self.bookies[b].boot != boot || !self.bookies[b].alive || self.bookies[b].state.is_some() {
            return;
        }
        let reborn = self.bookies[b].disk.superblock.is_none() && !R::INSTANCE_IDENTITY;
        let replaces = self.claim_directory(b);
        let instance = self.bookies[b].instance;
        let ids = JournalIds { cluster: self.cluster_id(), instance };
        let superblock = self.bookies[b].disk.superblock.as_ref().and_then(|bytes| Superblock::decode(bytes).ok());
        let known = self.metadata.state.bookie_by_name(&format!("b{b}")).filter(|record| record.instance == instance);
        let evidence = Evidence { metadata_lsn: known.map_or(Lsn(0), |record| Lsn(record.durable_lsn)), superblock };
        let expect_boot_no = known.map_or(0, |record| record.boot_no);
        let restored = restart::<R, _>(ids, &self.bookies[b].disk, &evidence);
        let now = self.queue.now();
        self.trace.note(now, &[0xb007, b as u64], || format!("bookie {b} boots {instance}: {:?}", restored.verdict));
        self.cases.hit(match &restored.verdict {
            Verdict::Fresh | Verdict::Clean => Case::CleanScan,
            Verdict::Torn => Case::TornVerdict,
            Verdict::Loss { .. } => Case::CorruptVerdict,
        });
        let torn_only = matches!(restored.verdict, Verdict::Loss { .. }) && !self.bookies[b].disturbed && !reborn;
        if torn_only {
            let text = format!("bookie {b}: a power cut alone was taken for loss: {:?}", restored.verdict);
            self.oracle.fail("R9", text);
        }
        if !self.register(b, expect_boot_no, replaces) {
            return;
        }
        let facts = BootFacts { open: self.open_segments_of(instance), named: self.named_segments(instance) };
        if restored.needs_names() {
            self.note_limbo(instance, &facts.named);
        }
        let limits = self.plan.bookie_limits();
        if self.bookies[b].disturbed && !reborn {
            let honest = restart::<AllRules, _>(ids, &self.bookies[b].disk, &evidence);
            self.note_silent_loss(instance, BookieState::<AllRules>::boot(ids, limits, honest, facts.clone()));
        }
        self.bookies[b].boot_epochs = facts.open.iter().map(|(segment, epoch)| (segment.partition, *epoch)).collect();
        self.bookies[b].state = Some(BookieState::boot(ids, limits, restored, facts));
        self.bookies[b].gc = SegmentGc::new(GcPolicy::default(), self.incarnation());
        let tick = self.rng.latency_ns(self.plan.upkeep_us());
        self.queue.after_ns(tick, What::BookieTick { bookie: b, boot });
        self.pump_bookie(b);
    }

    /// R11: an empty directory under a registered name is refused, and the operator says `--new-instance`.
    fn claim_directory(&mut self, b: usize) -> Option<InstanceId> {
        if self.bookies[b].disk.superblock.is_some() {
            return None;
        }
        let registered = self.metadata.state.bookie_by_name(&format!("b{b}")).map(|record| record.instance);
        let mut replaces = None;
        if let Some(old) = registered
            && R::INSTANCE_IDENTITY
        {
            self.cases.hit(Case::WipedRefused);
            self.bookies[b].instance = InstanceId::from_random(self.rng.uuid());
            replaces = Some(old);
        }
        self.bookies[b].disturbed = false;
        self.write_superblock(b, false);
        replaces
    }

    fn register(&mut self, b: usize, expect_boot_no: u64, replaces: Option<InstanceId>) -> bool {
        let bookie = &self.bookies[b];
        let command = Command::RegisterBookie(RegisterBookie {
            name: format!("b{b}"),
            instance: bookie.instance,
            boot: bookie.boot_id,
            expect_boot_no,
            durable_lsn: 0,
            address: String::new(),
            zone: String::new(),
            version: 1,
            replaces,
        });
        match self.apply_now(&[command]).into_iter().next() {
            Some(Ok(Reply::Bookie(reply))) => {
                let bookie = &mut self.bookies[b];
                (bookie.id, bookie.boot_no) = (reply.bookie, reply.boot_no);
                true
            }
            other => {
                self.oracle.fail("setup", format!("bookie {b} can't register: {other:?}"));
                false
            }
        }
    }

    /// A loss that nothing on the disk or in metadata shows can't be told from "never written": a disk image that is
    /// newer than the last report, a lost write with none after it. Such a copy denies what it acked, which is more
    /// than the cluster promises to survive while the segment is open.
    fn note_silent_loss(&mut self, instance: InstanceId, honest: BookieState<AllRules>) {
        let state = |segment| honest.segment(segment).unwrap_or((0, 0, false));
        // In limbo the copy promises nothing and denies nothing.
        let held = |segment| if state(segment).2 { u64::MAX } else { state(segment).1 };
        self.oracle.fences_fallen(instance, |partition| honest.max_epoch(partition));
        for segment in self.oracle.fallen_short(instance, held) {
            let is_open = self.record(segment.partition).and_then(|record| record.open_id()) == Some(segment);
            if is_open {
                self.cases.hit(Case::SilentLoss);
                (self.oracle.beyond_model, self.oracle.silent_loss) = (true, true);
            }
        }
    }

    fn open_segments_of(&self, instance: InstanceId) -> Vec<(SegmentId, Epoch)> {
        match self.metadata.state.answer(&Query::OpenSegmentsOf(InstanceQuery { instance })) {
            Answer::OpenSegmentsOf(answer) => answer.open.iter().map(|open| (open.segment, open.epoch)).collect(),
            _ => Vec::new(),
        }
    }

    fn named_segments(&self, instance: InstanceId) -> Vec<SegmentId> {
        let closed =
            self.metadata.state.segments().filter(|closed| closed.names(instance)).map(|closed| closed.segment);
        closed.chain(self.open_segments_of(instance).into_iter().map(|(segment, _)| segment)).collect()
    }

    pub(super) fn write_superblock(&mut self, b: usize, poisoned: bool) {
        let cluster = self.cluster_id();
        let bookie = &mut self.bookies[b];
        let durable = bookie.state.as_ref().map_or(Lsn(0), BookieState::durable_lsn);
        let superblock = Superblock {
            cluster,
            bookie: bookie.id,
            instance: bookie.instance,
            directory: [b as u8; 16],
            durable,
            poisoned,
        };
        bookie.disturbed |= poisoned;
        bookie.disk.superblock = Some(bytes::Bytes::copy_from_slice(&superblock.encode()));
    }

    pub(super) fn on_file_started(&mut self, b: usize) {
        self.write_superblock(b, false);
        self.check_boot_epochs(b);
        self.tell_what_is_held(b);
        let instance = self.bookies[b].instance;
        let partitions: Vec<_> = self.oracle.promised_partitions(instance).collect();
        for partition in partitions {
            let held = self.bookies[b].state.as_ref().map(|state| state.max_epoch(partition)).unwrap_or_default();
            self.oracle.fence_held(instance, partition, held);
        }
        self.tell_links(b);
    }

    /// Every boot raises the fences of the open segments that name it to what metadata says, before it serves.
    fn check_boot_epochs(&mut self, b: usize) {
        let epochs = std::mem::take(&mut self.bookies[b].boot_epochs);
        let Some(state) = &self.bookies[b].state else { return };
        for (partition, epoch) in epochs {
            if state.max_epoch(partition) < epoch {
                let held = state.max_epoch(partition);
                let text = format!("bookie {b} serves partition {partition} at epoch {held}, metadata was at {epoch}");
                return self.oracle.fail("I8", text);
            }
        }
    }

    /// What lay on the platter at the restart counts as synced from here on, whether it was ever acked or not.
    fn tell_what_is_held(&mut self, b: usize) {
        let Some(state) = &self.bookies[b].state else { return };
        let instance = self.bookies[b].instance;
        for segment in state.segment_ids().collect::<Vec<_>>() {
            let held = self.bookies[b].state.as_ref().and_then(|state| state.segment(segment));
            let Some((_, durable @ 1.., _)) = held else { continue };
            if let Some(last) = self.read_own(b, segment, durable - 1) {
                self.oracle.synced(segment, instance, durable, last.header.end_offset());
            }
        }
    }
}
