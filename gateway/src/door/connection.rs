//! Connections and their streams. A panic or a broken frame in one stream ends that stream; a peer that breaks the
//! handshake, or whose first stream is not a Hello, loses the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Frame, FrameLimits, Hello, Role, opcode};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frames::{FrameReader, FrameWriter, Received, StreamError};
use super::{produce, read};
use crate::auth::Principal;
use crate::call;
use crate::config::BATCH_BYTES_MAX;
use crate::gateway::Gateway;
use crate::groups::Groups;

/// What a client may make us buffer with one frame: a batch and its request, or a call.
pub const CLIENT_LIMITS: FrameLimits =
    FrameLimits { control_max: 256 << 10, frame_max: BATCH_BYTES_MAX as u32 + (256 << 10) };

/// How long a refused client is given to take the reason.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The QUIC door.
pub struct Door {
    pub gateway: Arc<Gateway>,
    pub groups: Groups,
    pub endpoint: quinn::Endpoint,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
    handshakes: AtomicUsize,
}

/// One client, as its streams see it.
pub struct Client {
    pub gateway: Arc<Gateway>,
    pub groups: Groups,
    pub principal: Principal,
    pub ingress: Arc<Semaphore>,
}

impl Door {
    pub fn new(
        gateway: Arc<Gateway>,
        groups: Groups,
        endpoint: quinn::Endpoint,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        Self { gateway, groups, endpoint, tasks, cancel, handshakes: AtomicUsize::new(0) }
    }
}

/// Takes connections until cancelled.
pub async fn accept(door: Arc<Door>) {
    loop {
        let Some(Some(incoming)) = door.cancel.run_until_cancelled(door.endpoint.accept()).await else { return };
        let quic = &door.gateway.config.quic;
        if door.endpoint.open_connections() >= quic.connections_max as usize {
            door.gateway.metrics.connections_refused.inc();
            incoming.refuse();
            continue;
        }
        // With many half-open connections, whoever comes must first show that packets to its address reach it.
        if door.handshakes.load(Ordering::Relaxed) >= quic.retry_above as usize && incoming.may_retry() {
            // Fails only for an address that is validated already.
            let _ = incoming.retry();
            continue;
        }
        door.handshakes.fetch_add(1, Ordering::Relaxed);
        let (running, cancel) = (door.clone(), door.cancel.clone());
        door.tasks.spawn(async move {
            let established = handshake(&running, incoming).await;
            running.handshakes.fetch_sub(1, Ordering::Relaxed);
            if let Some(connection) = established {
                running.gateway.metrics.connections.inc();
                cancel.run_until_cancelled(serve(&running, &connection)).await;
                running.gateway.metrics.connections.dec();
                close(&connection, ErrorCode::ShuttingDown, "the connection is over");
            }
        });
    }
}

async fn handshake(door: &Door, incoming: quinn::Incoming) -> Option<quinn::Connection> {
    let from = incoming.remote_address();
    let limit = door.gateway.config.quic.handshake_timeout.0;
    let connecting = incoming.accept().ok()?;
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::debug!(%from, %error, "handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%from, "handshake took too long");
            None
        }
    }
}

async fn serve(door: &Door, connection: &quinn::Connection) {
    let gateway = &door.gateway;
    let client = match welcome(gateway, &door.groups, connection).await {
        Ok(client) => client,
        Err((code, reason)) => {
            gateway.metrics.connections_refused.inc();
            tracing::debug!(from = %connection.remote_address(), reason, "client refused");
            close(connection, code, &reason);
            return;
        }
    };
    let (client, _control) = client;
    // Dropping the set aborts the streams: none outlives its connection.
    let mut streams = JoinSet::new();
    loop {
        // Cancel-safe: both are.
        let accepted = tokio::select! {
            accepted = connection.accept_bi() => accepted,
            Some(_) = streams.join_next(), if !streams.is_empty() => continue,
        };
        let Ok((send, recv)) = accepted else { return };
        let client = client.clone();
        streams.spawn(async move {
            client.gateway.metrics.streams.inc();
            let streams = client.gateway.metrics.streams.clone();
            // Counted down also when the stream is aborted.
            let _count = Countdown(streams);
            stream(client, send, recv).await;
        });
    }
}

struct Countdown(prometheus_client::metrics::gauge::Gauge);

