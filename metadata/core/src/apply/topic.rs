//! Topics: create, alter, grow, delete.

use std::sync::Arc;

use esker_types::{ErrorCode, PartitionId, Quorum, TopicId};

use super::{PARTITIONS_PER_TOPIC_MAX, TOPIC_NAME_MAX, Tx};
use crate::change::{IntentKey, PartitionKey, SegmentKey, TopicKey};
use crate::command::{AddPartitions, AlterTopic, CreateTopic, DeleteTopic};
use crate::records::{ClusterRecord, DeletedPartition, PartitionRecord, TopicRecord, TopicSettings};
use crate::reply::{CommandResult, Reject, Reply, TopicReply};
use crate::settings;

impl Tx<'_> {
    pub(super) fn create_topic(&mut self, c: &CreateTopic) -> CommandResult {
        check_name(&c.name, c.internal)?;
        if c.id.is_nil() {
            return Err(Reject::new(ErrorCode::InvalidRequest, "a topic needs an id"));
        }
        if let Some(topic) = self.state.topic_by_name(&c.name) {
            // The same creation proposed again after an unknown outcome.
            if topic.id == c.id {
                return Ok(reply(topic));
            }
            return Err(Reject::new(ErrorCode::TopicExists, format!("topic {:?} exists", c.name)));
        }
        if self.state.topic_was_deleted(c.id) {
            return Err(Reject::new(ErrorCode::TopicDeleted, format!("topic {} was deleted", c.id)));
        }
        if self.state.topic(c.id).is_some() {
            return Err(Reject::new(ErrorCode::InvalidRequest, format!("topic id {} has another name", c.id)));
        }
        let cluster = self.cluster();
        let count = if c.partitions == 0 { cluster.default_partitions } else { c.partitions };
        check_count(count)?;
        let settings = starting_settings(c, &cluster)?;
        self.check_bookies(settings.quorum)?;
        if c.validate_only {
            return Ok(Reply::Topic(TopicReply { topic: c.id, partitions: Vec::new() }));
        }
        let partitions = self.make_partitions(c.id, 0, count)?;
        let topic = TopicRecord { id: c.id, name: c.name.clone(), partitions, settings, internal: c.internal };
        let answer = reply(&topic);
        self.put(Arc::new(topic));
        Ok(answer)
    }

    pub(super) fn alter_topic(&mut self, c: &AlterTopic) -> CommandResult {
        let mut topic = self.topic(c.topic)?;
        let settings = topic.settings.with(&c.settings, self.cluster().quorum)?;
        let only_quorum = TopicSettings { quorum: settings.quorum, ..topic.settings.clone() };
        if topic.internal && settings != only_quorum {
            let reason = format!("{:?} belongs to the cluster: only its quorums can be changed", topic.name);
            return Err(Reject::new(ErrorCode::InvalidConfig, reason));
        }
        if settings.quorum != topic.settings.quorum {
            self.check_bookies(settings.quorum)?;
        }
        let answer = reply(&topic);
        if !c.validate_only && settings != topic.settings {
            topic.settings = settings;
            self.put(Arc::new(topic));
        }
        Ok(answer)
    }

    pub(super) fn add_partitions(&mut self, c: &AddPartitions) -> CommandResult {
        let mut topic = self.topic(c.topic)?;
        let now = topic.partitions.len() as u32;
        let refuse = |reason| Err(Reject::new(ErrorCode::InvalidPartitions, reason));
        if topic.internal {
            return refuse(format!("the partition count of {:?} is fixed", topic.name));
        }
        if c.total < now {
            return refuse(format!("topic {:?} has {now} partitions; it can't shrink to {}", topic.name, c.total));
        }
        check_count(c.total)?;
        if !c.validate_only && c.total > now {
            topic.partitions.extend(self.make_partitions(topic.id, now, c.total)?);
            self.put(Arc::new(topic.clone()));
        }
        Ok(reply(&topic))
    }

    pub(super) fn delete_topic(&mut self, c: &DeleteTopic) -> CommandResult {
        if self.state.topic_was_deleted(c.topic) {
            return Ok(Reply::DONE);
        }
        let topic = self.topic(c.topic)?;
        if topic.internal {
            return Err(Reject::new(ErrorCode::NotAuthorized, format!("{:?} belongs to the cluster", topic.name)));
        }
        self.put(crate::Change::TopicGone(TopicKey { id: topic.id }));
        for id in topic.partitions {
            self.delete_partition(topic.id, id);
        }
        Ok(Reply::DONE)
    }

    /// From here on bookies may forget the partition, its fences included (I8).
    fn delete_partition(&mut self, topic: TopicId, id: PartitionId) {
        let intents: Vec<IntentKey> = self
            .state
            .intents_of(id)
            .map(|intent| IntentKey { segment: intent.segment, instance: intent.member.instance })
            .collect();
        let segments: Vec<SegmentKey> = self.state.chain(id).map(|s| SegmentKey { id: s.segment }).collect();
        intents.into_iter().for_each(|key| self.put(crate::Change::IntentGone(key)));
        segments.into_iter().for_each(|key| self.put(crate::Change::SegmentGone(key)));
        self.put(crate::Change::PartitionGone(PartitionKey { id }));
        self.put(Arc::new(DeletedPartition { id, topic, deleted: self.state.wall() }));
    }

    fn make_partitions(&mut self, topic: TopicId, from: u32, to: u32) -> Result<Vec<PartitionId>, Reject> {
        let first = self.take_ids(|cluster| &mut cluster.next_partition, u64::from(to - from))?;
        let incarnation = self.cluster().incarnation;
        let mut ids = Vec::new();
        for (id, index) in (first..).zip(from..to) {
            let id = PartitionId(id);
            self.put(Arc::new(PartitionRecord::born(id, topic, index, incarnation)));
            ids.push(id);
        }
        Ok(ids)
    }

    fn topic(&self, id: TopicId) -> Result<TopicRecord, Reject> {
        match self.state.topic(id) {
            Some(topic) => Ok(TopicRecord::clone(topic)),
            None => Err(Reject::new(ErrorCode::UnknownTopicId, format!("there is no topic {id}"))),
        }
    }

    /// More copies than there are bookies can't be made.
    fn check_bookies(&self, quorum: Quorum) -> Result<(), Reject> {
        let bookies = self.state.registered_bookies();
        if usize::from(quorum.write) <= bookies {
            return Ok(());
        }
        let reason = format!("{} copies asked for, {bookies} bookies are registered", quorum.write);
        Err(Reject::new(ErrorCode::InvalidReplicationFactor, reason))
    }
}

