//! Numbers of all frames, in one place so that none is given out twice. Never reuse one.

/// Both directions, first frame of a connection.
pub const HELLO: u16 = 1;
/// Liveness probe; the answer's control part is the answering side's `Hello`.
pub const PING: u16 = 2;

/// Native clients, 100-199.
pub mod client {
    pub const PRODUCE_OPEN: u16 = 100;
    pub const PRODUCE: u16 = 101;
    pub const READ_OPEN: u16 = 110;
    pub const READ_BATCHES: u16 = 111;
    pub const CALL_METADATA: u16 = 120;
    pub const CALL_CREATE_TOPIC: u16 = 121;
    pub const CALL_DELETE_TOPIC: u16 = 122;
    pub const CALL_ALTER_TOPIC: u16 = 123;
    pub const CALL_DELETE_RECORDS: u16 = 124;
    pub const CALL_INIT_PRODUCER: u16 = 125;
    pub const CALL_LIST_OFFSETS: u16 = 126;
    pub const CALL_LIST_SEGMENTS: u16 = 127;
    pub const CALL_MOVE_PARTITION: u16 = 128;
    pub const CALL_CLUSTER_STATUS: u16 = 129;
    pub const CALL_DRAIN_GATEWAY: u16 = 130;
    pub const CALL_DRAIN_BOOKIE: u16 = 131;
    pub const CALL_FORCE_CLOSE: u16 = 132;
    pub const CALL_LIST_GROUPS: u16 = 133;
    pub const CALL_DESCRIBE_GROUP: u16 = 134;
    pub const CALL_RESET_OFFSETS: u16 = 135;
    pub const CALL_SWEEP_BUCKET: u16 = 136;
}

/// To bookies, 200-299.
pub mod bookie {
    pub const ADD: u16 = 200;
    /// Bookie to gateway, unasked: the answers to ADDs (OK, GAP, FENCED, ...).
    pub const ADD_STATUS: u16 = 201;
    pub const FENCE: u16 = 202;
    pub const READ: u16 = 203;
    pub const STATUS: u16 = 204;
}

/// To metadata nodes, 300-399.
pub mod metadata {
    pub const PROPOSE: u16 = 300;
    pub const READ: u16 = 301;
    pub const WATCH: u16 = 302;
    /// Metadata to watcher, unasked.
    pub const WATCH_EVENT: u16 = 303;
    pub const RENEW_SESSION: u16 = 304;
    pub const ADMIN: u16 = 305;
    pub const RAFT_VOTE: u16 = 310;
    pub const RAFT_APPEND: u16 = 311;
    pub const RAFT_SNAPSHOT: u16 = 312;
}

/// Gateway to gateway and controller to gateway, 400-499.
pub mod gateway {
    /// Controller to owner: hand a partition over; the answer tells the measured pause.
    pub const MOVE: u16 = 400;
    /// Old owner to new owner: producer state at the digest of the closed segment.
    pub const STATE_TRANSFER: u16 = 401;
}
