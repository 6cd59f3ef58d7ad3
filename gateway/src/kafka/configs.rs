//! Settings of topics and groups; those of brokers and the cluster can be read.

use std::collections::BTreeSet;

use esker_kafka::{alter_configs, bounded, code, describe_configs, incremental_alter_configs, list_config_resources};
use esker_metadata_core::group_settings::{HEARTBEAT_INTERVAL, SESSION_TIMEOUT};
use esker_metadata_core::{AlterGroup, AlterTopic, Command, GroupSettings, Setting};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Interval};

use super::brokers::broker_id;
use super::errors;
use super::session::{Call, Session, message};
use super::topics::propose_each;
use crate::auth::Action;
use crate::config::BATCH_BYTES_MAX;
use crate::gateway::unknown_topic;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;
/// Where a value comes from.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;
const SOURCE_GROUP: i8 = 8;
/// What a value is.
const TYPE_BOOLEAN: i8 = 1;
const TYPE_STRING: i8 = 2;
const TYPE_LONG: i8 = 5;
const TYPE_LIST: i8 = 7;
/// Settings that Kafka has no way to set by itself: replacing all others leaves them alone.
const KEPT: [&str; 3] = ["esker.ack.quorum", "esker.write.quorum", "min.insync.replicas"];

pub fn source(is_default: bool) -> i8 {
    if is_default { SOURCE_DEFAULT } else { SOURCE_TOPIC }
}

/// A value as it is shown.
struct Shown {
    name: &'static str,
    value: String,
    source: i8,
    read_only: bool,
}

pub fn describe(session: &Session, request: describe_configs::Request) -> describe_configs::Response {
    let mut seen = BTreeSet::new();
    // Each once, however often it was named.
    let resources = request.resources.into_iter().filter(|r| seen.insert((r.resource_type, r.resource_name.clone())));
    let results = resources.map(|resource| {
        let shown = match resource.resource_type {
            TOPIC => topic_settings(session, &resource.resource_name),
            BROKER => broker_settings(session, &resource.resource_name),
            GROUP => group_settings(session, &resource.resource_name),
            other => Err(ErrorInfo::new(ErrorCode::InvalidRequest, format!("no settings of resource type {other}"))),
        };
        let wanted =
            |name: &str| resource.configuration_keys.as_ref().is_none_or(|keys| keys.iter().any(|k| k == name));
        let (error_code, error_message, shown) = match shown {
            Ok(shown) => (code::NONE, None, shown),
            Err(error) => (code_of(resource.resource_type, &error), message(&error), Vec::new()),
        };
        describe_configs::ResourceResult {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: bounded(resource.resource_name.as_str()),
            configs: shown
                .into_iter()
                .filter(|setting| wanted(setting.name))
                .map(|setting| config(setting, request.include_synonyms))
                .collect(),
        }
    });
    describe_configs::Response { throttle_time_ms: 0, results: results.collect() }
}

fn code_of(resource_type: i8, error: &ErrorInfo) -> i16 {
    match error.error_code() {
        Some(ErrorCode::NotAuthorized) if resource_type == GROUP => code::GROUP_AUTHORIZATION_FAILED,
        _ => errors::general(error),
    }
}

fn config(setting: Shown, include_synonyms: bool) -> describe_configs::Config {
    let synonym = || describe_configs::Synonym {
        name: setting.name.to_owned(),
        value: Some(setting.value.clone()),
        source: setting.source,
    };
    let synonyms = if include_synonyms { vec![synonym()] } else { Vec::new() };
    let config_type = match (setting.name, setting.value.as_str()) {
        ("cleanup.policy", _) => TYPE_LIST,
        (_, "true" | "false") => TYPE_BOOLEAN,
        (_, value) if value.parse::<i64>().is_ok() => TYPE_LONG,
        _ => TYPE_STRING,
    };
    describe_configs::Config {
        name: setting.name.to_owned(),
        read_only: setting.read_only,
        config_source: setting.source,
        is_sensitive: false,
        synonyms,
        config_type,
        documentation: None,
        value: Some(setting.value),
    }
}

fn topic_settings(session: &Session, name: &str) -> Result<Vec<Shown>, ErrorInfo> {
    if !session.allows(Action::Describe { topic: name }) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, "not allowed to see the topic"));
    }
    session.gateway().view.read(|state| {
        let topic = state.topic_by_name(name).ok_or_else(|| unknown_topic(name))?;
        let quorum = state.cluster().map_or(topic.settings.quorum, |cluster| cluster.quorum);
        let shown = topic.settings.describe(quorum).into_iter().map(|setting| Shown {
            name: setting.name,
            source: source(setting.is_default),
            value: setting.value,
            read_only: false,
        });
        Ok(shown.collect())
    })
}

