//! A small cluster to test on: bookies `b1..`, gateways `g1..`, one topic `t`.

use esker_metadata_core::*;
use esker_types::*;

pub struct World {
    pub state: State,
    pub wall: i64,
}

pub fn uuid(kind: u8, n: u64) -> [u8; 16] {
    let mut bytes = [kind; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub fn boot(n: u64) -> BootId {
    BootId(uuid(0xb0, n))
}

pub fn instance(n: u64) -> InstanceId {
    InstanceId(uuid(0x11, n))
}

pub fn topic_id(n: u64) -> TopicId {
    TopicId(uuid(0x70, n))
}

pub const QUORUM: Quorum = Quorum { write: 3, ack: 2 };

impl World {
    /// Initialised, with nothing in it.
    pub fn empty() -> Self {
        let mut world = Self { state: State::default(), wall: 1_000 };
        world.ok(init(1));
        world
    }

    /// `bookies` bookies, `gateways` gateways and topic `t` with `partitions` partitions nobody owns.
    pub fn new(bookies: u64, gateways: u64, partitions: u32) -> Self {
        let mut world = Self::empty();
        (1..=bookies).for_each(|n| drop(world.ok(bookie(n))));
        (1..=gateways).for_each(|n| drop(world.ok(gateway(n, n))));
        if partitions > 0 {
            world.ok(topic(1, "t", partitions));
        }
        world
    }

    pub fn apply(&mut self, commands: &[Command]) -> Applied {
        let mut copy = self.state.clone();
        let applied = self.state.apply::<AllRules>(self.wall, commands);
        copy.replay(&applied.delta).unwrap();
        assert_eq!(copy.state_hash(), self.state.state_hash(), "a copy that replays the delta is the same state");
        if applied.results.iter().all(Result::is_err) {
            assert!(applied.delta.changes.is_empty(), "a refused command leaves no trace");
        }
        applied
    }

    pub fn run(&mut self, command: impl Into<Command>) -> CommandResult {
        self.apply(&[command.into()]).results.remove(0)
    }

    pub fn ok(&mut self, command: impl Into<Command>) -> Reply {
        let command = command.into();
        self.run(command.clone()).unwrap_or_else(|reject| panic!("{command:?}: {reject}"))
    }

    pub fn refused(&mut self, command: impl Into<Command>) -> ErrorCode {
        let command = command.into();
        match self.run(command.clone()) {
            Ok(reply) => panic!("{command:?} was accepted: {reply:?}"),
            Err(reject) => reject.code,
        }
    }

    pub fn partition(&self, index: u32) -> PartitionRecord {
        PartitionRecord::clone(self.state.partition_of("t", index).unwrap())
    }

    pub fn session(&self, gateway: u64) -> SessionId {
        self.state.gateway(GatewayId(gateway)).unwrap().session.unwrap()
    }

    /// Gives partition 0 to gateway `gateway`; returns the new epoch.
    pub fn assign(&mut self, gateway: u64) -> Epoch {
        let p = self.partition(0);
        let session = self.session(gateway);
        self.ok(Assign { partition: p.id, expect_epoch: p.epoch, session });
        self.partition(0).epoch
    }

    /// Opens the next segment of partition 0 on bookies 1, 2, 3.
    pub fn open(&mut self) -> u64 {
        let p = self.partition(0);
        let next = next(p.next_n);
        self.ok(Open { partition: p.id, epoch: p.epoch, prev: p.tail_n(), next });
        p.next_n
    }

    /// A roll of partition 0's open segment, `records` records longer than where it began.
    pub fn roll_of(&self, records: i64, next: Option<NextSegment>) -> Roll {
        let p = self.partition(0);
        let open = p.open.as_ref().unwrap();
        let close = close(open.n, open.base_offset + records);
        Roll { partition: p.id, epoch: p.epoch, close, next }
    }
}

pub fn init(n: u64) -> InitCluster {
    InitCluster { id: ClusterId(uuid(0xc1, n)), quorum: QUORUM, auto_create_topics: false, default_partitions: 1 }
}

pub fn member(n: u64) -> Member {
    Member { bookie: BookieId(n), instance: instance(n) }
}

pub fn next(n: u64) -> NextSegment {
    NextSegment { n, quorum: QUORUM, members: vec![member(1), member(2), member(3)] }
}

pub fn close(n: u64, end_offset: i64) -> Close {
    Close {
        n,
        last: Some(9),
        end_offset,
        digest: 0xd1 + n,
        bytes: 4096,
        first_ts: 5,
        max_ts: 50,
        holders: vec![member(1), member(2)],
    }
}

pub fn bookie(n: u64) -> RegisterBookie {
    RegisterBookie {
        name: format!("b{n}"),
        instance: instance(n),
        boot: boot(1_000 + n),
        expect_boot_no: 0,
        durable_lsn: 0,
        address: format!("127.0.0.1:{}", 5_000 + n),
        zone: String::new(),
        version: VERSION_MAX,
        replaces: None,
    }
}

pub fn gateway(n: u64, boot_n: u64) -> RegisterGateway {
    let addresses = GatewayAddresses {
        quic: format!("127.0.0.1:{}", 4_000 + n),
        kafka: String::new(),
        http: String::new(),
        internal: String::new(),
    };
    RegisterGateway { name: format!("g{n}"), boot: boot(boot_n), addresses, zone: String::new(), version: VERSION_MAX }
}

pub fn topic(n: u64, name: &str, partitions: u32) -> CreateTopic {
    CreateTopic {
        id: topic_id(n),
        name: name.to_owned(),
        partitions,
        replication: None,
        settings: Vec::new(),
        internal: false,
        validate_only: false,
    }
}

pub fn setting(name: &str, value: &str) -> Setting {
    Setting { name: name.to_owned(), value: Some(value.to_owned()) }
}
