//! What voters say to each other, and the receiving side of it.
//!
//! Every request names the node that it is for. A node that was wiped has another id and refuses, so it can't take
//! part under the place of the one that it replaced.

use std::io::SeekFrom;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use esker_types::checksum::crc32c;
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Frame, opcode};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::storage::Snapshot;
use prost::Message;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::codec::{EntryRecord, LogIdRecord, VoteRecord};
use super::contact::{Contact, Heard};
use super::log_store::LogStore;
use super::machine::{Checkpoint, Machine};
use super::{Entry, LogId, NodeId, Raft, TypeConfig, Vote};

#[derive(Clone, PartialEq, Message)]
pub struct VoteAsk {
    #[prost(fixed64, tag = "1")]
    pub to: u64,
    #[prost(message, required, tag = "2")]
    pub vote: VoteRecord,
    #[prost(message, optional, tag = "3")]
    pub last: Option<LogIdRecord>,
    /// Only asks what the answer would be.
    #[prost(bool, tag = "4")]
    pub trial: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct VoteAnswer {
    #[prost(message, required, tag = "1")]
    pub vote: VoteRecord,
    #[prost(bool, tag = "2")]
    pub granted: bool,
    #[prost(message, optional, tag = "3")]
    pub last: Option<LogIdRecord>,
}

/// Payload: the entries as protobuf, one behind the other.
#[derive(Clone, PartialEq, Message)]
pub struct AppendAsk {
    #[prost(fixed64, tag = "1")]
    pub to: u64,
    #[prost(message, required, tag = "2")]
    pub vote: VoteRecord,
    #[prost(message, optional, tag = "3")]
    pub prev: Option<LogIdRecord>,
    #[prost(message, optional, tag = "4")]
    pub committed: Option<LogIdRecord>,
    #[prost(uint32, repeated, tag = "5")]
    pub lens: Vec<u32>,
    #[prost(fixed32, tag = "6")]
    pub payload_crc: u32,
    #[prost(message, optional, tag = "7")]
    pub checkpoint: Option<CheckpointRecord>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct CheckpointRecord {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(fixed64, tag = "2")]
    pub hash: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum AppendVerdict {
    Success = 0,
    Partial = 1,
    Conflict = 2,
    HigherVote = 3,
}

#[derive(Clone, PartialEq, Message)]
pub struct AppendAnswer {
    #[prost(enumeration = "AppendVerdict", tag = "1")]
    pub verdict: i32,
    /// With `Partial`: the last entry that fits.
    #[prost(message, optional, tag = "2")]
    pub matching: Option<LogIdRecord>,
    #[prost(message, optional, tag = "3")]
    pub vote: Option<VoteRecord>,
    #[prost(message, optional, tag = "4")]
    pub checkpoint: Option<CheckpointRecord>,
}

/// Payload: bytes of a snapshot file from `offset` on.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotAsk {
    #[prost(fixed64, tag = "1")]
    pub to: u64,
    #[prost(message, required, tag = "2")]
    pub vote: VoteRecord,
    #[prost(uint64, tag = "3")]
    pub total: u64,
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    #[prost(fixed32, tag = "5")]
    pub payload_crc: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct SnapshotAnswer {
    #[prost(message, required, tag = "1")]
    pub vote: VoteRecord,
}

impl From<Checkpoint> for CheckpointRecord {
    fn from(point: Checkpoint) -> Self {
        Self { index: point.index, hash: point.hash }
    }
}

impl From<CheckpointRecord> for Checkpoint {
    fn from(point: CheckpointRecord) -> Self {
        Self { index: point.index, hash: point.hash }
    }
}

/// The receiving side.
pub struct RaftDoor {
    pub me: NodeId,
    pub raft: Raft,
    pub log: LogStore,
    pub machine: Machine,
    pub contact: Arc<Contact>,
    pub lease: Duration,
    /// One snapshot is received at a time.
    pub incoming: tokio::sync::Mutex<Option<Incoming>>,
}

/// A snapshot that is coming in.
pub struct Incoming {
    vote: Vote,
    total: u64,
    offset: u64,
    file: tokio::fs::File,
}

type Handled = Result<Frame, ErrorInfo>;

impl RaftDoor {
    /// Handles a frame of a voter; other opcodes are not for this door.
    pub async fn handle(&self, frame: &Frame, from: &str) -> Handled {
        match frame.opcode {
            opcode::metadata::RAFT_VOTE => self.vote(frame).await,
            opcode::metadata::RAFT_APPEND => self.append(frame, from).await,
            _ => self.snapshot(frame).await,
        }
    }

    fn check(&self, to: NodeId) -> Result<(), ErrorInfo> {
        if to == self.me {
            return Ok(());
        }
        let text = format!("this node is {:x}, not {to:x}: its data directory was wiped or replaced", self.me);
        Err(ErrorInfo::new(ErrorCode::WrongInstance, text))
    }

    async fn vote(&self, frame: &Frame) -> Handled {
        let ask: VoteAsk = frame.decode_control().map_err(|error| bad(&error))?;
        self.check(ask.to)?;
        let last = ask.last.map(LogId::from);
        if ask.trial {
            let ours = self.log.last();
            let granted = !self.leads() && !self.contact.leader_lives(self.lease) && last >= ours;
            return Ok(frame.answer(&VoteAnswer { vote: ask.vote, granted, last: ours.map(Into::into) }));
        }
        let request = VoteRequest { vote: ask.vote.into(), last_log_id: last };
        let answer = self.raft.vote(request).await.map_err(|error| failed(&error))?;
        if answer.vote_granted {
            self.contact.heard(Heard::Candidate);
        }
        let (vote, last) = (answer.vote.into(), answer.last_log_id.map(Into::into));
        Ok(frame.answer(&VoteAnswer { vote, granted: answer.vote_granted, last }))
    }

