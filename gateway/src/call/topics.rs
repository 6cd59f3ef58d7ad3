use std::sync::Arc;

use esker_metadata_core::{AddPartitions, AlterTopic, Command, CreateTopic, DeleteTopic, Reply, Setting, TopicRecord};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, TopicId};
use esker_wire::native;

use super::{allow, propose, propose_one};
use crate::auth::Action;
use crate::door::Client;
use crate::gateway::{Gateway, unknown_topic};

pub async fn create(client: &Client, request: native::CreateTopic) -> Result<native::CreatedTopic, ErrorInfo> {
    allow(client, Action::CreateTopic { topic: &request.name })?;
    let id = match request.topic_id.is_empty() {
        true => TopicId::from_random(random()?),
        false => TopicId::from_slice(&request.topic_id)
            .ok_or_else(|| ErrorInfo::new(ErrorCode::InvalidRequest, "a topic id has 16 bytes"))?,
    };
    let command = CreateTopic {
        id,
        name: request.name,
        partitions: request.partitions,
        replication: None,
        settings: set(request.settings),
        internal: false,
        validate_only: false,
    };
    match propose_one(&client.gateway, Command::CreateTopic(command)).await? {
        (revision, Reply::Topic(topic)) => {
            let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
            Ok(native::CreatedTopic { topic_id: topic.topic.0.to_vec(), partitions, revision })
        }
        _ => Err(ErrorInfo::new(ErrorCode::Internal, "metadata answered with something else")),
    }
}

pub async fn delete(client: &Client, request: native::DeleteTopic) -> Result<native::Done, ErrorInfo> {
    allow(client, Action::DeleteTopic { topic: &request.name })?;
    let topic = topic(&client.gateway, &request.name)?;
    if !request.topic_id.is_empty() && TopicId::from_slice(&request.topic_id) != Some(topic.id) {
        let message = format!("topic {:?} was deleted and made again", request.name);
        return Err(ErrorInfo::new(ErrorCode::UnknownTopicId, message));
    }
    let (revision, _) = propose_one(&client.gateway, Command::DeleteTopic(DeleteTopic { topic: topic.id })).await?;
    Ok(native::Done { revision })
}

/// Partitions and settings change in one raft entry, after both have been found good.
pub async fn alter(client: &Client, request: native::AlterTopic) -> Result<native::Done, ErrorInfo> {
    allow(client, Action::AlterTopic { topic: &request.name })?;
    let topic = topic(&client.gateway, &request.name)?;
    let reset = request.reset.into_iter().map(|name| Setting { name, value: None });
    let settings: Vec<Setting> = set(request.set).into_iter().chain(reset).collect();
    let commands = |validate_only| {
        let mut commands = Vec::new();
        if !settings.is_empty() {
            commands.push(Command::AlterTopic(AlterTopic {
                topic: topic.id,
                settings: settings.clone(),
                validate_only,
            }));
        }
        if request.partitions > 0 {
            commands.push(Command::AddPartitions(AddPartitions {
                topic: topic.id,
                total: request.partitions,
                validate_only,
            }));
        }
        commands
    };
    if commands(true).is_empty() {
        return Ok(native::Done { revision: client.gateway.view.revision() });
    }
    let mut revision = 0;
    for validate_only in [true, false] {
        let (at, results) = propose(&client.gateway, commands(validate_only)).await?;
        if let Some(reject) = results.into_iter().find_map(Result::err) {
            return Err(ErrorInfo::new(reject.code, reject.reason));
        }
        revision = at;
    }
    Ok(native::Done { revision })
}

fn topic(gateway: &Gateway, name: &str) -> Result<Arc<TopicRecord>, ErrorInfo> {
    gateway.view.read(|state| state.topic_by_name(name).cloned()).ok_or_else(|| unknown_topic(name))
}

fn set(settings: Vec<native::KeyValue>) -> Vec<Setting> {
    settings.into_iter().map(|setting| Setting { name: setting.key, value: Some(setting.value) }).collect()
}

/// 16 bytes for an id.
pub fn random() -> Result<[u8; 16], ErrorInfo> {
    let mut bytes = [0; 16];
    let provider = rustls::crypto::ring::default_provider();
    let filled = provider.secure_random.fill(&mut bytes);
    filled.map_err(|_| ErrorInfo::new(ErrorCode::Internal, "the system gives no random numbers"))?;
    Ok(bytes)
}
