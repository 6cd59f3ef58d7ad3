//! One seed from birth to verdict: set the cluster up, let clients and nemesis loose, heal, recover all, read all back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use esker_metadata_core::{Command, CreateTopic, InitCluster, Reply};
use esker_types::{ClusterId, Rules, Time, TopicId};

use crate::bookie::Bookie;
use crate::client::{Producer, Reader};
use crate::gateway::Gateway;
use crate::metadata::Metadata;
use crate::nemesis::Nemesis;
use crate::network::Network;
use crate::objects::Objects;
use crate::oracle::{Oracle, PLAIN_FROM, Violation};
use crate::plan::Plan;
use crate::queue::Queue;
use crate::rng::Rng;
use crate::sometimes::{Case, Sometimes};
use crate::trace::Trace;
use crate::world::{What, World};

/// A run that does not end by itself has a loop that feeds itself.
const EVENTS_MAX: u64 = 300_000;
/// Virtual time that a healed cluster may take until all that clients wanted is done.
const CONVERGE: Duration = Duration::from_secs(120);
/// Times that the end of a run closes what late messages opened.
const LATE_CLOSES: u32 = 4;

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Report {
    pub violation: Option<Violation>,
    pub trace_hash: u64,
    pub events: u64,
    pub acks: u64,
    pub cases: Sometimes,
    pub beyond_model: bool,
}

/// Runs the plan under the rules. A panic anywhere in the code under test is a violation too.
pub fn run<R: Rules>(plan: &Plan, print: bool) -> Report {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::<R>::new(plan.clone(), print);
        world.live();
        world.report()
    }));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
        Report {
            violation: Some(Violation { rule: "panic", text: text.unwrap_or_else(|| "a panic without a text".into()) }),
            trace_hash: 0,
            events: 0,
            acks: 0,
            cases: Sometimes::default(),
            beyond_model: false,
        }
    })
}

impl<R: Rules> World<R> {
    pub fn new(plan: Plan, print: bool) -> Self {
        let mut rng = Rng::new(plan.seed);
        let network = Network::new(plan.network_us, plan.faults, &mut rng);
        let unknown_rate = *rng.pick(&[50, 200, 500]);
        let nemesis = Nemesis::new(plan.acts);
        let bookies = (0..plan.bookies).map(|_| Bookie::new(&mut rng)).collect();
        let gateways = (0..plan.gateways).map(|_| Gateway::new()).collect();
        Self {
            rng,
            queue: Queue::default(),
            trace: Trace::new(print),
            cases: Sometimes::default(),
            oracle: Oracle::default(),
            network,
            metadata: Metadata::default(),
            bookies,
            gateways,
            producers: Vec::new(),
            readers: Vec::new(),
            nemesis,
            objects: Objects::new(&plan),
            partitions: Vec::new(),
            unknown_rate,
            healed: false,
            doomed: None,
            lives: 0,
            healed_at: Time::ZERO,
            plan,
        }
    }

    pub fn live(&mut self) {
        let now = self.queue.now();
        let plan = self.plan.clone();
        self.trace.note(now, &[plan.seed], || format!("{plan:?}"));
        self.set_up();
        self.until(|world| world.healed, Duration::from_secs(3_600));
        let done = |world: &Self| world.producers.iter().all(Producer::is_done);
        let converged = self.until(done, CONVERGE) && self.recover_all();
        if self.oracle.violation().is_some() {
            return;
        }
        if !converged {
            if !self.oracle.beyond_model && !self.oracle.may_stall {
                let what = self.what_is_stuck();
                self.oracle.fail("live", format!("not converged {} s after healing: {what}", CONVERGE.as_secs()));
            }
            return;
        }
        self.settle_history();
        // A produce that was late for the last close was acked all the same, into a segment of its own.
        for _ in 0..LATE_CLOSES {
            if !self.any_open() || self.oracle.violation().is_some() || !self.close_all() {
                break;
            }
            self.settle_history();
        }
        self.read_all_back();
        self.check_leaks();
    }

