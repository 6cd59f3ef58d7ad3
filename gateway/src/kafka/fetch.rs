//! Fetch: what is there up to the limits (KIP-74), or a wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use esker_kafka::{Records, Uuid, code, fetch};
use esker_types::Offset;
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, PartitionId};
use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::Instant;

use super::brokers::broker_id;
use super::connection::{Counted, deadline};
use super::errors;
use super::near;
use super::partitions;
use super::replay::Replays;
use super::session::Session;
use super::slice::cut;
use crate::auth::Action;
use crate::partition::{Handle, News};
use crate::read::outside;

/// Least share of the room for fetches that is asked for; without even that, an answer holds one batch.
const SHARE_MIN: usize = 64 << 10;

/// One partition of a request.
struct Asked {
    topic: usize,
    request: fetch::RequestPartition,
    state: Result<Following, ErrorInfo>,
    partition: Option<PartitionId>,
}

struct Following {
    handle: Arc<Handle>,
    news: watch::Receiver<News>,
}

/// What is sent of a partition.
#[derive(Default)]
struct Taken {
    records: Records,
    len: usize,
    news: Option<News>,
    error: Option<ErrorInfo>,
    /// The broker at which the client should read instead.
    elsewhere: Option<i32>,
}

/// Where the limits of a request stand.
struct Budget {
    left: usize,
    taken: usize,
}

pub async fn answer(
    session: &Session,
    replays: &mut Replays,
    request: fetch::Request,
) -> (fetch::Response, Option<Counted>) {
    if request.session_id != 0 {
        // We make no sessions, so that this is one of another broker or of a former life.
        let error_code = code::FETCH_SESSION_ID_NOT_FOUND;
        return (fetch::Response { error_code, ..Default::default() }, None);
    }
    let config = &session.gateway().config.kafka;
    let until = deadline(StdInstant::now(), request.max_wait_ms, config.fetch_wait_max.0);
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(config.fetch_bytes_max.as_usize());
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    let rack = request.rack_id.as_str();
    let (topics, mut asked) = resolve(session, rack, request.topics).await;
    loop {
        let wanted = wanted(&asked, bytes_max);
        let mut room = take_room(session, wanted);
        let share = room.as_ref().map_or(0, Counted::bytes);
        let mut budget = Budget { left: share, taken: 0 };
        let mut taken = Vec::with_capacity(asked.len());
        for partition in &mut asked {
            taken.push(take(session, replays, rack, partition, &mut budget).await);
        }
        let urgent = taken.iter().any(|taken| taken.error.is_some() || taken.elsewhere.is_some());
        if budget.taken >= bytes_min || urgent || Instant::now() >= until || asked.is_empty() {
            if let Some(room) = &mut room {
                room.shrink(budget.taken);
            }
            session.gateway().metrics.read_bytes.inc_by(budget.taken as u64);
            return (respond(session, topics, asked, taken), room.filter(|_| budget.taken > 0));
        }
        drop((taken, room));
        wait(&mut asked, until).await;
    }
}

/// Topics as named in the request, with all partitions in one list.
async fn resolve(
    session: &Session,
    rack: &str,
    requested: Vec<fetch::RequestTopic>,
) -> (Vec<(String, Uuid)>, Vec<Asked>) {
    let (mut topics, mut asked) = (Vec::with_capacity(requested.len()), Vec::new());
    for requested in requested {
        let by_id = !requested.topic_id.is_nil();
        let name = match by_id {
            true => partitions::topic_name(session, requested.topic_id),
            false => Some(requested.topic.clone()),
        };
        for request in requested.partitions {
            let mut partition = None;
            let state = match &name {
                None => Err(ErrorInfo::new(ErrorCode::UnknownTopicId, "there is no topic with this id")),
                Some(name) => follow(session, rack, name, request.partition, &mut partition).await,
            };
            asked.push(Asked { topic: topics.len(), request, state, partition });
        }
        topics.push((requested.topic, requested.topic_id));
    }
    (topics, asked)
}

