use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use esker_gateway_core::groups::{Coordinator, Effect, KeyedRecord, Response, Seq, Ticket};
use esker_gateway_core::partition::Refusal;
use esker_types::{ErrorCode, Offset};
use esker_wire::batch::{BatchBuilder, Compression};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::load::{LoadError, load};
use super::topic::ViewTopics;
use super::writer::{Writer, append};
use super::{Job, Shared, Standing};
use crate::partition::{Handle, News};
use crate::shard::Control;

/// Requests handled before effects are carried out.
const TURN: usize = 64;
/// Between tries to read a log that can't be read now, and one that can't be understood.
const RETRY: Duration = Duration::from_millis(200);
const BROKEN_RETRY: Duration = Duration::from_secs(10);

/// Runs the coordinator of one partition as long as the partition is ours.
pub struct Host {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    inbox: mpsc::Receiver<Job>,
    standing: Arc<Standing>,
    news: watch::Receiver<News>,
}

/// How serving ended.
enum Ended {
    /// The partition is gone.
    Gone,
    /// An append failed: what is in the log is not what the coordinator thinks.
    Unsure(Refusal),
}

impl Host {
    pub fn new(shared: Arc<Shared>, handle: Arc<Handle>, inbox: mpsc::Receiver<Job>, standing: Arc<Standing>) -> Self {
        let news = handle.follow();
        Self { shared, handle, inbox, standing, news }
    }

    /// Loads, serves, and loads again when an append failed. Ends when the partition is gone.
    pub async fn run(mut self) {
        let mut sent_before = false;
        loop {
            let Some(coordinator) = self.load(sent_before).await else { return };
            let (metrics, standing) = (self.shared.metrics.clone(), self.standing.clone());
            let serving = Serving { metrics, standing, groups: 0, bytes: 0 };
            serving.metrics.coordinators.inc();
            serving.standing.serving();
            let ended = self.serve(coordinator, serving).await;
            // Whoever waits for a place in the queue finds out from the standing; the others are let go.
            while let Ok(job) = self.inbox.try_recv() {
                drop(job);
            }
            match ended {
                Ended::Gone => return,
                Ended::Unsure(refusal) => {
                    self.shared.metrics.append_failures.inc();
                    tracing::info!(partition = %self.handle.id, %refusal, "an append of consumer groups failed; reading their log again");
                    sent_before = true;
                }
            }
        }
    }

