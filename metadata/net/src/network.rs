//! One role's identity on the wire: dials and listens.

use std::sync::Arc;
use std::time::Duration;

use esker_types::{ClusterId, FrameLimits, Hello, Role};
use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::address::Address;
use crate::config::{Identity, NetConfig};
use crate::error::{ConnectError, ListenError};
use crate::handshake::{self, RawLink};
use crate::hub::{Hub, Registration};
use crate::link::{FrameReceiver, Link, Peer, Source};
use crate::queue::{self, FrameSender, LinkState, QueueBounds};
use crate::stats::NetStats;
use crate::stream::{self, StreamReader};
use crate::tls::Certified;

/// Handshakes of one listener at a time. A flood of silent connections holds the others up, but not our memory.
const HANDSHAKES_MAX: usize = 256;
/// Links that are ready and not yet accepted.
const ACCEPT_BACKLOG: usize = 64;
/// Wait after an accept that failed, for example because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Cheap to clone; clones are the same identity.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    config: NetConfig,
    hub: Hub,
    cluster: RwLock<Option<ClusterId>>,
    stats: Arc<NetStats>,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It answers, and this is who it is.
    Alive(Arc<Peer>),
    /// The machine answers that nobody listens there.
    Refused,
    /// No verdict: no answer in time, or no route, or it refuses to talk to us.
    Unknown,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}

impl Network {
    /// A network whose `inproc:` names are its own alone.
    pub fn new(identity: Identity, config: NetConfig) -> Self {
        Self::with_hub(identity, config, Hub::new())
    }

    /// A network that shares `inproc:` names with all others of `hub`.
    pub fn with_hub(identity: Identity, config: NetConfig, hub: Hub) -> Self {
        let stats = Arc::new(NetStats::default());
        Self { inner: Arc::new(Inner { identity, config, hub, cluster: RwLock::new(None), stats }) }
    }

    /// From now on peers of other clusters are refused, in new links.
    pub fn set_cluster(&self, cluster: ClusterId) {
        *self.inner.cluster.write() = Some(cluster);
    }

    pub fn cluster(&self) -> Option<ClusterId> {
        *self.inner.cluster.read()
    }

    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub fn config(&self) -> &NetConfig {
        &self.inner.config
    }

    pub fn hub(&self) -> &Hub {
        &self.inner.hub
    }

    pub fn stats(&self) -> &NetStats {
        &self.inner.stats
    }

    /// What this side says in its first frame.
    pub fn hello(&self) -> Hello {
        let Identity { role, name, boot } = &self.inner.identity;
        Hello::new(*role, self.cluster(), name, *boot)
    }

    /// Opens a port. Port 0 takes a free one, see [`Listener::local_address`].
    pub async fn listen(&self, address: &Address) -> Result<Listener, ListenError> {
        let (links_tx, links) = mpsc::channel(ACCEPT_BACKLOG);
        let cancel = CancellationToken::new();
        let mut registration = None;
        let accepting;
        let local = match address {
            Address::InProcess(name) => {
                let taken = || ListenError::NameTaken { name: name.clone() };
                let (held, mut dials) = self.inner.hub.register(name).ok_or_else(taken)?;
                registration = Some(held);
                let (network, stop) = (self.clone(), cancel.clone());
                accepting = tokio::spawn(async move {
                    while let Some(Some(raw)) = stop.run_until_cancelled(dials.recv()).await {
                        network.clone().welcome(raw, links_tx.clone());
                    }
                });
                address.clone()
            }
            Address::Tcp { host, port } => {
                let config = &self.inner.config;
                if config.tls.is_none() && !config.insecure_internal && !address.is_local() {
                    return Err(ListenError::Insecure { address: address.clone() });
                }
                let bind = |source| ListenError::Bind { address: address.clone(), source };
                let socket = TcpListener::bind((host.as_str(), *port)).await.map_err(bind)?;
                let local = socket.local_addr().map_err(bind)?;
                accepting = tokio::spawn(self.clone().accept_tcp(socket, links_tx, cancel.clone()));
                Address::from(local)
            }
        };
        let stop = cancel.drop_guard();
        Ok(Listener { links, local, network: self.clone(), accepting, stop, _registration: registration })
    }