async fn follow(
    session: &Session,
    rack: &str,
    topic: &str,
    index: i32,
    partition: &mut Option<PartitionId>,
) -> Result<Following, ErrorInfo> {
    let found = partitions::record(session, topic, index);
    let id = found.as_ref().map_or(PartitionId(0), |record| record.id);
    if !session.allows(Action::Read { topic, partition: id }) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, format!("not allowed on topic {topic:?}")));
    }
    let record = found?;
    *partition = Some(record.id);
    // Consumers ask again by themselves: nothing is waited for.
    let handle = session.gateway().handles.get(record.id).filter(|handle| handle.news().is_ready());
    let handle = handle.or_else(|| near::closed(session, rack, &record));
    let handle = handle.ok_or_else(|| session.gateway().not_owner(record.id, ErrorCode::NotOwner))?;
    Ok(Following { news: handle.follow(), handle })
}

/// Whether there is anything, and how many bytes the request may take of it.
fn wanted(asked: &[Asked], bytes_max: usize) -> (bool, usize) {
    let mut most = 0usize;
    for asked in asked {
        if let Ok(following) = &asked.state {
            let behind = following.news.borrow().high_watermark > asked.request.fetch_offset;
            let limit = usize::try_from(asked.request.partition_max_bytes).unwrap_or(0);
            most = if behind { most.saturating_add(limit.max(1)) } else { most };
        }
    }
    (most > 0, most.min(bytes_max))
}

/// Room for record bytes, less than wanted when it is short. Never waited for: whoever holds it may be slow to read.
fn take_room(session: &Session, (any, wanted): (bool, usize)) -> Option<Counted> {
    if !any {
        return None;
    }
    let room = &session.door.fetches;
    let mut share = wanted;
    loop {
        let permits = u32::try_from(share).unwrap_or(u32::MAX);
        if let Ok(permit) = room.clone().try_acquire_many_owned(permits) {
            return Some(Counted::new(permit, session.gateway().metrics.kafka_fetch_bytes.clone()));
        }
        if share <= SHARE_MIN {
            return None;
        }
        share /= 2;
    }
}

async fn take(session: &Session, replays: &mut Replays, rack: &str, asked: &mut Asked, budget: &mut Budget) -> Taken {
    let following = match &mut asked.state {
        Ok(following) => following,
        Err(error) => return Taken { error: Some(error.clone()), ..Taken::default() },
    };
    let news = *following.news.borrow_and_update();
    let checked = check(session, &following.handle, news, &asked.request).await;
    if checked.is_ok() && !following.handle.closed_only {
        let (partition, offset) = (following.handle.id, asked.request.fetch_offset);
        let elsewhere = near::elsewhere(session, &mut replays.sent, rack, partition, offset);
        if elsewhere.is_some() {
            return Taken { news: Some(news), elsewhere, ..Taken::default() };
        }
    }
    let read = match checked {
        Ok(()) => read(session, replays, &following.handle, news, &asked.request, budget).await,
        Err(error) => Err(error),
    };
    match read {
        Ok((records, len)) => Taken { records, len, news: Some(news), ..Taken::default() },
        Err(error) => Taken { news: Some(news), error: Some(error), ..Taken::default() },
    }
}

/// Whether the offset may be read here.
async fn check(
    session: &Session,
    handle: &Handle,
    news: News,
    request: &fetch::RequestPartition,
) -> Result<(), ErrorInfo> {
    let gateway = session.gateway();
    if !news.is_ready() {
        return Err(gateway.not_owner(handle.id, ErrorCode::NotOwner));
    }
    partitions::check_epoch(request.current_leader_epoch, news)?;
    let offset: Offset = request.fetch_offset;
    match handle.closed_only {
        true if !(news.log_start..news.high_watermark).contains(&offset) => Err(near::back(offset, news)),
        false if offset < news.log_start || offset > news.high_watermark => {
            Err(outside(gateway, handle, offset, news).await)
        }
        _ => Ok(()),
    }
}

