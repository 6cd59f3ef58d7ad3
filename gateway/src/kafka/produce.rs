//! Produce: batches go to their shards as they are read, in the order of requests; outcomes are waited for when it is the
//! request's turn to be answered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use esker_kafka::{Records, code, produce};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, PartitionId};

use super::brokers::{self, broker_id};
use super::connection::deadline;
use super::errors;
use super::partitions;
use super::session::Session;
use crate::append::{self, Submitted};
use crate::auth::Action;
use crate::partition::Handle;
use crate::shard::Outcome;

/// How long all batches of a request together wait for owners that are just taking over. Its connection is not read
/// meanwhile, and clients ask again.
const OWNER_WAIT: Duration = Duration::from_secs(1);

/// A request whose batches are on their way.
pub struct Pending {
    topics: Vec<(String, Vec<PendingPartition>)>,
    acks: i16,
    until: tokio::time::Instant,
    arrived: Instant,
}

struct PendingPartition {
    index: i32,
    state: State,
}

enum State {
    Submitted { handle: Arc<Handle>, submitted: Submitted },
    Refused { error_code: i16, message: String, partition: Option<PartitionId> },
}

/// What the connection does next.
pub enum Finished {
    Answer(produce::Response),
    /// The client wants no answer.
    Nothing,
    /// It wants none and something failed: the connection's end is how it is told.
    Failed,
}

/// Hands all batches of a request to their shards.
pub async fn begin(session: &Session, request: produce::Request) -> Pending {
    let arrived = Instant::now();
    let owner_wait = tokio::time::Instant::from_std(arrived) + OWNER_WAIT;
    // Who wants no answer has no time to lose.
    let timeout_ms = if request.acks == 0 { i32::MAX } else { request.timeout_ms };
    let until = deadline(arrived, timeout_ms, session.gateway().config.append.timeout.0);
    let refusal = refusal(&request);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let allowed = |partition| session.allows(Action::Produce { topic: &topic.name, partition });
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let state = match &refusal {
                Some((error_code, message)) => {
                    State::Refused { error_code: *error_code, message: (*message).to_owned(), partition: None }
                }
                None => submit(session, &topic.name, data.index, data.records, owner_wait, &allowed).await,
            };
            partitions.push(PendingPartition { index: data.index, state });
        }
        topics.push((topic.name, partitions));
    }
    Pending { topics, acks: request.acks, until, arrived }
}

/// What is wrong with the request as a whole.
fn refusal(request: &produce::Request) -> Option<(i16, &'static str)> {
    if !(-1..=1).contains(&request.acks) {
        return Some((code::INVALID_REQUIRED_ACKS, "acks must be -1, 0 or 1"));
    }
    request
        .transactional_id
        .is_some()
        .then_some((code::INVALID_REQUEST, "transactions are not available in this version"))
}

async fn submit(
    session: &Session,
    topic: &str,
    index: i32,
    records: Records,
    owner_wait: tokio::time::Instant,
    allowed: &impl Fn(PartitionId) -> bool,
) -> State {
    let mut partition = None;
    let submitted = async {
        let found = partitions::record(session, topic, index);
        // Whether a topic exists is nobody's business who may not touch it.
        if !allowed(found.as_ref().map_or(PartitionId(0), |record| record.id)) {
            return Err(ErrorInfo::new(ErrorCode::NotAuthorized, format!("not allowed on topic {topic:?}")));
        }
        let record = found?;
        partition = Some(record.id);
        let handle = partitions::owned(session, &record, owner_wait).await?;
        let batch = records.0.into_iter().next().unwrap_or_default();
        if batch.is_empty() {
            return Err(ErrorInfo::new(ErrorCode::InvalidBatch, "a partition without a record batch"));
        }
        let submitted = append::submit(session.gateway(), &handle, batch).await?;
        Ok((handle, submitted))
    };
    match submitted.await {
        Ok((handle, submitted)) => State::Submitted { handle, submitted },
        Err(error) => State::Refused {
            error_code: error.error_code().map_or(code::UNKNOWN_SERVER_ERROR, errors::produce),
            message: error.message,
            partition,
        },
    }
}

