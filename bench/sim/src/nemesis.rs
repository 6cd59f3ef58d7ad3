//! Who makes the trouble. It keeps the books of destroyed copies, so that a run stays within the fault model, or
//! knows that it has left it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use esker_gateway_core::partition::Event;
use esker_metadata_core::{Assign, Command, DeleteTopic, ExpireSession};
use esker_types::{InstanceId, PartitionId, Rules, SegmentId};

use crate::disk::{Disk, PowerCut, WriteFault};
use crate::network::Node;
use crate::plan::{Fault, Mode};
use crate::sometimes::Case;
use crate::world::{What, World};

#[derive(Default)]
pub struct Nemesis {
    pub acts_left: u32,
    /// Instances whose copy of the segment may be short of what they promised.
    damaged: BTreeMap<SegmentId, BTreeSet<InstanceId>>,
    /// Instances that will never answer again: wiped, or on a bookie that is gone.
    dead: BTreeSet<InstanceId>,
    /// An older state of a bookie's disk, to roll back to.
    pub images: BTreeMap<usize, (InstanceId, Disk)>,
    pauses: u64,
}

/// One act, of the fault that allows it.
const ACTS: &[(Fault, u64)] = &[
    (Fault::Partition, 3),
    (Fault::BookieCrash, 3),
    (Fault::GatewayCrash, 3),
    (Fault::PowerCutAll, 1),
    (Fault::Pause, 2),
    (Fault::OwnerStorm, 4),
    (Fault::Handover, 4),
    (Fault::FsyncError, 1),
    (Fault::DiskFull, 1),
    (Fault::BitFlip, 2),
    (Fault::MisdirectedWrite, 1),
    (Fault::LostWrite, 1),
    (Fault::Wipe, 1),
    (Fault::RolledBack, 2),
    (Fault::Clone, 1),
    (Fault::GoneForGood, 1),
    (Fault::Retention, 2),
    (Fault::TopicDelete, 1),
];

impl Nemesis {
    pub fn new(acts_left: u32) -> Self {
        Self { acts_left, ..Self::default() }
    }
}

impl<R: Rules> World<R> {
    pub fn on_nemesis(&mut self) {
        if self.healed {
            return;
        }
        if self.nemesis.acts_left == 0 {
            self.heal();
            return;
        }
        self.nemesis.acts_left -= 1;
        self.act();
        let pause = self.rng.latency_ns(self.plan.nemesis_us);
        self.queue.after_ns(pause, What::Nemesis);
    }

    fn act(&mut self) {
        let on: Vec<_> = ACTS.iter().filter(|(fault, _)| self.plan.faults.has(*fault)).collect();
        let total: u64 = on.iter().map(|(_, weight)| weight).sum();
        let mut draw = self.rng.below(total.max(1));
        let Some((fault, _)) = on.into_iter().find(|(_, weight)| {
            let here = draw < *weight;
            draw = draw.wrapping_sub(*weight);
            here
        }) else {
            return;
        };
        let now = self.queue.now();
        self.trace.note(now, &[0xac7, *fault as u64], || format!("nemesis: {fault:?}"));
        self.strike(*fault);
    }

    fn strike(&mut self, fault: Fault) {
        let b = self.rng.index(self.bookies.len());
        let g = self.rng.index(self.gateways.len());
        match fault {
            Fault::Partition => self.cut_links(),
            Fault::BookieCrash => self.crash_some_bookie(b),
            Fault::GatewayCrash => self.crash_some_gateway(g),
            Fault::PowerCutAll => self.power_cut_all(),
            Fault::Pause => self.pause_some(b, g),
            Fault::OwnerStorm => self.storm(),
            Fault::Handover => self.ask_handover(),
            Fault::FsyncError => self.bookies[b].disk.next_sync_fails = true,
            Fault::DiskFull => self.fill_disk(b),
            Fault::BitFlip => self.flip_bit(b),
            Fault::MisdirectedWrite => self.arm_write(b, WriteFault::Misdirected),
            Fault::LostWrite => self.arm_write(b, WriteFault::Lost),
            Fault::Wipe => self.wipe(b),
            Fault::RolledBack => self.roll_back(b),
            Fault::Clone => self.clone_disk(b),
            Fault::GoneForGood => self.lose_for_good(b),
            Fault::Retention => self.delete_records(),
            Fault::TopicDelete => self.delete_topic(),
            // The others work all the time, not by acts.
            _ => {}
        }
    }

    // --- the fault model

