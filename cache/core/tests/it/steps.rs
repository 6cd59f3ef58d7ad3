//! One partition's history under faults: puts that are lost, late or damaged, commands that are applied late, twice or
//! never, owners that die at any step. From one seed: faults first, then heal, then prove that nothing is lost and
//! nothing leaks. Each mutant breaks one rule and must be found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use esker_cache_core::manifest::*;
use esker_cache_core::steps::*;
use esker_metadata_core::*;
use esker_types::*;

use crate::samples::CLUSTER;

mod regressions;

const SEGMENT_RECORDS: i64 = 10;
const GRACE_MS: i64 = 500;
const SWEEP_AGE_MS: u64 = 3_000;
/// A command that is not applied by then never is.
const LATEST_MS: i64 = 1_000;

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// True once in `n`.
    fn once_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// What a name in the bucket stands for.
#[derive(Clone)]
enum Stored {
    Object { sound: bool },
    Page(Bytes),
}

/// Somebody who reads on at the version of the manifest that it began with.
struct Reader {
    root: RootPlace,
    from: Offset,
    until: i64,
}

struct World<R> {
    dice: Dice,
    faults: bool,
    state: State,
    wall: i64,
    partition: PartitionId,
    bucket: BTreeMap<String, (Stored, i64)>,
    tier: Tier<R>,
    names: u64,
    /// Commands on their way, with the time at which they arrive.
    late: Vec<(i64, Command)>,
    readers: Vec<Reader>,
    broken: Option<String>,
    swept: u64,
    deleted: u64,
    owners: u64,
}

fn policy() -> Policy {
    Policy {
        offload: true,
        fold_segments: 3,
        fold_age_ms: 2_000,
        local_retention_ms: Some(200),
        retention_ms: None,
        retention_bytes: Some(400),
        retain_every_ms: 100,
        grave_ms: GRACE_MS,
        give_up_ms: SWEEP_AGE_MS as i64 / 2,
        empty_every_ms: 50,
    }
}

fn member() -> Member {
    Member { bookie: BookieId(1), instance: InstanceId([0x11; 16]) }
}

