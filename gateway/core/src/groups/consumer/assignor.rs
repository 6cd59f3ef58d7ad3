//! Who reads what. Pure functions of the members and the topics, in a fixed order.

use std::collections::{BTreeMap, BTreeSet};

use esker_types::TopicId;

use super::member::Assignment;

/// Names of the assignors; the first is the default.
pub const ASSIGNORS: [&str; 2] = ["uniform", "range"];

/// A member as assignors see it.
#[derive(Clone, Debug)]
pub struct AssignMember {
    pub id: String,
    /// By which members are ordered: the instance id of a static member, so that its place outlives its member id.
    pub order: String,
    pub topics: BTreeSet<TopicId>,
    /// Its target so far.
    pub current: Assignment,
}

/// Each topic by itself: members in order take consecutive partitions, the first ones one more. Topics with the same
/// readers and as many partitions are split alike, which joins by key rely on.
pub fn range(mut members: Vec<AssignMember>, counts: &BTreeMap<TopicId, u32>) -> BTreeMap<String, Assignment> {
    members.sort_unstable_by(|a, b| (&a.order, &a.id).cmp(&(&b.order, &b.id)));
    let mut targets: BTreeMap<String, Assignment> =
        members.iter().map(|member| (member.id.clone(), Assignment::new())).collect();
    for (topic, count) in counts {
        let readers: Vec<&AssignMember> = members.iter().filter(|member| member.topics.contains(topic)).collect();
        if readers.is_empty() {
            continue;
        }
        let count = *count as usize;
        let (each, more) = (count / readers.len(), count % readers.len());
        let mut next = 0;
        for (index, reader) in readers.iter().enumerate() {
            let end = next + each + usize::from(index < more);
            if end > next
                && let Some(target) = targets.get_mut(&reader.id)
            {
                target.insert(*topic, (next..end).map(|p| p as i32).collect());
            }
            next = end;
        }
    }
    targets
}

/// Passes over unequal subscriptions that may improve the balance; each is linear, few are needed.
const PASSES_MAX: usize = 8;

/// As even as subscriptions allow, moving as little as possible: what members have they keep, unless they have more
/// than their share.
pub fn uniform(mut members: Vec<AssignMember>, counts: &BTreeMap<TopicId, u32>) -> BTreeMap<String, Assignment> {
    members.sort_unstable_by(|a, b| (&a.order, &a.id).cmp(&(&b.order, &b.id)));
    let mut spread = Spread::new(&members, counts);
    spread.keep();
    spread.place();
    spread.even_out();
    members.iter().map(|member| member.id.clone()).zip(spread.held).collect()
}

struct Spread<'a> {
    members: &'a [AssignMember],
    counts: &'a BTreeMap<TopicId, u32>,
    /// Members, by index, that read a topic.
    readers: BTreeMap<TopicId, Vec<usize>>,
    held: Vec<Assignment>,
    load: Vec<usize>,
    taken: BTreeMap<TopicId, BTreeSet<i32>>,
}

impl<'a> Spread<'a> {
    fn new(members: &'a [AssignMember], counts: &'a BTreeMap<TopicId, u32>) -> Self {
        let readers = |topic| (0..members.len()).filter(|m| members[*m].topics.contains(topic)).collect();
        Self {
            members,
            counts,
            readers: counts.keys().map(|topic| (*topic, readers(topic))).collect(),
            held: vec![Assignment::new(); members.len()],
            load: vec![0; members.len()],
            taken: BTreeMap::new(),
        }
    }

    /// Everybody keeps what it has and still reads.
    fn keep(&mut self) {
        for (index, member) in self.members.iter().enumerate() {
            for (topic, held) in member.current.iter().filter(|(topic, _)| member.topics.contains(topic)) {
                let count = self.counts.get(topic).copied().unwrap_or(0) as i32;
                for partition in held.iter().copied().filter(|partition| (0..count).contains(partition)) {
                    if self.taken.entry(*topic).or_default().insert(partition) {
                        self.give(index, *topic, partition);
                    }
                }
            }
        }
    }

    /// What nobody has goes to whoever has least.
    fn place(&mut self) {
        for (topic, count) in self.counts {
            let taken = self.taken.remove(topic).unwrap_or_default();
            for partition in (0..*count as i32).filter(|partition| !taken.contains(partition)) {
                if let Some(to) = self.lightest(topic) {
                    self.give(to, *topic, partition);
                }
            }
        }
    }

    /// Moves single partitions from those that have more to those that have at least two less.
    fn even_out(&mut self) {
        for _ in 0..PASSES_MAX {
            let mut order: Vec<usize> = (0..self.members.len()).collect();
            order.sort_by_key(|m| std::cmp::Reverse(self.load[*m]));
            let mut moved = false;
            for from in order {
                moved |= self.relieve(from);
            }
            if !moved {
                return;
            }
        }
    }

    fn relieve(&mut self, from: usize) -> bool {
        let mut moved = false;
        let topics: Vec<TopicId> = self.held[from].keys().copied().collect();
        for topic in topics {
            while let Some(to) = self.lightest(&topic).filter(|to| self.load[*to] + 2 <= self.load[from]) {
                let Some(partition) = self.held[from].get_mut(&topic).and_then(BTreeSet::pop_last) else { break };
                self.load[from] -= 1;
                self.give(to, topic, partition);
                moved = true;
            }
        }
        self.held[from].retain(|_, held| !held.is_empty());
        moved
    }

    fn lightest(&self, topic: &TopicId) -> Option<usize> {
        self.readers.get(topic)?.iter().copied().min_by_key(|reader| self.load[*reader])
    }

    fn give(&mut self, to: usize, topic: TopicId, partition: i32) {
        self.held[to].entry(topic).or_default().insert(partition);
        self.load[to] += 1;
    }
}