    /// True for a copy that counts for nothing, whether it was destroyed or never made.
    fn is_lost(&self, segment: SegmentId, instance: InstanceId) -> bool {
        let damaged = self.nemesis.damaged.get(&segment).is_some_and(|set| set.contains(&instance));
        damaged || self.nemesis.dead.contains(&instance)
    }

    /// Segments may be opened on copies that are lost already: the command was decided before the news came. Where
    /// too few are left nobody can be blamed for standing still.
    pub fn note_lost_copies(&mut self, partition: PartitionId) {
        let gone = self.bookies.iter().filter(|bookie| bookie.gone).count();
        for (segment, members, ack) in self.member_sets(partition) {
            let lost = members.iter().filter(|member| self.is_lost(segment, **member)).count();
            self.oracle.beyond_model |= lost >= ack || lost > 0 && lost + gone + ack > self.bookies.len();
        }
    }

    /// A bookie came back and knows of these segments only that it may have held more.
    pub fn note_limbo(&mut self, instance: InstanceId, named: &[SegmentId]) {
        for segment in named {
            self.nemesis.damaged.entry(*segment).or_default().insert(instance);
            self.note_lost_copies(segment.partition);
        }
    }

    pub fn is_dead(&self, instance: InstanceId) -> bool {
        self.nemesis.dead.contains(&instance)
    }

    /// Books the destruction of what a bookie holds. False if that would be one copy too many of some segment; in
    /// safety mode it is done all the same, and the run knows.
    pub fn may_lose(&mut self, b: usize) -> bool {
        let instance = self.bookies[b].instance;
        let mut held = Vec::new();
        for partition in &self.partitions {
            for (segment, members, ack) in self.member_sets(*partition) {
                if members.contains(&instance) {
                    let lost = |other: &&InstanceId| **other != instance && self.is_lost(segment, **other);
                    held.push((segment, ack, members.iter().filter(lost).count()));
                }
            }
        }
        // A segment that lost copies goes on only if enough other bookies can take its place.
        let gone = self.bookies.iter().filter(|bookie| bookie.gone).count();
        let fits = held.iter().all(|(_, ack, lost)| lost + 1 < *ack && lost + 1 + gone + ack <= self.bookies.len());
        if !fits && self.plan.mode == Mode::Liveness {
            return false;
        }
        self.oracle.beyond_model |= !fits;
        for (segment, ..) in held {
            self.nemesis.damaged.entry(segment).or_default().insert(instance);
        }
        self.oracle.data_lost(instance);
        true
    }

    // --- processes

    fn crash_some_bookie(&mut self, b: usize) {
        if self.rng.chance(400) {
            let actions = self.rng.range(1, 12) as u32;
            self.doomed = Some((Node::Bookie(b as u16), actions));
            return;
        }
        if self.bookies[b].alive {
            self.crash_bookie(b, None);
            self.plan_bookie_return(b);
        }
    }

    pub fn plan_bookie_return(&mut self, b: usize) {
        let after = self.rng.latency_ns(self.plan.nemesis_us * 2);
        self.start_bookie(b, after);
    }

    fn crash_some_gateway(&mut self, g: usize) {
        if self.rng.chance(500) {
            let actions = self.rng.range(1, 20) as u32;
            self.doomed = Some((Node::Gateway(g as u16), actions));
            return;
        }
        if self.gateways[g].alive {
            self.crash_gateway(g);
            self.plan_gateway_return(g);
        }
    }

    /// A new run under the same name, soon or late; the old session ends when the controller notices.
    pub fn plan_gateway_return(&mut self, g: usize) {
        let quick = self.plan.faults.has(Fault::QuickRestart);
        let after = self.rng.latency_ns(if quick { self.plan.metadata_us } else { self.plan.nemesis_us * 2 });
        self.start_gateway(g, after);
    }

    fn power_cut_all(&mut self) {
        self.cases.hit(Case::PowerCutAll);
        for b in 0..self.bookies.len() {
            if self.bookies[b].alive {
                self.crash_bookie(b, Some(PowerCut::Random));
                self.plan_bookie_return(b);
            }
        }
        for g in 0..self.gateways.len() {
            if self.gateways[g].alive && self.rng.chance(500) {
                self.crash_gateway(g);
                self.plan_gateway_return(g);
            }
        }
    }

