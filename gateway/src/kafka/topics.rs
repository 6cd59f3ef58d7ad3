//! Topics made, deleted and grown. Each item of a request has an outcome of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use esker_kafka::{Uuid, bounded, code, create_partitions, create_topics, delete_topics};
use esker_metadata_core::{AddPartitions, COMMANDS_MAX, Command, CommandResult, CreateTopic, DeleteTopic, Setting};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, TopicId};

use super::configs::source;
use super::connection::deadline;
use super::errors;
use super::session::{Call, Session, message};
use crate::auth::Action;
use crate::call::{propose, random};
use crate::gateway::unknown_topic;

/// Longest wait for owners of new partitions: clients that produce at once should find them.
const OWNERS_WAIT: Duration = Duration::from_secs(2);

/// Proposes commands, each with its own outcome.
pub async fn propose_each(session: &Session, commands: Vec<Command>) -> Vec<Result<(), ErrorInfo>> {
    let mut outcomes = Vec::with_capacity(commands.len());
    for chunk in commands.chunks(COMMANDS_MAX) {
        match propose(session.gateway(), chunk.to_vec()).await {
            Ok((_, results)) => outcomes.extend(results.into_iter().map(outcome)),
            Err(error) => outcomes.extend(chunk.iter().map(|_| Err(error.clone()))),
        }
    }
    outcomes
}

fn outcome(result: CommandResult) -> Result<(), ErrorInfo> {
    result.map(drop).map_err(|reject| ErrorInfo::new(reject.code, reject.reason))
}

pub async fn create(session: &Session, request: create_topics::Request) -> create_topics::Response {
    let arrived = Instant::now();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    request.topics.iter().for_each(|topic| *count.entry(&topic.name).or_default() += 1);
    let twice: BTreeSet<String> = count.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name.to_owned()).collect();
    let (mut answers, mut commands, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for topic in request.topics {
        if !seen.insert(topic.name.clone()) {
            continue;
        }
        let name = bounded(topic.name.as_str());
        let command = match twice.contains(&topic.name) {
            true => Err(ErrorInfo::new(ErrorCode::InvalidRequest, "the topic is named twice in the request")),
            false => creation(session, topic, request.validate_only),
        };
        answers.push((name, command.as_ref().err().cloned()));
        commands.extend(command.ok());
    }
    let ids: Vec<TopicId> = commands.iter().map(|command| command.id).collect();
    let proposed = propose_each(session, commands.into_iter().map(Command::CreateTopic).collect()).await;
    if !request.validate_only {
        let made: Vec<TopicId> = ids.iter().zip(&proposed).filter(|(_, o)| o.is_ok()).map(|(id, _)| *id).collect();
        owners(session, &made, deadline(arrived, request.timeout_ms, OWNERS_WAIT)).await;
    }
    let mut outcomes = ids.into_iter().zip(proposed);
    let topics = answers.into_iter().map(|(name, refusal)| match refusal {
        Some(error) => failed(name, &error),
        None => match outcomes.next() {
            Some((id, Ok(()))) => created(session, name, id),
            Some((_, Err(error))) => failed(name, &error),
            None => failed(name, &ErrorInfo::new(ErrorCode::Internal, "no outcome")),
        },
    });
    create_topics::Response { throttle_time_ms: 0, topics: topics.collect() }
}

fn creation(
    session: &Session,
    topic: create_topics::RequestTopic,
    validate_only: bool,
) -> Result<CreateTopic, ErrorInfo> {
    if !session.allows(Action::CreateTopic { topic: &topic.name }) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, "not allowed to create the topic"));
    }
    let partitions = match (topic.num_partitions, topic.assignments.len()) {
        (-1, 0) => 0,
        (count, 0) if count > 0 => count.unsigned_abs(),
        (-1, assigned) => assigned as u32,
        (count, 0) => return Err(ErrorInfo::new(ErrorCode::InvalidPartitions, format!("{count} partitions"))),
        _ => {
            let both = "give either a number of partitions or where each shall be, not both";
            return Err(ErrorInfo::new(ErrorCode::InvalidRequest, both));
        }
    };
    // Where replicas lie is ours to say; how many there are, and that partitions are numbered without gaps, is not.
    let mut indexes: Vec<i32> = topic.assignments.iter().map(|assignment| assignment.partition_index).collect();
    indexes.sort_unstable();
    if indexes.into_iter().zip(0..).any(|(index, expected)| index != expected) {
        return Err(ErrorInfo::new(ErrorCode::InvalidPartitions, "assignments must be of partitions 0, 1, 2, ..."));
    }
    let assigned = topic.assignments.first().map(|assignment| assignment.broker_ids.len());
    let replication = match (topic.replication_factor, assigned) {
        (-1, None) => None,
        (factor, None) if factor > 0 => Some(u32::from(factor.unsigned_abs())),
        (-1, Some(copies)) => Some(u32::try_from(copies).unwrap_or(u32::MAX)),
        (factor, _) => {
            return Err(ErrorInfo::new(ErrorCode::InvalidReplicationFactor, format!("replication factor {factor}")));
        }
    };
    let settings = topic.configs.into_iter().map(|c| Setting { name: c.name, value: c.value }).collect();
    let id = TopicId::from_random(random()?);
    Ok(CreateTopic { id, name: topic.name, partitions, replication, settings, internal: false, validate_only })
}

fn failed(name: String, error: &ErrorInfo) -> create_topics::Topic {
    let (error_code, error_message) = (errors::general(error), message(error));
    create_topics::Topic { name, error_code, error_message, configs: None, ..Default::default() }
}

