//! Networks on each of the three transports, and an echo service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use esker_net::{
    Address, BoxFuture, ConnectionCtx, Hub, Identity, Listener, NetConfig, Network, Service, TlsConfig, serve,
    unknown_opcode,
};
use esker_types::{BootId, Frame, Role};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio_util::sync::CancellationToken;

pub const ECHO: u16 = 9000;
pub const PUSH: u16 = 9001;
pub const NEVER: u16 = 9002;
pub const PANIC: u16 = 9003;

/// One way to reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Tls,
    InProcess,
}

pub const ALL: [Transport; 3] = [Transport::Tcp, Transport::Tls, Transport::InProcess];

/// An authority that issues node certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub ca_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = params.self_signed(&key).expect("self-signed").pem();
        Self { issuer: Issuer::new(params, key), ca_pem }
    }

    pub fn issue(&self, uri: &str) -> TlsConfig {
        self.issue_trusting(uri, &self.ca_pem)
    }

    pub fn issue_trusting(&self, uri: &str, ca_pem: &str) -> TlsConfig {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ascii"))];
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let key_pem = key.serialize_pem();
        TlsConfig::from_pem(ca_pem.as_bytes(), cert.pem().as_bytes(), key_pem.as_bytes()).expect("usable")
    }
}

/// Two sides that can reach each other: a bookie that serves and a gateway that dials.
pub struct World {
    pub bookie: Network,
    pub gateway: Network,
    pub listen: Address,
}

impl World {
    pub fn new(transport: Transport) -> Self {
        Self::with(transport, |_| {})
    }

    pub fn with(transport: Transport, adjust: impl Fn(&mut NetConfig)) -> Self {
        let authority = (transport == Transport::Tls).then(Authority::new);
        let hub = Hub::new();
        let network = |role: Role, name: &str| {
            let tls = authority.as_ref().map(|ca| ca.issue(&format!("esker://test/{}/{name}", role.as_str())));
            let mut config = NetConfig { tls, ..NetConfig::default() };
            adjust(&mut config);
            Network::with_hub(Identity::new(role, name, BootId([role as u8 + 1; 16])), config, hub.clone())
        };
        let listen = match transport {
            Transport::InProcess => "inproc:bookie-1",
            _ => "127.0.0.1:0",
        };
        let listen = listen.parse().expect("valid");
        Self { bookie: network(Role::Bookie, "bookie-1"), gateway: network(Role::Gateway, "gateway-1"), listen }
    }

    pub async fn listener(&self) -> Listener {
        self.bookie.listen(&self.listen).await.expect("port")
    }

    /// An echo server on the bookie's side.
    pub async fn echo(&self) -> Server {
        let listener = self.listener().await;
        let address = listener.local_address().clone();
        let (service, cancel) = (Arc::new(Echo::default()), CancellationToken::new());
        let task = tokio::spawn(serve(listener, service.clone(), cancel.clone()));
        Server { address, service, cancel, task }
    }
}

pub struct Server {
    pub address: Address,
    pub service: Arc<Echo>,
    pub cancel: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("server ended well");
    }
}

/// Answers with what it got; counts what happened.
#[derive(Default)]
pub struct Echo {
    pub opened: AtomicUsize,
    pub closed: AtomicUsize,
    pub hanging: AtomicUsize,
    pub echoed: AtomicUsize,
    pub changed: tokio::sync::Notify,
}

impl Echo {
    /// Waits until `counter` has reached `n`.
    pub async fn reached(&self, counter: &AtomicUsize, n: usize) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if counter.load(Ordering::SeqCst) >= n {
                return;
            }
            changed.await;
        }
    }

    fn count(&self, counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

impl Service for Echo {
    fn handle<'a>(&'a self, ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>> {
        Box::pin(async move {
            match frame.opcode {
                ECHO => {
                    self.count(&self.echoed);
                    Some(Frame { flags: esker_types::frame::FLAG_ANSWER, ..frame })
                }
                PUSH => {
                    ctx.tx.send(Frame { request_id: 0, ..frame }).await.ok()?;
                    None
                }
                NEVER => {
                    self.count(&self.hanging);
                    std::future::pending().await
                }
                PANIC => panic!("a handler that panics, on purpose"),
                _ => unknown_opcode(&frame),
            }
        })
    }

    fn on_open(&self, _ctx: &ConnectionCtx) {
        self.count(&self.opened);
    }

    fn on_close(&self, _ctx: &ConnectionCtx) {
        self.count(&self.closed);
    }
}

pub fn frame(opcode: u16, payload: impl Into<bytes::Bytes>) -> Frame {
    Frame::new(opcode, 0, &()).with_payload(payload)
}
