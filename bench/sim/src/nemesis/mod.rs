//! Who makes the trouble. It keeps the books of destroyed copies, so that a run stays within the fault model, or
//! knows that it has left it.

mod disks;
mod model;
mod ownership;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use esker_gateway_core::partition::Event;
use esker_metadata_core::{Command, DeleteTopic};
use esker_types::{InstanceId, Rules, SegmentId};

use crate::disk::{Disk, PowerCut, WriteFault};
use crate::network::Node;
use crate::plan::Fault;
use crate::sometimes::Case;
use crate::world::{What, World};

#[derive(Default)]
pub struct Nemesis {
    pub acts_left: u32,
    /// Instances whose copy of the segment may be short of what they promised.
    damaged: BTreeMap<SegmentId, BTreeSet<InstanceId>>,
    /// Bookies that may be in limbo for segments of which they are no member.
    harmed: BTreeSet<usize>,
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
    (Fault::StoreDown, 2),
    (Fault::MetadataAmnesia, 2),
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
            Fault::StoreDown => self.close_store(),
            Fault::MetadataAmnesia => self.forget_metadata(),
            // The others work all the time, not by acts.
            _ => {}
        }
    }

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
                (0..self.bookies.len() as u16).flat_map(|b| [(gateway, Node::Bookie(b)), (Node::Bookie(b), gateway)]),
            ),
            _ => cuts.extend(
                (0..self.gateways.len() as u16).flat_map(|g| [(Node::Gateway(g), bookie), (bookie, Node::Gateway(g))]),
            ),
        }
        let until = self.rng.latency_ns(self.plan.nemesis_us * 3);
        for (from, to) in cuts {
            self.network.cut(from, to);
            self.queue.after_ns(until, What::Mend { from, to });
        }
    }

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

    /// 503 for a while.
    fn close_store(&mut self) {
        self.cases.hit(Case::StoreDown);
        let span = self.rng.latency_ns(self.plan.nemesis_us * 3);
        self.objects.bucket.down_until = self.queue.now() + Duration::from_nanos(span);
    }

    /// For a while an empty metadata answers the bookies that ask what they may drop.
    fn forget_metadata(&mut self) {
        self.cases.hit(Case::MetadataAmnesia);
        let span = self.rng.latency_ns(self.plan.upkeep_us() * 2);
        self.objects.amnesia_until = self.queue.now() + Duration::from_nanos(span);
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
}
