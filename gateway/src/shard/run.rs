use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use esker_bookie_client::{BookieClient, BookieEvent, Penalties};
use esker_gateway_core::partition::{self, Event, Partition, Phase, Settings};
use esker_metadata_client::{MetadataStore, View};
use esker_metadata_core::PartitionRecord;
use esker_types::{ErrorCode, GatewayId, PartitionId, SessionId, Time, WallMs};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::early::EarlyTransfers;
use super::mailbox::{Append, Control, Inbox, PartitionNews, Shards};
use super::slot::{Moving, Slot, refuse};
use super::timers::Timers;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::offload::Bucket;
use crate::partition::{Handle, Handles};
use crate::proposer::Proposer;
use crate::tail::TailCache;
use crate::transfers::Transfers;

/// Messages handled before effects are carried out. More are packed into fewer, larger entries; but answers must not
/// wait for long.
const TURN: usize = 256;
/// How often retention is looked at.
const RETENTION_INTERVAL: Duration = Duration::from_secs(30);

/// What a shard uses. Nothing in it makes the shard wait.
pub struct Services {
    pub clock: Clock,
    pub view: View,
    pub store: Arc<dyn MetadataStore>,
    pub bookies: BookieClient,
    pub bucket: Option<Bucket>,
    pub proposer: Proposer,
    pub transfers: Transfers,
    pub shards: Shards,
    pub handles: Arc<Handles>,
    pub tail: Arc<TailCache>,
    pub metrics: Metrics,
    pub core: partition::Config,
    pub append_timeout: Duration,
    pub partition_room: usize,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
}

pub(super) struct Shard {
    pub services: Arc<Services>,
    /// Who we are in metadata, while we have a session.
    pub session: Option<(GatewayId, SessionId)>,
    /// State for partitions that metadata has not told us of yet.
    pub early: EarlyTransfers,
    pub slots: HashMap<PartitionId, Slot>,
    pub dirty: Vec<PartitionId>,
    pub timers: Timers,
    pub penalties: Penalties,
    /// Highest segment that this process started, per partition that it ever had: a segment is started once (R6).
    pub started: HashMap<PartitionId, u64>,
    pub next_life: u64,
}

/// Starts one task per inbox. They end with the token, and let everything go.
pub fn start(services: &Arc<Services>, inboxes: Vec<Inbox>, fault: &watch::Sender<Option<String>>) {
    for inbox in inboxes {
        let shard = Shard {
            services: services.clone(),
            session: None,
            early: EarlyTransfers::default(),
            slots: HashMap::new(),
            dirty: Vec::new(),
            timers: Timers::default(),
            penalties: Penalties::default(),
            started: HashMap::new(),
            next_life: 1,
        };
        let fault = fault.clone();
        services.tasks.spawn(async move {
            // A panic is a broken invariant of ours: the shard's partitions would hang for ever, so the process must end.
            if tokio::spawn(shard.run(inbox)).await.is_err() {
                fault.send_replace(Some("a shard task panicked; see the log".to_owned()));
            }
        });
    }
}

