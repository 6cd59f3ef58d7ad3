//! Calls: one request, one answer, on a stream of their own.

use std::time::{Duration, Instant};

use bytes::Bytes;
use esker_types::{ErrorClass, Frame};
use tokio::time::timeout_at;

use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::{Error, RemoteError};
use crate::stream::write_frame;

/// Lane of calls in the pool: apart from the first lanes of producers only if there are several connections.
const LANE: u64 = 0;

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    what: &'static str,
    opcode: u16,
    control: Bytes,
    /// Time for one try, if less than for all together.
    try_for: Duration,
    /// Doing it twice is as good as doing it once.
    repeatable: bool,
    /// Ask each server once and then give up.
    one_round: bool,
}

impl Call {
    pub(crate) fn new(what: &'static str, opcode: u16, message: &impl prost::Message) -> Self {
        let control = message.encode_to_vec().into();
        Self { what, opcode, control, try_for: Duration::from_secs(5), repeatable: true, one_round: false }
    }

    pub(crate) fn with_try(mut self, limit: Duration) -> Self {
        self.try_for = limit;
        self
    }

    /// For what must not be done twice: after an unknown outcome the caller decides.
    pub(crate) fn once(mut self) -> Self {
        self.repeatable = false;
        self.try_for = Duration::MAX;
        self
    }

    pub(crate) fn one_round(mut self) -> Self {
        self.one_round = true;
        self
    }

    pub(crate) fn may_repeat(&self, after: &Error) -> bool {
        match after.class() {
            ErrorClass::Retry | ErrorClass::RefreshMetadata => true,
            ErrorClass::UnknownOutcome => self.repeatable,
            ErrorClass::Fatal => false,
        }
    }

    fn frame(&self) -> Frame {
        let mut frame = Frame::new(self.opcode, 1, &());
        frame.control = self.control.clone();
        frame
    }
}

/// Asks any gateway, one after the other until one answers or the call's time is over.
pub(crate) async fn any<M: prost::Message + Default>(
    cluster: &Cluster,
    call: Call,
    avoid: Option<&str>,
) -> Result<M, Error> {
    let deadline = Instant::now() + cluster.pool.config.call_timeout;
    let mut backoff = Backoff::new(u64::from(call.opcode));
    let mut trouble: Vec<String> = Vec::new();
    loop {
        let servers = cluster.servers(avoid);
        for (i, server) in servers.iter().enumerate() {
            let error = match one(cluster, server, &call, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !call.may_repeat(&error) {
                return Err(error);
            }
            let no_more = call.one_round && i + 1 == servers.len();
            if no_more || Instant::now() + backoff.peek() >= deadline {
                return Err(last_word(error, trouble));
            }
            note(&mut trouble, &error);
        }
        backoff.wait().await;
    }
}

/// Asks `server`, once.
pub(crate) async fn one<M: prost::Message + Default>(
    cluster: &Cluster,
    server: &str,
    call: &Call,
    deadline: Instant,
) -> Result<M, Error> {
    let connection = cluster.pool.connection(server, LANE).await?;
    let heard = connection.heard();
    let until = Instant::now().checked_add(call.try_for).map_or(deadline, |until| until.min(deadline));
    let answer = match timeout_at(until.into(), exchange(&connection, call)).await {
        Ok(answer) => answer?,
        Err(_) => {
            cluster.give_up_if_silent(&connection, heard);
            let reason = format!("{server} did not answer in time");
            return Err(Error::Interrupted { what: call.what, reason, may_have_applied: true });
        }
    };
    let malformed = |e: prost::DecodeError| Error::Protocol { server: server.to_owned(), reason: e.to_string() };
    if answer.is_error() {
        return Err(Error::Refused(RemoteError::of(&answer).map_err(malformed)?));
    }
    answer.decode_control().map_err(malformed)
}

async fn exchange(connection: &Connection, call: &Call) -> Result<Frame, Error> {
    let interrupted = |reason: String| Error::Interrupted {
        what: call.what,
        reason: format!("{}: {reason}", connection.server),
        may_have_applied: true,
    };
    let (mut send, mut receive) = connection.open_stream().await?;
    write_frame(&mut send, &call.frame()).await.map_err(|e| interrupted(e.to_string()))?;
    // An error here shows again while reading the answer.
    let _ = send.finish();
    match receive.next().await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(interrupted("the stream ended without an answer".to_owned())),
        Err(e) => Err(interrupted(e.to_string())),
    }
}

/// If no gateway could even be reached, tells about all of them.
fn last_word(error: Error, mut trouble: Vec<String>) -> Error {
    match error {
        Error::Unreachable(_) => {
            note(&mut trouble, &error);
            Error::Unreachable(trouble.join("; "))
        }
        error => error,
    }
}

fn note(trouble: &mut Vec<String>, error: &Error) {
    let Error::Unreachable(text) = error else { return };
    if trouble.len() < 8 && !trouble.contains(text) {
        trouble.push(text.clone());
    }
}
