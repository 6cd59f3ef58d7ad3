//! Reading one partition: from an offset or a time on, as the gateway pushes.

use std::time::{Duration, Instant};

use esker_types::error::ErrorInfo;
use esker_types::{ErrorClass, ErrorCode, Frame, Offset, opcode};
use esker_wire::batch::{Batch, DecodeLimits, Record, Records, Split, split};
use esker_wire::native::{OffsetRange, PartitionName, Position, ReadBatches, ReadOpen, ReadOpened};
use quinn::SendStream;

use crate::backoff::Backoff;
use crate::client::Client;
use crate::cluster::Owner;
use crate::connection::Connection;
use crate::error::{Error, ReadError, RemoteError};
use crate::stream::{FrameReader, write_frame};

/// A silent stream may be a quiet topic or a dead owner: after so long the cluster is asked who owns the partition.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a reader tries to find and reach an owner before it reports the trouble. Call `next` again to go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The oldest record there is.
    Earliest,
    /// Only what comes from now on.
    Latest,
    Offset(Offset),
    /// The first record dated at or after this many milliseconds since the epoch.
    TimeMs(i64),
}

impl Start {
    pub(crate) fn position(self) -> Position {
        match self {
            Self::Earliest => Position::Earliest(true),
            Self::Latest => Position::Latest(true),
            Self::Offset(offset) => Position::Offset(offset),
            Self::TimeMs(ms) => Position::TimeMs(ms),
        }
    }
}

/// What to read.
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    pub start: Start,
    /// Stop before this offset.
    pub end: Option<Offset>,
    /// Go on behind ranges that were lost for good instead of ending with [`ReadError::DataLoss`].
    pub skip_lost: bool,
    /// Bytes of one push, 1 KiB..=16 MiB.
    pub push_bytes: u32,
    /// Address of a gateway to read closed segments from, whoever owns the partition: one in the same zone, say. The owner
    /// serves the rest.
    pub near: Option<String>,
    pub decode: DecodeLimits,
}

impl ReaderConfig {
    pub fn new(start: Start) -> Self {
        Self { start, end: None, skip_lost: false, push_bytes: 1 << 20, near: None, decode: DecodeLimits::default() }
    }
}

/// Some consecutive records: one batch, or the part of it that was asked for.
#[derive(Clone, Debug)]
pub struct Fetched {
    batch: Batch,
    first: Offset,
    end: Offset,
    limits: DecodeLimits,
}

impl Fetched {
    /// Offset of the first record.
    pub fn first_offset(&self) -> Offset {
        self.first
    }

    /// Offset behind the last record, exclusive.
    pub fn end_offset(&self) -> Offset {
        self.end
    }

    /// Number of records.
    pub fn count(&self) -> u64 {
        (self.end - self.first) as u64
    }

    /// The whole batch as stored, with records outside of what was asked for.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Decompresses the batch; each record is parsed as it is taken.
    pub fn records(&self) -> Result<FetchedRecords, ReadError> {
        let records = self.batch.records(self.limits).map_err(|e| ReadError::corrupt(self.first, &e))?;
        Ok(FetchedRecords { records, first: self.first, end: self.end })
    }
}

/// The records of one [`Fetched`], in order.
#[derive(Clone, Debug)]
pub struct FetchedRecords {
    records: Records,
    first: Offset,
    end: Offset,
}

impl Iterator for FetchedRecords {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.records.next()? {
                Err(error) => return Some(Err(ReadError::corrupt(self.first, &error))),
                Ok(record) if record.offset < self.first => {}
                Ok(record) if record.offset >= self.end => {}
                Ok(record) => return Some(Ok(record)),
            }
        }
    }
}

/// Reads one partition in order, each record once, over reconnects and moves of the partition.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    topic: String,
    topic_id: Vec<u8>,
    partition: u32,
    config: ReaderConfig,
    /// What comes next; None until the first answer told what the start stands for.
    next: Option<Offset>,
    high_watermark: Offset,
    log_start: Offset,
    stream: Option<Stream>,
    /// Of the last push, not yet handed out.
    pushed: Option<Split>,
    lost: Vec<OffsetRange>,
    backoff: Backoff,
    /// Since when there is no stream.
    trouble_since: Option<Instant>,
}

