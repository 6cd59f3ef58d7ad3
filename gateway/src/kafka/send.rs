//! Answers on TCP: lists of buffers, written together without copying them.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Buffers that lie one behind the other.
#[derive(Debug)]
pub struct Parts {
    parts: VecDeque<Bytes>,
    left: usize,
}

impl Parts {
    pub fn new(parts: Vec<Bytes>) -> Self {
        let left = parts.iter().map(Bytes::len).sum();
        Self { parts: parts.into_iter().filter(|part| !part.is_empty()).collect(), left }
    }
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let filled = into.iter_mut().zip(&self.parts).map(|(slot, part)| *slot = IoSlice::new(part));
        filled.count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.left, "no more can be sent than is there");
        self.left -= count;
        while let Some(front) = self.parts.front_mut().filter(|_| count > 0) {
            let here = count.min(front.len());
            front.advance(here);
            count -= here;
            if front.is_empty() {
                self.parts.pop_front();
            }
        }
    }
}

/// Writes all of it. False: the connection broke, or the client took nothing for `patience`.
pub async fn send<W: AsyncWrite + Unpin>(stream: &mut W, parts: Vec<Bytes>, patience: Duration) -> bool {
    let mut parts = Parts::new(parts);
    while parts.has_remaining() {
        match tokio::time::timeout(patience, stream.write_buf(&mut parts)).await {
            Ok(Ok(written)) if written > 0 => {}
            _ => return false,
        }
    }
    // TLS keeps a last record back until it is told to go.
    matches!(tokio::time::timeout(patience, stream.flush()).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn parts_arrive_in_order_through_a_narrow_pipe() {
        let (mut client, mut server) = tokio::io::duplex(5);
        let parts: Vec<Bytes> = (0u8..20).map(|n| Bytes::from(vec![n; usize::from(n)])).collect();
        let all = parts.concat();
        let sending = tokio::spawn(async move { send(&mut server, parts, Duration::from_secs(5)).await });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("reads");
        assert!(sending.await.expect("ran"));
        assert_eq!(got, all);
    }

    #[tokio::test]
    async fn a_client_that_never_reads_is_given_up() {
        let (_client, mut server) = tokio::io::duplex(5);
        assert!(!send(&mut server, vec![Bytes::from_static(&[0; 100])], Duration::from_millis(20)).await);
    }
}