impl Pending {
    /// Waits for all outcomes.
    pub async fn finish(self, session: &Session, version: i16) -> Finished {
        let metrics = &session.gateway().metrics;
        let (mut responses, mut leaders, mut failed) = (Vec::with_capacity(self.topics.len()), BTreeSet::new(), false);
        for (name, partitions) in self.topics {
            let mut partition_responses = Vec::with_capacity(partitions.len());
            for partition in partitions {
                let answer = settle(session, partition, self.until).await;
                if answer.error_code != code::NONE {
                    failed = true;
                    metrics.append_errors.inc();
                }
                metrics.append_seconds.observe(self.arrived.elapsed().as_secs_f64());
                leaders.extend(Some(answer.current_leader.leader_id).filter(|id| *id > 0));
                partition_responses.push(answer);
            }
            responses.push(produce::Topic { name, partition_responses });
        }
        match (self.acks, failed) {
            (0, true) => Finished::Failed,
            (0, false) => Finished::Nothing,
            _ => {
                let node_endpoints = if version >= 10 { endpoints(session, &leaders) } else { Vec::new() };
                Finished::Answer(produce::Response { responses, throttle_time_ms: 0, node_endpoints })
            }
        }
    }
}

async fn settle(session: &Session, partition: PendingPartition, until: tokio::time::Instant) -> produce::Partition {
    let PendingPartition { index, state } = partition;
    let (handle, submitted) = match state {
        State::Submitted { handle, submitted } => (handle, submitted),
        State::Refused { error_code, message, partition } => {
            return refused(session, index, error_code, message, partition);
        }
    };
    let outcome: Outcome = match tokio::time::timeout_at(until, submitted.outcome).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => {
            let message = "the partition was moved while the batch was under way".to_owned();
            return refused(session, index, code::NOT_LEADER_OR_FOLLOWER, message, Some(handle.id));
        }
        Err(_) => {
            let message = "not acknowledged within the request's timeout; it may be later".to_owned();
            return refused(session, index, code::REQUEST_TIMED_OUT, message, None);
        }
    };
    match outcome {
        Ok(completed) => produce::Partition {
            index,
            base_offset: completed.base_offset,
            log_append_time_ms: submitted.append_time_ms,
            log_start_offset: handle.news().log_start,
            ..Default::default()
        },
        Err(refusal) => refused(session, index, errors::produce(refusal.code), refusal.reason, Some(handle.id)),
    }
}

fn refused(
    session: &Session,
    index: i32,
    error_code: i16,
    message: String,
    partition: Option<PartitionId>,
) -> produce::Partition {
    let moved = partition.filter(|_| error_code == code::NOT_LEADER_OR_FOLLOWER);
    produce::Partition {
        index,
        error_code,
        base_offset: -1,
        error_message: Some(esker_kafka::bounded(message)),
        current_leader: moved.map(|partition| leader(session, partition)).unwrap_or_default(),
        ..Default::default()
    }
}

fn leader(session: &Session, partition: PartitionId) -> produce::Leader {
    let hint = session.gateway().view.read(|state| crate::gateway::owner_hint(state, partition));
    match hint.gateway {
        0 => produce::Leader::default(),
        gateway => produce::Leader {
            leader_id: broker_id(gateway.into()),
            leader_epoch: i32::try_from(hint.epoch).unwrap_or(i32::MAX),
        },
    }
}

fn endpoints(session: &Session, leaders: &BTreeSet<i32>) -> Vec<produce::NodeEndpoint> {
    if leaders.is_empty() {
        return Vec::new();
    }
    let all = session.gateway().view.read(brokers::brokers);
    let named = all.into_iter().filter(|broker| leaders.contains(&broker.id));
    named.map(|b| produce::NodeEndpoint { node_id: b.id, host: b.host, port: b.port, rack: b.rack }).collect()
}