    /// What is closed reaches the bucket; then long enough passes for graves and leaks to be emptied.
    fn settle_history(&mut self) {
        let Some(plan) = self.plan.objects else { return };
        if !self.until(World::tier_is_settled, CONVERGE) {
            if self.oracle.violation().is_none() && !self.oracle.beyond_model && !self.oracle.may_stall {
                let backlog: Vec<_> = self.partitions.iter().map(|p| (*p, self.backlog(*p))).collect();
                self.oracle.fail("live", format!("segments wait for the bucket long after healing: {backlog:?}"));
            }
            return;
        }
        let late = Duration::from_millis(plan.late_ms() as u64 + plan.unit_ms as u64);
        self.until(|_| false, late);
        self.objects.skipped_ms += plan.grace_ms();
        self.until(|_| false, Duration::from_millis(4 * plan.unit_ms as u64));
        self.objects.skipped_ms += plan.sweep_age_ms();
    }

    pub fn report(self) -> Report {
        Report {
            violation: self.oracle.violation().cloned(),
            trace_hash: self.trace.hash(),
            events: self.trace.events(),
            acks: self.oracle.acks,
            cases: self.cases,
            beyond_model: self.oracle.beyond_model,
        }
    }

    /// Goes on until the goal is reached. False: time or events ran out, or a promise was broken.
    fn until(&mut self, goal: impl Fn(&Self) -> bool, span: Duration) -> bool {
        let deadline = self.queue.now() + span;
        while self.oracle.violation().is_none() {
            if goal(self) {
                return true;
            }
            if self.queue.now() > deadline || self.trace.events() > EVENTS_MAX || !self.step() {
                return false;
            }
        }
        false
    }

    fn set_up(&mut self) {
        let birth = Command::InitCluster(InitCluster {
            id: self.cluster_id(),
            quorum: self.plan.quorum,
            auto_create_topics: false,
            default_partitions: 1,
        });
        self.apply_now(&[birth]);
        for b in 0..self.bookies.len() {
            self.start_bookie(b, 0);
        }
        self.until(|world| world.bookies.iter().all(|bookie| bookie.is_serving()), Duration::from_secs(60));
        for index in 0..self.plan.partitions {
            self.create_topic(index);
        }
        for g in 0..self.gateways.len() {
            self.start_gateway(g, 0);
        }
        self.queue.after_ns(1, What::Controller);
        for index in 0..self.plan.producers {
            let partition = self.partitions[index % self.partitions.len()];
            let plain = self.rng.chance(150);
            let number = index as u32 + if plain { PLAIN_FROM } else { 1 };
            let plan = &self.plan;
            let producer = Producer::new(number, partition, plan.batches, plan.in_flight, plan.batch_bytes);
            self.producers.push(producer);
            let start = self.rng.latency_ns(self.plan.metadata_us * 4);
            self.wake_producer(index, start);
        }
        for index in 0..self.partitions.len() {
            self.readers.push(Reader::new(self.partitions[index]));
            let pause = self.rng.latency_ns(self.plan.metadata_us * 8);
            self.queue.after_ns(pause, What::ReaderWake { reader: index, question: 0 });
        }
        let pause = self.rng.latency_ns(self.plan.nemesis_us + self.plan.metadata_us * 4);
        self.queue.after_ns(pause, What::Nemesis);
        if self.plan.objects.is_some() {
            self.queue.after_ns(pause, What::Sweep);
        }
    }

    pub fn cluster_id(&self) -> ClusterId {
        ClusterId([0xc1; 16])
    }

    fn create_topic(&mut self, index: usize) {
        let command = Command::CreateTopic(CreateTopic {
            id: TopicId::from_random(self.rng.uuid()),
            name: format!("t{index}"),
            partitions: 1,
            replication: None,
            settings: Vec::new(),
            internal: false,
            validate_only: false,
        });
        let results = self.apply_now(&[command]);
        match results.first() {
            Some(Ok(Reply::Topic(reply))) => self.partitions.extend(&reply.partitions),
            other => self.oracle.fail("setup", format!("topic not created: {other:?}")),
        }
    }