impl Shard {
    /// Cancel-safe: `recv_many` takes messages only when it returns, and the timers are this task's own.
    async fn run(mut self, mut inbox: Inbox) {
        let cancel = self.services.cancel.clone();
        let (mut controls, mut appends) = (Vec::with_capacity(TURN), Vec::with_capacity(TURN));
        let mut retention = tokio::time::interval(RETENTION_INTERVAL);
        retention.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.timers.next().map(|at| self.services.clock.instant(at));
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                _ = inbox.control.recv_many(&mut controls, TURN) => {}
                _ = inbox.appends.recv_many(&mut appends, TURN) => {}
                () = sleep_until(wake) => {}
                _ = retention.tick() => self.on_retention(),
            }
            let now = self.services.clock.now();
            // Both queues get their share of every turn, whichever woke us.
            while controls.len() < TURN {
                let Ok(control) = inbox.control.try_recv() else { break };
                controls.push(control);
            }
            while appends.len() < TURN {
                let Ok(append) = inbox.appends.try_recv() else { break };
                appends.push(append);
            }
            controls.drain(..).for_each(|control| self.on_control(now, control));
            appends.drain(..).for_each(|append| self.on_append(now, append));
            self.on_timers(now);
            self.carry_out(now);
        }
        self.slots.drain().for_each(|(_, mut slot)| {
            slot.let_go();
            self.services.handles.remove(&slot.handle);
        });
    }

    fn on_append(&mut self, now: Time, append: Append) {
        let Append { handle, batch, reply, room } = append;
        // The handle, not the id: a stream that opened before the partition left and came back must not go on.
        let slot = self.slots.get_mut(&handle.id).filter(|slot| Arc::ptr_eq(&slot.handle, &handle));
        let Some(slot) = slot else {
            // The stream is gone if nobody listens.
            let _ = reply.send(refuse(ErrorCode::NotOwner, "this gateway does not own the partition"));
            return;
        };
        if let Some(outcome) = slot.starving(now) {
            let _ = reply.send(outcome);
            return;
        }
        let ticket = slot.tickets.open(reply, room, now + self.services.append_timeout);
        slot.core.handle(now, Event::Append { ticket, batch });
        mark(&mut self.dirty, handle.id, slot);
    }

    fn on_control(&mut self, now: Time, control: Control) {
        match control {
            Control::Bookie(event) => self.on_bookie(now, event),
            Control::Answer { partition, life, event } => {
                if self.slots.get(&partition).is_some_and(|slot| slot.life == life) {
                    self.feed(now, partition, event);
                }
            }
            Control::Info(news) => self.on_info(now, news),
            Control::Deleted(partition) => {
                if let Some(slot) = self.slots.get_mut(&partition) {
                    slot.assigned = false;
                }
                self.feed(now, partition, Event::Deleted);
            }
            Control::Session(session) => self.on_session(session),
            Control::Move { partition, to, reply } => {
                let Some(slot) = self.slots.get_mut(&partition) else { return };
                slot.moving = Some(Moving { to, since: now, reply: Some(reply) });
                self.feed(now, partition, Event::MoveTo { to });
            }
            Control::Drain { partition, done } => {
                let slot = self.slots.get_mut(&partition);
                // One that is not ready has nothing to close; dropping `done` says so.
                let Some(slot) = slot.filter(|slot| matches!(slot.core.phase(), Phase::Ready { .. })) else { return };
                slot.draining = Some(done);
                self.feed(now, partition, Event::Drain);
            }
            Control::DeleteRecords { partition, before, reply } => {
                let Some(slot) = self.slots.get_mut(&partition) else {
                    let _ = reply.send(refuse(ErrorCode::NotOwner, "this gateway does not own the partition"));
                    return;
                };
                let ticket = slot.tickets.open(reply, Default::default(), now + self.services.append_timeout);
                self.feed(now, partition, Event::DeleteRecords { ticket, before });
            }
            Control::Locate { partition, offset, reply } => {
                // Without an answer the reader learns from the handle that the partition is gone.
                if let Some(slot) = self.slots.get(&partition) {
                    let _ = reply.send(slot.core.locate(offset));
                }
            }
            Control::Transfer { partition, transfer } if self.slots.contains_key(&partition) => {
                self.feed(now, partition, Event::Transfer(transfer));
            }
            Control::Transfer { partition, transfer } => self.early.put(partition, transfer),
        }
    }

    fn on_bookie(&mut self, now: Time, event: BookieEvent) {
        match event {
            BookieEvent::Add(answer) => self.feed(now, answer.segment.partition, Event::AddAnswer(answer)),
            BookieEvent::Fence(answer) => self.feed(now, answer.segment.partition, Event::FenceAnswer(answer)),
            BookieEvent::Link { bookie, instance, up } => {
                if up {
                    self.penalties.forgive(now, bookie);
                }
                for (id, slot) in &mut self.slots {
                    slot.core.handle(now, Event::Link { instance, up });
                    mark(&mut self.dirty, *id, slot);
                }
            }
        }
    }

    fn on_info(&mut self, now: Time, news: PartitionNews) {
        let PartitionNews { revision, info, settings, batch_bytes_max, append_time, compression } = news;
        let id = info.record.id;
        let session = self.session.map(|(_, session)| session);
        let ours = info.record.owner.as_ref().is_some_and(|owner| Some(owner.session) == session);
        if !self.slots.contains_key(&id) {
            let Some(identity) = self.session.filter(|_| ours) else { return };
            self.take_in(now, &info.record, identity, settings.clone());
        }
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.handle.limits.set(batch_bytes_max, append_time, compression);
        slot.assigned = ours;
        if slot.settings != settings {
            slot.settings = settings.clone();
            slot.core.handle(now, Event::Settings(settings));
        }
        slot.core.handle(now, Event::Info { revision, info });
        mark(&mut self.dirty, id, slot);
    }

    fn take_in(&mut self, now: Time, record: &PartitionRecord, identity: (GatewayId, SessionId), settings: Settings) {
        let started = self.started.get(&record.id).copied().unwrap_or(0);
        let (gateway, session) = identity;
        let mut core =
            Partition::new(record.id, gateway, session, self.services.core.clone(), settings.clone(), started);
        if let Some(transfer) = self.early.take(record.id) {
            core.handle(now, Event::Transfer(transfer));
        }
        let handle = Arc::new(Handle::new(record.id, record.topic, self.services.partition_room));
        self.services.handles.put(handle.clone());
        let life = self.next_life;
        self.next_life += 1;
        let slot = Slot {
            life,
            core,
            handle,
            tickets: Default::default(),
            settings,
            armed: None,
            dirty: false,
            moving: None,
            draining: None,
            assigned: true,
            starved: None,
        };
        self.slots.insert(record.id, slot);
        self.services.metrics.partitions.inc();
    }

    /// What an old session owned is not ours any more, whatever the cores think: their epochs are dead.
    fn on_session(&mut self, session: Option<(GatewayId, SessionId)>) {
        if self.session != session {
            self.session = session;
            let all: Vec<PartitionId> = self.slots.keys().copied().collect();
            all.into_iter().for_each(|id| self.drop_slot(id));
        }
    }

    pub(super) fn drop_slot(&mut self, id: PartitionId) {
        let Some(mut slot) = self.slots.remove(&id) else { return };
        let started = slot.core.started_upto();
        let held = self.started.entry(id).or_insert(started);
        *held = started.max(*held);
        slot.let_go();
        self.services.handles.remove(&slot.handle);
        self.services.tail.forget(id);
        self.services.metrics.partitions.dec();
    }

    fn feed(&mut self, now: Time, partition: PartitionId, event: Event) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.core.handle(now, event);
            mark(&mut self.dirty, partition, slot);
        }
    }

    fn on_timers(&mut self, now: Time) {
        while let Some(id) = self.timers.due(now) {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            if slot.armed.is_some_and(|armed| armed <= now) {
                slot.armed = None;
            }
            let expired = slot.expire(now);
            self.services.metrics.append_timeouts.inc_by(expired as u64);
            if slot.core.deadline().is_some_and(|at| at <= now) {
                slot.core.handle(now, Event::Tick);
            }
            mark(&mut self.dirty, id, slot);
        }
    }

    fn on_retention(&mut self) {
        let (now, wall) = (self.services.clock.now(), WallMs(self.services.clock.wall_ms()));
        for (id, slot) in &mut self.slots {
            slot.core.handle(now, Event::Retention { wall });
            mark(&mut self.dirty, *id, slot);
        }
        let view = &self.services.view;
        self.penalties.forget_all_but(|bookie| view.read(|state| state.bookie(bookie).is_some()));
    }
}

/// Puts the partition on the list of those whose effects are to be carried out, once.
fn mark(dirty: &mut Vec<PartitionId>, id: PartitionId, slot: &mut Slot) {
    if !std::mem::replace(&mut slot.dirty, true) {
        dirty.push(id);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