/// What Kafka's tools ask brokers for. An empty name stands for the whole cluster.
fn broker_settings(session: &Session, name: &str) -> Result<Vec<Shown>, ErrorInfo> {
    if !session.allows(Action::DescribeCluster) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, "not allowed to see the cluster"));
    }
    session.gateway().view.read(|state| {
        let id = name.parse::<i32>().ok();
        if !name.is_empty() && !state.gateways().any(|gateway| Some(broker_id(gateway.id)) == id) {
            let what = format!("there is no broker {:?}", name.chars().take(64).collect::<String>());
            return Err(ErrorInfo::new(ErrorCode::InvalidRequest, what));
        }
        let Some(cluster) = state.cluster() else { return Ok(Vec::new()) };
        let fixed = |name, value: String| Shown { name, value, source: SOURCE_STATIC, read_only: true };
        let config = &session.gateway().config;
        Ok(vec![
            fixed("auto.create.topics.enable", cluster.auto_create_topics.to_string()),
            fixed("connections.max.idle.ms", config.kafka.idle_timeout.0.as_millis().to_string()),
            fixed("default.replication.factor", cluster.quorum.write.to_string()),
            fixed("fetch.max.bytes", config.kafka.fetch_bytes_max.0.to_string()),
            fixed("message.max.bytes", BATCH_BYTES_MAX.to_string()),
            fixed("min.insync.replicas", cluster.quorum.ack.to_string()),
            fixed("num.partitions", cluster.default_partitions.to_string()),
            fixed("socket.request.max.bytes", config.kafka.request_bytes_max.0.to_string()),
        ])
    })
}

/// A group that has none of its own, or that is not there, shows what it would have.
fn group_settings(session: &Session, name: &str) -> Result<Vec<Shown>, ErrorInfo> {
    if !session.allows(Action::DescribeGroup { group: name }) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, "not allowed to see the group"));
    }
    let own = session.gateway().view.read(|state| state.group(name).map(|group| group.settings.clone()));
    let own = own.unwrap_or(GroupSettings::NONE);
    let config = &session.gateway().config.groups;
    let shown = |name, own: Option<u32>, default: Interval| Shown {
        name,
        value: own.map_or_else(|| default.0.as_millis().to_string(), |own| own.to_string()),
        source: if own.is_some() { SOURCE_GROUP } else { SOURCE_DEFAULT },
        read_only: false,
    };
    Ok(vec![
        shown(HEARTBEAT_INTERVAL, own.consumer_heartbeat_interval_ms, config.consumer_heartbeat_interval),
        shown(SESSION_TIMEOUT, own.consumer_session_timeout_ms, config.consumer_session_timeout),
    ])
}

/// Changes to one resource, found good so far.
struct Change {
    resource_type: i8,
    resource_name: String,
    settings: Result<Vec<Setting>, ErrorInfo>,
}

/// What became of the change to one resource.
struct Changed {
    error_code: i16,
    error_message: Option<String>,
    resource_type: i8,
    resource_name: String,
}

/// AlterConfigs: what is not named goes back to its default.
pub async fn replace(session: &Session, request: alter_configs::Request) -> alter_configs::Response {
    let changes = request.resources.into_iter().map(|resource| {
        let named: BTreeSet<&str> = resource.configs.iter().map(|config| config.name.as_str()).collect();
        let others = match resource.resource_type {
            TOPIC => topic_settings(session, &resource.resource_name),
            GROUP => group_settings(session, &resource.resource_name),
            _ => Ok(Vec::new()),
        };
        let settings = others.map(|others| {
            let reset = others
                .iter()
                .filter(|o| {
                    [SOURCE_TOPIC, SOURCE_GROUP].contains(&o.source)
                        && !named.contains(o.name)
                        && !KEPT.contains(&o.name)
                })
                .map(|other| Setting { name: other.name.to_owned(), value: None });
            let set = resource.configs.iter().map(|c| Setting { name: c.name.clone(), value: c.value.clone() });
            set.chain(reset).collect()
        });
        Change { resource_type: resource.resource_type, resource_name: resource.resource_name, settings }
    });
    let changed = apply(session, changes.collect(), request.validate_only).await;
    let responses = changed.into_iter().map(|changed| alter_configs::ResourceResult {
        error_code: changed.error_code,
        error_message: changed.error_message,
        resource_type: changed.resource_type,
        resource_name: changed.resource_name,
    });
    alter_configs::Response { throttle_time_ms: 0, responses: responses.collect() }
}

