//! Carrying out what partition cores ask for. Everything here returns at once; answers come back as messages.

use esker_bookie_client::placement::{self, Standing};
use esker_bookie_client::{ReadFailure, ReadRange};
use esker_gateway_core::partition::{
    Completed, Effect, EntriesRead, Event, MemberChoice, Phase, ProposeOutcome, RecordRead, Refusal, Tag, Ticket,
};
use esker_metadata_core::{Answer, BookieState, Command, PartitionQuery, Query, Release};
use esker_types::{BookieId, Entry, EntryKind, Member, Offset, PartitionId, Quorum, Time};

use super::mailbox::Control;
use super::run::{Services, Shard};
use super::slot::Slot;
use crate::proposer::Proposal;
use crate::read::object_entries;
use crate::tail::CachedEntry;

/// What one partition's effects leave to be done when all of them have been looked at: first readers may see what is
/// acked, then producers are told, so that a producer that reads finds its own records.
#[derive(Default)]
struct Collected {
    completions: Vec<(Ticket, Result<Completed, Refusal>)>,
    high_watermark: Option<Offset>,
    phase: Option<Phase>,
}

impl Shard {
    /// Polls every partition that was touched until it wants nothing more.
    pub(super) fn carry_out(&mut self, now: Time) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            // Out of the map while it is worked on, so that the shard's other parts can be used meanwhile.
            let Some(mut slot) = self.slots.remove(&id) else { continue };
            slot.dirty = false;
            self.poll(now, id, &mut slot);
            if let Some(deadline) = slot.deadline().filter(|at| slot.armed.is_none_or(|armed| *at < armed)) {
                slot.armed = Some(deadline);
                self.timers.arm(deadline, id);
            }
            let over = slot.is_over();
            self.slots.insert(id, slot);
            if over {
                self.drop_slot(id);
            }
        }
        // Keeps its memory for the next turn.
        self.dirty = dirty;
    }

    fn poll(&mut self, now: Time, id: PartitionId, slot: &mut Slot) {
        let mut collected = Collected::default();
        while let Some(effect) = slot.core.poll() {
            self.carry(now, id, slot, effect, &mut collected);
        }
        let Collected { completions, high_watermark, phase } = collected;
        // Raised by a command of ours or, while another gateway owned the partition, by one of its.
        let log_start = slot.core.bounds().map_or(0, |bounds| bounds.log_start);
        let epoch = slot.core.epoch();
        slot.handle.publish(|news| {
            news.epoch = epoch.unwrap_or(news.epoch);
            news.high_watermark = high_watermark.unwrap_or(news.high_watermark);
            news.log_start = news.log_start.max(log_start);
            news.phase = phase.unwrap_or(news.phase);
        });
        slot.handle.account(slot.core.state_bytes());
        for (ticket, outcome) in completions {
            slot.tickets.complete(ticket, outcome);
        }
        if high_watermark.is_some() {
            slot.starved = None;
        }
        slot.answer_starving(now);
        if phase == Some(Phase::Idle)
            && let Some(moving) = slot.moving.take()
        {
            self.services.transfers.finish_move(id, moving.to, moving.since, moving.reply);
        }
    }

    fn carry(&mut self, now: Time, id: PartitionId, slot: &mut Slot, effect: Effect, collected: &mut Collected) {
        let services = &self.services;
        match effect {
            Effect::SendAdd(add) => services.bookies.add(&add),
            Effect::SendFence { member, segment, epoch } => services.bookies.fence(member, segment, epoch),
            Effect::Complete { ticket, result } => collected.completions.push((ticket, result)),
            Effect::Committed(entry) => self.committed(id, &entry),
            Effect::Suspect(member) => self.penalties.penalise(now, member.bookie),
            Effect::HighWatermark(offset) => collected.high_watermark = Some(offset),
            // Read off the core below, with all other ways in which it moves.
            Effect::LogStart(_) => {}
            Effect::Phase(phase) => {
                tracing::debug!(partition = %id, ?phase, "partition phase");
                collected.phase = Some(phase);
            }
            Effect::PickMembers { tag, wanted, exclude } => {
                let choice = self.pick(now, id, wanted, &exclude);
                match &choice {
                    Ok(_) => slot.starved = None,
                    // Asked without exclusions next, if this was about a member to avoid.
                    Err(reason) if exclude.is_empty() => {
                        slot.starve(now, id, reason.clone());
                    }
                    Err(_) => {}
                }
                slot.core.handle(now, Event::Members { tag, choice: choice.ok() });
            }
            Effect::Propose { tag, command } => self.propose(now, id, slot, tag, command),
            Effect::ReadRecord { tag } => self.read_record(id, slot.life, tag),
            Effect::ReadEntries { tag, member, segment, from, to, bytes_max } => {
                self.read_entries(id, slot.life, tag, member, ReadRange { segment, from, to, bytes_max });
            }
            Effect::SendTransfer { to, transfer } => services.transfers.send(id, to, transfer),
            Effect::NeedAssign => self.release(id, slot),
            // Producers wait for room (`Handle::room`), which is the same bound seen from outside.
            Effect::Flow { .. } => {}
            Effect::Drained => {
                // Whoever asked may have given up.
                let _ = slot.draining.take().map(|done| done.send(()));
            }
            Effect::Alarm(alarm) => {
                services.metrics.alarms.inc();
                tracing::error!(partition = %id, %alarm, "partition needs an operator");
            }
        }
    }

    fn committed(&self, id: PartitionId, entry: &Entry) {
        let header = &entry.header;
        if header.kind != EntryKind::Data || header.count == 0 {
            return;
        }
        let (base_offset, end_offset) = (header.base_offset, header.end_offset());
        let cached = CachedEntry { base_offset, end_offset, max_ts: header.max_ts, batches: entry.payload() };
        self.services.metrics.appended_bytes.inc_by(cached.batches.len() as u64);
        self.services.metrics.appended_entries.inc();
        self.services.tail.insert(id, cached);
        self.services.metrics.tail_bytes.set(self.services.tail.used() as i64);
    }

    fn propose(&self, now: Time, id: PartitionId, slot: &mut Slot, tag: Tag, command: Command) {
        let proposal = Proposal { partition: id, life: slot.life, tag, command };
        if !self.services.proposer.submit(proposal) {
            slot.core.handle(now, Event::Proposed { tag, outcome: ProposeOutcome::NotApplied });
        }
    }

    /// The partition is stuck under its epoch: give it back, so that the controller assigns it under a new one.
    fn release(&self, id: PartitionId, slot: &Slot) {
        let (Some((_, session)), Some(epoch)) = (self.session, slot.core.epoch()) else { return };
        let command = Command::Release(Release { partition: id, epoch, session });
        tracing::warn!(partition = %id, %epoch, "giving the partition back to be assigned anew");
        // If it does not go through, the core asks again; a tag of nobody's is ignored.
        self.services.proposer.submit(Proposal { partition: id, life: 0, tag: Tag::MAX, command });
    }

    /// Members for a segment, or why there are not enough of them, in words for the operator.
    fn pick(&self, now: Time, id: PartitionId, wanted: Quorum, exclude: &[BookieId]) -> Result<MemberChoice, String> {
        let (bookies, penalties) = (&self.services.bookies, &self.penalties);
        let (candidates, read_only) = self.services.view.read(|state| {
            let taking = state.bookies().filter(|bookie| bookie.takes_segments());
            let candidate = |bookie: &std::sync::Arc<esker_metadata_core::BookieRecord>| placement::Candidate {
                member: bookie.member(),
                zone: bookie.zone.clone(),
                load: 0,
                standing: match bookies.is_down(bookie.id) {
                    true => Standing::Down,
                    false if penalties.is_penalised(now, bookie.id) => Standing::Penalised,
                    false => Standing::Good,
                },
            };
            let read_only = state.bookies().filter(|bookie| bookie.state == BookieState::ReadOnly).count();
            (taking.map(candidate).collect::<Vec<_>>(), read_only)
        });
        let picked = placement::pick(&candidates, wanted, exclude, id.0).map_err(|too_few| match read_only {
            0 => format!("partition {id} can't be written: {too_few}"),
            full => format!(
                "partition {id} can't be written: {too_few}; {full} are read-only because their disks are full: \
                 free space there, raise bookie.disk.budget or shorten the retention"
            ),
        })?;
        Ok(MemberChoice { members: picked.members, quorum: picked.quorum })
    }

    fn read_record(&self, id: PartitionId, life: u64, tag: Tag) {
        let services = self.services.clone();
        self.services.tasks.spawn(async move {
            let query = Query::Partition(PartitionQuery { partition: id });
            let result = match services.store.read(query).await {
                Ok(Answer::Partition(answer)) => match answer.info {
                    Some(info) => RecordRead::Info { revision: answer.revision, info },
                    None => RecordRead::Gone,
                },
                Ok(_) => RecordRead::Failed,
                Err(error) => {
                    tracing::debug!(partition = %id, %error, "can't read the partition's record");
                    RecordRead::Failed
                }
            };
            let event = Event::RecordRead { tag, result };
            services.shards.tell(id, Control::Answer { partition: id, life, event }).await;
        });
    }

    fn read_entries(&self, id: PartitionId, life: u64, tag: Tag, member: Member, range: ReadRange) {
        let services = self.services.clone();
        self.services.tasks.spawn(async move {
            let result = match member {
                Member::BUCKET => from_bucket(&services, range).await,
                member => from_bookie(&services, member, range).await,
            };
            let event = Event::Entries { tag, result };
            services.shards.tell(id, Control::Answer { partition: id, life, event }).await;
        });
    }
}

/// The tail of a partition that no bookie has: after a restore, or when all copies were lost.
async fn from_bucket(services: &Services, range: ReadRange) -> EntriesRead {
    let Some(bucket) = &services.bucket else {
        tracing::warn!(segment = %range.segment, "it is in the bucket alone, and no objects.url is set here");
        return EntriesRead::Failed;
    };
    match object_entries(bucket, &services.view, range).await {
        Ok(entries) => EntriesRead::Data(entries),
        Err(reason) => {
            tracing::warn!(segment = %range.segment, reason, "the tail can't be read from the bucket yet");
            EntriesRead::Failed
        }
    }
}

async fn from_bookie(services: &Services, member: Member, range: ReadRange) -> EntriesRead {
    match services.bookies.read_from(member, range).await {
        Ok(entries) => EntriesRead::Data(entries),
        Err(ReadFailure::NoSuchEntry { .. }) => EntriesRead::NoSuchEntry,
        Err(ReadFailure::Failed { segment, reason }) => {
            tracing::debug!(%segment, bookie = %member.bookie, reason, "recovery could not read from a member");
            EntriesRead::Failed
        }
    }
}