    async fn accept_tcp(self, socket: TcpListener, links: mpsc::Sender<Link>, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Some(accepted) = stop.run_until_cancelled(socket.accept()).await else { return };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (network, links, stop) = (self.clone(), links.clone(), stop.clone());
            tokio::spawn(async move {
                let hello_timeout = network.inner.config.hello_timeout;
                let work = async {
                    let raw = timeout(hello_timeout, network.server_stream(stream, remote.to_string())).await;
                    let raw = raw.map_err(|_| "TLS handshake took too long".to_owned()).and_then(|raw| raw);
                    match raw {
                        Ok(raw) => handshake::welcome(raw, &network.hello(), &network.inner.config).await,
                        Err(reason) => {
                            tracing::debug!(%remote, reason, "connection refused");
                            None
                        }
                    }
                };
                let link = stop.run_until_cancelled(work).await.flatten();
                drop(slot);
                network.hand_over(link, &links).await;
            });
        }
    }

    fn welcome(self, raw: RawLink, links: mpsc::Sender<Link>) {
        tokio::spawn(async move {
            let link = handshake::welcome(raw, &self.hello(), &self.inner.config).await;
            self.hand_over(link, &links).await;
        });
    }

    async fn hand_over(&self, link: Option<Link>, links: &mpsc::Sender<Link>) {
        match link {
            Some(link) => {
                let _ = links.send(link).await;
            }
            None => NetStats::add(&self.inner.stats.links_refused, 1),
        }
    }

    /// Opens a link to whoever listens at `address`, who must be of role `expect` and of our cluster.
    pub async fn connect(&self, address: &Address, expect: Role) -> Result<Link, ConnectError> {
        let limit = self.inner.config.connect_timeout;
        match timeout(limit, self.connect_unbounded(address, expect)).await {
            Ok(link) => link,
            Err(_) => Err(ConnectError::Timeout { address: address.clone(), seconds: limit.as_secs_f32() }),
        }
    }

    async fn connect_unbounded(&self, address: &Address, expect: Role) -> Result<Link, ConnectError> {
        let raw = match address {
            Address::InProcess(name) => {
                let refused = || ConnectError::Refused { address: address.clone() };
                let door = self.inner.hub.find(name).ok_or_else(refused)?;
                let (ours, theirs) = self.in_process_pair(name);
                door.send(theirs).await.map_err(|_| refused())?;
                ours
            }
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|source| {
                    let address = address.clone();
                    match source.kind() {
                        std::io::ErrorKind::ConnectionRefused => ConnectError::Refused { address },
                        _ => ConnectError::Unreachable { address, source },
                    }
                })?;
                self.client_stream(stream, address).await?
            }
        };
        handshake::dial(raw, &self.hello(), expect, address, &self.inner.config).await
    }

    /// Asks whether a process of role `expect` answers at `address`. Opens a link of its own and closes it.
    pub async fn probe(&self, address: &Address, expect: Role) -> Probe {
        match self.connect(address, expect).await {
            Ok(link) => Probe::Alive(link.peer),
            Err(ConnectError::Refused { .. }) => Probe::Refused,
            Err(_) => Probe::Unknown,
        }
    }

    async fn client_stream(&self, stream: TcpStream, address: &Address) -> Result<RawLink, ConnectError> {
        let _ = stream.set_nodelay(true);
        match &self.inner.config.tls {
            None => Ok(self.tcp_link(stream, address.to_string())),
            Some(tls) => {
                let failed = |reason: String| ConnectError::Tls { address: address.clone(), reason };
                let stream = tls.connector().connect(tls.server_name(), stream).await;
                let stream = stream.map_err(|error| failed(error.to_string()))?;
                let certified = tls.identities(stream.get_ref().1.peer_certificates()).map_err(failed)?;
                Ok(self.tls_link(tokio_rustls::TlsStream::Client(stream), certified, address.to_string()))
            }
        }
    }

    async fn server_stream(&self, stream: TcpStream, remote: String) -> Result<RawLink, String> {
        let _ = stream.set_nodelay(true);
        match &self.inner.config.tls {
            None => Ok(self.tcp_link(stream, remote)),
            Some(tls) => {
                let stream = tls.acceptor().accept(stream).await.map_err(|error| error.to_string())?;
                let certified = tls.identities(stream.get_ref().1.peer_certificates())?;
                Ok(self.tls_link(tokio_rustls::TlsStream::Server(stream), certified, remote))
            }
        }
    }

    fn tcp_link(&self, stream: TcpStream, remote: String) -> RawLink {
        let (reader, writer) = stream.into_split();
        self.stream_link(Box::new(reader), writer, None, remote)
    }

    fn tls_link(
        &self,
        stream: tokio_rustls::TlsStream<TcpStream>,
        certified: Vec<Certified>,
        remote: String,
    ) -> RawLink {
        let (reader, writer) = tokio::io::split(stream);
        self.stream_link(Box::new(reader), writer, Some(certified), remote)
    }

    fn stream_link<W: tokio::io::AsyncWrite + Send + Unpin + 'static>(
        &self,
        reader: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
        writer: W,
        certified: Option<Vec<Certified>>,
        remote: String,
    ) -> RawLink {
        let stats = &self.inner.stats;
        let state = LinkState::new();
        let (tx, queued) = queue::queue(&self.bounds(), &state, stats);
        tokio::spawn(stream::write_loop(writer, queued, state, self.inner.config.write_stall, stats.clone()));
        let source = Source::Stream(StreamReader::new(reader, FrameLimits::HELLO, stats.clone()));
        let rx = self.receiver(source, &tx);
        RawLink { tx, rx, certified, remote }
    }

    /// Two ends of a link inside the process: the same queues, nothing between them.
    fn in_process_pair(&self, name: &str) -> (RawLink, RawLink) {
        let state = LinkState::new();
        let (bounds, stats) = (self.bounds(), &self.inner.stats);
        let (to_listener, from_dialer) = queue::queue(&bounds, &state, stats);
        let (to_dialer, from_listener) = queue::queue(&bounds, &state, stats);
        state.written.cancel();
        let rx = self.receiver(Source::Queue(from_listener), &to_listener);
        let ours = RawLink { tx: to_listener, rx, certified: None, remote: format!("inproc:{name}") };
        let rx = self.receiver(Source::Queue(from_dialer), &to_dialer);
        let remote = format!("inproc:{}", self.inner.identity.name);
        (ours, RawLink { tx: to_dialer, rx, certified: None, remote })
    }

    fn receiver(&self, source: Source, tx: &FrameSender) -> FrameReceiver {
        let network = self.clone();
        FrameReceiver::new(source, tx, Arc::new(move || network.hello()), self.inner.stats.clone())
    }

    fn bounds(&self) -> QueueBounds {
        let NetConfig { queue_frames, queue_bytes, limits, .. } = self.inner.config;
        QueueBounds { frames: queue_frames, bytes: queue_bytes.as_usize(), limits }
    }
}

/// An open port. Dropping it closes the port; links that were accepted live on.
pub struct Listener {
    links: mpsc::Receiver<Link>,
    local: Address,
    network: Network,
    accepting: JoinHandle<()>,
    stop: DropGuard,
    _registration: Option<Registration>,
}

impl Listener {
    /// What to dial: the real port if 0 was asked for.
    pub fn local_address(&self) -> &Address {
        &self.local
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The next peer that has said who it is. Cancel-safe. Peers that are refused never show up here.
    pub async fn accept(&mut self) -> Option<Link> {
        self.links.recv().await
    }

    /// Closes the port and returns once it is free for the next process. Dropping does the same a moment later.
    pub async fn close(self) {
        drop(self.stop);
        let _ = self.accepting.await;
    }
}
