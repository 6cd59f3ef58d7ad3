//! One QUIC connection to one gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use esker_types::hello::Hello;
use esker_types::{BootId, Frame, Role, opcode};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, SendStream, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ClientConfig;
use crate::error::{Error, RemoteError};
use crate::stream::{FrameReader, write_frame};
use crate::tls;

/// One stream's window: 8 MiB keep a 10 Gbit/s link of 6 ms busy.
const STREAM_WINDOW: u32 = 8 << 20;
/// All streams of a connection together: what a gateway can make this client hold.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Sent and not acknowledged by the peer's QUIC stack.
const SEND_WINDOW: u64 = 16 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Two keep-alives may be lost. A gateway that is gone is noticed earlier: by stalled requests, see `cluster`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(12);
/// Bursts of many connections' worth of packets wait here while the core is busy.
const SOCKET_BUFFER: usize = 4 << 20;

/// A connection whose hellos were exchanged.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) server: String,
    quic: quinn::Connection,
    /// Keeps its socket: each connection has its own, so that receiving is not bound to one core.
    endpoint: Endpoint,
    /// The control stream stays open as long as the connection.
    _control: (SendStream, FrameReader),
}

impl Connection {
    pub(crate) async fn open(
        server: &str,
        config: &ClientConfig,
        tls: Arc<QuicClientConfig>,
        boot: BootId,
    ) -> Result<Self, Error> {
        let limit = config.connect_timeout;
        match tokio::time::timeout(limit, Self::open_unbounded(server, config, tls, boot)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Unreachable(format!("{server}: no answer within {limit:?}"))),
        }
    }

    async fn open_unbounded(
        server: &str,
        config: &ClientConfig,
        tls: Arc<QuicClientConfig>,
        boot: BootId,
    ) -> Result<Self, Error> {
        let unreachable = |why: String| Error::Unreachable(format!("{server}: {why}"));
        let host = host_of(server)?;
        let addresses = tokio::net::lookup_host(server).await.map_err(|e| unreachable(e.to_string()))?;
        let mut last = unreachable("the name has no address".to_owned());
        for address in addresses.take(4) {
            let endpoint = endpoint(address, config).map_err(|e| unreachable(format!("no socket: {e}")))?;
            let mut quic_config = quinn::ClientConfig::new(tls.clone());
            quic_config.transport_config(Arc::new(transport(config)));
            let connecting = endpoint.connect_with(quic_config, address, host);
            match connecting.map_err(|e| unreachable(e.to_string()))?.await {
                Ok(quic) => return Self::greet(server, quic, endpoint, config, boot).await,
                Err(failure) => {
                    last = tls::certificate_error(server, &config.trust, &failure)
                        .unwrap_or_else(|| unreachable(failure.to_string()));
                }
            }
        }
        Err(last)
    }

    async fn greet(
        server: &str,
        quic: quinn::Connection,
        endpoint: Endpoint,
        config: &ClientConfig,
        boot: BootId,
    ) -> Result<Self, Error> {
        let protocol = |reason: String| Error::Protocol { server: server.to_owned(), reason };
        let lost = |reason: String| Error::Unreachable(format!("{server}: {reason}"));
        let (mut send, receive) = quic.open_bi().await.map_err(|e| lost(e.to_string()))?;
        let mut receive = FrameReader::new(receive);
        let hello = Hello::new(Role::Client, None, &config.name, boot);
        let frame = Frame::new(opcode::HELLO, 1, &hello);
        write_frame(&mut send, &frame).await.map_err(|e| lost(e.to_string()))?;
        let answer = receive.next().await.map_err(|e| lost(e.to_string()))?;
        let answer = answer.ok_or_else(|| lost("closed during the hello".to_owned()))?;
        if answer.is_error() {
            return Err(Error::Refused(RemoteError::of(&answer).map_err(|e| protocol(e.to_string()))?));
        }
        let peer: Hello = answer.decode_control().map_err(|e| protocol(e.to_string()))?;
        if answer.opcode != opcode::HELLO || peer.role() != Role::Gateway {
            return Err(protocol(format!("expected the hello of a gateway, got one of a {}", peer.role().as_str())));
        }
        if hello.agreed_version(&peer).is_none() {
            let (min, max) = (peer.version_min, peer.version_max);
            return Err(protocol(format!("it speaks versions {min} to {max}: use another build of this client")));
        }
        Ok(Self { server: server.to_owned(), quic, endpoint, _control: (send, receive) })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.quic.close_reason().is_some()
    }

    /// Why it was closed, for messages.
    pub(crate) fn why_closed(&self) -> String {
        self.quic.close_reason().map_or_else(|| "the connection was lost".to_owned(), |e| e.to_string())
    }

    pub(crate) async fn open_stream(&self) -> Result<(SendStream, FrameReader), Error> {
        let (send, receive) =
            self.quic.open_bi().await.map_err(|e| Error::Unreachable(format!("{}: {e}", self.server)))?;
        Ok((send, FrameReader::new(receive)))
    }

    /// Datagrams received so far: if it stands still while something is asked, the peer is gone.
    pub(crate) fn heard(&self) -> u64 {
        self.quic.stats().udp_rx.datagrams
    }

    pub(crate) fn close(&self) {
        self.quic.close(VarInt::from_u32(0), b"done");
    }

    /// Waits until the peer knows that the connection is closed, or does not answer.
    pub(crate) async fn closed(&self) {
        self.endpoint.wait_idle().await;
    }
}

fn host_of(server: &str) -> Result<&str, Error> {
    let bad = || Error::Config(format!("{server:?} is not host:port"));
    let (host, port) = server.rsplit_once(':').ok_or_else(bad)?;
    port.parse::<u16>().map_err(|_| bad())?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() { Err(bad()) } else { Ok(host) }
}

fn endpoint(to: SocketAddr, config: &ClientConfig) -> std::io::Result<Endpoint> {
    let local = match to.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel gives what its limits allow; less is slower, not wrong.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&SocketAddr::new(local, 0).into())?;
    let socket: UdpSocket = socket.into();
    let mut endpoint_config = EndpointConfig::default();
    endpoint_config.max_udp_payload_size(config.mtu_max.max(1472)).map_err(std::io::Error::other)?;
    Endpoint::new(endpoint_config, None, socket, Arc::new(quinn::TokioRuntime))
}

fn transport(config: &ClientConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(config.mtu_max);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0)) // gateways open none
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT).expect("12 s fit a varint of milliseconds")))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu))
        .enable_segmentation_offload(config.gso);
    transport
}
