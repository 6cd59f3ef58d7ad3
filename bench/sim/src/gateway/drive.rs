//! Hands events to the partition and carries out what it asks for.

use std::time::Duration;

use esker_bookie_core::owner::Add;
use esker_gateway_core::partition::{Alarm, Completed, Effect, Event, Phase, Refusal, Tag, Ticket};
use esker_metadata_core::Command;
use esker_types::{ErrorCode, InstanceId, Offset, PartitionId, Rules};

use super::Ask;
use crate::client::values;
use crate::metadata::Asker;
use crate::network::Node;
use crate::sometimes::Case;
use crate::world::{Message, What, World};

impl<R: Rules> World<R> {
    /// Hands the event to the partition and does what it asks for, until it asks for nothing or the process dies.
    pub fn partition_event(&mut self, g: usize, id: PartitionId, event: Event) {
        let now = self.queue.now();
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id) else { return };
        hosted.partition.handle(now, event);
        while let Some(effect) = self.gateways[g].hosted.get_mut(&id).and_then(|hosted| hosted.partition.poll()) {
            if self.is_doomed_now(Node::Gateway(g as u16)) {
                self.doomed = None;
                self.crash_gateway(g);
                self.plan_gateway_return(g);
                return;
            }
            self.perform(g, id, effect);
        }
        self.arm_tick(g, id);
    }

    pub(super) fn arm_tick(&mut self, g: usize, id: PartitionId) {
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id) else { return };
        let Some(deadline) = hosted.partition.deadline() else { return };
        if hosted.tick_at.is_none_or(|at| deadline < at) {
            hosted.tick_at = Some(deadline);
            // A timer never fires early, and a late one may fire for nothing.
            let life = hosted.life;
            self.queue.at(deadline, What::GatewayTick { gateway: g, life, partition: id });
        }
    }

    pub(super) fn perform(&mut self, g: usize, id: PartitionId, effect: Effect) {
        let now = self.queue.now();
        let here = Node::Gateway(g as u16);
        if self.trace.prints() {
            self.trace.say(now, format_args!("gateway {g} p{id} does {}", brief(&effect)));
        }
        match effect {
            Effect::SendAdd(add) => {
                self.note_add(g, id, &add);
                if let Some(b) = self.bookie_of(add.member) {
                    self.send(here, Node::Bookie(b as u16), Message::Add(add));
                }
            }
            Effect::SendFence { member, segment, epoch } => {
                if let Some(b) = self.bookie_of(member) {
                    self.send(here, Node::Bookie(b as u16), Message::Fence { member, segment, epoch });
                }
            }
            Effect::ReadEntries { tag, member, segment, from, to, bytes_max } => {
                let asker = self.open_tag(g, id, tag);
                let patience = self.plan.member_timeout().as_nanos() as u64;
                self.queue.after_ns(patience, What::ReadTimeout { asker });
                if let Some(b) = self.bookie_of(member) {
                    self.send(
                        here,
                        Node::Bookie(b as u16),
                        Message::Read { asker, member, segment, from, to, bytes_max },
                    );
                }
            }
            Effect::Propose { tag, command } => {
                let asker = self.open_tag(g, id, tag);
                self.note_proposal(&command);
                self.propose(asker, command);
            }
            Effect::ReadRecord { tag } => {
                let asker = self.open_tag(g, id, tag);
                self.read_record(asker);
            }
            Effect::PickMembers { tag, wanted, exclude } => {
                let choice = self.pick_members(g, wanted, &exclude);
                self.partition_event(g, id, Event::Members { tag, choice });
            }
            Effect::Complete { ticket, result } => self.complete(g, id, ticket, result),
            Effect::Committed(entry) => {
                if let Some(hosted) = self.gateways[g].hosted.get_mut(&id) {
                    hosted.tail.insert(entry.header.base_offset, entry);
                    while hosted.tail.len() > 8 {
                        hosted.tail.pop_first();
                    }
                }
            }
            Effect::HighWatermark(offset) => self.on_high_watermark(g, id, offset),
            Effect::LogStart(_) | Effect::Flow { .. } | Effect::Drained => {}
            Effect::Phase(phase) => self.on_phase(g, id, phase),
            Effect::SendTransfer { to, transfer } => {
                self.cases.hit(Case::HandoverDone);
                if let Some(other) = self.gateways.iter().position(|gateway| gateway.session == Some(to)) {
                    self.gateways[other].took_over = true;
                    self.send(here, Node::Gateway(other as u16), Message::Transfer { partition: id, transfer });
                }
            }
            Effect::Suspect(member) => {
                self.cases.hit(Case::RollAwayFromMember);
                let until = now + Duration::from_micros(self.plan.upkeep_us() * 4);
                self.gateways[g].suspects.insert(member.bookie, until);
            }
            Effect::NeedAssign => self.need_assign(id),
            Effect::Alarm(alarm) => self.on_alarm(g, &alarm),
        }
    }

    pub(super) fn open_tag(&mut self, g: usize, id: PartitionId, tag: Tag) -> Asker {
        let hosted = self.gateways[g].hosted.get_mut(&id).expect("its effect is being performed");
        hosted.tags.insert(tag);
        Asker { gateway: g, life: hosted.life, partition: id, tag }
    }

    pub(super) fn note_add(&mut self, g: usize, id: PartitionId, add: &Add) {
        if add.recovery {
            self.cases.hit(Case::RecoveryWroteBack);
        }
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id) else { return };
        let (n, end) = hosted.sent;
        if add.segment.n > n && add.entry.header.count > 0 {
            if add.entry.header.base_offset < end {
                self.cases.hit(Case::EntriesResentAfterRoll);
            }
            hosted.sent.0 = add.segment.n;
        }
        hosted.sent.1 = end.max(add.entry.header.end_offset());
    }

    pub(super) fn note_proposal(&mut self, command: &Command) {
        match command {
            Command::Roll(_) => self.cases.hit(Case::RollDone),
            Command::PutIntent(_) => self.cases.hit(Case::Substitution),
            Command::DeleteBegin(_) => self.cases.hit(Case::Retention),
            _ => {}
        }
    }

    pub(super) fn complete(&mut self, g: usize, id: PartitionId, ticket: Ticket, result: Result<Completed, Refusal>) {
        let Some(ask) = self.gateways[g].hosted.get_mut(&id).and_then(|hosted| hosted.asks.remove(&ticket)) else {
            return;
        };
        let Ask { producer, attempt, first, count } = ask;
        match result {
            Ok(done) => {
                self.cases.hit(Case::Acked);
                if done.duplicate {
                    self.cases.hit(Case::DuplicateOfCommitted);
                }
                self.check_ack(id, done.base_offset + i64::from(count) - 1);
                let life = self.gateways[g].hosted.get(&id).map_or(0, |hosted| hosted.life);
                let before = std::mem::replace(&mut self.producers[producer].acked_by, life);
                if before != 0 && before != life {
                    self.cases.hit(Case::ProducerResumedAtNewOwner);
                }
                let number = self.producers[producer].number;
                self.oracle.acked(id, done.base_offset, &values(number, first, count));
                let answer = Message::Produced { producer, attempt, first, result: Ok(done.base_offset) };
                self.send(Node::Gateway(g as u16), Node::Client(producer as u16), answer);
            }
            Err(refusal) => {
                let hint = matches!(refusal.code, ErrorCode::NotOwner | ErrorCode::Moved | ErrorCode::ShuttingDown)
                    .then(|| self.owner_index(id))
                    .flatten();
                self.refuse(g, ask, hint);
            }
        }
    }

    /// I4: what is acked stands on an ack quorum of the members of one segment.
    pub(super) fn check_ack(&mut self, id: PartitionId, offset: Offset) {
        if self.oracle.beyond_model || !self.partitions.contains(&id) {
            return;
        }
        let sets = self.member_sets(id);
        let holds = |(segment, members, ack): &(_, Vec<InstanceId>, usize)| {
            self.oracle.ack_has_quorum(*segment, members, *ack, offset)
        };
        if !sets.iter().any(holds) {
            self.oracle.fail("I4", format!("partition {id}: offset {offset} acked without an ack quorum of fsyncs"));
        }
    }

    pub(super) fn on_high_watermark(&mut self, g: usize, id: PartitionId, offset: Offset) {
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id) else { return };
        hosted.high_watermark = offset;
        let epoch = hosted.partition.epoch().unwrap_or_default();
        self.oracle.high_watermark(id, epoch, offset);
    }

    pub(super) fn on_phase(&mut self, g: usize, id: PartitionId, phase: Phase) {
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id) else { return };
        if matches!(phase, Phase::Recovering { .. }) {
            self.cases.hit(Case::Recovery);
        }
        hosted.phase = phase;
    }

    /// Some alarms say that the promise is broken: within the fault model none of them may ring.
    pub(super) fn on_alarm(&mut self, g: usize, alarm: &Alarm) {
        let now = self.queue.now();
        self.trace.note(now, &[0xa1a], || format!("gateway {g} ALARM {alarm}"));
        match alarm {
            Alarm::Conflict { .. } => self.oracle.fail("I3", format!("gateway {g}: {alarm}")),
            Alarm::Loss { .. } | Alarm::BadChain { .. } if !self.oracle.beyond_model => {
                self.oracle.fail("I3", format!("gateway {g}: {alarm}"));
            }
            Alarm::Unreadable { .. } | Alarm::NoCoverage { .. } | Alarm::Loss { .. } | Alarm::BadChain { .. } => {}
        }
    }
}

fn brief(effect: &Effect) -> String {
    match effect {
        Effect::SendAdd(add) => format!("SendAdd {} e{} to {}", add.segment, add.entry.header.entry, add.member.bookie),
        Effect::Committed(entry) => format!("Committed {} e{}", entry.header.segment, entry.header.entry),
        Effect::SendTransfer { to, .. } => format!("SendTransfer to session {to}"),
        other => format!("{other:?}").chars().take(400).collect(),
    }
}
