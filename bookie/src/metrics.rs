//! What a bookie tells about itself. One function per observation; the names are part of the interface.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    fsync_seconds: Histogram,
    group_bytes: Histogram,
    queue_bytes: Gauge,
    adds: Counter,
    add_bytes: Counter,
    refusals: Counter,
    fences: Counter,
    reads: Counter,
    read_bytes: Counter,
    read_faults: Counter,
    files: Gauge,
    journal_bytes: Gauge,
    free_bytes: Gauge,
    segments: Gauge,
    limbo_segments: Gauge,
    damaged_entries: Gauge,
    gc_files_freed: Counter,
    gc_copied_bytes: Counter,
    scrub_bytes: Counter,
    scrub_damage: Counter,
    repaired_entries: Counter,
    admission: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            fsync_seconds: Histogram::new(exponential_buckets(50e-6, 2.0, 18)),
            group_bytes: Histogram::new(exponential_buckets(4096.0, 2.0, 12)),
            queue_bytes: Gauge::default(),
            adds: Counter::default(),
            add_bytes: Counter::default(),
            refusals: Counter::default(),
            fences: Counter::default(),
            reads: Counter::default(),
            read_bytes: Counter::default(),
            read_faults: Counter::default(),
            files: Gauge::default(),
            journal_bytes: Gauge::default(),
            free_bytes: Gauge::default(),
            segments: Gauge::default(),
            limbo_segments: Gauge::default(),
            damaged_entries: Gauge::default(),
            gc_files_freed: Counter::default(),
            gc_copied_bytes: Counter::default(),
            scrub_bytes: Counter::default(),
            scrub_damage: Counter::default(),
            repaired_entries: Counter::default(),
            admission: Gauge::default(),
        };
        metrics.register(registry.sub_registry_with_prefix("esker_bookie"));
        metrics
    }

    fn register(&self, to: &mut Registry) {
        let m = self.clone();
        to.register_with_unit("journal_fsync", "Time until one group is durable", Unit::Seconds, m.fsync_seconds);
        to.register_with_unit("journal_group", "Bytes that one fsync made durable", Unit::Bytes, m.group_bytes);
        to.register_with_unit("journal_queue", "Entries that wait for the journal", Unit::Bytes, m.queue_bytes);
        to.register("adds", "Entries made durable", m.adds);
        to.register_with_unit("add", "Bytes of entries made durable", Unit::Bytes, m.add_bytes);
        to.register("add_refusals", "ADDs answered with anything but OK", m.refusals);
        to.register("fences", "FENCE items answered", m.fences);
        to.register("reads", "READ requests answered", m.reads);
        to.register_with_unit("read", "Bytes of entries read", Unit::Bytes, m.read_bytes);
        to.register("read_faults", "Entries held that could not be read back", m.read_faults);
        to.register("journal_files", "Journal files, spare ones not counted", m.files);
        to.register_with_unit("journal", "Bytes of journal files on disk", Unit::Bytes, m.journal_bytes);
        to.register_with_unit("disk_free", "Bytes that may still be used", Unit::Bytes, m.free_bytes);
        to.register("segments", "Segments held", m.segments);
        to.register("limbo_segments", "Segments whose extent is unknown after damage", m.limbo_segments);
        to.register("damaged_entries", "Entries known to be damaged and not repaired yet", m.damaged_entries);
        to.register("gc_files_freed", "Journal files given back", m.gc_files_freed);
        to.register_with_unit("gc_copied", "Bytes copied forward to free a file", Unit::Bytes, m.gc_copied_bytes);
        to.register_with_unit("scrub", "Bytes read back and verified", Unit::Bytes, m.scrub_bytes);
        to.register("scrub_damage", "Entries found damaged by the scrub", m.scrub_damage);
        to.register("repaired_entries", "Entries fetched from other bookies", m.repaired_entries);
        to.register("admission_level", "0 all, 1 no new entries, 2 no recovery, 3 fences only", m.admission);
    }

    pub(crate) fn group_written(&self, bytes: u64, took: Duration) {
        self.group_bytes.observe(bytes as f64);
        self.fsync_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn entries_durable(&self, entries: u64, bytes: u64) {
        self.adds.inc_by(entries);
        self.add_bytes.inc_by(bytes);
    }

    pub(crate) fn queue_moved(&self, bytes: i64) {
        self.queue_bytes.inc_by(bytes);
    }

    pub(crate) fn add_refused(&self) {
        self.refusals.inc();
    }

    pub(crate) fn fence_answered(&self, items: u64) {
        self.fences.inc_by(items);
    }

    pub(crate) fn read_answered(&self, bytes: u64) {
        self.reads.inc();
        self.read_bytes.inc_by(bytes);
    }

    pub(crate) fn read_fault(&self) {
        self.read_faults.inc();
    }

    pub(crate) fn disk(&self, files: u64, used: u64, free: u64, admission: u8) {
        self.files.set(files.cast_signed());
        self.journal_bytes.set(used.cast_signed());
        self.free_bytes.set(free.cast_signed());
        self.admission.set(f64::from(admission));
    }

    pub(crate) fn held(&self, segments: usize, limbo: usize, damaged: usize) {
        self.segments.set(segments as i64);
        self.limbo_segments.set(limbo as i64);
        self.damaged_entries.set(damaged as i64);
    }

    pub(crate) fn file_freed(&self) {
        self.gc_files_freed.inc();
    }

    pub(crate) fn copied_forward(&self, bytes: u64) {
        self.gc_copied_bytes.inc_by(bytes);
    }

    pub(crate) fn scrubbed(&self, bytes: u64, damaged: u64) {
        self.scrub_bytes.inc_by(bytes);
        self.scrub_damage.inc_by(damaged);
    }

    pub(crate) fn repaired(&self, entries: u64) {
        self.repaired_entries.inc_by(entries);
    }
}