impl<R: Rules> World<R> {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            dice: Dice(seed),
            faults: true,
            state: State::default(),
            wall: 1_000_000,
            partition: PartitionId(0),
            bucket: BTreeMap::new(),
            tier: Tier::new(Epoch(0)),
            names: 1,
            late: Vec::new(),
            readers: Vec::new(),
            broken: None,
            swept: 0,
            deleted: 0,
            owners: 0,
        };
        let quorum = Quorum { write: 1, ack: 1 };
        let bookie = RegisterBookie {
            name: "b1".to_owned(),
            instance: member().instance,
            boot: BootId([1; 16]),
            expect_boot_no: 0,
            durable_lsn: 0,
            address: "127.0.0.1:1".to_owned(),
            zone: String::new(),
            version: VERSION_MAX,
            replaces: None,
        };
        let addresses = GatewayAddresses {
            quic: "127.0.0.1:2".to_owned(),
            kafka: String::new(),
            http: String::new(),
            internal: String::new(),
        };
        let gateway = RegisterGateway {
            name: "g1".to_owned(),
            boot: BootId([2; 16]),
            addresses,
            zone: String::new(),
            version: VERSION_MAX,
        };
        let topic = CreateTopic {
            id: TopicId([3; 16]),
            name: "t".to_owned(),
            partitions: 1,
            replication: None,
            settings: Vec::new(),
            internal: false,
            validate_only: false,
        };
        let init = InitCluster { id: CLUSTER, quorum, auto_create_topics: false, default_partitions: 1 };
        let commands: [Command; 4] = [init.into(), bookie.into(), gateway.into(), topic.into()];
        commands.into_iter().for_each(|command| drop(world.apply(command).expect("the world is made")));
        world.partition = world.state.partition_of("t", 0).expect("made above").id;
        world.new_owner();
        world
    }

    fn apply(&mut self, command: Command) -> CommandResult {
        self.state.apply::<AllRules>(self.wall, std::slice::from_ref(&command)).results.remove(0)
    }

    fn info(&self) -> PartitionInfo {
        self.state.partition_info(self.partition).expect("never deleted")
    }

    /// The former one dies with all that it knew.
    fn new_owner(&mut self) {
        let record = self.info().record;
        let session = self.state.gateway(GatewayId(1)).and_then(|gateway| gateway.session).expect("it lives");
        let assign = Assign { partition: record.id, expect_epoch: record.epoch, session };
        self.apply(assign.into()).expect("nobody else assigns");
        self.tier = Tier::new(self.info().record.epoch);
        self.owners += 1;
    }

    /// One more segment is closed.
    fn roll(&mut self) {
        let record = self.info().record;
        let next = |n| NextSegment { n, quorum: Quorum { write: 1, ack: 1 }, members: vec![member()] };
        let (at, epoch) = (record.id, record.epoch);
        let Some(open) = &record.open else {
            let open = Open { partition: at, epoch, prev: record.tail_n(), next: next(record.next_n) };
            self.apply(open.into()).expect("it fits");
            return;
        };
        let close = Close {
            n: open.n,
            last: Some(3),
            end_offset: open.base_offset + SEGMENT_RECORDS,
            digest: 0xd0 + open.n,
            bytes: 100,
            first_ts: self.wall,
            max_ts: self.wall,
            holders: vec![member()],
        };
        let roll = Roll { partition: at, epoch, close, next: Some(next(record.next_n)) };
        self.apply(roll.into()).expect("it fits");
    }

    fn page(&self, of: &PageRef) -> Option<Arc<Page>> {
        match self.bucket.get(&of.key.to_string()) {
            Some((Stored::Page(bytes), _)) => decode_page(CLUSTER, of, bytes).ok().map(Arc::new),
            _ => None,
        }
    }

    fn put(&mut self, name: String, what: Stored) {
        let wall = self.wall;
        assert!(self.bucket.insert(name.clone(), (what, wall)).is_none(), "I9: {name} was given out twice");
    }

    fn tick(&mut self) {
        self.wall += 1 + (self.dice.next() % 40) as i64;
        let (due, rest) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= self.wall);
        self.late = rest;
        let due: Vec<(i64, Command)> = due;
        due.into_iter().for_each(|(_, command)| drop(self.apply(command)));
        if self.dice.once_in(6) && self.faults {
            self.roll();
        }
        if self.dice.once_in(60) && self.faults {
            self.new_owner();
        }
        if self.dice.once_in(15)
            && let Some(root) = self.info().record.root.clone()
        {
            let until = self.wall + GRACE_MS - 100;
            self.readers.push(Reader { root, from: self.info().record.log_start, until });
        }
        self.step();
        if self.dice.once_in(40) {
            self.sweep();
        }
        self.check();
    }

    fn step(&mut self) {
        let info = self.info();
        let Some(step) = self.tier.next(WallMs(self.wall), &info, &policy()) else { return };
        if let Some(event) = self.perform(&info, step) {
            self.tier.on(event);
        }
    }

    fn fails(&mut self, n: u64) -> bool {
        self.faults && self.dice.once_in(n)
    }

    fn perform(&mut self, info: &PartitionInfo, step: Step) -> Option<Event> {
        match step {
            Step::Write(facts) => {
                let key = ObjectKey {
                    incarnation: 0,
                    partition: self.partition,
                    n: facts.segment.n,
                    epoch: info.record.epoch,
                    attempt: self.names,
                    shared: false,
                };
                self.names += 1;
                let (lost, sound) = (self.fails(8), !self.fails(6));
                if !lost {
                    self.put(key.to_string(), Stored::Object { sound });
                }
                // It was put, and the writer does not hear of it.
                if self.fails(8) {
                    return None;
                }
                let place = ObjectPlace {
                    key,
                    position: 60,
                    len: 9,
                    footer_position: 69,
                    footer_len: 9,
                    footer_crc: 1,
                    size: 99,
                };
                Some(Event::Written { n: facts.segment.n, place })
            }
            Step::Verify { facts, place } => match self.sound(&place.key) {
                _ if self.fails(6) => None,
                true => Some(Event::Verified { n: facts.segment.n }),
                false => Some(Event::Bad { n: facts.segment.n }),
            },
            Step::VerifyAgain { facts, place } => {
                (!self.fails(6) && self.sound(&place.key)).then_some(Event::VerifiedAgain { n: facts.segment.n })
            }
            Step::Propose(command) => self.propose(command),
            Step::Fold { old, edit: change } => {
                let mut names = PageNames {
                    cluster: CLUSTER,
                    incarnation: 0,
                    partition: self.partition,
                    epoch: info.record.epoch,
                    next_seq: self.names,
                };
                self.names += 1_000;
                let edited = edit(old.as_ref(), &change, &mut names, &|of: &PageRef| self.page(of));
                let Ok(edited) = edited else {
                    self.broken = Some("a page that the root reaches is gone".to_owned());
                    return None;
                };
                for (key, bytes, _) in edited.pages {
                    if self.fails(20) {
                        return None;
                    }
                    self.put(key.to_string(), Stored::Page(bytes));
                }
                Some(Event::PagesWritten(SetRoot {
                    partition: self.partition,
                    epoch: info.record.epoch,
                    expect_ver: old.map_or(0, |old| old.ver),
                    root: edited.root,
                    log_start: None,
                }))
            }
            Step::Empty { root, upto_ver } => {
                let page = self.page(&root_ref(&root))?;
                let Page::Root(page) = &*page else { panic!("a root") };
                let due: Vec<Grave> = page.graveyard.iter().filter(|grave| grave.ver <= upto_ver).cloned().collect();
                for grave in &due {
                    match &grave.what {
                        Buried::Page(page) => self.delete(&page.key.to_string()),
                        Buried::Object(object) => self.delete(&object.key.to_string()),
                        Buried::Tree(tree) => {
                            if let Some(page) = self.page(&tree.page)
                                && let Page::Leaf(leaf) = &*page
                            {
                                leaf.entries.iter().for_each(|entry| self.delete(&entry.place.key.to_string()));
                            }
                            self.delete(&tree.page.key.to_string());
                        }
                    }
                    if self.fails(10) {
                        return None;
                    }
                }
                Some(Event::Emptied(due))
            }
            Step::Retain { root, keep_bytes, .. } => {
                let keep = i64::try_from(keep_bytes.unwrap_or(u64::MAX) / 100).unwrap_or(i64::MAX) * SEGMENT_RECORDS;
                let start = info.record.next_offset.saturating_sub(keep).min(root.end_offset);
                let (partition, epoch) = (self.partition, info.record.epoch);
                (start > info.record.log_start)
                    .then(|| self.propose(DeleteBegin { partition, epoch, log_start: start }.into()))
                    .flatten()
            }
        }
    }

    fn propose(&mut self, command: Command) -> Option<Event> {
        if self.fails(5) {
            // Unknown: it may arrive later, once or twice, or never.
            for _ in 0..self.dice.next() % 3 {
                let at = self.wall + (self.dice.next() % LATEST_MS as u64) as i64;
                self.late.push((at, command.clone()));
            }
            return None;
        }
        match self.apply(command) {
            Ok(_) => None,
            Err(_) => Some(Event::Rejected),
        }
    }

    fn sound(&self, key: &ObjectKey) -> bool {
        matches!(self.bucket.get(&key.to_string()), Some((Stored::Object { sound: true }, _)))
    }

    fn delete(&mut self, name: &str) {
        self.deleted += u64::from(self.bucket.remove(name).is_some());
    }

    fn sweep(&mut self) {
        let listed: Vec<(String, i64)> = self.bucket.iter().map(|(name, (_, at))| (name.clone(), *at)).collect();
        let pages = |of: &PageRef| self.page(of);
        let leaks: Vec<String> = listed
            .into_iter()
            .filter(|(name, at)| {
                let age = u64::try_from(self.wall - at).unwrap_or(0);
                let found = candidate(name, 0, age, SWEEP_AGE_MS);
                found.is_some_and(|found| verdict::<R>(&found, &self.state, None, &pages) == Ok(Verdict::Delete))
            })
            .map(|(name, _)| name)
            .collect();
        self.swept += leaks.len() as u64;
        leaks.iter().for_each(|name| self.delete(name));
    }

    /// The tree of a root, or what is missing of it.
    fn tree(&self, root: &RootPlace) -> Result<Vec<LeafEntry>, String> {
        let missing = |need: Need| format!("page {} is gone", need.0.key);
        let page = root_page(root, &|of: &PageRef| self.page(of)).map_err(missing)?;
        let Page::Root(page) = &*page else { return Err("a root is no root".to_owned()) };
        overlapping(page, 0, Offset::MAX, usize::MAX, &|of: &PageRef| self.page(of)).map_err(missing)
    }

    /// I10: every record from the log start on is on bookies, or sound in the bucket and found.
    fn check(&mut self) {
        let info = self.info();
        let (log_start, copies_from) = (info.record.log_start, info.record.copies_from);
        let mut places: BTreeMap<Offset, (Offset, bool)> = BTreeMap::new();
        if let Some(root) = &info.record.root {
            match self.tree(root) {
                Err(why) => return self.broken = Some(format!("the manifest: {why}")),
                Ok(entries) => {
                    for entry in entries {
                        let sound = self.sound(&entry.place.key);
                        places.insert(entry.base_offset, (entry.end_offset, sound));
                    }
                }
            }
        }
        for row in &info.chain {
            let sound = row.object.as_ref().is_some_and(|place| self.sound(&place.key));
            places.insert(row.base_offset, (row.end_offset, sound || row.segment.n >= copies_from));
        }
        let mut at = log_start;
        while at < info.record.next_offset {
            match places.range(..=at).next_back() {
                Some((_, (end, true))) if *end > at => at = *end,
                found => return self.broken = Some(format!("I10: offset {at} is nowhere: {found:?}")),
            }
        }
        self.readers.retain(|reader| reader.until > self.wall);
        for reader in &self.readers {
            match self.tree(&reader.root) {
                Err(why) => self.broken = Some(format!("a reader lost its manifest: {why}")),
                Ok(entries) => {
                    let gone = entries.iter().find(|entry| {
                        entry.end_offset > reader.from && !self.bucket.contains_key(&entry.place.key.to_string())
                    });
                    if let Some(entry) = gone {
                        self.broken = Some(format!("a reader lost segment {}", entry.n));
                        return;
                    }
                }
            }
        }
    }

    /// No more faults: it comes to rest, and nothing is left in the bucket that nobody reaches.
    fn heal(&mut self) {
        self.faults = false;
        for _ in 0..1_000 {
            self.tick();
        }
        self.readers.clear();
        let info = self.info();
        let wanted = |row: &&Arc<ClosedSegment>| row.object.is_none() && row.end_offset > info.record.log_start;
        let waiting = info.chain.iter().filter(wanted).count();
        if waiting > 0 {
            self.broken.get_or_insert(format!("{waiting} segments never reached the bucket"));
        }
        let Some(root) = info.record.root.clone() else { return };
        let Ok(entries) = self.tree(&root) else { return };
        let page = root_page(&root, &|of: &PageRef| self.page(of)).expect("checked by the tree");
        let Page::Root(page) = &*page else { panic!("a root") };
        let mut reached: BTreeSet<String> = entries.iter().map(|entry| entry.place.key.to_string()).collect();
        reached.extend(info.chain.iter().filter_map(|row| row.object.as_ref()).map(|place| place.key.to_string()));
        let pages = tree_pages(page, &|of: &PageRef| self.page(of)).expect("all there");
        reached.extend(pages.iter().map(PageKey::to_string));
        reached.insert(root.key.to_string());
        let buried: BTreeSet<String> = page
            .graveyard
            .iter()
            .map(|grave| match &grave.what {
                Buried::Page(page) => page.key.to_string(),
                Buried::Object(object) => object.key.to_string(),
                Buried::Tree(tree) => tree.page.key.to_string(),
            })
            .collect();
        // Other attempts at a segment that lies in a grave are judged when that is left out.
        let waits = |name: &str| {
            let Some(Candidate::Object(key)) = parse(name) else { return false };
            page.graveyard.iter().any(|grave| match &grave.what {
                Buried::Tree(tree) => (tree.page.first_n..=tree.page.last_n).contains(&key.n),
                _ => false,
            })
        };
        let leak = self.bucket.keys().find(|name| !reached.contains(*name) && !buried.contains(*name) && !waits(name));
        if let Some(leak) = leak {
            let (log_start, folded) = (info.record.log_start, info.record.folded_to());
            let graves = &page.graveyard;
            self.broken.get_or_insert(format!("{leak} leaked: log start {log_start}, folded to {folded}, {graves:?}"));
        }
    }
}

