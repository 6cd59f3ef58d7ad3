//! The task of one partition: takes batches, sends them in order, and sees to it that each is settled, whatever
//! happens to streams, connections and owners on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use esker_types::{ErrorClass, ErrorCode};
use esker_wire::batch::{Batch, BatchBuilder};
use esker_wire::native::PartitionName;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::accumulator::{Accumulator, Collected};
use super::link::{Answer, Link};
use super::shared::Shared;
use super::window::{Freed, Window};
use crate::backoff::Backoff;
use crate::cluster::Owner;
use crate::error::{Error, RemoteError, SendError};

/// Without an answer for so long, the cluster is asked whether somebody else owns the partition by now.
const STALL: Duration = Duration::from_secs(1);
/// One try to open a stream.
const OPEN_TRY: Duration = Duration::from_secs(3);
/// After a refusal, the time for the gateway to say that it did not store the batches behind it either.
const REFUSAL_TAIL: Duration = Duration::from_secs(1);
/// Compressing less than this takes less time than handing it to another thread.
const COMPRESS_INLINE: usize = 32 << 10;

pub(super) struct Driver {
    shared: Arc<Shared>,
    accumulator: Arc<Accumulator>,
    partition: PartitionName,
    window: Window,
    link: Option<Link>,
    backoff: Backoff,
    /// For the message of a time-out.
    last_trouble: String,
    /// When something was last heard, sent to an empty window, or asked about.
    progress: Instant,
    /// Asks the cluster for the owner while the stream is silent.
    probe: Option<JoinHandle<Result<Option<Owner>, Error>>>,
}

