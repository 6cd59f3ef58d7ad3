//! A gateway process: partitions that it owns or believes to own, each the real `Partition`, and what it answers to
//! clients. All of it is lost when the process dies.

mod drive;

use std::collections::{BTreeMap, BTreeSet};

use esker_bookie_core::owner::AddAnswerKind;
use esker_gateway_core::partition::{EntriesRead, Event, Partition, Phase, ProposeOutcome, RecordRead, Tag, Ticket};
use esker_metadata_core::{Command, GatewayAddresses, NodeRef, OpenSession, PartitionInfo, RegisterGateway, Reply};
use esker_types::{BookieId, BootId, Entry, GatewayId, Offset, PartitionId, Rules, SessionId, Time};

use crate::client::PendingFetch;
use crate::metadata::Asker;
use crate::network::Node;
use crate::objects::{Cache, Slot};
use crate::sometimes::Case;
use crate::world::{Message, Pause, What, World};

/// A produce request that waits for its outcome.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub producer: usize,
    pub attempt: u32,
    pub first: u32,
    pub count: u32,
}

/// One partition at one gateway, for one session.
pub struct Hosted<R: Rules> {
    pub partition: Partition<R>,
    /// Unique in the run: an answer to an earlier life finds nobody.
    pub life: u64,
    tick_at: Option<Time>,
    tags: BTreeSet<Tag>,
    asks: BTreeMap<Ticket, Ask>,
    next_ticket: Ticket,
    /// Acked entries by base offset, as in the tail cache.
    pub tail: BTreeMap<Offset, Entry>,
    pub reads: BTreeMap<Tag, PendingFetch>,
    pub fetches: u64,
    /// Newest segment that data went to, and the end of all data sent.
    sent: (u64, Offset),
    pub high_watermark: Offset,
    pub phase: Phase,
    /// Its history on the way to the bucket.
    pub tier: Slot<R>,
}

pub struct Gateway<R: Rules> {
    pub id: GatewayId,
    pub alive: bool,
    /// Number of the run; 0 before the first.
    pub boot: u64,
    pub boot_id: BootId,
    pub session: Option<SessionId>,
    pub hosted: BTreeMap<PartitionId, Hosted<R>>,
    /// Highest segment that this process started, per partition, over all its sessions.
    started: BTreeMap<PartitionId, u64>,
    pub pause: Pause,
    pub watch_floor: u64,
    /// When the session was last renewed.
    pub renewed: Time,
    /// Bookies that made trouble, not to be chosen before that time if there are others.
    pub suspects: BTreeMap<BookieId, Time>,
    /// Its last owned partition came by a handover.
    pub took_over: bool,
    /// Names of objects and pages that this process gave out.
    pub names: u64,
    pub cache: Cache,
}

impl<R: Rules> Gateway<R> {
    pub fn new() -> Self {
        Self {
            id: GatewayId(0),
            alive: false,
            boot: 0,
            boot_id: BootId::NIL,
            session: None,
            hosted: BTreeMap::new(),
            started: BTreeMap::new(),
            pause: Pause::default(),
            watch_floor: 0,
            renewed: Time::ZERO,
            suspects: BTreeMap::new(),
            took_over: false,
            names: 0,
            cache: Cache::new(),
        }
    }

    pub fn is_ready(&self, partition: PartitionId) -> bool {
        self.hosted.get(&partition).is_some_and(|hosted| matches!(hosted.phase, Phase::Ready { .. }))
    }
}

impl<R: Rules> Default for Gateway<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Rules> World<R> {
    pub fn start_gateway(&mut self, g: usize, after_ns: u64) {
        let boot_id = BootId::from_random(self.rng.uuid());
        let gateway = &mut self.gateways[g];
        gateway.alive = true;
        gateway.boot += 1;
        gateway.boot_id = boot_id;
        let boot = gateway.boot;
        if gateway.took_over {
            gateway.took_over = false;
            self.cases.hit(Case::RestartAfterHandover);
        }
        self.queue.after_ns(after_ns, What::GatewayBoot { gateway: g, boot });
    }

    /// Registers; while an older run's session lives under the name, again and again.
    pub fn on_gateway_boot(&mut self, g: usize, boot: u64) {
        let gateway = &self.gateways[g];
        if !gateway.alive || gateway.boot != boot || gateway.session.is_some() {
            return;
        }
        let command = Command::RegisterGateway(RegisterGateway {
            name: format!("g{g}"),
            boot: gateway.boot_id,
            addresses: no_addresses(),
            zone: String::new(),
            version: 1,
        });
        let results = self.apply_now(&[command]);
        match results.first() {
            Some(Ok(Reply::Gateway(reply))) => {
                self.gateways[g].id = reply.gateway;
                self.begin_session(g, reply.session);
            }
            _ => {
                let again = self.rng.latency_ns(self.plan.metadata_us * 10);
                self.queue.after_ns(again, What::GatewayBoot { gateway: g, boot });
            }
        }
    }