    /// All trouble ends: links carry, processes run, disks have room. What is gone for good stays away.
    pub fn heal(&mut self) {
        let now = self.queue.now();
        self.trace.note(now, &[0x4ea1], || "healed".into());
        self.healed = true;
        self.healed_at = now;
        self.doomed = None;
        self.objects.bucket.heal();
        self.objects.amnesia_until = Time::ZERO;
        self.network.heal();
        for g in 0..self.gateways.len() {
            let pause = std::mem::take(&mut self.gateways[g].pause.on);
            if pause != 0 {
                let waiting = std::mem::take(&mut self.gateways[g].pause.waiting);
                waiting.into_iter().for_each(|what| self.queue.after_ns(0, what));
            }
        }
        for b in 0..self.bookies.len() {
            let bookie = &mut self.bookies[b];
            bookie.disk.heal();
            bookie.pause.on = 0;
            let waiting = std::mem::take(&mut bookie.pause.waiting);
            waiting.into_iter().for_each(|what| self.queue.after_ns(0, what));
        }
    }

    /// Gives every partition to a new epoch once more, so that what was acked must survive a recovery, and has one
    /// more batch acked on each.
    fn recover_all(&mut self) -> bool {
        if self.oracle.violation().is_some() {
            return false;
        }
        let first_probe = self.producers.len();
        for partition in self.partitions.clone() {
            self.assign_somewhere(partition);
            let number = 500 + self.producers.len() as u32;
            self.producers.push(Producer::new(number, partition, 1, 1, 100));
            let pause = self.rng.latency_ns(self.plan.metadata_us * 10);
            self.wake_producer(self.producers.len() - 1, pause);
        }
        let probed = move |world: &Self| world.producers[first_probe..].iter().all(Producer::is_done);
        if !self.until(probed, CONVERGE) {
            return false;
        }
        // Once more, so that the probe's own segment is closed too and all stands in the chain.
        self.close_all()
    }

    fn any_open(&self) -> bool {
        self.partitions.iter().any(|p| self.metadata.state.partition(*p).is_some_and(|record| record.open.is_some()))
    }

    /// Gives every partition to a new epoch and waits until nothing is open.
    fn close_all(&mut self) -> bool {
        for partition in self.partitions.clone() {
            self.assign_somewhere(partition);
        }
        let closed = |world: &Self| {
            world.partitions.iter().all(|p| {
                let record = world.metadata.state.partition(*p);
                let owned = record.is_some_and(|r| world.metadata.state.has_live_owner(r) && r.open.is_none());
                owned && world.owner_index(*p).is_some_and(|g| world.gateways[g].is_ready(*p))
            })
        };
        let serving = |world: &Self| world.bookies.iter().all(|bookie| bookie.gone || bookie.is_serving());
        let closed = self.until(closed, CONVERGE) && self.until(serving, CONVERGE);
        if closed {
            self.cases.hit(Case::RunConverged);
        }
        closed
    }

    fn what_is_stuck(&self) -> String {
        let producers: Vec<_> = self
            .producers
            .iter()
            .filter(|producer| !producer.is_done())
            .map(|p| {
                format!("producer {} of p{} has {} pending, {} left", p.number, p.partition, p.pending.len(), p.left)
            })
            .collect();
        let partitions: Vec<_> = self
            .partitions
            .iter()
            .map(|p| {
                let record = self.metadata.state.partition(*p);
                let phase = self.owner_index(*p).and_then(|g| self.gateways[g].hosted.get(p)).map(|h| h.phase);
                let open = record.and_then(|r| r.open_id());
                format!("p{p} phase {phase:?} open {open:?}")
            })
            .collect();
        format!("{} {}", producers.join("; "), partitions.join("; "))
    }
}