/// As it is now, if it is there: a request that only asked leaves nothing.
fn created(session: &Session, name: String, id: TopicId) -> create_topics::Topic {
    session.gateway().view.read(|state| {
        let Some(topic) = state.topic(id) else {
            return create_topics::Topic { name, configs: Some(Vec::new()), ..Default::default() };
        };
        let quorum = state.cluster().map_or(topic.settings.quorum, |cluster| cluster.quorum);
        let configs = topic.settings.describe(quorum).into_iter().map(|setting| create_topics::Config {
            name: setting.name.to_owned(),
            config_source: source(setting.is_default),
            value: Some(setting.value),
            read_only: false,
            is_sensitive: false,
        });
        create_topics::Topic {
            name,
            topic_id: Uuid(topic.id.0),
            num_partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            replication_factor: i16::from(topic.settings.quorum.write),
            configs: Some(configs.collect()),
            ..Default::default()
        }
    })
}

/// Waits until every partition of these topics has an owner.
async fn owners(session: &Session, topics: &[TopicId], until: tokio::time::Instant) {
    let view = &session.gateway().view;
    loop {
        let revision = view.revision();
        let all = view.read(|state| {
            let mut partitions = topics.iter().filter_map(|id| state.topic(*id)).flat_map(|topic| &topic.partitions);
            partitions.all(|id| state.partition(*id).is_none_or(|record| state.has_live_owner(record)))
        });
        if all || tokio::time::timeout_at(until, view.changed(revision)).await.is_err() {
            return;
        }
    }
}

pub async fn delete(session: &Session, call: &Call, request: delete_topics::Request) -> delete_topics::Response {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::default()));
    let asked: BTreeSet<(Option<String>, Uuid)> =
        by_name.chain(request.topics.into_iter().map(|topic| (topic.name, topic.topic_id))).collect();
    let (mut answers, mut commands) = (Vec::new(), Vec::new());
    for (name, id) in asked {
        let found = session.gateway().view.read(|state| match &name {
            Some(name) if id.is_nil() => state.topic_by_name(name).cloned().ok_or_else(|| unknown_topic(name)),
            Some(_) => Err(ErrorInfo::new(ErrorCode::InvalidRequest, "give either a name or an id")),
            None => state
                .topic(TopicId(id.0))
                .cloned()
                .ok_or_else(|| ErrorInfo::new(ErrorCode::UnknownTopicId, "there is no topic with this id")),
        });
        let allowed = found.and_then(|topic| match session.allows(Action::DeleteTopic { topic: &topic.name }) {
            true => Ok(topic),
            false => Err(ErrorInfo::new(ErrorCode::NotAuthorized, "not allowed to delete the topic")),
        });
        match allowed {
            Ok(topic) => {
                commands.push(Command::DeleteTopic(DeleteTopic { topic: topic.id }));
                answers.push((Some(topic.name.clone()), Uuid(topic.id.0), None));
            }
            Err(error) => answers.push((name, id, Some(error))),
        }
    }
    let mut outcomes = propose_each(session, commands).await.into_iter();
    let responses = answers.into_iter().map(|(name, topic_id, refusal)| {
        let error = refusal.or_else(|| outcomes.next().and_then(Result::err));
        delete_topics::Topic {
            // Null only in versions that may have it.
            name: name.or_else(|| (call.version < 6).then(String::new)),
            topic_id,
            error_code: error.as_ref().map_or(code::NONE, errors::general),
            error_message: error.as_ref().and_then(message),
        }
    });
    delete_topics::Response { throttle_time_ms: 0, responses: responses.collect() }
}

pub async fn grow(session: &Session, request: create_partitions::Request) -> create_partitions::Response {
    let (mut answers, mut commands, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for topic in request.topics {
        let refusal = match seen.insert(topic.name.clone()) {
            false => Err(ErrorInfo::new(ErrorCode::InvalidRequest, "the topic is named twice in the request")),
            true => growth(session, &topic, request.validate_only),
        };
        answers.push((topic.name, refusal.as_ref().err().cloned()));
        commands.extend(refusal.ok().map(Command::AddPartitions));
    }
    let mut outcomes = propose_each(session, commands).await.into_iter();
    let results = answers.into_iter().map(|(name, refusal)| {
        let error = refusal.or_else(|| outcomes.next().and_then(Result::err));
        create_partitions::Topic {
            name: bounded(name),
            error_code: error.as_ref().map_or(code::NONE, errors::general),
            error_message: error.as_ref().and_then(message),
        }
    });
    create_partitions::Response { throttle_time_ms: 0, results: results.collect() }
}

fn growth(
    session: &Session,
    topic: &create_partitions::RequestTopic,
    validate_only: bool,
) -> Result<AddPartitions, ErrorInfo> {
    if !session.allows(Action::AlterTopic { topic: &topic.name }) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, "not allowed to alter the topic"));
    }
    let record = session.gateway().view.read(|state| state.topic_by_name(&topic.name).cloned());
    let record = record.ok_or_else(|| unknown_topic(&topic.name))?;
    let now = u32::try_from(record.partitions.len()).unwrap_or(u32::MAX);
    let invalid = |why: String| Err(ErrorInfo::new(ErrorCode::InvalidPartitions, why));
    match u32::try_from(topic.count) {
        Ok(total) if total == now => invalid(format!("topic {:?} has {now} partitions already", topic.name)),
        Ok(total) => Ok(AddPartitions { topic: record.id, total, validate_only }),
        Err(_) => invalid(format!("{} partitions", topic.count)),
    }
}
