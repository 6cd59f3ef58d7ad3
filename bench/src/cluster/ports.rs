//! Free loopback ports, one set for a cluster's whole life.

use std::net::{TcpListener, UdpSocket};

use anyhow::Result;

/// Ports that were free for TCP and UDP a moment ago. All are held until the last is found, so none comes twice.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let port = tcp.local_addr()?.port();
        if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
            held.push((port, tcp, udp));
        }
    }
    Ok(held.into_iter().map(|(port, ..)| port).collect())
}
