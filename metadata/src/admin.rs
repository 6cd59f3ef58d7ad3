//! The birth of the cluster, and its members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use esker_metadata_client::admin::{
    self, AddMember, AdminAsk, AdminReply, Born, Identify, Identity, InitCluster, Member, Members, QUORUM_SIZES,
    RemoveMember,
};
use esker_metadata_core::{Command, InitCluster as InitCommand};
use esker_net::{Address, Pool, RpcError};
use esker_types::error::ErrorInfo;
use esker_types::{ClusterId, ErrorCode, Quorum};
use openraft::ChangeMembers;

use crate::cookie::random_uuid;
use crate::leadership::Leadership;
use crate::proposer::Proposer;
use crate::raft::machine::Applied;
use crate::raft::{NodeId, Raft, Voter};

/// To ask another node who it is.
const ASK: Duration = Duration::from_secs(3);
/// The voters of a new cluster are started together: one may open its port a little later than the one that is asked.
const MEETING: Duration = Duration::from_secs(10);
const REDIAL: Duration = Duration::from_millis(100);
/// Until a new quorum has its first leader.
const FIRST_LEADER: Duration = Duration::from_secs(15);
/// Until a new member has all that it missed.
const CATCH_UP: Duration = Duration::from_secs(300);

/// What a cluster is born with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// None: a random one.
    pub cluster: Option<ClusterId>,
    /// Default quorum of topics.
    pub quorum: Quorum,
    pub auto_create_topics: bool,
    pub default_partitions: u32,
}

pub struct Admin {
    pub me: NodeId,
    pub voter: Voter,
    pub raft: Raft,
    pub applied: Arc<Applied>,
    pub leadership: Leadership,
    pub proposer: Proposer,
    pub pool: Pool,
    /// One change of the membership at a time: two at once can leave two sets of voters behind.
    pub changing: tokio::sync::Mutex<()>,
}

type Answer = Result<AdminReply, ErrorInfo>;

impl Admin {
    pub async fn handle(&self, ask: AdminAsk) -> Answer {
        match ask {
            AdminAsk::Identify(_) => Ok(AdminReply::Identity(self.identity().await?)),
            AdminAsk::Members(_) => Ok(AdminReply::Members(self.members())),
            AdminAsk::Init(init) => self.init(init).await,
            AdminAsk::Add(add) => self.add(add).await,
            AdminAsk::Remove(remove) => self.remove(remove).await,
        }
    }

    async fn identity(&self) -> Result<Identity, ErrorInfo> {
        let initialized = self.raft.is_initialized().await.map_err(|error| internal(&error))?;
        Ok(Identity {
            node: self.me,
            name: self.voter.name.clone(),
            address: self.voter.address.clone(),
            blank: !initialized,
            cluster: self.cluster().map(|id| id.0.to_vec()).unwrap_or_default(),
        })
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.applied.read(|state| state.cluster().map(|cluster| cluster.id))
    }

