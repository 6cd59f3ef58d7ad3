use esker_types::{BookieId, BootId, GatewayId, InstanceId, Member, SessionId};

crate::codes! {
    /// What may be asked of a bookie.
    pub enum BookieState {
        #[default]
        Live = 0,
        /// Takes no new segments; the operator wants it empty.
        Draining = 1,
        /// Takes no new segments; it said itself that it can't (disk full, poisoned).
        ReadOnly = 2,
        /// The instance is gone for good, with its data.
        Lost = 3,
    }
}

crate::messages! {
    /// Where a gateway is reached, `host:port` each, as others should dial it. Empty: it has no such door.
    pub struct GatewayAddresses {
        1 quic: String = [string],
        2 kafka: String = [string],
        3 http: String = [string],
        4 internal: String = [string],
    }

    /// A broker, by its configured name. Stays when the process is gone, so that its id stays the same.
    pub struct GatewayRecord {
        1 id: GatewayId = [uint64],
        2 name: String = [string],
        /// The run that registered last.
        3 boot: BootId = [bytes = "vec"],
        /// None: no process under this name is known to live.
        4 session: Option<SessionId> = [uint64, optional],
        5 addresses: GatewayAddresses = [message, required],
        6 zone: String = [string],
        /// Gets no partitions.
        7 draining: bool = [bool],
        /// Newest `cluster.version` that the process can handle.
        8 version: u32 = [uint32],
    }

    /// A storage node, by its configured name.
    pub struct BookieRecord {
        1 id: BookieId = [uint64],
        2 name: String = [string],
        /// The data directories that hold this bookie's copies. Another instance is other data (R11).
        3 instance: InstanceId = [bytes = "vec"],
        4 address: String = [string],
        5 zone: String = [string],
        /// Registrations of this instance. A process that finds a higher number than its own was cloned or replaced
        /// and must stop.
        6 boot_no: u64 = [uint64],
        7 boot: BootId = [bytes = "vec"],
        /// Journal position known durable: evidence against a rolled-back disk (R9). Never falls for an instance.
        8 durable_lsn: u64 = [uint64],
        9 state: BookieState = [uint32],
        10 session: Option<SessionId> = [uint64, optional],
        /// Instances that this name had before. All are lost and none may come back.
        11 retired: Vec<InstanceId> = [bytes = "vec", repeated],
        12 version: u32 = [uint32],
        13 disk_total: u64 = [uint64],
        14 disk_used: u64 = [uint64],
    }

    /// One life of a process. Ends by `ExpireSession` only; the id is never used again.
    pub struct SessionRecord {
        1 id: SessionId = [uint64],
        2 node: NodeRef = [message, required],
        3 boot: BootId = [bytes = "vec"],
    }
}

crate::messages! {
    /// `NodeRef` as sent.
    pub struct NodeRefMessage {
        1 gateway: u64 = [uint64],
        2 bookie: u64 = [uint64],
    }
}

/// Who a session belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeRef {
    Gateway(GatewayId),
    Bookie(BookieId),
}

impl crate::wire::Wire for NodeRef {
    type Proto = <NodeRefMessage as crate::wire::Wire>::Proto;

    fn to_wire(&self) -> Self::Proto {
        let (gateway, bookie) = match self {
            Self::Gateway(id) => (id.0, 0),
            Self::Bookie(id) => (0, id.0),
        };
        NodeRefMessage { gateway, bookie }.to_wire()
    }

    fn from_wire(proto: Self::Proto) -> Result<Self, crate::wire::DecodeError> {
        match (proto.gateway, proto.bookie) {
            (0, 0) => Err(crate::wire::DecodeError::Newer("unknown NodeRef")),
            (gateway, 0) => Ok(Self::Gateway(GatewayId(gateway))),
            (0, bookie) => Ok(Self::Bookie(BookieId(bookie))),
            _ => Err(crate::wire::DecodeError::Invalid("session of two nodes")),
        }
    }

    fn digest(&self, into: &mut crate::wire::Canon) {
        match self {
            Self::Gateway(id) => {
                into.word(1);
                into.word(id.0);
            }
            Self::Bookie(id) => {
                into.word(2);
                into.word(id.0);
            }
        }
    }
}

impl BookieRecord {
    pub fn member(&self) -> Member {
        Member { bookie: self.id, instance: self.instance }
    }

    /// May be named in a new segment: registered, not lost, not draining, not full.
    pub fn takes_segments(&self) -> bool {
        self.state == BookieState::Live
    }
}
