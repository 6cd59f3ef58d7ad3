//! An owner's steps for one partition: the real `Tier` says what is next, requests to the bucket take their time one by
//! one, and the process may die between any two.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use esker_cache_core::manifest::{
    Buried, BuriedObject, Edit, Grave, Page, PageNames, PageRef, edit, first_at_or_after, root_ref,
};
use esker_cache_core::object::{Identity, SegmentFacts};
use esker_cache_core::steps::{EMPTY_MAX, Event, Step, Tier, Waiting};
use esker_gateway_core::partition::ProposeOutcome;
use esker_metadata_core::{Command, DeleteBegin, ObjectPlace, PartitionInfo, RootPlace, SetRoot};
use esker_types::{EntryId, Member, ObjectKey, PageKey, PartitionId, Rules, SegmentId, Time, WallMs};

use super::bucket::{Fate, Got};
use super::format;
use super::pages::Miss;
use crate::metadata::Asker;
use crate::network::Node;
use crate::sometimes::Case;
use crate::world::{What, World};

/// Tags of proposals are far from those that partitions and fetches choose.
const TAGS: u64 = 1 << 61;
/// No edit makes more pages.
const NAMES_PER_EDIT: u64 = 1 << 20;

/// What a gateway knows of one partition's history, and the step under way. Lost with the process.
pub struct Slot<R: Rules> {
    tier: Option<Tier<R>>,
    info: Option<PartitionInfo>,
    doing: Option<Doing>,
    /// When the next look or the next request is due.
    due: Option<Time>,
    /// Of the newest proposal.
    tag: u64,
    /// The segment that waits for company.
    pub(super) waits: Option<Waiting>,
}

impl<R: Rules> Slot<R> {
    /// No step is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.doing.is_none()
    }
}

impl<R: Rules> Default for Slot<R> {
    fn default() -> Self {
        Self { tier: None, info: None, doing: None, due: None, tag: TAGS, waits: None }
    }
}

/// The rest of a step.
pub(super) enum Doing {
    Put {
        n: u64,
        place: ObjectPlace,
        object: Bytes,
    },
    /// Pages to be written, in order.
    Pages {
        left: VecDeque<(PageKey, Bytes)>,
        root: SetRoot,
    },
    Delete {
        left: VecDeque<String>,
        graves: Vec<Grave>,
    },
    /// The outcome of the command with this tag is awaited.
    Proposed(u64),
    /// Over, and this came of it.
    Over(Option<Event>),
}

