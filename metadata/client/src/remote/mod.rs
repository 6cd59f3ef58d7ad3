//! The store over the network: finds the leader, follows its redirects, repeats only what is safe to repeat.

mod leader;
mod propose;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_metadata_core::wire::{self, Wire};
use esker_metadata_core::{Answer, Command, Query};
use esker_net::{Address, Network, Pool, RpcError};
use esker_types::error::ErrorInfo;
use esker_types::{BootId, ErrorClass, ErrorCode, Frame, Role, SessionId, checksum, opcode};
use futures_util::future::BoxFuture;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admin::{self, AdminAsk, AdminReply, ListMembers};
use crate::messages::{Envelope, ReadAnswer, ReadRequest, RenewAnswer, RenewRequest, unpack};
use crate::store::{MetadataStore, ProposeError, Proposed, ReadError, RenewError, Renewed, Watch};
use leader::Leader;
use propose::Batcher;

/// Time limits of a [`RemoteStore`].
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Every metadata node's address for other nodes. Any of them may be down; at least one must be right.
    pub servers: Vec<Address>,
    /// For one server to answer one request. A leader that died silently costs a request so much.
    pub call_timeout: Duration,
    /// For a request in all, with its redirects and safe repetitions. Longer than an election (about 2 s).
    pub deadline: Duration,
    /// Wait between two tries when no server is known to lead.
    pub retry_pause: Duration,
}

impl RemoteConfig {
    pub fn new(servers: Vec<Address>) -> Self {
        Self {
            servers,
            call_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(10),
            retry_pause: Duration::from_millis(50),
        }
    }
}

/// Clones share links and what is known of the leader. Background tasks end when the last clone is dropped.
#[derive(Clone)]
pub struct RemoteStore {
    inner: Arc<Inner>,
    batcher: Batcher,
    _stop: Arc<DropGuard>,
    cancel: CancellationToken,
}

/// What the background tasks share with the handles.
struct Inner {
    pool: Pool,
    leader: Leader,
    config: RemoteConfig,
}

/// How a request ended for good.
enum Failure {
    /// Certainly not done.
    NotDone(String),
    /// A server understood and said no.
    Refused(ErrorInfo),
    /// It may have been done.
    Unknown(String),
}

impl RemoteStore {
    /// Dials nothing yet. Needs a tokio runtime.
    pub fn new(network: Network, config: RemoteConfig) -> Self {
        assert!(!config.servers.is_empty(), "a remote store needs the address of a metadata node");
        let leader = Leader::new(config.servers.clone());
        let inner = Arc::new(Inner { pool: Pool::new(network), leader, config });
        let cancel = CancellationToken::new();
        let batcher = Batcher::start(inner.clone(), cancel.clone());
        Self { inner, batcher, _stop: Arc::new(cancel.clone().drop_guard()), cancel }
    }

    /// The server that answered last as leader, for status pages.
    pub fn leader(&self) -> Option<Address> {
        self.inner.leader.known()
    }
}

impl Inner {
    /// One request to the leader, until it is answered, refused, unknown, or the deadline has passed. With `repeat` it
    /// is also sent again when an earlier try may have been done: only for requests that change nothing.
    async fn request<Q: Wire, A: Wire>(&self, code: u16, question: &Q, repeat: bool) -> Result<A, Failure>
    where
        Q::Proto: Message,
        A::Proto: Message,
    {
        let body = Bytes::from(wire::encode(question));
        let envelope = Envelope { crc: checksum::crc32c(&body) };
        let deadline = Instant::now() + self.config.deadline;
        let mut tries = 0;
        loop {
            let server = self.leader.target();
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = self.config.call_timeout.min(left);
            let call = self.pool.call(&server, Role::Metadata, code, &envelope, vec![body.clone()], limit);
            let problem = match call.await {
                Ok(frame) => return self.answered(&server, &frame, repeat),
                Err(RpcError::Remote(info)) => match class(&info) {
                    ErrorClass::UnknownOutcome if !repeat => return Err(Failure::Unknown(info.message)),
                    ErrorClass::Fatal => return Err(Failure::Refused(info)),
                    _ if info.error_code() == Some(ErrorCode::NoSuchSession) => return Err(Failure::Refused(info)),
                    _ => {
                        self.leader.redirected(&server, &info);
                        info.message
                    }
                },
                Err(error) if error.may_have_applied() && !repeat => {
                    self.leader.silent(&server);
                    return Err(Failure::Unknown(format!("{server}: {error}")));
                }
                Err(error) => {
                    self.leader.silent(&server);
                    format!("{server}: {error}")
                }
            };
            if Instant::now() + self.config.retry_pause >= deadline {
                return Err(Failure::NotDone(problem));
            }
            tracing::debug!(problem, "metadata request tried again");
            // A first redirect is followed at once; servers that point at each other must not make a busy loop.
            tries += 1;
            if tries > 1 || self.leader.known().is_none() {
                tokio::time::sleep(self.config.retry_pause).await;
            }
        }
    }