/// IncrementalAlterConfigs: what is not named stays.
pub async fn change(
    session: &Session,
    request: incremental_alter_configs::Request,
) -> incremental_alter_configs::Response {
    let changes = request.resources.into_iter().map(|resource| {
        let settings = resource.configs.into_iter().map(|config| match (config.config_operation, config.value) {
            (0, Some(value)) => Ok(Setting { name: config.name, value: Some(value) }),
            (1, _) => Ok(Setting { name: config.name, value: None }),
            (operation, _) => {
                let name = bounded(config.name);
                let why = format!("operation {operation} is not possible with {name}: it takes set and delete");
                Err(ErrorInfo::new(ErrorCode::InvalidConfig, why))
            }
        });
        let settings = settings.collect();
        Change { resource_type: resource.resource_type, resource_name: resource.resource_name, settings }
    });
    let changed = apply(session, changes.collect(), request.validate_only).await;
    let responses = changed.into_iter().map(|changed| incremental_alter_configs::ResourceResult {
        error_code: changed.error_code,
        error_message: changed.error_message,
        resource_type: changed.resource_type,
        resource_name: changed.resource_name,
    });
    incremental_alter_configs::Response { throttle_time_ms: 0, responses: responses.collect() }
}

async fn apply(session: &Session, changes: Vec<Change>, validate_only: bool) -> Vec<Changed> {
    let (mut answers, mut commands) = (Vec::new(), Vec::new());
    for change in changes {
        let command = change.settings.and_then(|settings| match change.resource_type {
            TOPIC => alteration(session, &change.resource_name, settings, validate_only).map(Command::AlterTopic),
            GROUP => group_alteration(session, &change.resource_name, settings, validate_only).map(Command::AlterGroup),
            BROKER => {
                let why = "settings of brokers stand in the gateways' configuration files";
                Err(ErrorInfo::new(ErrorCode::InvalidConfig, why))
            }
            other => Err(ErrorInfo::new(ErrorCode::InvalidRequest, format!("no settings of resource type {other}"))),
        });
        answers.push((change.resource_type, change.resource_name, command.as_ref().err().cloned()));
        commands.extend(command.ok());
    }
    let mut outcomes = propose_each(session, commands).await.into_iter();
    let changed = answers.into_iter().map(|(resource_type, resource_name, refusal)| {
        let error = refusal.or_else(|| outcomes.next().and_then(Result::err));
        Changed {
            error_code: error.as_ref().map_or(code::NONE, |error| code_of(resource_type, error)),
            error_message: error.as_ref().and_then(message),
            resource_type,
            resource_name: bounded(resource_name),
        }
    });
    changed.collect()
}

fn alteration(
    session: &Session,
    name: &str,
    settings: Vec<Setting>,
    validate_only: bool,
) -> Result<AlterTopic, ErrorInfo> {
    if !session.allows(Action::AlterTopic { topic: name }) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, "not allowed to alter the topic"));
    }
    let topic = session.gateway().view.read(|state| state.topic_by_name(name).map(|topic| topic.id));
    Ok(AlterTopic { topic: topic.ok_or_else(|| unknown_topic(name))?, settings, validate_only })
}

fn group_alteration(
    session: &Session,
    name: &str,
    settings: Vec<Setting>,
    validate_only: bool,
) -> Result<AlterGroup, ErrorInfo> {
    match session.allows(Action::AlterGroup { group: name }) {
        true => Ok(AlterGroup { name: name.to_owned(), settings, validate_only }),
        false => Err(ErrorInfo::new(ErrorCode::NotAuthorized, "not allowed to alter the group")),
    }
}

/// Resources with settings of their own. Version 0 asked for clients' metrics alone, which there are none of.
pub fn list(
    session: &Session,
    call: &Call,
    request: list_config_resources::Request,
) -> list_config_resources::Response {
    let wanted =
        |kind: i8| call.version > 0 && (request.resource_types.is_empty() || request.resource_types.contains(&kind));
    let config_resources = session.gateway().view.read(|state| {
        let topics = state.topics().filter(|topic| session.allows(Action::Describe { topic: &topic.name }));
        let topics = topics.map(|topic| (topic.name.clone(), TOPIC));
        let brokers = super::brokers::brokers(state).into_iter().map(|broker| (broker.id.to_string(), BROKER));
        let groups = state.groups().filter(|group| session.allows(Action::DescribeGroup { group: &group.name }));
        let groups = groups.map(|group| (group.name.clone(), GROUP));
        let all = topics.chain(brokers).chain(groups).filter(|(_, kind)| wanted(*kind));
        all.map(|(resource_name, resource_type)| list_config_resources::Resource { resource_name, resource_type })
            .collect()
    });
    list_config_resources::Response { config_resources, ..Default::default() }
}