/// What a seed came to.
struct Life {
    broken: Option<String>,
    dropped: u64,
    folded: u64,
    swept: u64,
    deleted: u64,
    owners: u64,
}

fn live<R: Rules>(seed: u64) -> Life {
    let mut world = World::<R>::new(seed);
    for _ in 0..500 {
        world.tick();
        if world.broken.is_some() {
            break;
        }
    }
    if world.broken.is_none() {
        world.heal();
    }
    let record = world.info().record;
    Life {
        broken: world.broken,
        dropped: record.copies_from,
        folded: record.folded_to(),
        swept: world.swept,
        deleted: world.deleted,
        owners: world.owners,
    }
}

#[test]
fn nothing_is_lost_and_nothing_leaks() {
    let mut sum = (0, 0, 0, 0, 0);
    for seed in 0..120 {
        let life = live::<AllRules>(seed);
        assert_eq!(life.broken, None, "seed {seed}");
        sum =
            (sum.0 + life.dropped, sum.1 + life.folded, sum.2 + life.swept, sum.3 + life.deleted, sum.4 + life.owners);
    }
    let (dropped, folded, swept, deleted, owners) = sum;
    let enough = dropped > 1_200 && folded > 1_200 && swept > 40 && deleted > 400 && owners > 400;
    assert!(enough, "nothing was tried: {sum:?}");
}