    fn begin_session(&mut self, g: usize, session: SessionId) {
        let now = self.queue.now();
        let gateway = &mut self.gateways[g];
        (gateway.session, gateway.renewed) = (Some(session), now);
        let all: Vec<_> = self.metadata.state.partitions().map(|record| record.id).collect();
        let revision = self.metadata.state.revision();
        for info in all.into_iter().filter_map(|id| self.metadata.state.partition_info(id)).collect::<Vec<_>>() {
            self.on_watch(g, revision, info);
        }
    }

    pub fn crash_gateway(&mut self, g: usize) {
        let now = self.queue.now();
        self.trace.note(now, &[0xdead, g as u64], || format!("gateway {g} crashes"));
        self.cases.hit(Case::GatewayCrash);
        let gateway = &mut self.gateways[g];
        gateway.alive = false;
        gateway.session = None;
        gateway.hosted.clear();
        gateway.started.clear();
        gateway.names = 0;
        gateway.cache.clear();
        gateway.pause = Pause::default();
    }

    /// The session ended while the process lived: it gives up all it owned and begins anew.
    pub fn on_session_lost(&mut self, g: usize, session: SessionId) {
        if self.gateways[g].session != Some(session) {
            return;
        }
        let hosted = std::mem::take(&mut self.gateways[g].hosted);
        for (id, hosted) in &hosted {
            self.gateways[g].started.insert(*id, hosted.partition.started_upto());
        }
        for ask in hosted.values().flat_map(|hosted| hosted.asks.values()) {
            self.refuse(g, *ask, None);
        }
        let gateway = &mut self.gateways[g];
        gateway.session = None;
        let command = Command::OpenSession(OpenSession { node: NodeRef::Gateway(gateway.id), boot: gateway.boot_id });
        let boot = gateway.boot;
        match self.apply_now(&[command]).first() {
            Some(Ok(Reply::Session(reply))) => self.begin_session(g, reply.session),
            // Another run has the name: this one may only end.
            _ => self.queue.after_ns(self.plan.metadata_us * 1_000, What::GatewayBoot { gateway: g, boot }),
        }
    }

    pub fn on_watch(&mut self, g: usize, revision: u64, info: PartitionInfo) {
        let gateway = &mut self.gateways[g];
        let (true, Some(session)) = (gateway.alive, gateway.session) else { return };
        let id = info.record.id;
        // By the node's name: whether an older run's partition is this one's is for the core to decide.
        let owned = info.record.owner.as_ref().is_some_and(|owner| owner.gateway == gateway.id);
        if owned && !gateway.hosted.contains_key(&id) {
            self.host(g, id, session);
        }
        self.tier_learns(g, &info);
        self.partition_event(g, id, Event::Info { revision, info });
    }

    fn host(&mut self, g: usize, id: PartitionId, session: SessionId) {
        let gateway = self.gateways[g].id;
        let started = self.gateways[g].started.get(&id).copied().unwrap_or(0);
        let (config, settings) = (self.plan.partition_config(), self.plan.partition_settings());
        self.lives += 1;
        let hosted = Hosted {
            partition: Partition::new(id, gateway, session, config, settings, started),
            life: self.lives,
            tick_at: None,
            tags: BTreeSet::new(),
            asks: BTreeMap::new(),
            next_ticket: 0,
            tail: BTreeMap::new(),
            reads: BTreeMap::new(),
            fetches: 0,
            sent: (0, 0),
            high_watermark: 0,
            phase: Phase::Idle,
            tier: Slot::default(),
        };
        self.gateways[g].hosted.insert(id, hosted);
    }

    pub fn on_watch_gone(&mut self, g: usize, partition: PartitionId) {
        self.partition_event(g, partition, Event::Deleted);
        if let Some(hosted) = self.gateways[g].hosted.remove(&partition) {
            for ask in hosted.asks.into_values() {
                self.refuse(g, ask, None);
            }
        }
    }

    /// Takes the tag off the list of open questions; false if it was answered before or nobody waits.
    fn close_tag(&mut self, asker: Asker) -> bool {
        let hosted = self.gateways[asker.gateway].hosted.get_mut(&asker.partition);
        hosted.is_some_and(|hosted| hosted.life == asker.life && hosted.tags.remove(&asker.tag))
    }

