//! The tables. Every mutation goes through [`State::put`], so a copy that is fed the same changes is the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use esker_types::{BookieId, GatewayId, InstanceId, Member, PartitionId, SegmentId, SessionId, TopicId, WallMs};

use crate::change::{Change, Delta};
use crate::records::{
    BookieRecord, BookieState, ClosedSegment, ClusterRecord, DeletedPartition, GatewayRecord, GroupRecord,
    IntentRecord, PartitionRecord, SessionRecord, TopicRecord,
};
use crate::wire::{Canon, Wire};

/// The state machine. A clone shares all rows.
#[derive(Clone, Debug, Default)]
pub struct State {
    revision: u64,
    wall: WallMs,
    /// Sum of the hashes of all rows; order does not matter, so it is kept in O(changed).
    sum: u64,
    /// Sum of the canonical lengths of all rows.
    weight: u64,
    cluster: Option<Arc<ClusterRecord>>,
    topics: BTreeMap<TopicId, Arc<TopicRecord>>,
    /// Derived from `topics`.
    names: BTreeMap<String, TopicId>,
    partitions: BTreeMap<PartitionId, Arc<PartitionRecord>>,
    segments: BTreeMap<SegmentId, Arc<ClosedSegment>>,
    gateways: BTreeMap<GatewayId, Arc<GatewayRecord>>,
    bookies: BTreeMap<BookieId, Arc<BookieRecord>>,
    sessions: BTreeMap<SessionId, Arc<SessionRecord>>,
    intents: BTreeMap<(SegmentId, InstanceId), Arc<IntentRecord>>,
    deleted: BTreeMap<PartitionId, Arc<DeletedPartition>>,
    /// Those with settings of their own.
    groups: BTreeMap<String, Arc<GroupRecord>>,
    /// Derived from `deleted`.
    deleted_topics: BTreeSet<TopicId>,
}

/// A delta does not follow this state: fetch a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("delta {found} does not follow revision {have}: take a snapshot and go on from there")]
pub struct GapInDeltas {
    pub have: u64,
    pub found: u64,
}

impl State {
    /// Applied batches so far. 0 = nothing was ever applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The state machine's clock: the largest leader time applied so far.
    pub fn wall(&self) -> WallMs {
        self.wall
    }

    /// Of all rows, whatever their order and however many batches made them.
    pub fn rows_hash(&self) -> u64 {
        self.sum
    }

    /// Bytes that the rows come to in their canonical form: what memory and snapshot grow with.
    pub fn accounted_bytes(&self) -> u64 {
        self.weight
    }

    /// None before `InitCluster`.
    pub fn cluster(&self) -> Option<&Arc<ClusterRecord>> {
        self.cluster.as_ref()
    }

    pub fn topic(&self, id: TopicId) -> Option<&Arc<TopicRecord>> {
        self.topics.get(&id)
    }

    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<TopicRecord>> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// In order of names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicRecord>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// None: the group has no settings of its own.
    pub fn group(&self, name: &str) -> Option<&Arc<GroupRecord>> {
        self.groups.get(name)
    }