/// Seeds until the mutant is found.
fn found<R: Rules>() -> u64 {
    (0..2_000).find(|seed| live::<R>(*seed).broken.is_some()).unwrap_or_else(|| panic!("{} survives", R::NAME))
}

macro_rules! mutant {
    ($test:ident, $name:ident, $rule:ident) => {
        #[derive(Clone, Copy, Debug, Default)]
        struct $name;
        impl Rules for $name {
            const NAME: &'static str = stringify!($name);
            const $rule: bool = false;
        }

        #[test]
        fn $test() {
            found::<$name>();
        }
    };
}

/// Both reads must go for the damage to be believed: either of them alone finds it.
#[derive(Clone, Copy, Debug, Default)]
struct Blind;

impl Rules for Blind {
    const NAME: &'static str = "Blind";
    const OFFLOAD_VERIFIED: bool = false;
    const DROP_AFTER_SECOND_READ: bool = false;
}

#[test]
fn objects_that_nobody_read_back_lose_records() {
    found::<Blind>();
}

mutant!(a_commit_without_a_read_back_is_found, Unverified, OFFLOAD_VERIFIED);
mutant!(a_deletion_without_grace_is_found, Impatient, DELETE_AFTER_GRACE);
mutant!(a_sweep_by_record_is_found, ByRecord, SWEEP_BY_REACHABILITY);

