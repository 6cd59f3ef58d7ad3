//! One connection. A task reads requests and hands produced batches on at once; the rest of each request is done, and
//! answered, one after the other in the order of requests. Dropping the connection drops both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use esker_kafka::{Api, DecodeError, DecodeLimits, Reader, Request, RequestHeader, Response};
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::apis;
use super::frames::{FrameError, FrameReader, Patience};
use super::listener::KafkaDoor;
use super::produce;
use super::replay::Replays;
use super::send::send;
use super::session::{Call, Session};
use crate::auth::Principal;

/// Requests up to this size take nothing from the room of all connections: a few large ones must not keep heartbeats out.
const SMALL_REQUEST: usize = 64 << 10;
/// How long answers are still written after the client has closed its side.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A request that is owed an answer.
struct Owed {
    correlation_id: i32,
    call: Call,
    work: Work,
    _room: Option<Room>,
}

enum Work {
    /// Nothing was decoded but the header: an unknown version of ApiVersions.
    Versions,
    /// Its batches are on their way.
    Produce(produce::Pending),
    Request(Request),
}

/// Bytes of a request that count until it is answered.
struct Room {
    _connection: OwnedSemaphorePermit,
    _total: Option<Counted>,
}

/// A share of a room that shows in a gauge.
pub struct Counted {
    permit: OwnedSemaphorePermit,
    gauge: Gauge,
}

impl Counted {
    pub fn new(permit: OwnedSemaphorePermit, gauge: Gauge) -> Self {
        gauge.inc_by(permit.num_permits() as i64);
        Self { permit, gauge }
    }

    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    /// Gives back what is above `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let excess = self.permit.num_permits().saturating_sub(bytes);
        if let Some(excess) = self.permit.split(excess) {
            self.gauge.dec_by(excess.num_permits() as i64);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec_by(self.permit.num_permits() as i64);
    }
}

/// Why a client is cut off.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("request of {api} version {version}: {source}")]
    Decode { api: &'static str, version: i16, source: DecodeError },
    #[error(transparent)]
    Header(#[from] DecodeError),
    #[error("api key {key} version {version} is not served")]
    NotServed { key: i16, version: i16 },
}

pub async fn serve<R, W>(door: &Arc<KafkaDoor>, principal: Principal, read: R, write: W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let from = principal.from;
    let session = Session { door: door.clone(), principal };
    let (owed, inbox) = mpsc::channel(door.gateway.config.kafka.pipeline as usize);
    let reading = async {
        if let Err(fault) = read_requests(&session, read, owed).await {
            if !matches!(fault, Fault::Frame(FrameError::Io(_) | FrameError::Deadline(_))) {
                door.gateway.metrics.kafka_bad_requests.inc();
            }
            tracing::debug!(%from, %fault, "a Kafka client's connection ends");
        }
        // What was asked before may still be answered, if that is soon.
        tokio::time::sleep(LAST_WORDS).await;
    };
    // Cancel-safe: whichever ends first ends the connection.
    tokio::select! {
        () = answer_requests(&session, inbox, write) => {}
        () = reading => {}
    }
}

async fn read_requests<R: AsyncRead + Unpin>(
    session: &Session,
    stream: R,
    owed: mpsc::Sender<Owed>,
) -> Result<(), Fault> {
    let config = &session.gateway().config.kafka;
    let mut frames = FrameReader::new(stream, config.request_bytes_max.as_usize());
    let most = config.connection_inflight.as_usize().min(u32::MAX as usize);
    let connection = Arc::new(Semaphore::new(most));
    let mut patience = Patience { start: config.first_request_timeout.0, rest: config.request_timeout.0 };
    while let Some(len) = frames.announced(patience).await? {
        let Some(room) = take_room(session, &connection, len.min(most), len).await else { return Ok(()) };
        let bytes = frames.take(len, patience).await?;
        patience.start = config.idle_timeout.0;
        session.gateway().metrics.kafka_requests.inc();
        let (header, request) = decode(bytes)?;
        let call = Call { version: header.version, client_id: header.client_id.unwrap_or_default() };
        let (work, room) = match request {
            None => (Work::Versions, Some(room)),
            Some(Request::Produce(request)) => {
                let pending = produce::begin(session, request).await;
                // The batches count in their partitions now.
                drop(room);
                (Work::Produce(pending), None)
            }
            Some(request) => (Work::Request(request), Some(room)),
        };
        let next = Owed { correlation_id: header.correlation_id, call, work, _room: room };
        if owed.send(next).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits for room. None: the gateway is stopping.
async fn take_room(session: &Session, connection: &Arc<Semaphore>, share: usize, len: usize) -> Option<Room> {
    let permits = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let mine = connection.clone().acquire_many_owned(permits(share)).await.ok()?;
    let total = match len > SMALL_REQUEST {
        true => {
            let permit = session.door.requests.clone().acquire_many_owned(permits(len)).await.ok()?;
            Some(Counted::new(permit, session.gateway().metrics.kafka_inflight_bytes.clone()))
        }
        false => None,
    };
    Some(Room { _connection: mine, _total: total })
}

/// No request: a version of ApiVersions that we do not know, which gets an answer all the same.
fn decode(bytes: Bytes) -> Result<(RequestHeader, Option<Request>), Fault> {
    let mut reader = Reader::new(bytes, DecodeLimits::default());
    let header = RequestHeader::decode(&mut reader)?;
    let (key, version) = (header.api_key, header.version);
    match header.api().filter(|api| apis::serves(*api)) {
        Some(api) => {
            let request = Request::decode(&header, &mut reader).map_err(|source| Fault::Decode {
                api: api.name(),
                version,
                source,
            })?;
            Ok((header, Some(request)))
        }
        None if key == Api::ApiVersions as i16 => Ok((header, None)),
        None => Err(Fault::NotServed { key, version }),
    }
}

async fn answer_requests<W: AsyncWrite + Unpin>(session: &Session, mut inbox: mpsc::Receiver<Owed>, mut stream: W) {
    let patience = session.gateway().config.kafka.write_timeout.0;
    let mut replays = Replays::default();
    while let Some(Owed { correlation_id, call, work, _room }) = inbox.recv().await {
        let version = call.version;
        let (response, version, room) = match work {
            // Its first three fields have the same place in every version.
            Work::Versions => (Response::ApiVersions(apis::unknown_version()), 0, None),
            Work::Produce(pending) => match pending.finish(session, version).await {
                produce::Finished::Answer(response) => (Response::Produce(response), version, None),
                produce::Finished::Nothing => continue,
                produce::Finished::Failed => return,
            },
            Work::Request(request) => {
                let (response, room) = apis::answer(session, &mut replays, &call, request).await;
                (response, version, room)
            }
        };
        if !send(&mut stream, response.encode(version, correlation_id), patience).await {
            return;
        }
        drop(room);
    }
}

/// When a request came, for how long it may wait.
pub fn deadline(arrived: Instant, timeout_ms: i32, most: Duration) -> tokio::time::Instant {
    let asked = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    tokio::time::Instant::from_std(arrived) + asked.min(most)
}