    /// Those with settings of their own, in order of names.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Arc<GroupRecord>> {
        self.groups.values()
    }

    pub fn partition(&self, id: PartitionId) -> Option<&Arc<PartitionRecord>> {
        self.partitions.get(&id)
    }

    pub fn partition_of(&self, topic: &str, index: u32) -> Option<&Arc<PartitionRecord>> {
        let id = self.topic_by_name(topic)?.partitions.get(usize::try_from(index).ok()?)?;
        self.partitions.get(id)
    }

    pub fn partitions(&self) -> impl ExactSizeIterator<Item = &Arc<PartitionRecord>> {
        self.partitions.values()
    }

    /// The closed segments of a partition, oldest first.
    pub fn chain(&self, partition: PartitionId) -> impl DoubleEndedIterator<Item = &Arc<ClosedSegment>> {
        self.segments.range(span(partition)).map(|(_, segment)| segment)
    }

    /// A closed segment.
    pub fn segment(&self, id: SegmentId) -> Option<&Arc<ClosedSegment>> {
        self.segments.get(&id)
    }

    pub fn segments(&self) -> impl ExactSizeIterator<Item = &Arc<ClosedSegment>> {
        self.segments.values()
    }

    pub fn gateway(&self, id: GatewayId) -> Option<&Arc<GatewayRecord>> {
        self.gateways.get(&id)
    }

    pub fn gateway_by_name(&self, name: &str) -> Option<&Arc<GatewayRecord>> {
        self.gateways.values().find(|gateway| gateway.name == name)
    }

    pub fn gateways(&self) -> impl ExactSizeIterator<Item = &Arc<GatewayRecord>> {
        self.gateways.values()
    }

    pub fn bookie(&self, id: BookieId) -> Option<&Arc<BookieRecord>> {
        self.bookies.get(&id)
    }

    pub fn bookie_by_name(&self, name: &str) -> Option<&Arc<BookieRecord>> {
        self.bookies.values().find(|bookie| bookie.name == name)
    }

    pub fn bookies(&self) -> impl ExactSizeIterator<Item = &Arc<BookieRecord>> {
        self.bookies.values()
    }

    pub fn session(&self, id: SessionId) -> Option<&Arc<SessionRecord>> {
        self.sessions.get(&id)
    }

    pub fn sessions(&self) -> impl ExactSizeIterator<Item = &Arc<SessionRecord>> {
        self.sessions.values()
    }

    pub fn intents(&self) -> impl ExactSizeIterator<Item = &Arc<IntentRecord>> {
        self.intents.values()
    }

    /// The intent for this copy, if it has not run out.
    pub fn live_intent(&self, segment: SegmentId, instance: InstanceId) -> Option<&Arc<IntentRecord>> {
        self.intents.get(&(segment, instance)).filter(|intent| intent.expires > self.wall)
    }

    pub(crate) fn intents_of(&self, partition: PartitionId) -> impl Iterator<Item = &Arc<IntentRecord>> {
        let (first, last) = span(partition).into_inner();
        let range = (first, InstanceId::NIL)..=(last, InstanceId([0xff; 16]));
        self.intents.range(range).map(|(_, intent)| intent)
    }

    pub fn deleted(&self, partition: PartitionId) -> Option<&Arc<DeletedPartition>> {
        self.deleted.get(&partition)
    }

    pub fn deleted_partitions(&self) -> impl ExactSizeIterator<Item = &Arc<DeletedPartition>> {
        self.deleted.values()
    }

    /// True for ever once a topic is deleted: its id must not come back.
    pub fn topic_was_deleted(&self, id: TopicId) -> bool {
        self.deleted_topics.contains(&id)
    }

    /// True while the partition's owner has a session. Without: it waits for an `Assign`.
    pub fn has_live_owner(&self, partition: &PartitionRecord) -> bool {
        partition.owner.as_ref().is_some_and(|owner| self.sessions.contains_key(&owner.session))
    }

    /// Bookies whose data can be counted on: every state but LOST.
    pub fn registered_bookies(&self) -> usize {
        self.bookies.values().filter(|bookie| bookie.state != BookieState::Lost).count()
    }

    /// The bookie that a member names, if the name still stands for the same data.
    pub fn member(&self, member: Member) -> Option<&Arc<BookieRecord>> {
        let bookie = self.bookies.get(&member.bookie)?;
        (bookie.instance == member.instance && bookie.state != BookieState::Lost).then_some(bookie)
    }

    /// Equal on all voters that applied the same commands.
    pub fn state_hash(&self) -> u64 {
        let mut canon = Canon::default();
        for word in [self.sum, self.revision, self.wall.0 as u64] {
            canon.word(word);
        }
        canon.finish()
    }

    /// A copy made of all rows of another state.
    pub fn from_rows(revision: u64, wall: WallMs, rows: impl IntoIterator<Item = Change>) -> Self {
        let mut state = Self::default();
        rows.into_iter().for_each(|row| state.put(&row));
        state.advance(revision, wall);
        state
    }

    /// Brings a copy one step on.
    pub fn replay(&mut self, delta: &Delta) -> Result<(), GapInDeltas> {
        if delta.revision != self.revision + 1 {
            return Err(GapInDeltas { have: self.revision, found: delta.revision });
        }
        delta.changes.iter().for_each(|change| self.put(change));
        self.advance(delta.revision, delta.wall);
        Ok(())
    }

    /// Every row as a change. Cluster first, otherwise in the order of keys.
    pub fn rows(&self) -> impl Iterator<Item = Change> {
        let cluster = self.cluster.iter().cloned().map(Change::Cluster);
        let topics = self.topics.values().cloned().map(Change::Topic);
        let partitions = self.partitions.values().cloned().map(Change::Partition);
        let segments = self.segments.values().cloned().map(Change::Segment);
        let gateways = self.gateways.values().cloned().map(Change::Gateway);
        let bookies = self.bookies.values().cloned().map(Change::Bookie);
        let sessions = self.sessions.values().cloned().map(Change::Session);
        let intents = self.intents.values().cloned().map(Change::Intent);
        let deleted = self.deleted.values().cloned().map(Change::Deleted);
        let groups = self.groups.values().cloned().map(Change::Group);
        cluster
            .chain(topics)
            .chain(partitions)
            .chain(segments)
            .chain(gateways)
            .chain(bookies)
            .chain(sessions)
            .chain(intents)
            .chain(deleted)
            .chain(groups)
    }

    /// Moves revision and clock. The clock never falls.
    pub(crate) fn advance(&mut self, revision: u64, wall: WallMs) {
        self.revision = revision;
        self.wall = self.wall.max(wall);
    }

    pub(crate) fn put(&mut self, change: &Change) {
        let sum = &mut (&mut self.sum, &mut self.weight);
        match change {
            Change::Cluster(row) => {
                let old = self.cluster.replace(row.clone());
                swap(sum, 1, old.as_ref(), Some(row));
            }
            Change::Topic(row) => {
                if let Some(old) = put_row(sum, 2, &mut self.topics, row.id, row) {
                    self.names.remove(&old.name);
                }
                self.names.insert(row.name.clone(), row.id);
            }
            Change::TopicGone(key) => {
                if let Some(old) = drop_row(sum, 2, &mut self.topics, &key.id) {
                    self.names.remove(&old.name);
                }
            }
            Change::Partition(row) => drop(put_row(sum, 3, &mut self.partitions, row.id, row)),
            Change::PartitionGone(key) => drop(drop_row(sum, 3, &mut self.partitions, &key.id)),
            Change::Segment(row) => drop(put_row(sum, 4, &mut self.segments, row.segment, row)),
            Change::SegmentGone(key) => drop(drop_row(sum, 4, &mut self.segments, &key.id)),
            Change::Gateway(row) => drop(put_row(sum, 5, &mut self.gateways, row.id, row)),
            Change::GatewayGone(key) => drop(drop_row(sum, 5, &mut self.gateways, &key.id)),
            Change::Bookie(row) => drop(put_row(sum, 6, &mut self.bookies, row.id, row)),
            Change::BookieGone(key) => drop(drop_row(sum, 6, &mut self.bookies, &key.id)),
            Change::Session(row) => drop(put_row(sum, 7, &mut self.sessions, row.id, row)),
            Change::SessionGone(key) => drop(drop_row(sum, 7, &mut self.sessions, &key.id)),
            Change::Intent(row) => {
                drop(put_row(sum, 8, &mut self.intents, (row.segment, row.member.instance), row));
            }
            Change::IntentGone(key) => drop(drop_row(sum, 8, &mut self.intents, &(key.segment, key.instance))),
            Change::Deleted(row) => {
                drop(put_row(sum, 9, &mut self.deleted, row.id, row));
                self.deleted_topics.insert(row.topic);
            }
            Change::Group(row) => drop(put_row(sum, 10, &mut self.groups, row.name.clone(), row)),
            Change::GroupGone(key) => drop(drop_row(sum, 10, &mut self.groups, &key.name)),
        }
    }
}