#[derive(Debug)]
struct Stream {
    frames: FrameReader,
    /// Keeps our side open: its end would tell the gateway that we left.
    _send: SendStream,
    connection: std::sync::Arc<Connection>,
    epoch: u32,
}

impl Client {
    /// Reads `partition` of `topic`. Nothing is asked before the first [`Reader::next`].
    pub fn reader(&self, topic: &str, partition: u32, start: Start) -> Reader {
        self.reader_with(topic, partition, ReaderConfig::new(start))
    }

    pub fn reader_with(&self, topic: &str, partition: u32, config: ReaderConfig) -> Reader {
        let next = match config.start {
            Start::Offset(offset) => Some(offset),
            _ => None,
        };
        Reader {
            client: self.clone(),
            topic: topic.to_owned(),
            topic_id: Vec::new(),
            partition,
            config,
            next,
            high_watermark: -1,
            log_start: -1,
            stream: None,
            pushed: None,
            lost: Vec::new(),
            backoff: Backoff::new(u64::from(partition)),
            trouble_since: None,
        }
    }
}

/// What one attempt to open the stream came to.
enum Opened {
    Yes,
    /// Try again, somewhere else or later.
    Again(ReadError),
    No(ReadError),
}

impl Reader {
    /// The next records, or None once the end offset is reached. Waits for records that are still to come.
    ///
    /// Cancel safe: a `next` that was dropped has taken nothing. After an error that is retryable the next call goes
    /// on at the same place.
    pub async fn next(&mut self) -> Option<Result<Fetched, ReadError>> {
        loop {
            if self.config.end.zip(self.next).is_some_and(|(end, next)| next >= end) {
                return None;
            }
            if let Some(fetched) = self.take_pushed() {
                if fetched.is_err() {
                    self.pushed = None;
                    self.stream = None;
                }
                return Some(fetched);
            }
            if let Err(error) = self.advance().await {
                return Some(Err(error));
            }
        }
    }

    /// Opens the stream, so that [`Reader::high_watermark`] and [`Reader::next_offset`] are known before the first
    /// record came. Without this the first [`Reader::next`] does it.
    pub async fn open(&mut self) -> Result<(), ReadError> {
        while self.stream.is_none() {
            self.advance().await?;
        }
        Ok(())
    }

    /// Offset of the next record; None before the reader has learned what its start stands for.
    pub fn next_offset(&self) -> Option<Offset> {
        self.next
    }

    /// Offset behind the last readable record as last heard, exclusive; -1 before the first answer.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// As last heard; -1 before the first answer.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Stops before `end` instead of where it was told to.
    pub fn set_end(&mut self, end: Option<Offset>) {
        self.config.end = end;
    }

    /// Ranges that were skipped because they are lost for good, since the last call. Only with
    /// [`ReaderConfig::skip_lost`].
    pub fn take_lost(&mut self) -> Vec<OffsetRange> {
        std::mem::take(&mut self.lost)
    }

    /// The next batch of the last push that holds something new.
    fn take_pushed(&mut self) -> Option<Result<Fetched, ReadError>> {
        loop {
            let next = self.next.unwrap_or(0);
            let batch = match self.pushed.as_mut()?.next()? {
                Err(error) => return Some(Err(ReadError::corrupt(next, &error))),
                Ok(batch) => batch,
            };
            let header = batch.header();
            // Before the start, or pushed once more after a reconnect.
            if header.end_offset() <= next {
                continue;
            }
            if header.base_offset > next {
                let reason = format!("the gateway left out everything up to {}", header.base_offset);
                return Some(Err(ReadError::Corrupt { offset: next, reason }));
            }
            let end = header.end_offset().min(self.config.end.unwrap_or(Offset::MAX));
            self.next = Some(end);
            return Some(Ok(Fetched { batch, first: next, end, limits: self.config.decode }));
        }
    }

