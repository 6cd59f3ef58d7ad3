use std::collections::BTreeMap;

use esker_types::ErrorCode;
use prost::Message;

use super::api::{Commit, CommitOffset, Fetched};
use super::out::{Cx, Out};
use super::record::{Key, OffsetValue, WRITTEN};

/// What a group has committed.
#[derive(Debug, Default)]
pub struct Offsets {
    topics: BTreeMap<String, BTreeMap<i32, OffsetValue>>,
    /// Encoded size, keys included.
    pub bytes: usize,
}

/// Room that a key takes beside its texts.
const KEY_OVERHEAD: usize = 24;
/// A snapshot's records go to the log in pieces of about this size.
pub const PIECE: usize = 256 << 10;

impl Offsets {
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub fn commit(&mut self, cx: &mut Cx<'_>, group: &str, r: &Commit) -> Vec<Result<(), ErrorCode>> {
        let expires_ms = r.retention.map(|keep| cx.wall.saturating_add(millis(keep)));
        r.offsets.iter().map(|at| self.commit_one(cx, group, at, expires_ms)).collect()
    }

    fn commit_one(
        &mut self,
        cx: &mut Cx<'_>,
        group: &str,
        at: &CommitOffset,
        expires_ms: Option<i64>,
    ) -> Result<(), ErrorCode> {
        if at.metadata.len() > cx.config.offset_metadata_bytes_max {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        let (_, count) = cx.topics.topic(&at.topic).ok_or(ErrorCode::UnknownPartition)?;
        if u32::try_from(at.partition).map_or(true, |partition| partition >= count) {
            return Err(ErrorCode::UnknownPartition);
        }
        let value = OffsetValue {
            version: WRITTEN,
            offset: at.offset,
            leader_epoch: at.leader_epoch,
            metadata: at.metadata.clone(),
            committed_ms: cx.wall,
            expires_ms,
        };
        let key = key(group, &at.topic, at.partition);
        cx.out.put(&key, Some(&value));
        self.set(group, &at.topic, at.partition, Some(value));
        Ok(())
    }

    /// Takes over a value from the log.
    pub fn set(&mut self, group: &str, topic: &str, partition: i32, value: Option<OffsetValue>) {
        let size = |value: &OffsetValue| KEY_OVERHEAD + group.len() + topic.len() + value.encoded_len();
        let added = value.as_ref().map_or(0, size);
        let partitions = self.topics.entry(topic.to_owned()).or_default();
        let before = match value {
            Some(value) => partitions.insert(partition, value),
            None => partitions.remove(&partition),
        };
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
        self.bytes = self.bytes + added - before.as_ref().map_or(0, size);
    }

    /// Offsets as asked for, -1 where there is none; None: all.
    pub fn fetch(&self, partitions: Option<&[(String, i32)]>) -> Vec<Fetched> {
        let fetched = |topic: &str, partition: i32, value: Option<&OffsetValue>| Fetched {
            topic: topic.to_owned(),
            partition,
            offset: value.map_or(-1, |value| value.offset),
            leader_epoch: value.map_or(-1, |value| value.leader_epoch),
            metadata: value.map(|value| value.metadata.clone()).unwrap_or_default(),
        };
        match partitions {
            Some(wanted) => wanted
                .iter()
                .map(|(topic, partition)| {
                    fetched(topic, *partition, self.topics.get(topic).and_then(|topic| topic.get(partition)))
                })
                .collect(),
            None => self.each().map(|(topic, partition, value)| fetched(topic, partition, Some(value))).collect(),
        }
    }

    pub fn each(&self) -> impl Iterator<Item = (&str, i32, &OffsetValue)> {
        self.topics
            .iter()
            .flat_map(|(topic, held)| held.iter().map(|(partition, value)| (topic.as_str(), *partition, value)))
    }

    /// Forgets one; false if there was none.
    pub fn delete(&mut self, out: &mut Out, group: &str, topic: &str, partition: i32) -> bool {
        let known = self.topics.get(topic).is_some_and(|held| held.contains_key(&partition));
        if known {
            out.put::<OffsetValue>(&key(group, topic, partition), None);
            self.set(group, topic, partition, None);
        }
        known
    }

    pub fn store_all(&self, group: &str, out: &mut Out) {
        for (topic, partition, value) in self.each() {
            out.put(&key(group, topic, partition), Some(value));
            out.split(PIECE);
        }
    }
}

fn key(group: &str, topic: &str, partition: i32) -> Key {
    Key::Offset { group: group.to_owned(), topic: topic.to_owned(), partition }
}

fn millis(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