    fn answered<A: Wire>(&self, server: &Address, frame: &Frame, repeat: bool) -> Result<A, Failure>
    where
        A::Proto: Message,
    {
        self.leader.answered(server);
        unpack(frame).map_err(|error| match repeat {
            true => Failure::NotDone(format!("{server}: {error}")),
            false => Failure::Unknown(format!("{server}: {error}")),
        })
    }
}

/// What to do about an error; a code of a newer server is judged by the class that it sent along.
fn class(info: &ErrorInfo) -> ErrorClass {
    ErrorClass::try_from(info.class).unwrap_or(ErrorClass::Fatal)
}

impl MetadataStore for RemoteStore {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        Box::pin(self.batcher.propose(commands))
    }

    fn read(&self, query: Query) -> BoxFuture<'_, Result<Answer, ReadError>> {
        Box::pin(async move {
            let question = ReadRequest { query };
            match self.inner.request::<_, ReadAnswer>(opcode::metadata::READ, &question, true).await {
                Ok(answer) => Ok(answer.answer),
                Err(Failure::NotDone(reason) | Failure::Unknown(reason)) => Err(ReadError::Unavailable(reason)),
                Err(Failure::Refused(info)) => {
                    Err(ReadError::Refused(info.error_code().unwrap_or(ErrorCode::Internal), info.message))
                }
            }
        })
    }

    fn watch(&self) -> Watch {
        let (to, events) = mpsc::channel(watch::EVENTS_AHEAD);
        tokio::spawn(watch::run(self.inner.clone(), to, self.cancel.clone()));
        Watch::new(events)
    }

    fn renew(&self, session: SessionId, boot: BootId) -> BoxFuture<'_, Result<Renewed, RenewError>> {
        Box::pin(async move {
            let question = RenewRequest { session, boot };
            match self.inner.request::<_, RenewAnswer>(opcode::metadata::RENEW_SESSION, &question, true).await {
                Ok(answer) => Ok(Renewed { ttl: Duration::from_millis(answer.ttl_ms.into()) }),
                Err(Failure::NotDone(reason) | Failure::Unknown(reason)) => Err(RenewError::Unavailable(reason)),
                Err(Failure::Refused(info)) if info.error_code() == Some(ErrorCode::NoSuchSession) => {
                    Err(RenewError::Lost)
                }
                Err(Failure::Refused(info)) => Err(RenewError::Unavailable(info.message)),
            }
        })
    }

    fn members(&self) -> BoxFuture<'_, Vec<admin::Member>> {
        Box::pin(async move {
            let ask = AdminAsk::Members(ListMembers {});
            // The leader knows most: how far the others are behind.
            let servers: Vec<Address> =
                self.inner.leader.known().into_iter().chain(self.inner.config.servers.iter().cloned()).collect();
            match admin::ask_any(&self.inner.pool, &servers, ask, self.inner.config.call_timeout).await {
                Ok(AdminReply::Members(members)) => members.members,
                _ => Vec::new(),
            }
        })
    }
}
