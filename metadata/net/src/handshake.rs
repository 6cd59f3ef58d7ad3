//! The first frame of each side. The dialer speaks first; the listener answers with its own Hello or an error.

use std::sync::Arc;
use std::time::Duration;

use esker_types::error::ErrorInfo;
use esker_types::{BootId, ErrorCode, Frame, Hello, Role, opcode};
use tokio::time::timeout;

use crate::address::Address;
use crate::config::NetConfig;
use crate::error::ConnectError;
use crate::link::{FrameReceiver, Link, Peer};
use crate::queue::FrameSender;
use crate::tls::Certified;

/// A link before anybody has said who he is.
pub(crate) struct RawLink {
    pub tx: FrameSender,
    pub rx: FrameReceiver,
    /// What the peer's certificate says; none without TLS.
    pub certified: Option<Vec<Certified>>,
    /// The peer's address, for logs.
    pub remote: String,
}

const HELLO_REQUEST: u64 = 1;

/// The dialer's side.
pub(crate) async fn dial(
    mut raw: RawLink,
    ours: &Hello,
    expect: Role,
    address: &Address,
    config: &NetConfig,
) -> Result<Link, ConnectError> {
    let silent = || ConnectError::WrongPeer {
        address: address.clone(),
        reason: "it closed the connection before it said who it is".to_owned(),
    };
    raw.tx.send(Frame::new(opcode::HELLO, HELLO_REQUEST, ours)).await.map_err(|_| silent())?;
    let answer = match raw.rx.recv().await {
        Some(answer) => answer,
        None => {
            let reason = raw.rx.close_reason().unwrap_or_default();
            return Err(ConnectError::WrongPeer { address: address.clone(), reason });
        }
    };
    if answer.is_error() {
        let info = answer
            .decode_control()
            .unwrap_or_else(|_| ErrorInfo::new(ErrorCode::InvalidRequest, "with an error that does not parse"));
        return Err(ConnectError::Rejected { address: address.clone(), info });
    }
    let wrong = |reason: String| ConnectError::WrongPeer { address: address.clone(), reason };
    if answer.opcode != opcode::HELLO {
        return Err(wrong(format!("it answered Hello with opcode {}", answer.opcode)));
    }
    let theirs: Hello = answer.decode_control().map_err(|e| wrong(format!("its Hello does not parse: {e}")))?;
    let peer = judge(ours, &theirs, &raw).map_err(|info| wrong(info.message))?;
    if peer.role != expect {
        return Err(wrong(format!("it is a {}, not a {}", peer.role.as_str(), expect.as_str())));
    }
    Ok(finish(raw, peer, config))
}

/// The listener's side. None: the peer was refused, told so if it spoke our protocol, and cut off.
pub(crate) async fn welcome(mut raw: RawLink, ours: &Hello, config: &NetConfig) -> Option<Link> {
    let remote = raw.remote.clone();
    let hello = match timeout(config.hello_timeout, raw.rx.recv()).await {
        Ok(Some(frame)) => frame,
        Ok(None) => {
            let reason = raw.rx.close_reason().unwrap_or_default();
            tracing::debug!(remote, reason, "connection closed before Hello");
            return None;
        }
        Err(_) => {
            tracing::debug!(remote, "connection said nothing in time");
            return None;
        }
    };
    match admit(&hello, ours, &raw) {
        Ok(peer) => {
            raw.tx.send(hello.answer(ours)).await.ok()?;
            Some(finish(raw, peer, config))
        }
        Err(info) => {
            tracing::warn!(remote, reason = info.message, "connection refused");
            let _ = raw.tx.send(hello.error_answer(&info)).await;
            // Dropping the receiver closes the link; the writer still sends what is queued.
            None
        }
    }
}

fn admit(frame: &Frame, ours: &Hello, raw: &RawLink) -> Result<Peer, ErrorInfo> {
    if frame.opcode != opcode::HELLO {
        let text = format!("the first frame must be Hello, not opcode {}", frame.opcode);
        return Err(ErrorInfo::new(ErrorCode::InvalidRequest, text));
    }
    let theirs: Hello = frame
        .decode_control()
        .map_err(|e| ErrorInfo::new(ErrorCode::InvalidRequest, format!("Hello does not parse: {e}")))?;
    judge(ours, &theirs, raw)
}

fn judge(ours: &Hello, theirs: &Hello, raw: &RawLink) -> Result<Peer, ErrorInfo> {
    let Some(version) = ours.agreed_version(theirs) else {
        let text = format!(
            "no common protocol version: {} speaks {} to {}, {} speaks {} to {}",
            ours.name, ours.version_min, ours.version_max, theirs.name, theirs.version_min, theirs.version_max
        );
        return Err(ErrorInfo::new(ErrorCode::UnsupportedVersion, text));
    };
    let Ok(role) = Role::try_from(theirs.role) else {
        return Err(ErrorInfo::new(ErrorCode::InvalidRequest, format!("unknown role {}", theirs.role)));
    };
    let cluster = theirs.cluster_id();
    if cluster.is_none() && !theirs.cluster.is_empty() {
        return Err(ErrorInfo::new(ErrorCode::InvalidRequest, "the cluster id is not 16 bytes"));
    }
    if let (Some(mine), Some(other)) = (ours.cluster_id(), cluster)
        && mine != other
    {
        let text = format!("{} belongs to cluster {mine}, {} to cluster {other}", ours.name, theirs.name);
        return Err(ErrorInfo::new(ErrorCode::WrongCluster, text));
    }
    if let Some(identities) = &raw.certified
        && !identities.iter().any(|id| id.role == role && id.name == theirs.name)
    {
        let text = format!("the certificate does not allow role {} and name {:?}", role.as_str(), theirs.name);
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, text));
    }
    Ok(Peer {
        role,
        name: theirs.name.clone(),
        boot: theirs.boot_id().unwrap_or(BootId::NIL),
        cluster,
        build: theirs.build.clone(),
        version,
        address: raw.remote.clone(),
        certified: raw.certified.is_some(),
    })
}

fn finish(raw: RawLink, peer: Peer, config: &NetConfig) -> Link {
    let RawLink { tx, mut rx, .. } = raw;
    rx.set_limits(config.limits);
    rx.start_pings(config.ping_interval.max(Duration::from_millis(1)), config.ping_misses);
    Link { peer: Arc::new(peer), tx, rx }
}
