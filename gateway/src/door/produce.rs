//! The `Produce` stream: batches in, acknowledgements out in the same order.
//!
//! One task reads and hands batches to the shard, another writes answers. The reader takes room for each batch in the
//! partition and in the gateway before it hands it on; while there is none it does not read, and QUIC's flow control
//! makes the client wait, on this stream alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Frame, PartitionId, opcode};
use esker_wire::native::{ProduceOpen, ProduceOpened};
use tokio::sync::{mpsc, watch};

use super::answers::{self, Pending};
use super::connection::Client;
use super::frames::{FrameReader, FrameWriter, Received, StreamError};
use super::read::{RECOVERY_WAIT, ready};
use crate::append::{self, Submitted};
use crate::auth::Action;
use crate::partition::{Handle, News};

/// After a failure, the client is given this long to see it and end the stream.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub async fn serve(
    client: &Client,
    open: Frame,
    reader: &mut FrameReader,
    mut writer: FrameWriter,
) -> Result<(), StreamError> {
    let gateway = &client.gateway;
    let handle = match open_partition(client, &open).await {
        Ok(handle) => handle,
        Err(error) => {
            refuse(&mut writer, &open, &error).await;
            return Ok(());
        }
    };
    let opened = ProduceOpened {
        topic_id: handle.topic.0.to_vec(),
        epoch: handle.news().epoch.0,
        batch_bytes_max: handle.limits.batch_bytes_max(),
        window_bytes: u32::try_from(gateway.config.append.partition_inflight.0).unwrap_or(u32::MAX),
    };
    if writer.write(&open.answer(&opened)).await.is_err() {
        return Ok(());
    }
    let (pending, inbox) = mpsc::channel(gateway.config.append.stream_pipeline as usize);
    let failed = Arc::new(AtomicBool::new(false));
    let writing = answers::write(gateway.clone(), handle.clone(), inbox, writer, failed.clone());
    // Both end together: the reader drops `pending` at its end, and the writer ends when all is answered. If the writer
    // ends first, the client reads no answers any more and `pending` is closed. Dropping this future drops both.
    let (read, ()) = tokio::join!(take_batches(client, &handle, reader, pending, &failed), writing);
    read
}

async fn open_partition(client: &Client, open: &Frame) -> Result<Arc<Handle>, ErrorInfo> {
    let request: ProduceOpen = open
        .decode_control()
        .map_err(|e| ErrorInfo::new(ErrorCode::InvalidRequest, format!("PRODUCE_OPEN does not parse: {e}")))?;
    let action: for<'a> fn(&'a str, PartitionId) -> Action<'a> =
        |topic, partition| Action::Produce { topic, partition };
    let record = client.gateway.resolve(&client.principal, request.partition.as_ref(), action).await?;
    let handle = client.gateway.owned(record.id).await?;
    // Before that its core would refuse every batch; the client has nothing better to do than to wait here.
    ready(&client.gateway, &handle, RECOVERY_WAIT).await?;
    Ok(handle)
}

/// Reads until the client is done, something fails, or the partition is gone.
async fn take_batches(
    client: &Client,
    handle: &Arc<Handle>,
    reader: &mut FrameReader,
    pending: mpsc::Sender<Pending>,
    failed: &AtomicBool,
) -> Result<(), StreamError> {
    let mut news = handle.follow();
    loop {
        // Cancel-safe: a half-read frame stays in the reader.
        let received = tokio::select! {
            biased;
            received = reader.next() => received?,
            () = until_gone(&mut news) => {
                // Idle producers learn of the move too; whatever is under way is answered by the shard.
                let moved = client.gateway.not_owner(handle.id, ErrorCode::Moved);
                let _ = pending.send(Pending::last(moved)).await;
                return refuse_rest(reader, &pending).await;
            }
        };
        let Some(Received { frame, room }) = received else { return Ok(()) };
        if failed.load(Ordering::Acquire) {
            answer_now(&pending, &frame, earlier_failed()).await;
            return refuse_rest(reader, &pending).await;
        }
        match submit(client, handle, &frame).await {
            Ok(Some(waiting)) => {
                // Our part of the connection's budget is over: the batch is accounted for in the partition now.
                drop(room);
                if pending.send(waiting).await.is_err() {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                answer_now(&pending, &frame, error).await;
                return refuse_rest(reader, &pending).await;
            }
        }
    }
}

async fn until_gone(news: &mut watch::Receiver<News>) {
    // An error means the same: the handle is gone.
    drop(news.wait_for(|news| news.gone).await);
}

/// Checks a batch and hands it to its shard. None: the gateway is stopping.
async fn submit(client: &Client, handle: &Arc<Handle>, frame: &Frame) -> Result<Option<Pending>, ErrorInfo> {
    let gateway = &client.gateway;
    let arrived = Instant::now();
    if frame.opcode != opcode::client::PRODUCE {
        return Err(ErrorInfo::new(ErrorCode::InvalidRequest, format!("opcode {} on a Produce stream", frame.opcode)));
    }
    match append::submit(gateway, handle, frame.payload_bytes()).await {
        Ok(Submitted { outcome, append_time_ms }) => {
            Ok(Some(Pending::shard(frame.request_id, outcome, append_time_ms, arrived)))
        }
        Err(error) if error.error_code() == Some(ErrorCode::ShuttingDown) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nothing more is appended; frames that are under way are answered, so that the client knows.
async fn refuse_rest(reader: &mut FrameReader, pending: &mpsc::Sender<Pending>) -> Result<(), StreamError> {
    while let Ok(Some(received)) = reader.next_within(LAST_WORDS).await {
        answer_now(pending, &received.frame, earlier_failed()).await;
    }
    reader.stop(ErrorCode::EarlierBatchFailed as u32);
    Ok(())
}

fn earlier_failed() -> ErrorInfo {
    ErrorInfo::new(ErrorCode::EarlierBatchFailed, "an earlier batch of this stream failed; open another stream")
}

async fn answer_now(pending: &mpsc::Sender<Pending>, frame: &Frame, error: ErrorInfo) {
    // Closed: the client reads no answers.
    let _ = pending.send(Pending::error(frame.request_id, error)).await;
}

async fn refuse(writer: &mut FrameWriter, open: &Frame, error: &ErrorInfo) {
    // A client that is gone needs no answer.
    let _ = writer.write(&open.error_answer(error)).await;
    writer.finish();
    writer.stopped().await;
}
