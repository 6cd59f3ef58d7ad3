use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use esker_types::error::ErrorInfo;
use esker_types::frame::{FLAG_ANSWER, FLAG_ERROR};
use esker_types::{ErrorCode, Frame, opcode};
use esker_wire::native::Produced;
use tokio::sync::{mpsc, oneshot};

use super::frames::FrameWriter;
use crate::gateway::Gateway;
use crate::partition::Handle;
use crate::shard::Outcome;

/// Answers written in one go.
const TOGETHER: usize = 64;

/// An answer that is owed, in the order of the requests.
pub struct Pending {
    request_id: u64,
    append_time_ms: i64,
    arrived: Instant,
    state: State,
}

enum State {
    Shard(oneshot::Receiver<Outcome>),
    Error(ErrorInfo),
    /// Told without having been asked: the stream is over.
    Last(ErrorInfo),
}

impl Pending {
    pub fn shard(request_id: u64, outcome: oneshot::Receiver<Outcome>, append_time_ms: i64, arrived: Instant) -> Self {
        Self { request_id, append_time_ms, arrived, state: State::Shard(outcome) }
    }

    pub fn error(request_id: u64, error: ErrorInfo) -> Self {
        Self { request_id, append_time_ms: -1, arrived: Instant::now(), state: State::Error(error) }
    }

    pub fn last(error: ErrorInfo) -> Self {
        Self { state: State::Last(error), ..Self::error(0, ErrorInfo::default()) }
    }

    fn is_ready(&self) -> bool {
        match &self.state {
            State::Shard(outcome) => !outcome.is_empty() || outcome.is_terminated(),
            State::Error(_) | State::Last(_) => true,
        }
    }
}

/// Writes answers in order, those that are ready together. Ends when the client reads no more, or all is answered.
/// Never dropped half-way through a write but with its stream.
pub async fn write(
    gateway: Arc<Gateway>,
    handle: Arc<Handle>,
    mut inbox: mpsc::Receiver<Pending>,
    mut writer: FrameWriter,
    failed: Arc<AtomicBool>,
) {
    let (mut frames, mut held) = (Vec::new(), None);
    loop {
        let next = match held.take() {
            Some(next) => Some(next),
            None => inbox.recv().await,
        };
        let Some(next) = next else { break };
        frames.extend(settle(&gateway, &handle, next, &failed).await);
        while frames.len() < TOGETHER {
            match inbox.try_recv() {
                Ok(ready) if ready.is_ready() => frames.extend(settle(&gateway, &handle, ready, &failed).await),
                Ok(later) => {
                    held = Some(later);
                    break;
                }
                Err(_) => break,
            }
        }
        if !frames.is_empty() && writer.write_all(&frames).await.is_err() {
            return;
        }
        frames.clear();
    }
    writer.finish();
    // Until the peer has everything: dropping the stream earlier could lose the last answers.
    writer.stopped().await;
}

/// Waits for the outcome. None: the client asked for no answer, or there is nothing to say.
async fn settle(gateway: &Gateway, handle: &Handle, pending: Pending, failed: &AtomicBool) -> Option<Frame> {
    let Pending { request_id, append_time_ms, arrived, state } = pending;
    let outcome = match state {
        State::Shard(outcome) => match outcome.await {
            Ok(Ok(completed)) => Ok(completed),
            Ok(Err(refusal)) => Err(refused(gateway, handle, refusal.code, refusal.reason)),
            Err(_) => Err(gateway.not_owner(handle.id, ErrorCode::Moved)),
        },
        State::Error(error) => Err(error),
        State::Last(error) => {
            failed.store(true, Ordering::Release);
            return Some(error_frame(opcode::client::PRODUCE_OPEN, 0, &error));
        }
    };
    gateway.metrics.append_seconds.observe(arrived.elapsed().as_secs_f64());
    match outcome {
        Ok(completed) => {
            let answer = Produced {
                base_offset: completed.base_offset,
                append_time_ms,
                log_start: handle.news().log_start,
                duplicate: completed.duplicate,
            };
            let frame = Frame { flags: FLAG_ANSWER, ..Frame::new(opcode::client::PRODUCE, request_id, &answer) };
            (request_id != 0).then_some(frame)
        }
        Err(error) => {
            failed.store(true, Ordering::Release);
            gateway.metrics.append_errors.inc();
            (request_id != 0).then(|| error_frame(opcode::client::PRODUCE, request_id, &error))
        }
    }
}

fn refused(gateway: &Gateway, handle: &Handle, code: ErrorCode, reason: String) -> ErrorInfo {
    match code {
        ErrorCode::NotOwner | ErrorCode::Moved | ErrorCode::FencedEpoch | ErrorCode::Fenced => {
            ErrorInfo { message: reason, ..gateway.not_owner(handle.id, code) }
        }
        _ => ErrorInfo::new(code, reason),
    }
}

pub fn error_frame(opcode: u16, request_id: u64, error: &ErrorInfo) -> Frame {
    Frame { flags: FLAG_ANSWER | FLAG_ERROR, ..Frame::new(opcode, request_id, error) }
}