    fn members(&self) -> Members {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let behind = |id: &NodeId| {
            let matching = metrics.replication.as_ref()?.get(id)?.map_or(0, |log_id| log_id.index);
            Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matching))
        };
        let member = |(id, node): (&NodeId, &Voter)| Member {
            node: *id,
            name: node.name.clone(),
            address: node.address.clone(),
            voter: voters.contains(id),
            leader: metrics.current_leader == Some(*id),
            behind: behind(id),
        };
        Members {
            members: membership.nodes().map(member).collect(),
            term: metrics.current_term,
            applied: self.applied.last().map_or(0, |log_id| log_id.index),
            cluster: self.cluster().map(|id| id.0.to_vec()).unwrap_or_default(),
        }
    }

    async fn init(&self, init: InitCluster) -> Answer {
        let _changing = self.changing.lock().await;
        if let Some(cluster) = self.cluster() {
            let text = format!("this node belongs to cluster {cluster} already");
            return Err(ErrorInfo::new(ErrorCode::Precondition, text));
        }
        let initialized = self.raft.is_initialized().await.map_err(|error| internal(&error))?;
        if !initialized {
            let voters = self.meet(&init.voters).await?;
            let started = self.raft.initialize(voters).await;
            started.map_err(|error| ErrorInfo::new(ErrorCode::Precondition, error.to_string()))?;
        }
        if init.restore {
            return Ok(AdminReply::Born(Born { cluster: Vec::new() }));
        }
        // A birth that was interrupted goes on here, on whichever voter leads.
        let birth = birth_of(&init)?;
        let born = tokio::time::timeout(FIRST_LEADER, self.give_birth(birth)).await;
        let cluster = born.map_err(|_| {
            ErrorInfo::new(ErrorCode::TimedOutUnknown, "the voters have not elected a leader in time: ask again")
        })??;
        Ok(AdminReply::Born(Born { cluster: cluster.0.to_vec() }))
    }

    /// Asks the future voters who they are; all must answer and be blank.
    async fn meet(&self, addresses: &[String]) -> Result<BTreeMap<NodeId, Voter>, ErrorInfo> {
        let refuse = |text: String| ErrorInfo::new(ErrorCode::InvalidRequest, text);
        if !QUORUM_SIZES.contains(&addresses.len()) {
            return Err(refuse(format!("a quorum has 1, 3 or 5 voters, not {}", addresses.len())));
        }
        let mut voters = BTreeMap::new();
        for address in addresses {
            let found = self.identify(address, MEETING).await?;
            if !found.blank {
                return Err(refuse(format!("{address} belongs to a quorum already")));
            }
            voters.insert(found.node, Voter { name: found.name, address: address.clone() });
        }
        if voters.len() != addresses.len() {
            return Err(refuse("two of the addresses lead to the same node".to_owned()));
        }
        if !voters.contains_key(&self.me) {
            return Err(refuse("the node that is asked must be one of the voters".to_owned()));
        }
        Ok(voters)
    }

    async fn identify(&self, address: &str, patience: Duration) -> Result<Identity, ErrorInfo> {
        let parsed: Address = address
            .parse()
            .map_err(|error: esker_net::BadAddress| ErrorInfo::new(ErrorCode::InvalidRequest, error.to_string()))?;
        if address == self.voter.address {
            return self.identity().await;
        }
        let until = tokio::time::Instant::now() + patience;
        loop {
            // A pool of its own: the shared one may be backing off after dials to a process that has only now come
            // back, and an operator's question is worth a dial at once.
            let fresh = Pool::new(self.pool.network().clone());
            match admin::ask(&fresh, &parsed, AdminAsk::Identify(Identify {}), ASK).await {
                Ok(AdminReply::Identity(identity)) => return Ok(identity),
                Ok(_) => return Err(ErrorInfo::new(ErrorCode::Internal, format!("{address} answers nonsense"))),
                Err(RpcError::NotSent(_)) if tokio::time::Instant::now() < until => tokio::time::sleep(REDIAL).await,
                Err(error) => return Err(ErrorInfo::new(ErrorCode::UnknownNode, format!("{address}: {error}"))),
            }
        }
    }

    /// Makes the cluster's first record, on the leader; elsewhere waits for it.
    pub async fn give_birth(&self, birth: Birth) -> Result<ClusterId, ErrorInfo> {
        let id = match birth.cluster {
            Some(id) => id,
            None => ClusterId::from_random(random_uuid().ok_or_else(|| internal(&"no random numbers"))?),
        };
        let mut revisions = self.applied.news.revision();
        let mut established = self.leadership.established();
        loop {
            revisions.borrow_and_update();
            if let Some(cluster) = self.cluster() {
                return Ok(cluster);
            }
            if established.borrow_and_update().is_some() {
                let Birth { quorum, auto_create_topics, default_partitions, .. } = birth;
                let command = Command::from(InitCommand { id, quorum, auto_create_topics, default_partitions });
                // Unknown or refused: the state tells, in the next round.
                if let Ok(done) = self.proposer.propose(vec![command]).await
                    && let Some(Err(reject)) = done.results.into_iter().next()
                {
                    return Err(ErrorInfo::new(reject.code, reject.reason));
                }
                continue;
            }
            tokio::select! {
                _ = revisions.changed() => {}
                _ = established.changed() => {}
            }
        }
    }

    async fn add(&self, add: AddMember) -> Answer {
        let _changing = self.changing.lock().await;
        self.must_lead()?;
        let found = self.identify(&add.address, Duration::ZERO).await?;
        let known = self.members();
        if let Some(held) = known.members.iter().find(|m| m.address == add.address && m.node != found.node) {
            let text = format!("{} lost its data and is a new node now: remove {:x} first", held.name, held.node);
            return Err(ErrorInfo::new(ErrorCode::Precondition, text));
        }
        let listed = known.members.iter().find(|member| member.node == found.node);
        if listed.is_some_and(|member| member.voter) {
            return Ok(AdminReply::Members(known));
        }
        if !found.blank && listed.is_none() {
            let text = format!("{} belongs to another quorum: empty its data-dir first", add.address);
            return Err(ErrorInfo::new(ErrorCode::Precondition, text));
        }
        let node = Voter { name: found.name, address: add.address };
        let learning = tokio::time::timeout(CATCH_UP, self.raft.add_learner(found.node, node, true)).await;
        let slow = |_| ErrorInfo::new(ErrorCode::TimedOutUnknown, "the new member does not catch up: ask again");
        learning.map_err(slow)?.map_err(|error| raft_fault(&error))?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([found.node]));
        self.raft.change_membership(change, true).await.map_err(|error| raft_fault(&error))?;
        Ok(AdminReply::Members(self.members()))
    }

    async fn remove(&self, remove: RemoveMember) -> Answer {
        let _changing = self.changing.lock().await;
        self.must_lead()?;
        let known = self.members();
        let named = |member: &&Member| {
            member.name == remove.member
                || member.address == remove.member
                || format!("{:x}", member.node) == remove.member
        };
        let mut found = known.members.iter().filter(named);
        let (member, other) = (found.next(), found.next());
        let Some(member) = member.filter(|_| other.is_none()) else {
            let text = format!("{:?} names no member, or more than one: give its id", remove.member);
            return Err(ErrorInfo::new(ErrorCode::UnknownNode, text));
        };
        let ids = BTreeSet::from([member.node]);
        if member.voter {
            if known.members.iter().filter(|member| member.voter).count() == 1 {
                return Err(ErrorInfo::new(ErrorCode::Precondition, "the last voter can't be removed"));
            }
            // Not kept as a learner: a removed node gets nothing more.
            let change = ChangeMembers::RemoveVoters(ids);
            self.raft.change_membership(change, false).await.map_err(|error| raft_fault(&error))?;
        } else {
            let change = ChangeMembers::RemoveNodes(ids);
            self.raft.change_membership(change, false).await.map_err(|error| raft_fault(&error))?;
        }
        Ok(AdminReply::Members(self.members()))
    }

    fn must_lead(&self) -> Result<(), ErrorInfo> {
        if self.leadership.is_established() { Ok(()) } else { Err(not_leader(&self.leadership)) }
    }
}

