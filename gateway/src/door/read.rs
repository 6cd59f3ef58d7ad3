//! The `Read` stream: the gateway pushes whole batches from an offset on, as fast as QUIC's flow control lets it, and
//! then follows the high watermark.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Frame, Offset, PartitionId, opcode};
use esker_wire::native::{OffsetRange, Position, ReadBatches, ReadOpen, ReadOpened};
use tokio::sync::watch;

use super::connection::Client;
use super::frames::{FrameWriter, StreamError};
use crate::auth::Action;
use crate::gateway::Gateway;
use crate::partition::{Handle, News};
use crate::read::{Chunk, ColdReader, find_position, out_of_range};
use crate::tail::CachedEntry;

/// How long a stream waits for a partition that is being recovered before the client is sent away to try again.
pub const RECOVERY_WAIT: Duration = Duration::from_secs(5);

/// One reader.
struct Reading {
    gateway: Arc<Gateway>,
    handle: Arc<Handle>,
    news: watch::Receiver<News>,
    cold: ColdReader,
    request_id: u64,
    /// Where the next push begins.
    offset: Offset,
    /// Exclusive; `Offset::MAX` = never ends.
    end: Offset,
    push_bytes: usize,
    skip_lost: bool,
    /// Told with the next push.
    lost: Option<OffsetRange>,
}

pub async fn serve(client: &Client, open: Frame, mut writer: FrameWriter) -> Result<(), StreamError> {
    let error = match begin(client, &open).await {
        Ok((mut reading, opened)) => {
            if writer.write(&open.answer(&opened)).await.is_err() {
                return Ok(());
            }
            match reading.push_all(&mut writer).await {
                Ok(()) => None,
                Err(Stop::Error(error)) => Some(error),
                Err(Stop::PeerGone) => return Ok(()),
            }
        }
        Err(error) => Some(error),
    };
    if let Some(error) = error {
        // A client that is gone needs no answer.
        let _ = writer.write(&open.error_answer(&error)).await;
    }
    writer.finish();
    writer.stopped().await;
    Ok(())
}

enum Stop {
    Error(ErrorInfo),
    PeerGone,
}

async fn begin(client: &Client, open: &Frame) -> Result<(Reading, ReadOpened), ErrorInfo> {
    let gateway = &client.gateway;
    let invalid = |message: String| ErrorInfo::new(ErrorCode::InvalidRequest, message);
    let request: ReadOpen = open.decode_control().map_err(|e| invalid(format!("READ_OPEN does not parse: {e}")))?;
    let start = request.start.ok_or_else(|| invalid("READ_OPEN does not say where to start".to_owned()))?;
    let action: for<'a> fn(&'a str, PartitionId) -> Action<'a> = |topic, partition| Action::Read { topic, partition };
    let record = gateway.resolve(&client.principal, request.partition.as_ref(), action).await?;
    let handle = match gateway.owned(record.id).await {
        Err(error) if request.any_gateway && error.error_code() == Some(ErrorCode::NotOwner) => {
            closed(gateway, record.id, &start).ok_or(error)?
        }
        owned => owned?,
    };
    let news = ready(gateway, &handle, RECOVERY_WAIT).await?;
    let found = find_position(gateway, &handle, news, start).await?;
    let opened = ReadOpened {
        topic_id: handle.topic.0.to_vec(),
        epoch: news.epoch.0,
        start_offset: found.offset,
        log_start: news.log_start,
        high_watermark: news.high_watermark,
    };
    let most = gateway.config.read.push_bytes.as_usize();
    let asked = usize::try_from(request.push_bytes_max).unwrap_or(usize::MAX);
    let reading = Reading {
        gateway: gateway.clone(),
        news: handle.follow(),
        cold: ColdReader::new(gateway.clone(), handle.clone()),
        handle,
        request_id: open.request_id,
        offset: found.offset,
        end: if request.end_offset > 0 { request.end_offset } else { Offset::MAX },
        push_bytes: if asked == 0 { most } else { asked.min(most) },
        skip_lost: request.skip_lost,
        lost: None,
    };
    Ok((reading, opened))
}

/// What is closed of a partition that another gateway owns, if the reader begins in it.
fn closed(gateway: &Gateway, id: PartitionId, start: &Position) -> Option<Arc<Handle>> {
    let record = gateway.view.read(|state| state.partition(id).cloned())?;
    let (from, end) = (record.log_start, record.last.as_ref()?.end_offset);
    let begins = match start {
        Position::Earliest(_) => from < end,
        Position::Offset(offset) => (from..end).contains(offset),
        Position::Latest(_) | Position::TimeMs(_) => false,
    };
    begins.then(|| Arc::new(Handle::closed(id, record.topic, record.epoch, from, end)))
}

