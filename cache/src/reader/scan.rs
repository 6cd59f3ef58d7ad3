//! Reading segments front to back, ahead of the consumer.
//!
//! The window of bytes that are asked for but not handed out yet begins small and doubles whenever the consumer had to
//! wait: one that keeps up reads with large requests, one that reads a little and leaves costs little.

use std::collections::VecDeque;
use std::sync::Arc;

use esker_cache_core::object::{Block, Footer};
use esker_metadata_core::ObjectPlace;
use esker_types::{Offset, SegmentId};
use tokio::task::JoinHandle;

use super::source::Located;
use super::{For, Reader, decode};
use crate::pools::{Pending, Want};
use crate::store::{Error, Kind};

/// Where a scan begins in its first segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first block.
    Begin,
    /// With the block that holds this offset; with the first one if the segment begins above it.
    Offset(Offset),
    /// With the first block that has a record at or after this, ms.
    Time(i64),
}

/// A sequential reader. Holds at most the pool's `read-ahead`, and one block more, in memory.
#[derive(Debug)]
pub struct Scan {
    reader: Reader,
    by: For,
    start: Start,
    /// Segments not opened yet, in order.
    fed: VecDeque<(SegmentId, ObjectPlace)>,
    /// The footer of the first of `fed`, on its way.
    opening: Option<JoinHandle<Result<Arc<Footer>, Error>>>,
    /// Why the next segment can't be opened. Told when all before it is handed out.
    failed: Option<Error>,
    current: Option<Current>,
    /// Blocks asked for, in order.
    ahead: VecDeque<Ahead>,
    ahead_bytes: usize,
    window: usize,
    window_max: usize,
    request_max: usize,
}

#[derive(Debug)]
struct Current {
    located: Arc<Located>,
    /// First block not asked for.
    next: u32,
}

#[derive(Debug)]
struct Ahead {
    located: Arc<Located>,
    number: u32,
    length: usize,
    pending: Pending,
}

/// The first window. About two blocks: one to hand out, one on its way.
const WINDOW_MIN: usize = 2 << 20;
/// Requests of one scan that may be under way at once, at full window.
const REQUESTS: usize = 4;
/// A pool that is held to a rate gets pieces of no more than this part of a second's worth: large ones would come in bursts
/// that take the processors from live traffic, however low the rate.
const PACED_PART: u64 = 100;

impl Scan {
    pub(super) fn new(reader: Reader, start: Start, by: For) -> Self {
        let config = reader.pool(by).config();
        let window_max = config.read_ahead.as_usize().max(WINDOW_MIN);
        let request_max = match config.bytes_per_second.0 {
            0 => usize::MAX,
            rate => usize::try_from(rate / PACED_PART).unwrap_or(usize::MAX).max(1),
        };
        Self {
            reader,
            by,
            start,
            fed: VecDeque::new(),
            opening: None,
            failed: None,
            current: None,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            window: WINDOW_MIN,
            window_max,
            request_max,
        }
    }

    /// Appends the segment that follows those fed before.
    pub fn feed(&mut self, segment: SegmentId, place: ObjectPlace) {
        self.fed.push_back((segment, place));
    }

    /// Whether the next segment should be fed now, so that reading ahead can go on.
    pub fn hungry(&self) -> bool {
        self.fed.is_empty()
    }

    /// Bytes that are read ahead at most, for now.
    pub fn window(&self) -> usize {
        self.window
    }

    /// The next block, or none when all that was fed has been handed out. Cancel-safe: a block that was not handed out
    /// comes with the next call.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if an object is gone: ask metadata again; `Damaged` if the object is not what it
    /// should be. To go on, begin a new scan behind the last entry that came.
    pub async fn next(&mut self) -> Result<Option<Block>, Error> {
        self.fill().await?;
        let Some(first) = self.ahead.front_mut() else { return Ok(None) };
        if !first.pending.is_ready() {
            self.window = (self.window * 2).min(self.window_max);
        }
        let stored = first.pending.wait().await?;
        let block = decode(first.located.clone(), first.number, stored).await?;
        if let Some(handed_out) = self.ahead.pop_front() {
            self.ahead_bytes -= handed_out.length;
        }
        Ok(Some(block))
    }

    /// Asks for blocks until the window is full. Waits only if there is nothing to hand out.
    async fn fill(&mut self) -> Result<(), Error> {
        loop {
            if self.failed.is_some() {
                return if self.ahead.is_empty() { self.failed.take().map_or(Ok(()), Err) } else { Ok(()) };
            }
            self.ask();
            if self.current.is_some() {
                // The window is full. What comes behind this segment can be looked up meanwhile.
                self.open_ahead();
                return Ok(());
            }
            self.open_ahead();
            let Some(opening) = &mut self.opening else { return Ok(()) };
            if !self.ahead.is_empty() && !opening.is_finished() {
                return Ok(());
            }
            let opened = opening.await;
            self.opening = None;
            match opened.unwrap_or_else(|_| Err(Error::new(Kind::Shutdown, "read", "a segment", ""))) {
                Err(error) => self.failed = Some(error),
                Ok(footer) => {
                    if let Some((segment, place)) = self.fed.pop_front() {
                        self.begin(segment, &place, footer);
                    }
                }
            }
        }
    }

    fn open_ahead(&mut self) {
        if self.opening.is_some() {
            return;
        }
        if let Some((segment, place)) = self.fed.front() {
            let (reader, segment, place, by) = (self.reader.clone(), *segment, place.clone(), self.by);
            self.opening = Some(tokio::spawn(async move { reader.footer(segment, &place, by).await }));
        }
    }

    fn begin(&mut self, segment: SegmentId, place: &ObjectPlace, footer: Arc<Footer>) {
        let end = footer.blocks.len() as u32;
        let next = match std::mem::replace(&mut self.start, Start::Begin) {
            Start::Begin => 0,
            Start::Offset(offset) if offset >= footer.facts.end_offset => end,
            Start::Offset(offset) => footer.block_of(offset).unwrap_or(0),
            Start::Time(timestamp) => footer.block_at(timestamp).unwrap_or(end),
        };
        let located = self.reader.located(segment, place, footer, self.by);
        self.current = Some(Current { located, next });
    }

    /// Requests of a quarter of the window each, or less, while there is room for one. Ends the segment after its last block.
    fn ask(&mut self) {
        let request = (self.window / REQUESTS).clamp(1, self.request_max);
        while self.ahead.is_empty() || self.ahead_bytes + request <= self.window {
            let Some(current) = &mut self.current else { return };
            let mut wants: Vec<Want> = Vec::new();
            let (first, mut bytes) = (current.next, 0);
            while let Some(want) = current.located.want(current.next) {
                if !wants.is_empty() && bytes + want.length > request {
                    break;
                }
                bytes += want.length;
                wants.push(want);
                current.next += 1;
            }
            let located = current.located.clone();
            if located.want(current.next).is_none() {
                self.current = None;
            }
            self.ahead_bytes += bytes;
            let lengths: Vec<usize> = wants.iter().map(|want| want.length).collect();
            let pending = self.reader.pool(self.by).request(wants, located.clone());
            for ((number, length), pending) in (first..).zip(lengths).zip(pending) {
                self.ahead.push_back(Ahead { located: located.clone(), number, length, pending });
            }
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        if let Some(opening) = &self.opening {
            opening.abort();
        }
    }
}
