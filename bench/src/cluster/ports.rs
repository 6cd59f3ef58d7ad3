//! Free loopback ports, one set for a cluster's whole life.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Below the range from which systems give ports to clients' sockets (32768 on, on Linux): a port from there that is free now
/// may be any client's a moment later, and it is wanted again after each restart of its process.
const RANGE: std::ops::Range<u32> = 10_240..32_768;
/// Apart, so that processes that look at the same time seldom look at the same ports.
const STRIDE: u32 = 7_919;

/// Where this process looked last.
static LAST: AtomicU32 = AtomicU32::new(0);

/// Ports that were free for TCP and UDP a moment ago. This process gives none out again before it has been through all.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let size = RANGE.end - RANGE.start;
    let first = std::process::id().wrapping_mul(STRIDE);
    let mut found = Vec::with_capacity(count);
    for _ in 0..size {
        if found.len() == count {
            return Ok(found);
        }
        let at = first.wrapping_add(LAST.fetch_add(1, Ordering::Relaxed)) % size;
        let port = u16::try_from(RANGE.start + at)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            found.push(port);
        }
    }
    bail!("fewer than {count} of the ports {}-{} are free", RANGE.start, RANGE.end - 1)
}