    async fn append(&self, frame: &Frame, from: &str) -> Handled {
        let ask: AppendAsk = frame.decode_control().map_err(|error| bad(&error))?;
        self.check(ask.to)?;
        let entries = unpack_entries(&ask, frame.payload_bytes())?;
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: ask.vote.into(),
            prev_log_id: ask.prev.map(Into::into),
            entries,
            leader_commit: ask.committed.map(Into::into),
        };
        let answer = self.raft.append_entries(request).await.map_err(|error| failed(&error))?;
        if let Some(theirs) = ask.checkpoint {
            self.machine.applied().compare(theirs.into(), from);
        }
        let checkpoint = self.machine.applied().checkpoint().map(Into::into);
        let mut out = AppendAnswer { checkpoint, ..AppendAnswer::default() };
        match answer {
            AppendEntriesResponse::Success => out.set_verdict(AppendVerdict::Success),
            AppendEntriesResponse::PartialSuccess(matching) => {
                out.set_verdict(AppendVerdict::Partial);
                out.matching = matching.map(Into::into);
            }
            AppendEntriesResponse::Conflict => out.set_verdict(AppendVerdict::Conflict),
            AppendEntriesResponse::HigherVote(vote) => {
                out.set_verdict(AppendVerdict::HigherVote);
                out.vote = Some(vote.into());
            }
        }
        if out.verdict() != AppendVerdict::HigherVote {
            self.contact.heard(Heard::Leader);
        }
        Ok(frame.answer(&out))
    }

    async fn snapshot(&self, frame: &Frame) -> Handled {
        let ask: SnapshotAsk = frame.decode_control().map_err(|error| bad(&error))?;
        self.check(ask.to)?;
        let piece = frame.payload_bytes();
        if crc32c(&piece) != ask.payload_crc {
            return Err(ErrorInfo::new(ErrorCode::InvalidRequest, "a piece of the snapshot does not verify"));
        }
        let vote = Vote::from(ask.vote);
        let ours = self.raft.metrics().borrow().vote;
        if vote < ours {
            return Ok(frame.answer(&SnapshotAnswer { vote: ours.into() }));
        }
        self.contact.heard(Heard::Leader);
        let mut incoming = self.incoming.lock().await;
        let file_error =
            |error: std::io::Error| ErrorInfo::new(ErrorCode::Internal, format!("can't store the snapshot: {error}"));
        if ask.offset == 0 {
            let file = tokio::fs::File::create(self.machine.dir().incoming().path).await.map_err(file_error)?;
            *incoming = Some(Incoming { vote, total: ask.total, offset: 0, file });
        }
        let fits = |held: &Incoming| held.vote == vote && held.total == ask.total && held.offset == ask.offset;
        let Some(held) = incoming.as_mut().filter(|held| fits(held)) else {
            return Err(ErrorInfo::new(ErrorCode::InvalidRequest, "this piece does not follow: start again"));
        };
        held.file.seek(SeekFrom::Start(ask.offset)).await.map_err(file_error)?;
        held.file.write_all(&piece).await.map_err(file_error)?;
        held.offset += piece.len() as u64;
        if held.offset < held.total {
            return Ok(frame.answer(&SnapshotAnswer { vote: vote.into() }));
        }
        held.file.sync_all().await.map_err(file_error)?;
        *incoming = None;
        self.install(frame, vote).await
    }

    /// The lock on `incoming` is held by the caller, so the file does not change under us.
    async fn install(&self, frame: &Frame, vote: Vote) -> Handled {
        let file = self.machine.dir().incoming();
        let checked = file.clone();
        let read = tokio::task::spawn_blocking(move || checked.read().map(|(meta, _)| meta)).await;
        let meta = read.map_err(|error| failed(&error))?.map_err(|fault| {
            ErrorInfo::new(ErrorCode::InvalidRequest, format!("the snapshot does not verify: {fault}"))
        })?;
        let snapshot = Snapshot { meta, snapshot: Box::new(file) };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await.map_err(|error| failed(&error))?;
        self.contact.heard(Heard::Leader);
        Ok(frame.answer(&SnapshotAnswer { vote: installed.vote.into() }))
    }

    fn leads(&self) -> bool {
        self.raft.metrics().borrow().state.is_leader()
    }
}

/// Entries as the payload of an append.
pub fn pack_entries(entries: &[Entry]) -> (Vec<u32>, Bytes) {
    let mut lens = Vec::with_capacity(entries.len());
    let mut payload = BytesMut::new();
    for entry in entries {
        let before = payload.len();
        EntryRecord::from(entry).encode(&mut payload).expect("a BytesMut grows");
        lens.push(u32::try_from(payload.len() - before).expect("an entry is far below 4 GiB"));
    }
    (lens, payload.freeze())
}

fn unpack_entries(ask: &AppendAsk, mut payload: Bytes) -> Result<Vec<Entry>, ErrorInfo> {
    if crc32c(&payload) != ask.payload_crc {
        return Err(ErrorInfo::new(ErrorCode::InvalidRequest, "the entries do not verify"));
    }
    let mut entries = Vec::new();
    for len in &ask.lens {
        let len = *len as usize;
        if payload.remaining() < len {
            return Err(ErrorInfo::new(ErrorCode::InvalidRequest, "the entries are cut off"));
        }
        let record = EntryRecord::decode(payload.split_to(len)).map_err(|error| bad(&error))?;
        entries.push(Entry::try_from(record).map_err(|error| bad(&error))?);
    }
    Ok(entries)
}

fn bad(error: &impl std::fmt::Display) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::InvalidRequest, format!("raft message does not parse: {error}"))
}

fn failed(error: &impl std::fmt::Display) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::Internal, format!("raft: {error}"))
}