/// Refers the caller to the leader, if it is known.
pub fn not_leader(leadership: &Leadership) -> ErrorInfo {
    let leader = leadership.leader_address();
    let text = match &leader {
        Some(address) => format!("this node does not lead the metadata quorum; {address} does"),
        None => "the metadata quorum has no leader at the moment".to_owned(),
    };
    let mut info = ErrorInfo::new(ErrorCode::NotLeader, text);
    let addresses: Vec<String> = leader.into_iter().collect();
    info.owner = Some(esker_types::error::OwnerHint { addresses, ..Default::default() });
    info
}

fn birth_of(init: &InitCluster) -> Result<Birth, ErrorInfo> {
    let quorum = match (init.write_quorum, init.ack_quorum) {
        (0, 0) => Quorum { write: 3, ack: 2 },
        (write, ack) => {
            let narrow = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
            Quorum { write: narrow(write), ack: narrow(ack) }
        }
    };
    if !quorum.is_valid() {
        let text = format!("quorum {}/{} is impossible: 1 <= ack <= write <= 7", init.write_quorum, init.ack_quorum);
        return Err(ErrorInfo::new(ErrorCode::InvalidRequest, text));
    }
    let default_partitions = init.default_partitions.max(1);
    Ok(Birth { cluster: None, quorum, auto_create_topics: init.auto_create_topics, default_partitions })
}

fn internal(error: &impl std::fmt::Display) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::Internal, error.to_string())
}

/// A change of the membership that failed may have been done half: asking again completes it.
fn raft_fault(error: &impl std::fmt::Display) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::TimedOutUnknown, format!("the change may not be complete: {error}; ask again"))
}