/// Waits until the partition's owner has recovered it: before, nobody knows what may be read.
pub async fn ready(gateway: &Gateway, handle: &Handle, patience: Duration) -> Result<News, ErrorInfo> {
    let mut news = handle.follow();
    let settled = tokio::time::timeout(patience, news.wait_for(|news| news.gone || news.is_ready())).await;
    match settled.map(|news| news.map(|news| *news)) {
        Ok(Ok(news)) if news.is_ready() => Ok(news),
        Ok(_) => Err(gateway.not_owner(handle.id, ErrorCode::NotOwner)),
        Err(_) => Err(ErrorInfo::new(ErrorCode::Recovering, format!("partition {} is being recovered", handle.id))),
    }
}

impl Reading {
    /// Returns when the end that the client set is reached.
    async fn push_all(&mut self, writer: &mut FrameWriter) -> Result<(), Stop> {
        while self.offset < self.end {
            let news = *self.news.borrow_and_update();
            if news.gone {
                return Err(Stop::Error(self.gateway.not_owner(self.handle.id, ErrorCode::Moved)));
            }
            if self.offset < news.log_start {
                return Err(Stop::Error(out_of_range(self.offset, news)));
            }
            if self.offset < news.high_watermark {
                self.push_some(news, writer).await?;
                continue;
            }
            if self.lost.is_some() {
                self.push(&[], news, writer).await?;
            }
            if self.handle.closed_only {
                return Err(Stop::Error(self.gateway.not_owner(self.handle.id, ErrorCode::NotOwner)));
            }
            // Cancel-safe: both only wait.
            tokio::select! {
                biased;
                () = writer.stopped() => return Err(Stop::PeerGone),
                // An error means that the handle is gone, which the next look at it shows.
                _ = self.news.changed() => {}
            }
        }
        Ok(())
    }

    async fn push_some(&mut self, news: News, writer: &mut FrameWriter) -> Result<(), Stop> {
        let metrics = &self.gateway.metrics;
        let limit = news.high_watermark;
        // What is cached of a partition may be from a time when we owned it, and wrote what was never acked.
        if !self.handle.closed_only
            && let Some(entries) = self.gateway.tail.read(self.handle.id, self.offset, limit, self.push_bytes)
        {
            metrics.tail_hits.inc();
            return self.push(&entries, news, writer).await;
        }
        metrics.tail_misses.inc();
        match self.cold.read(self.offset).await.map_err(Stop::Error)? {
            Chunk::Entries(entries) => self.push_in_parts(&entries, news, writer).await,
            Chunk::Lost { from, to } if self.skip_lost => {
                self.lost = Some(OffsetRange { from, to });
                self.offset = to;
                Ok(())
            }
            Chunk::Lost { from, to } => {
                let message =
                    format!("records [{from}, {to}) are lost for good; ask to skip lost ranges to read on behind them");
                Err(Stop::Error(ErrorInfo { from, to, ..ErrorInfo::new(ErrorCode::DataLoss, message) }))
            }
            // The news were older than the core's word: look again.
            Chunk::End => Ok(()),
        }
    }

    /// A chunk from a bookie is larger than a push.
    async fn push_in_parts(
        &mut self,
        entries: &[CachedEntry],
        news: News,
        writer: &mut FrameWriter,
    ) -> Result<(), Stop> {
        let mut rest = entries;
        while !rest.is_empty() && self.offset < self.end {
            let mut bytes = 0;
            let count = rest.iter().take_while(|entry| {
                bytes += entry.batches.len();
                bytes <= self.push_bytes
            });
            let (now, later) = rest.split_at(count.count().max(1));
            self.push(now, news, writer).await?;
            rest = later;
        }
        Ok(())
    }

    async fn push(&mut self, entries: &[CachedEntry], news: News, writer: &mut FrameWriter) -> Result<(), Stop> {
        if let Some(last) = entries.last() {
            self.offset = last.end_offset;
        }
        let message = ReadBatches {
            high_watermark: news.high_watermark,
            log_start: news.log_start,
            last_stable: news.high_watermark,
            next_offset: self.offset,
            lost: self.lost.take(),
        };
        let payload: Vec<Bytes> = entries.iter().map(|entry| entry.batches.clone()).collect();
        let frame = Frame { payload, ..Frame::new(opcode::client::READ_BATCHES, self.request_id, &message) };
        self.gateway.metrics.read_bytes.inc_by(frame.payload_len() as u64);
        writer.write(&frame).await.map_err(|_| Stop::PeerGone)
    }
}
