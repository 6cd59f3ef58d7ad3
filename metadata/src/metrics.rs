//! What a metadata node counts.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Clones of the parts share their values; the registry shows them.
pub struct Metrics {
    log_commit: Histogram,
    propose: Histogram,
    batch_commands: Histogram,
    reads: Counter,
    read_rounds: Counter,
    campaigns: Counter,
    hash_mismatches: Counter,
    snapshots_built: Counter,
    snapshots_installed: Counter,
    expired: Counter,
    assigned: Counter,
    moves: Counter,
    moves_failed: Counter,
    leader: Gauge,
    term: Gauge<u64, AtomicU64>,
    applied: Gauge<u64, AtomicU64>,
    log_bytes: Gauge<u64, AtomicU64>,
    sessions: Gauge<u64, AtomicU64>,
    watchers: Gauge,
    state_bytes: Gauge<u64, AtomicU64>,
    backups: Counter,
    backup_failures: Counter,
    backup_bytes: Gauge<u64, AtomicU64>,
    backup_revision: Gauge<u64, AtomicU64>,
    backup_time: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// Registers everything under `esker_metadata_`.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        let metrics = Self {
            log_commit: seconds(),
            propose: seconds(),
            batch_commands: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            reads: Counter::default(),
            read_rounds: Counter::default(),
            campaigns: Counter::default(),
            hash_mismatches: Counter::default(),
            snapshots_built: Counter::default(),
            snapshots_installed: Counter::default(),
            expired: Counter::default(),
            assigned: Counter::default(),
            moves: Counter::default(),
            moves_failed: Counter::default(),
            leader: Gauge::default(),
            term: Gauge::default(),
            applied: Gauge::default(),
            log_bytes: Gauge::default(),
            sessions: Gauge::default(),
            watchers: Gauge::default(),
            state_bytes: Gauge::default(),
            backups: Counter::default(),
            backup_failures: Counter::default(),
            backup_bytes: Gauge::default(),
            backup_revision: Gauge::default(),
            backup_time: Gauge::default(),
        };
        let to = registry.sub_registry_with_prefix("esker_metadata");
        to.register("log_commit_seconds", "Write and fsync of raft log records", metrics.log_commit.clone());
        to.register("propose_seconds", "From proposal to applied, on the leader", metrics.propose.clone());
        to.register("batch_commands", "Commands in one raft entry", metrics.batch_commands.clone());
        to.register("reads", "Linearizable reads answered", metrics.reads.clone());
        to.register("read_rounds", "Rounds to a quorum that confirmed reads", metrics.read_rounds.clone());
        to.register("campaigns", "Elections that this node began", metrics.campaigns.clone());
        to.register("hash_mismatches", "Members that disagreed about the state", metrics.hash_mismatches.clone());
        to.register("snapshots_built", "Snapshots written by this node", metrics.snapshots_built.clone());
        to.register("snapshots_installed", "Snapshots taken from a leader", metrics.snapshots_installed.clone());
        to.register("sessions_expired", "Sessions ended by this node as leader", metrics.expired.clone());
        to.register("partitions_assigned", "Partitions given to a gateway", metrics.assigned.clone());
        to.register("moves", "Partitions moved by their owners on request", metrics.moves.clone());
        to.register("moves_failed", "Moves that were refused or timed out", metrics.moves_failed.clone());
        to.register("leader", "1 while this node leads", metrics.leader.clone());
        to.register("term", "Raft term", metrics.term.clone());
        to.register("applied_index", "Last raft entry applied", metrics.applied.clone());
        to.register("log_bytes", "Raft entries held in memory, in bytes", metrics.log_bytes.clone());
        to.register("sessions", "Live sessions of gateways and bookies", metrics.sessions.clone());
        to.register("watchers", "Connections that follow the state", metrics.watchers.clone());
        to.register("state_accounted_bytes", "Rows of the state machine, as accounted", metrics.state_bytes.clone());
        to.register("backups", "Copies of the state written to the bucket", metrics.backups.clone());
        to.register("backup_failures", "Copies of the state that did not get there", metrics.backup_failures.clone());
        to.register("backup_bytes", "Size of the newest copy", metrics.backup_bytes.clone());
        to.register("backup_revision", "Revision of the newest copy", metrics.backup_revision.clone());
        to.register("backup_timestamp_seconds", "When the newest copy was written", metrics.backup_time.clone());
        metrics
    }

    pub fn state(&self, accounted_bytes: u64) {
        self.state_bytes.set(accounted_bytes);
    }

    pub fn backup_written(&self, bytes: usize, revision: u64, wall: Duration) {
        self.backups.inc();
        self.backup_bytes.set(bytes as u64);
        self.backup_revision.set(revision);
        self.backup_time.set(wall.as_secs());
    }

    pub fn backup_failed(&self) {
        self.backup_failures.inc();
    }

    pub fn log_commit(&self, took: Duration) {
        self.log_commit.observe(took.as_secs_f64());
    }

    pub fn proposed(&self, commands: usize, took: Duration) {
        self.batch_commands.observe(commands as f64);
        self.propose.observe(took.as_secs_f64());
    }

    /// One round to a quorum has answered `reads` of them.
    pub fn read_round(&self, reads: usize) {
        self.read_rounds.inc();
        self.reads.inc_by(reads as u64);
    }

    pub fn campaign(&self) {
        self.campaigns.inc();
    }

    pub fn hash_mismatch(&self) {
        self.hash_mismatches.inc();
    }

    pub fn hash_mismatches(&self) -> u64 {
        self.hash_mismatches.get()
    }

    pub fn snapshot_built(&self) {
        self.snapshots_built.inc();
    }

    pub fn snapshot_installed(&self) {
        self.snapshots_installed.inc();
    }

    pub fn expired(&self, sessions: usize) {
        self.expired.inc_by(sessions as u64);
    }

    pub fn assigned(&self, partitions: usize) {
        self.assigned.inc_by(partitions as u64);
    }

    pub fn moved(&self, well: bool) {
        match well {
            true => self.moves.inc(),
            false => self.moves_failed.inc(),
        };
    }

    pub fn raft(&self, leader: bool, term: u64, applied: u64, log_bytes: usize) {
        self.leader.set(leader.into());
        self.term.set(term);
        self.applied.set(applied);
        self.log_bytes.set(log_bytes as u64);
    }

    pub fn sessions(&self, live: usize) {
        self.sessions.set(live as u64);
    }

    pub fn watcher(&self, by: i64) {
        self.watchers.inc_by(by);
    }
}