async fn read(
    session: &Session,
    replays: &mut Replays,
    handle: &Arc<Handle>,
    news: News,
    request: &fetch::RequestPartition,
    budget: &mut Budget,
) -> Result<(Records, usize), ErrorInfo> {
    let gateway = session.gateway();
    let offset: Offset = request.fetch_offset;
    // The first batch of the first partition that has one goes out whole, however large it is.
    let at_least_one = budget.taken == 0;
    let limit = usize::try_from(request.partition_max_bytes).unwrap_or(0).min(budget.left);
    if offset == news.high_watermark || (limit == 0 && !at_least_one) {
        return Ok((Records::default(), 0));
    }
    // What is cached of another owner's partition may be from a time when it was ours, and we wrote what was never acked.
    let cached = match handle.closed_only {
        true => None,
        false => gateway.tail.read(handle.id, offset, news.high_watermark, limit),
    };
    let entries = match cached {
        Some(entries) => {
            gateway.metrics.tail_hits.inc();
            replays.close(handle.id);
            entries
        }
        None => {
            gateway.metrics.tail_misses.inc();
            replays.read(session, handle, offset, news.high_watermark).await?.unwrap_or_default()
        }
    };
    let cut = cut(&entries, offset, limit, at_least_one)?;
    if handle.closed_only {
        // Nothing: what is left of it is lost, which the owner passes over.
        if entries.is_empty() {
            return Err(near::back(offset, news));
        }
        gateway.metrics.kafka_near_bytes.inc_by(cut.len as u64);
    }
    budget.taken += cut.len;
    budget.left = budget.left.saturating_sub(cut.len);
    Ok((Records(cut.parts), cut.len))
}

/// Until something happens in one of the partitions, or the request's time is over.
async fn wait(asked: &mut [Asked], until: Instant) {
    let following = asked.iter_mut().filter_map(|asked| asked.state.as_mut().ok());
    // An error means that the handle is gone, which the next look at it shows.
    let changes: Vec<_> = following.map(|following| Box::pin(following.news.changed())).collect();
    match changes.is_empty() {
        true => tokio::time::sleep_until(until).await,
        // Late is as good as never: what is there is sent.
        false => drop(tokio::time::timeout_at(until, select_all(changes)).await),
    }
}

/// Every partition that was asked for is in the answer, also those that got no room: some clients wait for ever else.
fn respond(session: &Session, topics: Vec<(String, Uuid)>, asked: Vec<Asked>, taken: Vec<Taken>) -> fetch::Response {
    let mut responses: Vec<fetch::Topic> =
        topics.into_iter().map(|(topic, topic_id)| fetch::Topic { topic, topic_id, partitions: Vec::new() }).collect();
    let mut leaders = HashMap::new();
    for (asked, taken) in asked.into_iter().zip(taken) {
        let error_code = taken.error.as_ref().map_or(code::NONE, errors::read);
        // Where what is closed ends is not where the log ends: whoever reads up to the high watermark must not stop there.
        let whole = asked.state.as_ref().is_ok_and(|following| !following.handle.closed_only);
        let high_watermark = taken.news.filter(|_| whole).map_or(-1, |news| news.high_watermark);
        let moved = matches!(error_code, code::NOT_LEADER_OR_FOLLOWER | code::FENCED_LEADER_EPOCH);
        let current_leader = match asked.partition.filter(|_| moved) {
            Some(partition) => leaders.entry(partition).or_insert_with(|| leader(session, partition)).clone(),
            None => fetch::Leader::default(),
        };
        debug_assert_eq!(taken.len, taken.records.len());
        responses[asked.topic].partitions.push(fetch::Partition {
            partition_index: asked.request.partition,
            error_code,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset: taken.news.map_or(-1, |news| news.log_start),
            current_leader,
            aborted_transactions: None,
            preferred_read_replica: taken.elsewhere.unwrap_or(-1),
            records: taken.records,
            ..Default::default()
        });
    }
    fetch::Response { responses, ..Default::default() }
}

fn leader(session: &Session, partition: PartitionId) -> fetch::Leader {
    let hint = session.gateway().view.read(|state| crate::gateway::owner_hint(state, partition));
    match hint.gateway {
        0 => fetch::Leader::default(),
        gateway => fetch::Leader {
            leader_id: broker_id(gateway.into()),
            leader_epoch: i32::try_from(hint.epoch).unwrap_or(i32::MAX),
        },
    }
}