    /// One step: opens the stream, or waits for its next frame. After a while of silence it also asks who owns the
    /// partition, and leaves a stream whose gateway is no longer the one.
    async fn advance(&mut self) -> Result<(), ReadError> {
        let Some(stream) = &mut self.stream else { return self.reopen().await };
        let arrived = match tokio::time::timeout(SILENCE, stream.frames.next()).await {
            Ok(arrived) => arrived,
            Err(_) => {
                let cluster = &self.client.cluster;
                let asked = cluster.refresh(&self.topic, self.partition, Some(&stream.connection.server));
                // Cancel safe: a frame that is half read stays in the reader, a dropped question is asked again.
                tokio::select! {
                    biased;
                    arrived = stream.frames.next() => arrived,
                    asked = asked => {
                        let newer = |owner: Owner| owner.epoch > stream.epoch;
                        if asked.is_ok_and(|owner| owner.is_some_and(newer)) {
                            self.stream = None;
                        }
                        return Ok(());
                    }
                }
            }
        };
        match arrived {
            Ok(Some(frame)) => self.on_frame(frame),
            // The gateway finishes the stream at the end offset, and when it stops.
            Ok(None) | Err(_) => {
                self.stream = None;
                Ok(())
            }
        }
    }

    fn on_frame(&mut self, frame: Frame) -> Result<(), ReadError> {
        if frame.is_error() {
            self.stream = None;
            let error = RemoteError::of(&frame).map_err(|e| self.protocol(e.to_string()))?;
            return match self.judge(error) {
                Opened::No(error) => Err(error),
                Opened::Yes | Opened::Again(_) => Ok(()),
            };
        }
        let push: ReadBatches = frame.decode_control().map_err(|e| self.protocol(e.to_string()))?;
        if frame.opcode != opcode::client::READ_BATCHES {
            self.stream = None;
            return Err(self.protocol(format!("unexpected frame {} on a read stream", frame.opcode)));
        }
        self.backoff.reset();
        self.high_watermark = push.high_watermark;
        self.log_start = push.log_start;
        if let Some(lost) = push.lost.filter(|lost| self.config.skip_lost && Some(lost.to) > self.next) {
            self.lost.push(lost);
            self.next = Some(lost.to);
        }
        self.pushed = Some(split(frame.payload_bytes(), true));
        Ok(())
    }

    /// Finds the owner and opens the stream there. Comes back without one if that has to be tried again.
    async fn reopen(&mut self) -> Result<(), ReadError> {
        let since = *self.trouble_since.get_or_insert_with(Instant::now);
        if let Some(near) = self.config.near.take() {
            // Once: where its closed segments end, and whenever it fails, the owner goes on.
            let opened = self.open_at(&Owner { epoch: 0, addresses: vec![near] }, true).await;
            if matches!(opened, Opened::Yes) {
                self.trouble_since = None;
                return Ok(());
            }
        }
        let opened = match self.client.cluster.owner(&self.topic, self.partition).await {
            Ok(Some(owner)) => self.open_at(&owner, false).await,
            Ok(None) => Opened::Again(ReadError::Client(Error::Unreachable(format!(
                "nobody owns {}/{} at the moment",
                self.topic, self.partition
            )))),
            Err(error) if error.retryable() => Opened::Again(error.into()),
            Err(Error::Refused(remote)) => Opened::No(ReadError::Refused(remote)),
            Err(error) => Opened::No(error.into()),
        };
        let opened = match opened {
            Opened::Again(ReadError::Refused(remote))
                if remote.is(ErrorCode::UnknownTopicId)
                    && self.client.cluster.is_gone(&self.topic, &self.topic_id).await =>
            {
                let message = format!("topic {:?} was deleted", self.topic);
                Opened::No(ReadError::Refused(ErrorInfo::new(ErrorCode::TopicDeleted, message).into()))
            }
            opened => opened,
        };
        match opened {
            Opened::Yes => {
                self.trouble_since = None;
                Ok(())
            }
            Opened::No(error) => Err(error),
            Opened::Again(error) if since.elapsed() > PATIENCE => {
                self.trouble_since = None;
                Err(error)
            }
            Opened::Again(_) => {
                self.backoff.wait().await;
                Ok(())
            }
        }
    }

