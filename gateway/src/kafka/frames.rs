//! Requests on TCP: a length, then so many bytes.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// Room made for a request before any of its bytes have come; more is made as they come.
const READ_AHEAD: usize = 1 << 20;
const READ_CHUNK: usize = 16 << 10;

/// Why no further request comes.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the client announced a request of {says} bytes, {max} are the most (kafka.request-bytes-max)")]
    Length { says: i32, max: usize },
    #[error("the connection ended inside a request")]
    Truncated,
    #[error("nothing came within {0:?}")]
    Deadline(Duration),
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
}

/// How long each part of a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until its first byte.
    pub start: Duration,
    /// From its first byte to its last.
    pub rest: Duration,
}

pub struct FrameReader<S> {
    stream: S,
    buffer: BytesMut,
    max: usize,
}

impl<S: AsyncRead + Unpin> FrameReader<S> {
    pub fn new(stream: S, max: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), max }
    }

    /// Waits for the length of the next request. None: the client closed between requests. Cancel-safe.
    pub async fn announced(&mut self, patience: Patience) -> Result<Option<usize>, FrameError> {
        let mut until = Instant::now() + patience.start;
        while self.buffer.len() < 4 {
            let idle = self.buffer.is_empty();
            match tokio::time::timeout_at(until, self.fill(READ_CHUNK)).await {
                Err(_) => return Err(FrameError::Deadline(if idle { patience.start } else { patience.rest })),
                Ok(Err(error)) => return Err(error.into()),
                Ok(Ok(0)) => return if idle { Ok(None) } else { Err(FrameError::Truncated) },
                Ok(_) if idle => until = Instant::now() + patience.rest,
                Ok(_) => {}
            }
        }
        let says = (&self.buffer[..4]).get_i32();
        match usize::try_from(says) {
            // The shortest header has 8 bytes.
            Ok(len) if (8..=self.max).contains(&len) => Ok(Some(len)),
            _ => Err(FrameError::Length { says, max: self.max }),
        }
    }

    /// The request whose length was announced, without the length.
    pub async fn take(&mut self, len: usize, patience: Patience) -> Result<Bytes, FrameError> {
        let until = Instant::now() + patience.rest;
        while self.buffer.len() < 4 + len {
            let missing = 4 + len - self.buffer.len();
            // Never more than has come already and a first part: a lie about the length costs the liar bytes.
            let room = missing.min(READ_AHEAD.max(self.buffer.len()));
            match tokio::time::timeout_at(until, self.fill(room)).await {
                Err(_) => return Err(FrameError::Deadline(patience.rest)),
                Ok(Err(error)) => return Err(error.into()),
                Ok(Ok(0)) => return Err(FrameError::Truncated),
                Ok(_) => {}
            }
        }
        self.buffer.advance(4);
        Ok(self.buffer.split_to(len).freeze())
    }

    async fn fill(&mut self, room: usize) -> Result<usize, std::io::Error> {
        if self.buffer.capacity() - self.buffer.len() < room.min(READ_CHUNK) {
            self.buffer.reserve(room);
        }
        self.stream.read_buf(&mut self.buffer).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const PATIENCE: Patience = Patience { start: Duration::from_secs(10), rest: Duration::from_secs(30) };

    async fn next(reader: &mut FrameReader<tokio::io::DuplexStream>) -> Result<Option<Bytes>, FrameError> {
        match reader.announced(PATIENCE).await? {
            Some(len) => reader.take(len, PATIENCE).await.map(Some),
            None => Ok(None),
        }
    }

    #[tokio::test]
    async fn requests_come_whole_however_they_are_cut() {
        let (mut client, server) = tokio::io::duplex(7);
        let mut reader = FrameReader::new(server, 1000);
        let sender = tokio::spawn(async move {
            for len in [8usize, 100, 9] {
                client.write_all(&(len as u32).to_be_bytes()).await.expect("writes");
                client.write_all(&vec![len as u8; len]).await.expect("writes");
            }
        });
        for len in [8usize, 100, 9] {
            assert_eq!(next(&mut reader).await.expect("whole").expect("there"), vec![len as u8; len]);
        }
        assert!(next(&mut reader).await.expect("a clean end").is_none());
        sender.await.expect("sent");
    }

    #[tokio::test]
    async fn lengths_that_are_lies_end_the_connection() {
        for says in [0, -1, 7, 1001, i32::MAX, i32::MIN, i32::from_be_bytes(*b"GET ")] {
            let (mut client, server) = tokio::io::duplex(64);
            client.write_all(&says.to_be_bytes()).await.expect("writes");
            let refused = next(&mut FrameReader::new(server, 1000)).await;
            assert!(matches!(refused, Err(FrameError::Length { says: said, .. }) if said == says), "{says}");
        }
    }

    #[tokio::test]
    async fn silence_has_an_end() {
        const PATIENCE: Patience = Patience { start: Duration::from_millis(20), rest: Duration::from_millis(40) };
        let (mut client, server) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(server, 1000);
        let wait = reader.announced(PATIENCE).await;
        assert!(matches!(wait, Err(FrameError::Deadline(d)) if d == PATIENCE.start));
        client.write_all(&[0, 0, 0, 20, 1]).await.expect("writes");
        assert!(matches!(reader.announced(PATIENCE).await, Ok(Some(20))));
        assert!(matches!(reader.take(20, PATIENCE).await, Err(FrameError::Deadline(d)) if d == PATIENCE.rest));
        drop(client);
        assert!(matches!(next(&mut reader).await, Err(FrameError::Truncated)));
    }
}
