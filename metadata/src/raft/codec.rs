//! Raft's own records as bytes, on disk and on the wire. Ours, not openraft's: its types change with its versions.
//!
//! A stored record is `{version u8, crc32c u32, protobuf}`, the CRC over the protobuf. redb verifies its pages only
//! when it repairs them, so every row carries its own check.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use esker_types::checksum::crc32c;
use openraft::{CommittedLeaderId, EntryPayload};
use prost::Message;

use super::{Entry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Vote, Voter};

pub const RECORD_VERSION: u8 = 1;
const RECORD_HEAD: usize = 5;

/// The bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("raft record is damaged: {0}")]
    Damaged(&'static str),
    #[error("raft record has version {0}, newer than this program: upgrade this node")]
    Newer(u8),
    #[error("raft record does not parse: {0}")]
    Parse(#[from] prost::DecodeError),
}

#[derive(Clone, PartialEq, Message)]
pub struct LogIdRecord {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub node: u64,
    #[prost(uint64, tag = "3")]
    pub index: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct VoteRecord {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub node: u64,
    #[prost(bool, tag = "3")]
    pub committed: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct NodeRecord {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub address: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct NodeSet {
    #[prost(uint64, repeated, tag = "1")]
    pub ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct MembershipRecord {
    /// One set of voters, or two while it changes.
    #[prost(message, repeated, tag = "1")]
    pub configs: Vec<NodeSet>,
    /// Voters and learners.
    #[prost(message, repeated, tag = "2")]
    pub nodes: Vec<NodeRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub struct EntryRecord {
    #[prost(message, optional, tag = "1")]
    pub log_id: Option<LogIdRecord>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub commands: Option<Bytes>,
    /// Neither this nor `commands`: a blank entry.
    #[prost(message, optional, tag = "3")]
    pub membership: Option<MembershipRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SnapshotMetaRecord {
    #[prost(message, optional, tag = "1")]
    pub last_log_id: Option<LogIdRecord>,
    #[prost(message, optional, tag = "2")]
    pub membership_log_id: Option<LogIdRecord>,
    #[prost(message, optional, tag = "3")]
    pub membership: Option<MembershipRecord>,
    #[prost(string, tag = "4")]
    pub id: String,
}

impl From<LogId> for LogIdRecord {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(record: LogIdRecord) -> Self {
        LogId::new(CommittedLeaderId::new(record.term, record.node), record.index)
    }
}

impl From<Vote> for VoteRecord {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        match record.committed {
            true => Vote::new_committed(record.term, record.node),
            false => Vote::new(record.term, record.node),
        }
    }
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        let set = |ids: &BTreeSet<u64>| NodeSet { ids: ids.iter().copied().collect() };
        let node =
            |(id, node): (&u64, &Voter)| NodeRecord { id: *id, name: node.name.clone(), address: node.address.clone() };
        Self {
            configs: membership.get_joint_config().iter().map(set).collect(),
            nodes: membership.nodes().map(node).collect(),
        }
    }
}

impl From<MembershipRecord> for Membership {
    fn from(record: MembershipRecord) -> Self {
        let configs: Vec<BTreeSet<u64>> = record.configs.into_iter().map(|set| set.ids.into_iter().collect()).collect();
        let nodes = record.nodes.into_iter().map(|node| (node.id, Voter { name: node.name, address: node.address }));
        Membership::new(configs, nodes.collect::<BTreeMap<_, _>>())
    }
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> Self {
        let mut record = Self { log_id: Some(entry.log_id.into()), ..Self::default() };
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(Payload(commands)) => record.commands = Some(commands.clone()),
            EntryPayload::Membership(membership) => record.membership = Some(membership.into()),
        }
        record
    }
}

impl TryFrom<EntryRecord> for Entry {
    type Error = CodecError;

    fn try_from(record: EntryRecord) -> Result<Self, CodecError> {
        let log_id = record.log_id.ok_or(CodecError::Damaged("entry without an id"))?.into();
        let payload = match (record.commands, record.membership) {
            (None, None) => EntryPayload::Blank,
            (Some(commands), None) => EntryPayload::Normal(Payload(commands)),
            (None, Some(membership)) => EntryPayload::Membership(membership.into()),
            (Some(_), Some(_)) => return Err(CodecError::Damaged("entry of two kinds")),
        };
        Ok(Entry { log_id, payload })
    }
}

impl From<&SnapshotMeta> for SnapshotMetaRecord {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last_log_id: meta.last_log_id.map(Into::into),
            membership_log_id: meta.last_membership.log_id().map(Into::into),
            membership: Some(meta.last_membership.membership().into()),
            id: meta.snapshot_id.clone(),
        }
    }
}

impl From<SnapshotMetaRecord> for SnapshotMeta {
    fn from(record: SnapshotMetaRecord) -> Self {
        let membership = record.membership.map(Into::into).unwrap_or_default();
        Self {
            last_log_id: record.last_log_id.map(Into::into),
            last_membership: StoredMembership::new(record.membership_log_id.map(Into::into), membership),
            snapshot_id: record.id,
        }
    }
}

/// A message as a row on disk.
pub fn seal(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0; RECORD_HEAD];
    out[0] = RECORD_VERSION;
    message.encode(&mut out).expect("a Vec grows");
    let crc = crc32c(&out[RECORD_HEAD..]);
    out[1..RECORD_HEAD].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads a row back.
pub fn open<M: Message + Default>(row: &[u8]) -> Result<M, CodecError> {
    let Some((head, body)) = row.split_first_chunk::<RECORD_HEAD>() else {
        return Err(CodecError::Damaged("too short"));
    };
    if head[0] > RECORD_VERSION {
        return Err(CodecError::Newer(head[0]));
    }
    if head[1..] != crc32c(body).to_le_bytes() {
        return Err(CodecError::Damaged("checksum"));
    }
    Ok(M::decode(Bytes::copy_from_slice(body))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_id(term: u64, node: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, node), index)
    }

    fn membership() -> Membership {
        let voter = |n: u64| (n, Voter { name: format!("m{n}"), address: format!("127.0.0.1:{n}") });
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], BTreeMap::from([1, 2, 3, 4].map(voter)))
    }

    #[test]
    fn entries_votes_and_snapshot_names_round_trip() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Payload(Bytes::from_static(b"commands"))),
            EntryPayload::Normal(Payload(Bytes::new())),
            EntryPayload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = Entry { log_id: log_id(3, 9, 77), payload };
            let row = seal(&EntryRecord::from(&entry));
            let again = Entry::try_from(open::<EntryRecord>(&row).expect("own row")).expect("own entry");
            assert_eq!(again, entry);
        }
        for vote in [Vote::new(4, 2), Vote::new_committed(4, 2)] {
            assert_eq!(Vote::from(VoteRecord::from(vote)), vote);
        }
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(1, 2, 3)),
            last_membership: StoredMembership::new(Some(log_id(1, 2, 1)), membership()),
            snapshot_id: "s".to_owned(),
        };
        assert_eq!(SnapshotMeta::from(SnapshotMetaRecord::from(&meta)), meta);
        let empty = SnapshotMeta::default();
        assert_eq!(SnapshotMeta::from(SnapshotMetaRecord::from(&empty)), empty);
    }

    #[test]
    fn golden_row() {
        let entry = Entry { log_id: log_id(1, 2, 3), payload: EntryPayload::Normal(Payload(Bytes::from_static(b"x"))) };
        let hex: String = seal(&EntryRecord::from(&entry)).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(&hex[..2], "01");
        assert_eq!(&hex[10..], "0a06080110021803120178", "the format is frozen: a change is a new version");
    }

    #[test]
    fn every_flipped_bit_of_a_row_is_seen() {
        let row = seal(&VoteRecord::from(Vote::new(300, 7)));
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = open::<VoteRecord>(&bad);
            // A lower version number is the one flip that the checksum does not cover, and there is none below 1.
            assert!(read.is_err() || bad[0] == 0, "bit {bit}");
        }
    }
}
