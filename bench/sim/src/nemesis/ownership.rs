//! Who owns what: storms, handovers, and the controller of the metadata leader, which ends dead sessions.

use std::time::Duration;

use esker_gateway_core::partition::Event;
use esker_metadata_core::{Assign, Command, ExpireSession};
use esker_types::{PartitionId, Rules};

use crate::network::Node;
use crate::sometimes::Case;
use crate::world::{What, World};

impl<R: Rules> World<R> {
    pub(super) fn some_partition(&mut self) -> Option<PartitionId> {
        (!self.partitions.is_empty()).then(|| *self.rng.pick(&self.partitions))
    }

    /// Takes the partition away from an owner that may well be alive.
    pub(super) fn storm(&mut self) {
        let Some(partition) = self.some_partition() else { return };
        self.cases.hit(Case::OwnerStorm);
        if self.rng.chance(200)
            && let Some(g) = self.owner_index(partition)
            && let Some(session) = self.gateways[g].session
        {
            self.apply_now(&[Command::ExpireSession(ExpireSession { session })]);
        } else if self.rng.chance(500)
            && let Some(g) = self.owner_index(partition)
        {
            self.keep_in_the_dark(g);
        }
        self.assign_somewhere(partition);
    }

    /// The owner is the last to hear that it is none: what its bookies answer in the meantime, it still believes.
    fn keep_in_the_dark(&mut self, g: usize) {
        let (from, to) = (Node::Metadata, Node::Gateway(g as u16));
        self.cases.hit(Case::OwnerHearsLate);
        self.network.cut(from, to);
        let until = self.rng.latency_ns(self.plan.nemesis_us * 3);
        self.queue.after_ns(until, What::Mend { from, to });
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

    pub(super) fn ask_handover(&mut self) {
        let Some(partition) = self.some_partition() else { return };
        let Some(g) = self.owner_index(partition) else { return };
        let others: Vec<_> =
            (0..self.gateways.len()).filter(|o| *o != g).filter_map(|o| self.gateways[o].session).collect();
        if others.is_empty() || !self.gateways[g].alive || self.gateways[g].pause.on != 0 {
            return;
        }
        let to = *self.rng.pick(&others);
        self.partition_event(g, partition, Event::MoveTo { to });
    }

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
    pub(super) fn expire_dead(&mut self, g: usize) {
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