    pub fn on_proposed(&mut self, asker: Asker, outcome: ProposeOutcome) {
        if self.tier_proposed(asker, &outcome) {
            return;
        }
        if self.close_tag(asker) {
            let now = self.queue.now();
            self.trace.say(now, format_args!("gateway {} tag {} {outcome:?}", asker.gateway, asker.tag));
            self.partition_event(asker.gateway, asker.partition, Event::Proposed { tag: asker.tag, outcome });
        }
    }

    pub fn on_record_read(&mut self, asker: Asker, result: RecordRead) {
        if self.close_tag(asker) {
            self.partition_event(asker.gateway, asker.partition, Event::RecordRead { tag: asker.tag, result });
        }
    }

    pub fn on_entries(&mut self, asker: Asker, result: EntriesRead) {
        if self.close_tag(asker) {
            self.partition_event(asker.gateway, asker.partition, Event::Entries { tag: asker.tag, result });
        } else {
            self.on_entries_for_reader(asker, result);
        }
    }

    pub fn on_gateway_tick(&mut self, g: usize, life: u64, partition: PartitionId) {
        let Some(hosted) = self.gateways[g].hosted.get_mut(&partition).filter(|hosted| hosted.life == life) else {
            return;
        };
        hosted.tick_at = None;
        self.partition_event(g, partition, Event::Tick);
    }

    pub fn on_link(&mut self, g: usize, bookie: usize) {
        // News of a link may overtake each other; what counts is how it stands when the gateway looks.
        let up = self.bookies[bookie].is_serving();
        let instance = self.bookies[bookie].instance;
        let partitions: Vec<_> = self.gateways[g].hosted.keys().copied().collect();
        for partition in partitions {
            self.partition_event(g, partition, Event::Link { instance, up });
        }
    }

    pub fn gateway_message(&mut self, g: usize, message: Message) {
        if !self.gateways[g].alive {
            return;
        }
        match message {
            Message::AddAnswer(answer) => {
                match answer.kind {
                    AddAnswerKind::Gap { .. } => self.cases.hit(Case::MemberGap),
                    AddAnswerKind::Fenced { .. } => self.cases.hit(Case::ZombieFenced),
                    _ => {}
                }
                self.partition_event(g, answer.segment.partition, Event::AddAnswer(answer));
            }
            Message::FenceAnswer(answer) => {
                self.partition_event(g, answer.segment.partition, Event::FenceAnswer(answer));
            }
            Message::Entries { asker, result } => self.on_entries(asker, result),
            Message::Transfer { partition, transfer } => {
                // The record that makes this gateway the owner may come behind the state.
                if let (Some(session), false) =
                    (self.gateways[g].session, self.gateways[g].hosted.contains_key(&partition))
                {
                    self.host(g, partition, session);
                }
                self.partition_event(g, partition, Event::Transfer(transfer));
            }
            Message::Produce { producer, attempt, partition, first, batch } => {
                let ask = Ask { producer, attempt, first, count: batch.count() };
                match self.gateways[g].hosted.get_mut(&partition) {
                    Some(hosted) => {
                        if hosted.asks.values().any(|other| (other.producer, other.first) == (producer, first)) {
                            self.cases.hit(Case::DuplicateOfPending);
                        }
                        hosted.next_ticket += 1;
                        let ticket = hosted.next_ticket;
                        hosted.asks.insert(ticket, ask);
                        self.partition_event(g, partition, Event::Append { ticket, batch });
                    }
                    None => {
                        let hint = self.owner_index(partition);
                        self.refuse(g, ask, hint);
                    }
                }
            }
            Message::Fetch { reader, question, partition, offset } => {
                self.on_fetch(g, reader, question, partition, offset);
            }
            _ => {}
        }
    }

    /// The gateway that metadata names as owner, for redirects.
    pub fn owner_index(&self, partition: PartitionId) -> Option<usize> {
        let owner = self.metadata.state.partition(partition)?.owner.as_ref()?;
        self.gateways.iter().position(|gateway| gateway.id == owner.gateway)
    }

    fn refuse(&mut self, g: usize, ask: Ask, hint: Option<usize>) {
        let Ask { producer, attempt, first, .. } = ask;
        let answer = Message::Produced { producer, attempt, first, result: Err(hint) };
        self.send(Node::Gateway(g as u16), Node::Client(producer as u16), answer);
    }
}

fn no_addresses() -> GatewayAddresses {
    let none = String::new;
    GatewayAddresses { quic: none(), kafka: none(), http: none(), internal: none() }
}