    /// Reads the log to its end. None: the partition is gone.
    async fn load(&mut self, sent_before: bool) -> Option<Coordinator> {
        loop {
            let ready = self.news.wait_for(|news| news.gone || news.is_ready()).await.map(|news| *news).ok()?;
            if ready.gone {
                return None;
            }
            let began = Instant::now();
            let pause = match self.try_load(ready, sent_before).await {
                Ok(mut coordinator) => {
                    coordinator.start(self.shared.gateway.clock.now());
                    self.shared.metrics.loads.inc();
                    self.shared.metrics.load_seconds.observe(began.elapsed().as_secs_f64());
                    return Some(coordinator);
                }
                Err(error @ LoadError::Read(_)) => {
                    tracing::debug!(partition = %self.handle.id, %error, "the log of consumer groups can't be read yet");
                    RETRY
                }
                Err(error) => {
                    self.standing.broken();
                    tracing::error!(partition = %self.handle.id, %error, "the log of consumer groups can't be understood; its groups are not served");
                    BROKEN_RETRY
                }
            };
            // Cancel-safe: the end of the pause has no effect.
            tokio::select! {
                biased;
                _ = self.news.wait_for(|news| news.gone) => return None,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn try_load(&self, news: News, sent_before: bool) -> Result<Coordinator, LoadError> {
        let gateway = &self.shared.gateway;
        let mut end: Offset = news.high_watermark;
        if sent_before {
            // What we sent and never heard of may still come into the log. It comes before this.
            let KeyedRecord { key, value } = KeyedRecord::barrier();
            let mut builder = BatchBuilder::new(Compression::None, 64);
            builder.push(gateway.clock.wall_ms(), Some(&key), value.as_deref(), &[]);
            let at = append(gateway.clone(), self.handle.clone(), builder.build(None)).await;
            let at = at.map_err(|e| LoadError::Read(esker_types::error::ErrorInfo::new(e.code, e.reason)))?;
            end = at + 1;
        }
        let from = self.handle.news().log_start;
        load(gateway, &self.handle, gateway.config.groups.core(), from, end).await
    }

    async fn serve(&mut self, coordinator: Coordinator, mut serving: Serving) -> Ended {
        let gateway = self.shared.gateway.clone();
        let mut run = Run {
            writer: Writer::new(gateway.clone(), self.handle.clone()),
            waiting: HashMap::new(),
            next: 0,
            shared: self.shared.clone(),
            handle: self.handle.clone(),
            coordinator,
        };
        let mut jobs = Vec::with_capacity(TURN);
        loop {
            run.carry_out();
            serving.show(&run.coordinator);
            let wake = gateway.clock.instant(run.coordinator.deadline());
            // Cancel-safe: jobs are taken only when `recv_many` returns, and the writer keeps its batch.
            tokio::select! {
                biased;
                gone = let_go(&mut self.news) => return Ended::of(gone),
                outcome = run.writer.committed() => match outcome {
                    Ok(seq) => run.coordinator.on_committed(seq),
                    Err(refusal) => return Ended::Unsure(refusal),
                },
                _ = self.inbox.recv_many(&mut jobs, TURN) => run.take(&mut jobs),
                () = tokio::time::sleep_until(wake) => run.tick(),
            }
        }
    }
}

/// Waits until the partition is not ready any more. True: it is gone for good.
async fn let_go(news: &mut watch::Receiver<News>) -> bool {
    news.wait_for(|news| !news.is_ready()).await.map_or(true, |news| news.gone)
}

impl Ended {
    /// A partition that recovers again under the same handle is read again.
    fn of(gone: bool) -> Self {
        let reason = || "the partition is not ready any more".to_owned();
        match gone {
            true => Ended::Gone,
            false => Ended::Unsure(Refusal { code: ErrorCode::Recovering, reason: reason() }),
        }
    }
}

/// A coordinator that serves, and who waits for it.
struct Run {
    coordinator: Coordinator,
    writer: Writer,
    /// Dropped with the run: then nobody waits in vain.
    waiting: HashMap<Ticket, oneshot::Sender<Response>>,
    next: Ticket,
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

impl Run {
    fn take(&mut self, jobs: &mut Vec<Job>) {
        let gateway = &self.shared.gateway;
        let (now, wall) = (gateway.clock.now(), gateway.clock.wall_ms());
        for Job { request, reply, .. } in jobs.drain(..) {
            self.next += 1;
            self.waiting.insert(self.next, reply);
            self.coordinator.request(now, wall, &ViewTopics(&gateway.view), self.next, request);
        }
    }

    fn tick(&mut self) {
        let gateway = &self.shared.gateway;
        self.coordinator.tick(gateway.clock.now(), gateway.clock.wall_ms(), &ViewTopics(&gateway.view));
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.coordinator.poll() {
            match effect {
                Effect::Append(append) => self.writer.push(append),
                Effect::Answer { ticket, response } => {
                    if let Some(reply) = self.waiting.remove(&ticket) {
                        // The client is gone: nobody wants to know.
                        let _ = reply.send(response);
                    }
                }
                Effect::LogStart(seq) => self.log_start(seq),
            }
        }
        self.writer.go_on();
    }

    /// Nothing before the append is needed any more. A try that fails is made good by the next snapshot.
    fn log_start(&mut self, seq: Seq) {
        self.shared.metrics.snapshots.inc();
        let Some(before) = self.writer.place(seq) else { return };
        let (gateway, partition) = (self.shared.gateway.clone(), self.handle.id);
        self.shared.tasks.spawn(async move {
            let (reply, outcome) = oneshot::channel();
            gateway.shards.tell(partition, Control::DeleteRecords { partition, before, reply }).await;
            if let Ok(Err(refusal)) = outcome.await {
                tracing::debug!(%partition, before, %refusal, "the log of consumer groups keeps its start for now");
            }
        });
    }
}

/// What a serving coordinator adds to the gauges, and takes back when it ends.
struct Serving {
    metrics: super::GroupMetrics,
    standing: Arc<Standing>,
    groups: i64,
    bytes: i64,
}

impl Serving {
    fn show(&mut self, coordinator: &Coordinator) {
        let now = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (groups, bytes) = (now(coordinator.groups()), now(coordinator.bytes()));
        self.metrics.groups.inc_by(groups - self.groups);
        self.metrics.state_bytes.inc_by(bytes - self.bytes);
        (self.groups, self.bytes) = (groups, bytes);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.standing.loading();
        self.metrics.coordinators.dec();
        self.metrics.groups.dec_by(self.groups);
        self.metrics.state_bytes.dec_by(self.bytes);
    }
}