impl<R: Rules> World<R> {
    /// News of the partition: what the gateway believes from now on.
    pub fn tier_learns(&mut self, g: usize, info: &PartitionInfo) {
        let (Some(_), id) = (self.plan.objects, info.record.id) else { return };
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id) else { return };
        hosted.tier.info = Some(info.clone());
        if hosted.tier.doing.is_none() {
            let soon = self.objects.rng.latency_ns(self.plan.network_us);
            self.arm_tier(g, id, soon);
        }
    }

    fn arm_tier(&mut self, g: usize, id: PartitionId, after_ns: u64) {
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id) else { return };
        let at = self.queue.now() + std::time::Duration::from_nanos(after_ns);
        if hosted.tier.due.is_none_or(|due| at < due) {
            hosted.tier.due = Some(at);
            let life = hosted.life;
            self.queue.at(at, What::TierTick { gateway: g, life, partition: id });
        }
    }

    pub fn on_tier_tick(&mut self, g: usize, life: u64, id: PartitionId) {
        let now = self.queue.now();
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id).filter(|hosted| hosted.life == life) else { return };
        // A tick that an earlier one overtook fires for nothing; one that waited out a pause fires late.
        if hosted.tier.due.is_none_or(|due| due > now) {
            return;
        }
        hosted.tier.due = None;
        match hosted.tier.doing.take() {
            None => self.next_step(g, id),
            Some(doing) => self.go_on(g, id, doing),
        }
    }

    fn next_step(&mut self, g: usize, id: PartitionId) {
        let Some(plan) = self.plan.objects else { return };
        match self.step_of(g, id) {
            None => {}
            Some((_, Step::Write(facts))) if plan.share_wait_ms.is_some() => {
                if let Some(hosted) = self.gateways[g].hosted.get_mut(&id) {
                    hosted.tier.waits = Some(Waiting::from(&facts));
                }
                // Ages are reached without news.
                self.arm_tier(g, id, plan.unit_ms as u64 * 1_000_000);
                self.share(g);
            }
            Some((info, step)) => self.start(g, &info, step),
        }
    }

    /// What is to be done for a partition now, if it is still this gateway's.
    pub(super) fn step_of(&mut self, g: usize, id: PartitionId) -> Option<(PartitionInfo, Step)> {
        let plan = self.plan.objects?;
        let wall = WallMs(self.wall_ms());
        let session = self.gateways[g].session;
        let slot = &mut self.gateways[g].hosted.get_mut(&id)?.tier;
        slot.waits = None;
        let info = slot.info.clone()?;
        if info.record.owner.as_ref().map(|owner| owner.session) != session {
            return None;
        }
        if slot.tier.as_ref().is_none_or(|tier| tier.epoch() != info.record.epoch) {
            slot.tier = Some(Tier::new(info.record.epoch));
        }
        let step = slot.tier.as_mut().and_then(|tier| tier.next(wall, &info, &plan.policy()));
        let Some(step) = step else {
            // Ages are reached without news.
            self.arm_tier(g, id, plan.unit_ms as u64 * 1_000_000);
            return None;
        };
        if self.trace.prints() {
            let text: String = format!("{step:?}").chars().take(300).collect();
            self.trace.say(self.queue.now(), format_args!("gateway {g} p{id} tier: {text}"));
        }
        Some((info, step))
    }

    pub(super) fn start(&mut self, g: usize, info: &PartitionInfo, step: Step) {
        let doing = self.begin(g, info, step);
        self.keep_doing(g, info.record.id, doing);
    }

    pub(super) fn keep_doing(&mut self, g: usize, id: PartitionId, doing: Doing) {
        let Some(plan) = self.plan.objects else { return };
        if let Doing::Proposed(_) = doing {
            if let Some(hosted) = self.gateways[g].hosted.get_mut(&id) {
                hosted.tier.doing = Some(doing);
            }
            return;
        }
        if let Some(hosted) = self.gateways[g].hosted.get_mut(&id) {
            hosted.tier.doing = Some(doing);
        }
        let after = self.objects.rng.latency_ns(plan.request_us);
        self.arm_tier(g, id, after);
    }

    /// The first request of a step.
    fn begin(&mut self, g: usize, info: &PartitionInfo, step: Step) -> Doing {
        match step {
            Step::Write(facts) => self.begin_write(g, info, facts).unwrap_or(Doing::Over(None)),
            Step::Verify { facts, place } => {
                let n = facts.segment.n;
                Doing::Over(self.reads_back(facts, &place).map(|whole| match whole {
                    true => Event::Verified { n },
                    false => Event::Bad { n },
                }))
            }
            Step::VerifyAgain { facts, place } => {
                let whole = self.reads_back(facts, &place) == Some(true);
                if !whole {
                    self.cases.hit(Case::SecondReadFailed);
                }
                Doing::Over(whole.then_some(Event::VerifiedAgain { n: facts.segment.n }))
            }
            Step::Propose(command) => self.propose_step(g, info.record.id, command),
            Step::Fold { old, edit } => self.begin_fold(g, info, old, &edit).unwrap_or(Doing::Over(None)),
            Step::Empty { root, upto_ver } => self.begin_empty(&root, upto_ver).unwrap_or(Doing::Over(None)),
            Step::Retain { root, keep_bytes, .. } => match self.wanted_start(info, &root, keep_bytes) {
                Some(log_start) => {
                    self.cases.hit(Case::Retention);
                    let (partition, epoch) = (info.record.id, info.record.epoch);
                    self.propose_step(g, partition, DeleteBegin { partition, epoch, log_start }.into())
                }
                None => Doing::Over(None),
            },
        }
    }

    /// The next request of a step, or its end.
    fn go_on(&mut self, g: usize, id: PartitionId, doing: Doing) {
        let next = match doing {
            Doing::Over(event) => return self.over(g, id, event),
            Doing::Proposed(tag) => Doing::Proposed(tag),
            Doing::Put { n, place, object } => match self.put(place.key.to_string(), object) {
                Fate::Refused if self.objects.rng.chance(500) => Doing::Over(None),
                // Not known to have failed: what is there is for the read to say.
                _ => Doing::Over(Some(Event::Written { n, place })),
            },
            Doing::Pages { mut left, root } => match left.pop_front() {
                None => Doing::Over(Some(Event::PagesWritten(root))),
                Some((key, bytes)) => match self.put_page(key, bytes) {
                    true => Doing::Pages { left, root },
                    false => Doing::Over(None),
                },
            },
            Doing::Delete { mut left, graves } => match left.pop_front() {
                None => Doing::Over(Some(Event::Emptied(graves))),
                Some(name) => match self.delete(&name) {
                    true => Doing::Delete { left, graves },
                    false => Doing::Over(None),
                },
            },
        };
        self.keep_doing(g, id, next);
    }

    fn over(&mut self, g: usize, id: PartitionId, event: Option<Event>) {
        let Some(plan) = self.plan.objects else { return };
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id) else { return };
        let failed = event.is_none();
        if let (Some(tier), Some(event)) = (&mut hosted.tier.tier, event) {
            self.cases.hit(match &event {
                Event::Written { .. } => Case::ObjectWritten,
                Event::Bad { .. } => Case::ObjectBad,
                Event::PagesWritten(_) => Case::PagesWritten,
                Event::Emptied(_) => Case::GravesEmptied,
                _ => Case::ObjectVerified,
            });
            tier.on(event);
        }
        let pause = if failed { plan.unit_ms as u64 * 500 } else { 1 };
        let pause = self.objects.rng.latency_ns(pause);
        self.arm_tier(g, id, pause);
    }

    // --- commands

    fn propose_step(&mut self, g: usize, id: PartitionId, command: Command) -> Doing {
        let Some(hosted) = self.gateways[g].hosted.get_mut(&id) else { return Doing::Over(None) };
        hosted.tier.tag += 1;
        let asker = Asker { gateway: g, life: hosted.life, partition: id, tag: hosted.tier.tag };
        self.propose(asker, command);
        Doing::Proposed(asker.tag)
    }

    /// Until when a command may be applied at the latest, nanoseconds from now: see [`super::ObjectsPlan::late_ms`].
    pub fn latest_ns(&self, asker: &Asker) -> u64 {
        let plan = self.plan.objects.filter(|_| asker.tag >= TAGS);
        plan.map_or(u64::MAX, |plan| plan.late_ms() as u64 * 1_000_000)
    }

    /// True if the outcome was the tier's.
    pub fn tier_proposed(&mut self, asker: Asker, outcome: &ProposeOutcome) -> bool {
        if asker.tag < TAGS {
            return false;
        }
        let Some(plan) = self.plan.objects else { return true };
        let hosted = self.gateways[asker.gateway].hosted.get_mut(&asker.partition);
        let Some(hosted) = hosted.filter(|hosted| hosted.life == asker.life) else { return true };
        if !matches!(hosted.tier.doing, Some(Doing::Proposed(tag)) if tag == asker.tag) {
            return true;
        }
        hosted.tier.doing = None;
        let pause = match outcome {
            ProposeOutcome::Applied { .. } => self.plan.metadata_us * 2,
            ProposeOutcome::Rejected { .. } => {
                self.cases.hit(Case::StepRejected);
                if let Some(tier) = &mut hosted.tier.tier {
                    tier.on(Event::Rejected);
                }
                self.plan.metadata_us * 4
            }
            // The record decides.
            ProposeOutcome::Unknown | ProposeOutcome::NotApplied => plan.unit_ms as u64 * 500,
        };
        let pause = self.objects.rng.latency_ns(pause);
        self.arm_tier(asker.gateway, asker.partition, pause);
        true
    }

    // --- objects

    fn begin_write(&mut self, g: usize, info: &PartitionInfo, facts: SegmentFacts) -> Option<Doing> {
        let row = info.chain.iter().find(|row| row.segment == facts.segment)?;
        let entries = self.read_segment_from(g, facts.segment, facts.last, &row.holders)?;
        let key = self.object_name(g, info, facts.segment, false);
        let identity = Identity { cluster: self.cluster_id(), key };
        let Some((object, mut places)) = format::encode(identity, &[(facts, entries)]) else {
            self.oracle.fail("R12", format!("{}: holders serve what is not the segment", facts.segment));
            return None;
        };
        let place = places.swap_remove(0);
        self.claim_name(&key.to_string());
        Some(Doing::Put { n: facts.segment.n, place, object })
    }

    pub(super) fn object_name(&mut self, g: usize, info: &PartitionInfo, first: SegmentId, shared: bool) -> ObjectKey {
        let incarnation = self.incarnation();
        let gateway = &mut self.gateways[g];
        gateway.names += 1;
        let (SegmentId { partition, n }, epoch, attempt) = (first, info.record.epoch, gateway.names);
        ObjectKey { incarnation, partition, n, epoch, attempt, shared }
    }

    /// As bookies that can be reached serve it now; none if an entry is on none of them.
    pub(super) fn read_segment_from(
        &self,
        g: usize,
        segment: SegmentId,
        last: EntryId,
        holders: &[Member],
    ) -> Option<Vec<Bytes>> {
        let here = Node::Gateway(g as u16);
        let reached: Vec<usize> = holders
            .iter()
            .filter_map(|holder| self.bookies.iter().position(|bookie| bookie.member() == *holder))
            .filter(|b| {
                let there = Node::Bookie(*b as u16);
                !self.network.is_cut(here, there) && !self.network.is_cut(there, here)
            })
            .collect();
        let entry = |e| reached.iter().find_map(|b| self.read_own(*b, segment, e)).map(|entry| entry.bytes);
        (0..=last).map(entry).collect()
    }

    /// None: the store did not answer.
    fn reads_back(&mut self, facts: SegmentFacts, place: &ObjectPlace) -> Option<bool> {
        let now = self.queue.now();
        let objects = &mut self.objects;
        match objects.bucket.get(now, &place.key.to_string(), &mut objects.rng) {
            Got::Failed => None,
            Got::NotFound => Some(false),
            Got::Bytes(bytes) => {
                let identity = Identity { cluster: self.cluster_id(), key: place.key };
                Some(format::holds(identity, facts, place, &bytes))
            }
        }
    }

    // --- pages

    fn begin_fold(&mut self, g: usize, info: &PartitionInfo, old: Option<RootPlace>, change: &Edit) -> Option<Doing> {
        let next_seq = self.gateways[g].names + 1;
        let (partition, epoch) = (info.record.id, info.record.epoch);
        let (cluster, incarnation) = (self.cluster_id(), self.incarnation());
        let names = PageNames { cluster, incarnation, partition, epoch, next_seq };
        let edited = self.ask_pages(|pages| edit(old.as_ref(), change, &mut names.clone(), pages));
        let edited = match edited {
            Ok(edited) => edited,
            Err(miss) => {
                self.page_missed(old.as_ref(), &miss);
                return None;
            }
        };
        // An edit gives out more names than it has pages to write in the end.
        self.gateways[g].names += NAMES_PER_EDIT;
        let mut left = VecDeque::new();
        for (key, bytes, page) in edited.pages {
            self.claim_name(&key.to_string());
            self.objects.pages.insert(key, page);
            left.push_back((key, bytes));
        }
        let expect_ver = old.map_or(0, |old| old.ver);
        let root = SetRoot { partition, epoch, expect_ver, root: edited.root, log_start: None };
        Some(Doing::Pages { left, root })
    }

    /// Written and read back. False: nobody knows, or it is not what was written.
    fn put_page(&mut self, key: PageKey, bytes: Bytes) -> bool {
        let (now, name) = (self.queue.now(), key.to_string());
        if self.put(name.clone(), bytes.clone()) != Fate::Done {
            return false;
        }
        let objects = &mut self.objects;
        matches!(objects.bucket.get(now, &name, &mut objects.rng), Got::Bytes(read) if read == bytes)
    }

    fn begin_empty(&mut self, root: &RootPlace, upto_ver: u64) -> Option<Doing> {
        let top = match self.fetch_page(&root_ref(root)) {
            Ok(page) => page,
            Err(miss) => {
                self.page_missed(Some(root), &miss);
                return None;
            }
        };
        let Page::Root(page) = &*top else { return None };
        let graves: Vec<Grave> =
            page.graveyard.iter().filter(|grave| grave.ver <= upto_ver).take(EMPTY_MAX).cloned().collect();
        let mut left = VecDeque::new();
        for grave in &graves {
            match &grave.what {
                Buried::Page(page) => left.push_back(page.key.to_string()),
                Buried::Object(object) => left.extend(deleted_with_its_grave::<R>(&object.key)),
                Buried::Tree(tree) => self.names_below(tree.page.clone(), &mut left)?,
            }
        }
        Some(Doing::Delete { left, graves })
    }

    /// Objects before the pages that name them, so that a second try finds what the first left.
    fn names_below(&mut self, top: PageRef, names: &mut VecDeque<String>) -> Option<()> {
        let mut todo = vec![(top, false)];
        while let Some((of, emptied)) = todo.pop() {
            if emptied {
                names.push_back(of.key.to_string());
                continue;
            }
            let page: Arc<Page> = match self.fetch_page(&of) {
                Ok(page) => page,
                Err(Miss::NotFound(_)) => continue,
                Err(Miss::Failed) => return None,
            };
            todo.push((of, true));
            match &*page {
                Page::Leaf(leaf) => {
                    names.extend(leaf.entries.iter().filter_map(|entry| deleted_with_its_grave::<R>(&entry.place.key)));
                }
                Page::Inner(inner) => todo.extend(inner.children.iter().map(|child| (child.clone(), false))),
                Page::Root(_) => {}
            }
        }
        Some(())
    }

    /// Where the log should start so that no more than `keep` bytes of it stay, in whole folded segments.
    fn wanted_start(&mut self, info: &PartitionInfo, root: &RootPlace, keep: Option<u64>) -> Option<i64> {
        let record = &info.record;
        let unfolded = info.chain.iter().filter(|row| row.segment.n > record.folded_to());
        let mut left = root.bytes + unfolded.map(|row| row.bytes).sum::<u64>();
        let (mut start, mut at) = (record.log_start, root.base_offset);
        let top = self.fetch_page(&root_ref(root)).ok()?;
        let Page::Root(top) = &*top else { return None };
        while let Some(entry) = self.ask_pages(|pages| first_at_or_after(top, at, pages)).ok()? {
            let much = keep.is_some_and(|keep| left.saturating_sub(entry.bytes) >= keep);
            if entry.end_offset > record.log_start && !much {
                break;
            }
            left = left.saturating_sub(entry.bytes);
            at = entry.end_offset;
            start = start.max(entry.end_offset);
        }
        (start > record.log_start).then_some(start)
    }
}

fn deleted_with_its_grave<R: Rules>(key: &ObjectKey) -> Option<String> {
    BuriedObject::deletes::<R>(key).then(|| key.to_string())
}