    async fn open_at(&mut self, owner: &Owner, any_gateway: bool) -> Opened {
        let Some(server) = owner.addresses.first() else { return self.lost_owner(owner, "it has no address") };
        let connection = match self.client.cluster.pool.connection(server, u64::from(self.partition)).await {
            Ok(connection) => connection,
            Err(error) if error.retryable() => return self.lost_owner(owner, &error.to_string()),
            Err(error) => return Opened::No(error.into()),
        };
        let heard = connection.heard();
        let answer = match tokio::time::timeout(SILENCE, self.ask(&connection, any_gateway)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => return self.lost_owner(owner, &reason),
            Err(_) => {
                self.client.cluster.give_up_if_silent(&connection, heard);
                return self.lost_owner(owner, "no answer");
            }
        };
        let (send, frames, answer) = answer;
        if answer.is_error() {
            return match RemoteError::of(&answer) {
                Ok(error) => self.judge(error),
                Err(e) => Opened::No(self.protocol(e.to_string())),
            };
        }
        let opened: ReadOpened = match answer.decode_control() {
            Ok(opened) => opened,
            Err(e) => return Opened::No(self.protocol(e.to_string())),
        };
        self.next.get_or_insert(opened.start_offset);
        self.topic_id = opened.topic_id;
        self.high_watermark = opened.high_watermark;
        self.log_start = opened.log_start;
        self.pushed = None;
        self.stream = Some(Stream { frames, _send: send, connection, epoch: opened.epoch });
        Opened::Yes
    }

    async fn ask(
        &self,
        connection: &Connection,
        any_gateway: bool,
    ) -> Result<(SendStream, FrameReader, Frame), String> {
        let start = self.next.map_or(self.config.start, Start::Offset);
        let request = ReadOpen {
            partition: Some(PartitionName {
                topic: self.topic.clone(),
                topic_id: self.topic_id.clone(),
                partition: self.partition,
            }),
            start: Some(start.position()),
            end_offset: self.config.end.unwrap_or(0).max(0),
            push_bytes_max: self.config.push_bytes.clamp(1 << 10, 16 << 20),
            skip_lost: self.config.skip_lost,
            any_gateway,
        };
        let (mut send, mut frames) = connection.open_stream().await.map_err(|e| e.to_string())?;
        let frame = Frame::new(opcode::client::READ_OPEN, 1, &request);
        write_frame(&mut send, &frame).await.map_err(|e| e.to_string())?;
        match frames.next().await {
            Ok(Some(answer)) => Ok((send, frames, answer)),
            Ok(None) => Err("the stream ended without an answer".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    fn lost_owner(&self, owner: &Owner, reason: &str) -> Opened {
        self.client.cluster.forget_owner(&self.topic, self.partition, owner.epoch);
        Opened::Again(ReadError::Client(Error::Unreachable(reason.to_owned())))
    }

    /// Whether to go on after an error answer, and where.
    fn judge(&mut self, error: RemoteError) -> Opened {
        let offset = self.next.unwrap_or(-1);
        let (from, to) = error.range;
        match error.code {
            Some(ErrorCode::OffsetOutOfRange) => {
                Opened::No(ReadError::OutOfRange { offset, log_start: from, high_watermark: to })
            }
            Some(ErrorCode::DataLoss) => Opened::No(ReadError::DataLoss { from, to }),
            _ if error.class == ErrorClass::Fatal => Opened::No(ReadError::Refused(error)),
            _ => {
                if !self.client.cluster.learn_hint(&self.topic, self.partition, error.owner.as_ref())
                    && error.class != ErrorClass::Retry
                {
                    let known = self.client.cluster.known_owner(&self.topic, self.partition);
                    let epoch = known.map_or(0, |owner| owner.epoch);
                    self.client.cluster.forget_owner(&self.topic, self.partition, epoch);
                }
                Opened::Again(ReadError::Refused(error))
            }
        }
    }

    fn protocol(&self, reason: String) -> ReadError {
        let server = self.stream.as_ref().map_or_else(|| "the gateway".to_owned(), |s| s.connection.server.clone());
        ReadError::Client(Error::Protocol { server, reason })
    }
}