    fn pause_some(&mut self, b: usize, g: usize) {
        let node = if self.rng.chance(700) { Node::Gateway(g as u16) } else { Node::Bookie(b as u16) };
        self.nemesis.pauses += 1;
        let number = self.nemesis.pauses;
        let Some(pause) = self.pause_of(node).filter(|pause| pause.on == 0) else { return };
        pause.on = number;
        self.cases.hit(Case::Pause);
        let long = self.rng.latency_ns(self.plan.nemesis_us * 4);
        self.queue.after_ns(long, What::Resume { node, pause: number });
    }

    // --- links

    fn cut_links(&mut self) {
        let (g, b) = (self.rng.index(self.gateways.len()) as u16, self.rng.index(self.bookies.len()) as u16);
        let (gateway, bookie) = (Node::Gateway(g), Node::Bookie(b));
        let mut cuts = Vec::new();
        match self.rng.below(6) {
            0 => {
                self.cases.hit(Case::OneWayPartition);
                cuts.push((gateway, bookie));
            }
            1 => {
                self.cases.hit(Case::OneWayPartition);
                cuts.push((bookie, gateway));
            }
            2 => cuts.extend([(gateway, Node::Metadata), (Node::Metadata, gateway)]),
            3 => cuts.push((Node::Metadata, gateway)),
            4 => cuts.extend(
                (0..self.bookies.len() as u16)
                    .flat_map(|b| [(gateway, Node::Bookie(b)), (Node::Bookie(b), gateway)]),
            ),
            _ => cuts.extend(
                (0..self.gateways.len() as u16)
                    .flat_map(|g| [(Node::Gateway(g), bookie), (bookie, Node::Gateway(g))]),
            ),
        }
        let until = self.rng.latency_ns(self.plan.nemesis_us * 3);
        for (from, to) in cuts {
            self.network.cut(from, to);
            self.queue.after_ns(until, What::Mend { from, to });
        }
    }

    // --- ownership

    fn some_partition(&mut self) -> Option<PartitionId> {
        (!self.partitions.is_empty()).then(|| *self.rng.pick(&self.partitions))
    }

    /// Takes the partition away from an owner that may well be alive.
    fn storm(&mut self) {
        let Some(partition) = self.some_partition() else { return };
        self.cases.hit(Case::OwnerStorm);
        if self.rng.chance(200)
            && let Some(g) = self.owner_index(partition)
            && let Some(session) = self.gateways[g].session
        {
            self.apply_now(&[Command::ExpireSession(ExpireSession { session })]);
        }
        self.assign_somewhere(partition);
    }

    pub fn assign_somewhere(&mut self, partition: PartitionId) {
        let Some(record) = self.record(partition) else { return };
        let live: Vec<_> = self.gateways.iter().filter_map(|gateway| gateway.session).collect();
        let live: Vec<_> = live.into_iter().filter(|s| self.metadata.state.session(*s).is_some()).collect();
        if live.is_empty() {
            return;
        }
        let session = *self.rng.pick(&live);
        let command = Command::Assign(Assign { partition, expect_epoch: record.epoch, session });
        let delay = self.rng.latency_ns(self.plan.metadata_us);
        // Two controllers may race: the command is applied later than it was decided.
        self.queue.after_ns(delay, What::Apply { commands: vec![command], asker: None });
    }

    fn ask_handover(&mut self) {
        let Some(partition) = self.some_partition() else { return };
        let Some(g) = self.owner_index(partition) else { return };
        let others: Vec<_> = (0..self.gateways.len()).filter(|o| *o != g).filter_map(|o| self.gateways[o].session).collect();
        if others.is_empty() || !self.gateways[g].alive || self.gateways[g].pause.on != 0 {
            return;
        }
        let to = *self.rng.pick(&others);
        self.partition_event(g, partition, Event::MoveTo { to });
    }

    // --- disks

    fn fill_disk(&mut self, b: usize) {
        self.cases.hit(Case::DiskFull);
        let disk = &mut self.bookies[b].disk;
        disk.capacity = match disk.capacity {
            Some(_) => None,
            None => Some(disk.used() + self.plan.journal_file_bytes / 2),
        };
    }

