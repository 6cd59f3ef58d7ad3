//! Counters of a [`crate::Network`]; whoever serves metrics reads them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Totals since the network was made. Relaxed: they are only ever shown.
#[derive(Debug, Default)]
pub struct NetStats {
    pub links_opened: AtomicU64,
    pub links_closed: AtomicU64,
    pub links_refused: AtomicU64,
    pub frames_out: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Write system calls (TLS: writes into the session).
    pub writes: AtomicU64,
    pub bytes_in: AtomicU64,
    /// Times that a sender had to wait because a queue was full.
    pub send_waits: AtomicU64,
}

impl NetStats {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