impl Drop for Countdown {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The client's first stream carries its Hello and stays open; whatever comes on it later is read and dropped.
async fn welcome(
    gateway: &Arc<Gateway>,
    groups: &Groups,
    connection: &quinn::Connection,
) -> Result<(Arc<Client>, JoinSet<()>), (ErrorCode, String)> {
    let limit = gateway.config.quic.hello_timeout.0;
    let refuse = |reason: &str| (ErrorCode::InvalidRequest, reason.to_owned());
    let ingress =
        Arc::new(Semaphore::new(gateway.config.quic.ingress_per_connection.as_usize().min(Semaphore::MAX_PERMITS)));
    let accepted = tokio::time::timeout(limit, connection.accept_bi()).await;
    let (send, recv) = accepted.map_err(|_| refuse("no Hello in time"))?.map_err(|e| refuse(&e.to_string()))?;
    let mut reader = FrameReader::new(recv, FrameLimits::HELLO, ingress.clone());
    let mut writer = FrameWriter::new(send);
    let first = reader.next_within(limit).await.map_err(|e| refuse(&e.to_string()))?;
    let frame = first.ok_or_else(|| refuse("the first stream ended without a Hello"))?.frame;
    let answer = match check_hello(gateway, &frame) {
        Ok(answer) => answer,
        Err(error) => {
            // The typed error goes out on the stream; the close tells the same to who does not read it.
            let _ = writer.write(&frame.error_answer(&error)).await;
            writer.finish();
            // Closing drops what has not been sent.
            let _ = tokio::time::timeout(LAST_WORDS, writer.stopped()).await;
            let code = error.error_code().unwrap_or(ErrorCode::InvalidRequest);
            return Err((code, error.message));
        }
    };
    writer.write(&frame.answer(&answer)).await.map_err(|e| refuse(&e.to_string()))?;
    let principal = Principal { name: Arc::from("anonymous"), from: connection.remote_address() };
    let mut control = JoinSet::new();
    control.spawn(async move {
        while let Ok(Some(received)) = reader.next().await {
            let answer = match received.frame.opcode {
                opcode::PING => received.frame.answer(&answer),
                _ => unknown_opcode(&received.frame),
            };
            if writer.write(&answer).await.is_err() {
                return;
            }
        }
    });
    let client = Client { gateway: gateway.clone(), groups: groups.clone(), principal, ingress };
    Ok((Arc::new(client), control))
}

fn check_hello(gateway: &Gateway, frame: &Frame) -> Result<Hello, ErrorInfo> {
    let invalid = |reason: &str| ErrorInfo::new(ErrorCode::InvalidRequest, reason);
    if frame.opcode != opcode::HELLO {
        return Err(invalid("the first frame of a connection must be a Hello"));
    }
    let hello: Hello = frame.decode_control().map_err(|e| invalid(&format!("the Hello does not parse: {e}")))?;
    let cluster = gateway.view.read(|state| state.cluster().map(|cluster| cluster.id));
    let ours = Hello::new(Role::Gateway, cluster, &gateway.config.node_name, gateway.boot);
    if hello.agreed_version(&ours).is_none() {
        let message = format!(
            "no common protocol version: the client knows {} to {}, this gateway {} to {}",
            hello.version_min, hello.version_max, ours.version_min, ours.version_max
        );
        return Err(ErrorInfo::new(ErrorCode::UnsupportedVersion, message));
    }
    match (hello.cluster_id(), cluster) {
        (Some(theirs), Some(id)) if theirs != id => {
            Err(ErrorInfo::new(ErrorCode::WrongCluster, format!("this is cluster {id}, not {theirs}")))
        }
        _ => Ok(ours),
    }
}

async fn stream(client: Arc<Client>, send: quinn::SendStream, recv: quinn::RecvStream) {
    let gateway = client.gateway.clone();
    let limit = gateway.config.quic.hello_timeout.0;
    let mut reader = FrameReader::new(recv, CLIENT_LIMITS, client.ingress.clone());
    let mut writer = FrameWriter::new(send);
    let served = match reader.next_within(limit).await {
        Ok(Some(Received { frame, .. })) => match frame.opcode {
            opcode::client::PRODUCE_OPEN => produce::serve(&client, frame, &mut reader, writer).await,
            opcode::client::READ_OPEN => read::serve(&client, frame, writer).await,
            _ => calls(&client, frame, &mut reader, &mut writer).await,
        },
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        if !matches!(error, StreamError::Read(_)) {
            gateway.metrics.bad_frames.inc();
            tracing::debug!(from = %client.principal.from, %error, "stream ended");
        }
        reader.stop(ErrorCode::InvalidRequest as u32);
    }
}

/// Calls, one after the other, until the client is done.
async fn calls(
    client: &Client,
    first: Frame,
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
) -> Result<(), StreamError> {
    let mut next = Some(first);
    while let Some(frame) = next {
        let answer = match call::answer(client, &frame).await {
            Some(answer) => answer,
            None => unknown_opcode(&frame),
        };
        if writer.write(&answer).await.is_err() {
            return Ok(());
        }
        next = reader.next().await?.map(|received| received.frame);
    }
    writer.finish();
    Ok(())
}

fn unknown_opcode(frame: &Frame) -> Frame {
    let message = format!("opcode {} is not known here: the client is of another version", frame.opcode);
    frame.error_answer(&ErrorInfo::new(ErrorCode::UnknownOpcode, message))
}

fn close(connection: &quinn::Connection, code: ErrorCode, reason: &str) {
    connection.close((code as u32).into(), reason.as_bytes());
}
