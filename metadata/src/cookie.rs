//! Who a data directory belongs to: born with it, lost with it.
//!
//! The node's id is random and lives here, so a node whose disk was wiped or replaced comes back as a stranger: the
//! others refuse to speak raft with it under the old place, and it must be added anew. It can't vote twice.

use esker_types::ClusterId;
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::StartError;
use crate::raft::NodeId;

/// As stored beside the log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CookieRecord {
    #[prost(fixed64, tag = "1")]
    pub node: u64,
    /// Name at the birth of the directory, for people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Empty until the cluster is known.
    #[prost(bytes = "vec", tag = "3")]
    pub cluster: Vec<u8>,
}

impl CookieRecord {
    /// A cookie for an empty directory.
    pub fn born(name: &str) -> Result<Self, StartError> {
        let mut bytes = [0; 8];
        SystemRandom::new().fill(&mut bytes).map_err(|_| StartError::NoRandomness)?;
        // Zero is nobody; the top bit stays free for tools that print signed numbers.
        let node = (NodeId::from_le_bytes(bytes) >> 1).max(1);
        Ok(Self { node, name: name.to_owned(), cluster: Vec::new() })
    }

    pub fn cluster_id(&self) -> Option<ClusterId> {
        ClusterId::from_slice(&self.cluster)
    }
}

/// 16 random bytes, for the ids that a cluster's birth needs.
pub fn random_uuid() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok().map(|()| bytes)
}
