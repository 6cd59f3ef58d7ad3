use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use esker_types::{Time, TopicId};

use super::super::api::{Identity, Partitions};
use super::super::record::{MemberValue, PartitionsValue, WRITTEN};

/// Partitions by topic; no topic has an empty set.
pub type Assignment = BTreeMap<TopicId, BTreeSet<i32>>;

#[derive(Debug)]
pub struct Member {
    pub id: String,
    pub instance: Option<String>,
    pub rack: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Names, sorted, each once.
    pub topics: Vec<String>,
    /// Empty: none.
    pub regex: String,
    pub assignor: Option<String>,
    pub rebalance: Duration,
    pub epoch: i32,
    /// The answer that raised the epoch may have been lost.
    pub previous_epoch: i32,
    pub target: Assignment,
    pub assigned: Assignment,
    /// Taken away, and not yet given back.
    pub revoking: Assignment,
    /// When the session ends.
    pub deadline: Time,
    /// When it must have given back what it is to.
    pub revoke_by: Option<Time>,
    /// Encoded size when last stored.
    pub bytes: usize,
}

impl Member {
    pub fn new(id: &str, instance: Option<String>) -> Self {
        Self {
            id: id.to_owned(),
            instance,
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            topics: Vec::new(),
            regex: String::new(),
            assignor: None,
            rebalance: Duration::ZERO,
            epoch: 0,
            previous_epoch: 0,
            target: Assignment::new(),
            assigned: Assignment::new(),
            revoking: Assignment::new(),
            deadline: Time::ZERO,
            revoke_by: None,
            bytes: 0,
        }
    }

    pub fn who(&self) -> Identity {
        Identity { member: self.id.clone(), instance: self.instance.clone() }
    }

    pub fn is_stable(&self, target_epoch: i32) -> bool {
        self.epoch == target_epoch && self.revoking.is_empty() && self.assigned == self.target
    }

    pub fn value(&self) -> MemberValue {
        MemberValue {
            version: WRITTEN,
            instance: self.instance.clone(),
            rack: self.rack.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            topics: self.topics.clone(),
            regex: self.regex.clone(),
            assignor: self.assignor.clone(),
            rebalance_ms: u64::try_from(self.rebalance.as_millis()).unwrap_or(u64::MAX),
            epoch: self.epoch,
            previous_epoch: self.previous_epoch,
            target: stored(&self.target),
            assigned: stored(&self.assigned),
            revoking: stored(&self.revoking),
        }
    }

    pub fn load(id: &str, value: MemberValue) -> Self {
        Self {
            id: id.to_owned(),
            instance: value.instance,
            rack: value.rack,
            client_id: value.client_id,
            client_host: value.client_host,
            topics: value.topics,
            regex: value.regex,
            assignor: value.assignor,
            rebalance: Duration::from_millis(value.rebalance_ms),
            epoch: value.epoch,
            previous_epoch: value.previous_epoch,
            target: loaded(value.target),
            assigned: loaded(value.assigned),
            revoking: loaded(value.revoking),
            deadline: Time::ZERO,
            revoke_by: None,
            bytes: 0,
        }
    }
}

fn stored(assignment: &Assignment) -> Vec<PartitionsValue> {
    assignment
        .iter()
        .map(|(topic, held)| PartitionsValue { topic: topic.0.to_vec(), partitions: held.iter().copied().collect() })
        .collect()
}

fn loaded(stored: Vec<PartitionsValue>) -> Assignment {
    stored
        .into_iter()
        .filter_map(|held| Some((TopicId::from_slice(&held.topic)?, held.partitions.into_iter().collect())))
        .collect()
}

/// From the wire; repetitions fall together.
pub fn assignment(partitions: &Partitions) -> Assignment {
    partitions.iter().filter(|(_, p)| !p.is_empty()).map(|(t, p)| (*t, p.iter().copied().collect())).collect()
}

pub fn partitions(assignment: &Assignment) -> Partitions {
    assignment.iter().map(|(topic, held)| (*topic, held.iter().copied().collect())).collect()
}

/// What is in both.
pub fn common(a: &Assignment, b: &Assignment) -> Assignment {
    combine(a, b, |p, other| other.is_some_and(|other| other.contains(&p)))
}

/// What is in `a` but not in `b`.
pub fn without(a: &Assignment, b: &Assignment) -> Assignment {
    combine(a, b, |p, other| other.is_none_or(|other| !other.contains(&p)))
}

fn combine(a: &Assignment, b: &Assignment, keep: impl Fn(i32, Option<&BTreeSet<i32>>) -> bool) -> Assignment {
    a.iter()
        .map(|(topic, held)| (*topic, held.iter().copied().filter(|p| keep(*p, b.get(topic))).collect::<BTreeSet<_>>()))
        .filter(|(_, held)| !held.is_empty())
        .collect()
}