/// What woke the driver.
enum Wake {
    Cancelled,
    Answer(Answer),
    Owner(Option<Owner>),
    /// New records, or a point in time was reached.
    Look,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, accumulator: Arc<Accumulator>, partition: PartitionName) -> Self {
        let window = Window::new(shared.config.in_flight);
        let backoff = Backoff::new(u64::from(partition.partition) + shared.seed);
        let last_trouble = "none".to_owned();
        let progress = Instant::now();
        Self { shared, accumulator, partition, window, link: None, backoff, last_trouble, progress, probe: None }
    }

    /// Works until the accumulator is closed and empty, or `cancel`.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        while let Some(wake) = self.turn(&cancel).await {
            match wake {
                Wake::Cancelled => break,
                Wake::Answer(answer) => self.on_answer(answer).await,
                Wake::Owner(owner) => self.on_owner(owner),
                Wake::Look => self.look_for_stall(),
            }
        }
        self.stop().await;
    }

    /// Sends what can be sent and waits for what comes next. None: there is nothing left to do, for ever.
    async fn turn(&mut self, cancel: &CancellationToken) -> Option<Wake> {
        self.expire();
        // What is dropped here when cancelled holds no batch: `fill`, which does, is not cancelled.
        let ready = tokio::select! {
            biased;
            () = cancel.cancelled() => return Some(Wake::Cancelled),
            ready = self.identify() => ready,
        };
        if !ready {
            return Some(Wake::Look);
        }
        self.fill().await;
        let ready = tokio::select! {
            biased;
            () = cancel.cancelled() => return Some(Wake::Cancelled),
            ready = self.put_on_stream() => ready,
        };
        if !ready {
            return Some(Wake::Look);
        }
        let done = self.window.is_empty() && self.accumulator.is_closed() && self.accumulator.oldest().is_none();
        if done { None } else { Some(self.wait(cancel).await) }
    }

    /// Sees to it that batches can be numbered. False: that did not work out, look at time-outs and come back.
    async fn identify(&mut self) -> bool {
        let nothing_to_send = self.window.is_empty() && self.accumulator.oldest().is_none();
        if nothing_to_send || !self.shared.config.idempotent || self.window.identity().is_some() {
            return true;
        }
        match self.shared.identity(self.window.used_up()).await {
            Ok(identity) => {
                self.window.renumber(identity);
                true
            }
            Err(error) => self.back_off(error).await,
        }
    }

    /// Puts all batches of the window on a stream. False as in [`Driver::identify`].
    async fn put_on_stream(&mut self) -> bool {
        if self.window.is_empty() {
            return true;
        }
        if self.link.is_none()
            && let Err(error) = self.connect().await
        {
            return self.back_off(error).await;
        }
        self.send_waiting().await;
        true
    }

    async fn back_off(&mut self, error: Error) -> bool {
        self.last_trouble = error.to_string();
        if error.code() == Some(ErrorCode::UnknownTopicId) && self.topic_is_gone().await {
            let message = format!("topic {:?} was deleted", self.partition.topic);
            self.fail_everything(&SendError::UnknownPartition(message)).await;
            return false;
        }
        match error {
            error if error.retryable() => {
                let until_expiry = self.next_expiry().saturating_duration_since(Instant::now());
                tokio::time::sleep(self.backoff.take().min(until_expiry)).await;
            }
            Error::Refused(remote) => self.fail_everything(&SendError::Refused(remote)).await,
            error => self.fail_everything(&SendError::Client(error)).await,
        }
        false
    }

    /// The gateway does not know the topic by its id: it may lag, or the topic was deleted (and made again).
    async fn topic_is_gone(&self) -> bool {
        self.shared.client.cluster.is_gone(&self.partition.topic, &self.partition.topic_id).await
    }

    /// Takes batches while there is room for them.
    async fn fill(&mut self) {
        while self.window.has_room() {
            let idle = self.window.is_empty();
            let taken = self.accumulator.take(Instant::now(), self.shared.config.linger, idle);
            let Some(collected) = taken else { return };
            self.build(collected).await;
            if idle {
                self.progress = Instant::now();
            }
        }
    }

    async fn build(&mut self, collected: Collected) {
        let Collected { builder, outcome, born, reserved } = collected;
        let stamp = self.window.stamp(builder.count());
        let compressed = !self.shared.config.compression.is_none();
        let batch = match compressed && builder.len() > COMPRESS_INLINE {
            false => builder.build(stamp),
            true => match compress(builder, stamp).await {
                Some(batch) => batch,
                None => {
                    // The runtime is shutting down.
                    outcome.set(Err(SendError::Closed { may_be_stored: false }));
                    self.shared.free(Freed(reserved));
                    self.window.raise_epoch();
                    return;
                }
            },
        };
        self.window.push(batch, outcome, born, reserved);
    }

    /// Opens a stream at the owner.
    async fn connect(&mut self) -> Result<(), Error> {
        let (topic, partition) = (self.partition.topic.clone(), self.partition.partition);
        let cluster = &self.shared.client.cluster;
        let Some(owner) = cluster.owner(&topic, partition).await? else {
            return Err(Error::Unreachable(format!("nobody owns {topic}/{partition} at the moment")));
        };
        let opened = tokio::time::timeout(OPEN_TRY, self.open_at(&owner)).await.unwrap_or_else(|_| {
            Err(Error::Unreachable(format!("{}: no answer within {OPEN_TRY:?}", owner.addresses[0])))
        });
        match opened {
            Ok(link) => {
                self.link = Some(link);
                self.progress = Instant::now();
                Ok(())
            }
            Err(Error::Refused(remote)) => {
                self.heed(&remote, owner.epoch);
                Err(Error::Refused(remote))
            }
            Err(error) => {
                cluster.forget_owner(&topic, partition, owner.epoch);
                Err(error)
            }
        }
    }

    async fn open_at(&self, owner: &Owner) -> Result<Link, Error> {
        let lane = u64::from(self.partition.partition).wrapping_add(self.shared.seed);
        let connection = self.shared.client.cluster.pool.connection(&owner.addresses[0], lane).await?;
        Link::open(connection, self.partition.clone()).await
    }

    /// Learns from a refusal who the owner is, or at least that it is not who we thought.
    fn heed(&self, remote: &RemoteError, epoch: u32) {
        let cluster = &self.shared.client.cluster;
        let (topic, partition) = (&self.partition.topic, self.partition.partition);
        let news = cluster.learn_hint(topic, partition, remote.owner.as_ref());
        if !news && matches!(remote.class, ErrorClass::RefreshMetadata | ErrorClass::UnknownOutcome) {
            cluster.forget_owner(topic, partition, epoch);
        }
    }

    /// Puts on the stream what is not on it yet.
    async fn send_waiting(&mut self) {
        while let Some(link) = &self.link
            && let Some((request, batch)) = self.window.send_next()
        {
            let request = if self.shared.config.acks { request } else { 0 };
            if !link.send(request, batch).await {
                self.lose_link("the stream was closed");
            } else if !self.shared.config.acks {
                self.shared.free(self.window.forget_sent());
            }
        }
    }

    /// Waits for whatever comes first. Cancel safe: `answer` and the bell keep what came, the rest is time.
    async fn wait(&mut self, cancel: &CancellationToken) -> Wake {
        let deadline = self.next_deadline();
        let (link, probe, room) = (&mut self.link, &mut self.probe, self.window.has_room());
        let answer = async {
            match link {
                Some(link) => link.answer().await,
                None => std::future::pending().await,
            }
        };
        let owner = async {
            match probe {
                Some(probe) => probe.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Wake::Cancelled,
            answer = answer => Wake::Answer(answer),
            owner = owner => Wake::Owner(owner.ok().and_then(Result::ok).flatten()),
            () = self.accumulator.bell.notified(), if room => Wake::Look,
            () = tokio::time::sleep_until(deadline.into()) => Wake::Look,
        }
    }

    fn next_deadline(&self) -> Instant {
        let mut deadline = self.next_expiry();
        if !self.window.is_empty() {
            deadline = deadline.min(self.progress + STALL);
        }
        if self.window.has_room()
            && let Some(born) = self.accumulator.oldest()
        {
            deadline = deadline.min(born + self.shared.config.linger);
        }
        deadline
    }

    fn next_expiry(&self) -> Instant {
        let oldest = self.window.oldest().into_iter().chain(self.accumulator.oldest()).min();
        oldest.unwrap_or_else(Instant::now) + self.shared.config.delivery_timeout
    }

    async fn on_answer(&mut self, answer: Answer) {
        self.progress = Instant::now();
        match answer {
            Answer::Stored { request, produced } => match self.window.acknowledge(request, produced.base_offset) {
                Ok(freed) => {
                    self.shared.free(freed);
                    self.backoff.reset();
                }
                Err(_) => self.lose_link("the gateway answered out of order"),
            },
            Answer::Refused { request, error } if self.window.is_oldest(request) => {
                self.on_refusal(request, error).await
            }
            // Nobody asked: the gateway tells an idle stream that the partition has gone elsewhere.
            Answer::Refused { request: 0, error } => {
                let epoch = self.link.as_ref().map_or(0, |link| link.epoch);
                self.lose_link(&error.message);
                self.heed(&error, epoch);
            }
            Answer::Refused { .. } => self.lose_link("the gateway answered out of order"),
            Answer::Over(reason) => {
                let epoch = self.link.as_ref().map_or(0, |link| link.epoch);
                self.lose_link(&reason);
                self.shared.client.cluster.forget_owner(&self.partition.topic, self.partition.partition, epoch);
            }
        }
    }

    /// The oldest batch was refused, and with it all that follows on this stream.
    async fn on_refusal(&mut self, request: u64, error: RemoteError) {
        let epoch = self.link.as_ref().map_or(0, |link| link.epoch);
        self.last_trouble = error.message.clone();
        if error.class != ErrorClass::UnknownOutcome {
            self.window.not_stored(request);
        }
        if error.class == ErrorClass::Fatal {
            self.hear_the_rest().await;
        }
        let reason = error.message.clone();
        self.lose_link(&reason);
        match error.class {
            ErrorClass::Fatal if numbers_are_off(&error) && !self.window.any_uncertain() => {
                // Nothing of this is in the log: begin with new numbers.
                self.window.raise_epoch();
                self.pause(&error).await;
            }
            ErrorClass::Fatal => self.shared.free(self.window.refuse_oldest(error)),
            ErrorClass::Retry => self.pause(&error).await,
            ErrorClass::RefreshMetadata | ErrorClass::UnknownOutcome => {
                self.heed(&error, epoch);
                let known = self.shared.client.cluster.known_owner(&self.partition.topic, self.partition.partition);
                if known.is_none_or(|owner| owner.epoch <= epoch) {
                    self.pause(&error).await;
                }
            }
        }
    }

    /// The answers about the batches behind a refused one: they tell for sure that those were not stored.
    async fn hear_the_rest(&mut self) {
        let Some(link) = &mut self.link else { return };
        let until = Instant::now() + REFUSAL_TAIL;
        while let Ok(Answer::Refused { request, error }) = tokio::time::timeout_at(until.into(), link.answer()).await {
            if error.class != ErrorClass::UnknownOutcome {
                self.window.not_stored(request);
            }
        }
    }

    async fn pause(&mut self, error: &RemoteError) {
        let expiry = self.next_expiry().saturating_duration_since(Instant::now());
        tokio::time::sleep(self.backoff.take().max(error.retry_after).min(expiry)).await;
    }

    /// Silence: a dead or stopped gateway says nothing, its connection takes seconds to notice.
    fn look_for_stall(&mut self) {
        let stalled = !self.window.is_empty() && self.progress.elapsed() >= STALL;
        let Some(link) = self.link.as_ref().filter(|_| stalled && self.probe.is_none()) else { return };
        let (cluster, server) = (self.shared.client.cluster.clone(), link.connection.server.clone());
        let (topic, partition) = (self.partition.topic.clone(), self.partition.partition);
        self.progress = Instant::now();
        self.last_trouble = format!("{server} is silent");
        self.probe = Some(tokio::spawn(async move { cluster.refresh(&topic, partition, Some(&server)).await }));
    }

    /// The cluster said who the owner is.
    fn on_owner(&mut self, owner: Option<Owner>) {
        self.probe = None;
        let Some((owner, link)) = owner.zip(self.link.as_ref()) else { return };
        if owner.epoch <= link.epoch {
            return;
        }
        if owner.addresses.contains(&link.connection.server) {
            // The same gateway under a newer epoch: it was restarted, and this connection leads to its past.
            self.shared.client.cluster.pool.give_up(&link.connection);
        }
        self.lose_link("the partition has a new owner");
    }

    fn lose_link(&mut self, reason: &str) {
        if let Some(link) = self.link.take() {
            tracing::debug!(
                topic = self.partition.topic,
                partition = self.partition.partition,
                server = link.connection.server,
                reason,
                "produce stream is over"
            );
        }
        self.last_trouble = reason.to_owned();
        self.window.stream_lost();
    }

    fn expire(&mut self) {
        let (now, timeout) = (Instant::now(), self.shared.config.delivery_timeout);
        while let Some(freed) = self.window.expire(now, timeout, &self.last_trouble) {
            self.link = None;
            self.shared.free(freed);
        }
        let Some(limit) = now.checked_sub(timeout) else { return };
        while let Some(old) = self.accumulator.take_older(limit) {
            let last = self.last_trouble.clone();
            old.outcome.set(Err(SendError::TimedOut { after: timeout, may_be_stored: false, last }));
            self.shared.free(Freed(old.reserved));
        }
    }

    /// The topic is gone or not ours to write: no try can succeed, for what is here or what comes.
    async fn fail_everything(&mut self, error: &SendError) {
        let with = |may_be_stored| match may_be_stored {
            true => SendError::EarlierFailed { reason: error.to_string(), may_be_stored },
            false => error.clone(),
        };
        self.shared.free(self.window.fail_all(with));
        for unsent in self.accumulator.abandon() {
            unsent.outcome.set(Err(error.clone()));
            self.shared.free(Freed(unsent.reserved));
        }
        // Whoever writes to the partition next begins at sequence 0: that must not look like a repetition of ours.
        self.shared.retire(self.window.identity()).await;
        self.shared.forget(&self.partition);
    }

    async fn stop(mut self) {
        for unsent in self.accumulator.abandon() {
            unsent.outcome.set(Err(SendError::Closed { may_be_stored: false }));
            self.shared.free(Freed(unsent.reserved));
        }
        self.shared.free(self.window.fail_all(|may_be_stored| SendError::Closed { may_be_stored }));
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
        if let Some(link) = self.link.take() {
            link.finish().await;
        }
    }
}

/// Refusals that say "your numbering is not what the log says", not "your records are bad".
fn numbers_are_off(error: &RemoteError) -> bool {
    [ErrorCode::UnknownProducer, ErrorCode::OutOfOrderSequence, ErrorCode::ProducerFenced].iter().any(|c| error.is(*c))
}

/// Builds a batch on a thread that may block.
async fn compress(builder: BatchBuilder, stamp: Option<esker_wire::batch::ProducerStamp>) -> Option<Batch> {
    tokio::task::spawn_blocking(move || builder.build(stamp)).await.ok()
}