fn span(partition: PartitionId) -> RangeInclusive<SegmentId> {
    SegmentId { partition, n: 0 }..=SegmentId { partition, n: u64::MAX }
}

fn put_row<K: Ord, T: Wire>(
    sum: &mut Sums<'_>,
    table: u64,
    rows: &mut BTreeMap<K, Arc<T>>,
    key: K,
    row: &Arc<T>,
) -> Option<Arc<T>> {
    let old = rows.insert(key, row.clone());
    swap(sum, table, old.as_ref(), Some(row));
    old
}

fn drop_row<K: Ord, T: Wire>(
    sum: &mut Sums<'_>,
    table: u64,
    rows: &mut BTreeMap<K, Arc<T>>,
    key: &K,
) -> Option<Arc<T>> {
    let old = rows.remove(key);
    swap(sum, table, old.as_ref(), None);
    old
}

/// Hashes and lengths of all rows.
type Sums<'a> = (&'a mut u64, &'a mut u64);

/// Takes the old row out of the sums and puts the new one in.
fn swap<T: Wire>(sums: &mut Sums<'_>, table: u64, old: Option<&Arc<T>>, new: Option<&Arc<T>>) {
    let measure = |row: Option<&Arc<T>>| {
        let Some(row) = row else { return (0, 0) };
        let mut canon = Canon::default();
        canon.word(table);
        row.digest(&mut canon);
        (canon.finish(), canon.len() as u64)
    };
    let ((old_hash, old_len), (new_hash, new_len)) = (measure(old), measure(new));
    *sums.0 = sums.0.wrapping_sub(old_hash).wrapping_add(new_hash);
    *sums.1 = sums.1.wrapping_sub(old_len).wrapping_add(new_len);
}