    fn flip_bit(&mut self, b: usize) {
        if !self.may_lose(b) {
            return;
        }
        let files = self.bookies[b].disk.lengths();
        if files.is_empty() {
            return;
        }
        self.cases.hit(Case::BitFlip);
        let (file, len) = *self.rng.pick(&files);
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
    fn arm_write(&mut self, b: usize, fault: WriteFault) {
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

    fn wipe(&mut self, b: usize) {
        if !self.may_lose(b) {
            return;
        }
        self.cases.hit(Case::Wipe);
        self.nemesis.dead.insert(self.bookies[b].instance);
        self.crash_bookie(b, None);
        self.bookies[b].disk.wipe();
        self.plan_bookie_return(b);
    }

    /// First takes an image, at a later act puts it back.
    fn roll_back(&mut self, b: usize) {
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
    fn clone_disk(&mut self, b: usize) {
        if !self.bookies[b].is_serving() || self.nemesis.images.contains_key(&b) {
            return;
        }
        self.cases.hit(Case::ClonedDisk);
        let image = (self.bookies[b].instance, self.bookies[b].disk.image());
        self.nemesis.images.insert(b, image);
        let (fault, pause) = (Fault::Clone, self.rng.latency_ns(self.plan.nemesis_us));
        self.queue.after_ns(pause, What::Strike { fault, bookie: b });
    }

    fn boot_clone(&mut self, b: usize) {
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

    /// Every segment must find an ack quorum without one more bookie, whichever that is.
    fn can_spare_one(&self) -> bool {
        let gone = self.bookies.iter().filter(|bookie| bookie.gone).count();
        let segments = self.partitions.iter().flat_map(|partition| self.member_sets(*partition));
        let worst = segments.map(|(segment, members, _)| members.iter().filter(|m| self.is_lost(segment, **m)).count());
        self.bookies.len() > gone + worst.max().unwrap_or(0) + usize::from(self.plan.quorum.ack)
    }

    fn lose_for_good(&mut self, b: usize) {
        if self.bookies[b].gone || !self.can_spare_one() || !self.may_lose(b) {
            return;
        }
        self.cases.hit(Case::MemberGoneForGood);
        if self.bookies[b].alive {
            self.crash_bookie(b, None);
        }
        self.bookies[b].gone = true;
        self.nemesis.dead.insert(self.bookies[b].instance);
    }

    // --- retention and deletion

    fn delete_records(&mut self) {
        let Some(partition) = self.some_partition() else { return };
        let Some(g) = self.owner_index(partition) else { return };
        let Some(hosted) = self.gateways[g].hosted.get(&partition) else { return };
        let high = hosted.high_watermark;
        if high == 0 || self.gateways[g].pause.on != 0 {
            return;
        }
        let before = self.rng.range(1, high as u64) as i64;
        // Tickets of the nemesis are far from those of clients: nobody waits for the answer.
        self.partition_event(g, partition, Event::DeleteRecords { ticket: u64::MAX, before });
    }

    fn delete_topic(&mut self) {
        if self.partitions.len() < 2 {
            return;
        }
        let Some(partition) = self.some_partition() else { return };
        let Some(topic) = self.record(partition).map(|record| record.topic) else { return };
        self.cases.hit(Case::TopicDeleted);
        self.apply_now(&[Command::DeleteTopic(DeleteTopic { topic })]);
        self.partitions.retain(|p| *p != partition);
        self.oracle.partition_deleted(partition);
    }

    // --- the controller of the metadata leader

    /// Ends the sessions of dead processes and gives ownerless partitions to somebody.
    pub fn on_controller(&mut self) {
        for g in 0..self.gateways.len() {
            self.expire_dead(g);
        }
        for partition in self.partitions.clone() {
            let Some(record) = self.record(partition) else { continue };
            if !self.metadata.state.has_live_owner(&record) {
                self.assign_somewhere(partition);
            }
        }
        let pause = self.plan.controller_us() * 1_000;
        self.queue.after_ns(self.rng.latency_ns(pause / 1_000), What::Controller);
    }

    /// A session without a renewal for the TTL ends; a paused process does not renew.
    fn expire_dead(&mut self, g: usize) {
        let session_of_name = self.metadata.state.gateway_by_name(&format!("g{g}")).and_then(|record| record.session);
        let Some(session) = session_of_name else { return };
        let gateway = &mut self.gateways[g];
        let renews = gateway.alive && gateway.pause.on == 0 && gateway.session == Some(session);
        let cut = self.network.is_cut(Node::Gateway(g as u16), Node::Metadata);
        let now = self.queue.now();
        if renews && !cut {
            gateway.renewed = now;
            return;
        }
        if now > gateway.renewed + Duration::from_micros(self.plan.session_us()) {
            self.apply_now(&[Command::ExpireSession(ExpireSession { session })]);
        }
    }

    /// The owner can't go on under its epoch: the controller assigns the partition anew.
    pub fn need_assign(&mut self, partition: PartitionId) {
        self.assign_somewhere(partition);
    }
}
