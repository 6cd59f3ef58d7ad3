//! The first frame on every connection: who speaks, and which versions it knows.

use crate::ids::{BootId, ClusterId};

/// What a process is. Certificates carry the same word: `esker://CLUSTER/ROLE/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Role {
    Client = 0,
    Gateway = 1,
    Bookie = 2,
    Metadata = 3,
    Admin = 4,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Client => "client",
            Role::Gateway => "gateway",
            Role::Bookie => "bookie",
            Role::Metadata => "metadata",
            Role::Admin => "admin",
        }
    }
}

/// Lowest and highest protocol version this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
pub const PROTOCOL_MAX: u32 = 1;

/// Sent by both sides, the dialer first. Each side then uses the highest version that both know.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub version_min: u32,
    #[prost(uint32, tag = "2")]
    pub version_max: u32,
    #[prost(enumeration = "Role", tag = "3")]
    pub role: i32,
    /// 16 bytes; empty = does not know its cluster yet (a client, or a node before its first registration).
    #[prost(bytes = "vec", tag = "4")]
    pub cluster: Vec<u8>,
    /// The configured node name, for logs.
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(bytes = "vec", tag = "6")]
    pub boot: Vec<u8>,
    /// Program version, for logs.
    #[prost(string, tag = "7")]
    pub build: String,
}

impl Hello {
    pub fn new(role: Role, cluster: Option<ClusterId>, name: &str, boot: BootId) -> Self {
        Self {
            version_min: PROTOCOL_MIN,
            version_max: PROTOCOL_MAX,
            role: role as i32,
            cluster: cluster.map(|id| id.0.to_vec()).unwrap_or_default(),
            name: name.to_owned(),
            boot: boot.0.to_vec(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The version to use with a peer, if there is one.
    pub fn agreed_version(&self, peer: &Hello) -> Option<u32> {
        let version = self.version_max.min(peer.version_max);
        (version >= self.version_min.max(peer.version_min)).then_some(version)
    }

    /// None: the peer does not know its cluster yet.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        ClusterId::from_slice(&self.cluster)
    }

    pub fn boot_id(&self) -> Option<BootId> {
        BootId::from_slice(&self.boot)
    }
}