/// Of a deleted topic nothing is reached and nothing may be committed: all goes a grace later, whatever its age.
#[test]
fn all_of_a_deleted_topic_goes_after_a_grace() {
    let mut world = World::<AllRules>::new(1);
    let key =
        ObjectKey { incarnation: 0, partition: world.partition, n: 1, epoch: Epoch(1), attempt: 1, shared: false };
    let page = PageKey { incarnation: 0, partition: world.partition, epoch: Epoch(1), seq: 1 };
    let names = [parse(&key.to_string()).expect("an object"), parse(&page.to_string()).expect("a page")];
    let doomed_now = |world: &World<AllRules>| names.iter().filter(|name| doomed(name, &world.state, GRACE_MS)).count();
    assert_eq!(doomed_now(&world), 0, "it lives");
    world.apply(DeleteTopic { topic: TopicId([3; 16]) }.into()).expect("there");
    assert_eq!(doomed_now(&world), 0, "somebody may still read it");
    world.wall += GRACE_MS;
    world.apply(DeleteTopic { topic: TopicId([3; 16]) }.into()).expect("again");
    assert_eq!(doomed_now(&world), 2);
    let other = ObjectKey { partition: PartitionId(world.partition.0 + 1), ..key };
    assert!(!doomed(&Candidate::Object(other), &world.state, 0), "a partition that nobody knows");
    assert!(!doomed(&Candidate::Object(ObjectKey { shared: true, ..key }), &world.state, 0), "others share it");
    assert_eq!(parse("claims/0"), None);
}