fn starting_settings(c: &CreateTopic, cluster: &ClusterRecord) -> Result<TopicSettings, Reject> {
    let quorum = match c.replication {
        None => cluster.quorum,
        Some(n) => {
            let write = u8::try_from(n).ok().filter(|n| (1..=Quorum::WRITE_MAX).contains(n)).ok_or_else(|| {
                let reason = format!("replication factor {n}; 1 to {} work", Quorum::WRITE_MAX);
                Reject::new(ErrorCode::InvalidReplicationFactor, reason)
            })?;
            Quorum { write, ack: settings::ack_for(write, cluster.quorum) }
        }
    };
    let settings = TopicSettings::new(quorum).with(&c.settings, cluster.quorum)?;
    if c.replication.is_some() && settings.quorum.write != quorum.write {
        let reason = format!(
            "replication factor {} and esker.write.quorum {} contradict each other",
            quorum.write, settings.quorum.write
        );
        return Err(Reject::new(ErrorCode::InvalidConfig, reason));
    }
    Ok(settings)
}

fn reply(topic: &TopicRecord) -> Reply {
    Reply::Topic(TopicReply { topic: topic.id, partitions: topic.partitions.clone() })
}

fn check_count(count: u32) -> Result<(), Reject> {
    if (1..=PARTITIONS_PER_TOPIC_MAX).contains(&count) {
        return Ok(());
    }
    let reason = format!("{count} partitions; 1 to {PARTITIONS_PER_TOPIC_MAX} fit");
    Err(Reject::new(ErrorCode::InvalidPartitions, reason))
}

/// Kafka's rule for topic names; `__` at the start is reserved for topics of Esker's own.
fn check_name(name: &str, internal: bool) -> Result<(), Reject> {
    let shown: String = name.chars().take(64).collect();
    let refuse = |why: &str| Err(Reject::new(ErrorCode::InvalidTopicName, format!("topic name {shown:?} {why}")));
    if name.is_empty() || name == "." || name == ".." {
        return refuse("is empty, \".\" or \"..\"");
    }
    if name.len() > TOPIC_NAME_MAX {
        return refuse("is longer than 249 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return refuse("holds something else than letters, digits, '.', '_' and '-'");
    }
    match (name.starts_with("__"), internal) {
        (true, false) => refuse("is reserved: it begins with \"__\""),
        (false, true) => refuse("is not one for an internal topic: it must begin with \"__\""),
        _ => Ok(()),
    }
}
