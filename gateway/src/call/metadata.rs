use std::time::Duration;

use esker_metadata_core::{State, TopicRecord};
use esker_types::ErrorCode;
use esker_types::error::ErrorInfo;
use esker_wire::native::{GatewayInfo, GetMetadata, KeyValue, Metadata, MetadataCursor, PartitionInfo, TopicInfo};

use crate::auth::Action;
use crate::door::Client;
use crate::gateway::addresses;

/// Partitions in one answer: some 40 bytes each, so that an answer stays near half a MiB.
const PARTITIONS_MAX: usize = 12_000;
/// Topics in one answer.
const TOPICS_MAX: usize = 4_000;
const REVISION_WAIT: Duration = Duration::from_secs(1);

pub async fn get(client: &Client, request: GetMetadata) -> Result<Metadata, ErrorInfo> {
    let view = &client.gateway.view;
    if request.revision_min > view.revision() {
        // Late: the answer says by its revision how old it is.
        let _ = tokio::time::timeout(REVISION_WAIT, view.reached(request.revision_min)).await;
    }
    Ok(view.read(|state| describe(client, state, &request)))
}

fn describe(client: &Client, state: &State, request: &GetMetadata) -> Metadata {
    let may_see = |name: &str| client.gateway.authorizer.allows(&client.principal, Action::Describe { topic: name });
    let mut page = Page::default();
    let from = request.from.clone().unwrap_or_default();
    if request.topics.is_empty() {
        let wanted = state.topics().filter(|topic| topic.name >= from.topic && (request.internal || !topic.internal));
        for topic in wanted.filter(|topic| may_see(&topic.name)) {
            let first = if topic.name == from.topic { from.partition } else { 0 };
            if !page.add(state, topic, first, false) {
                break;
            }
        }
    } else {
        let mut names = request.topics.clone();
        names.sort_unstable();
        names.dedup();
        for name in names.iter().filter(|name| **name >= from.topic) {
            let first = if *name == from.topic { from.partition } else { 0 };
            let added = match state.topic_by_name(name) {
                _ if !may_see(name) => page.fail(name, ErrorCode::NotAuthorized),
                None => page.fail(name, ErrorCode::UnknownTopic),
                Some(topic) => page.add(state, topic, first, true),
            };
            if !added {
                break;
            }
        }
    }
    Metadata {
        cluster_id: state.cluster().map(|cluster| cluster.id.0.to_vec()).unwrap_or_default(),
        revision: state.revision(),
        gateways: state.gateways().map(|gateway| gateway_info(state, gateway)).collect(),
        topics: page.topics,
        next: page.next,
    }
}

fn gateway_info(state: &State, gateway: &esker_metadata_core::GatewayRecord) -> GatewayInfo {
    GatewayInfo {
        id: gateway.id.0,
        name: gateway.name.clone(),
        addresses: addresses(&gateway.addresses.quic),
        zone: gateway.zone.clone(),
        live: gateway.session.is_some_and(|session| state.session(session).is_some()),
        draining: gateway.draining,
    }
}

#[derive(Default)]
struct Page {
    topics: Vec<TopicInfo>,
    partitions: usize,
    next: Option<MetadataCursor>,
}

impl Page {
    /// False: the answer is full, and `next` says where the next one begins.
    fn add(&mut self, state: &State, topic: &TopicRecord, first: u32, with_settings: bool) -> bool {
        let room = PARTITIONS_MAX - self.partitions;
        if self.topics.len() >= TOPICS_MAX || room == 0 {
            self.next = Some(MetadataCursor { topic: topic.name.clone(), partition: first });
            return false;
        }
        let ids = topic.partitions.iter().zip(0u32..).skip(first as usize).take(room);
        let partitions: Vec<PartitionInfo> = ids
            .filter_map(|(id, index)| {
                let record = state.partition(*id)?;
                let owner = record.owner.as_ref().filter(|_| state.has_live_owner(record));
                Some(PartitionInfo {
                    index,
                    id: id.0,
                    epoch: record.epoch.0,
                    owner: owner.map_or(0, |owner| owner.gateway.0),
                    log_start: record.log_start,
                    segments: u32::try_from(state.chain(*id).count()).unwrap_or(u32::MAX)
                        + u32::from(record.open.is_some()),
                })
            })
            .collect();
        let until = first + u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        self.partitions += partitions.len();
        let quorum = state.cluster().map_or(topic.settings.quorum, |cluster| cluster.quorum);
        let settings = || topic.settings.describe(quorum).into_iter().map(|s| KeyValue::new(s.name, s.value)).collect();
        let partition_count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        self.topics.push(TopicInfo {
            name: topic.name.clone(),
            id: topic.id.0.to_vec(),
            internal: topic.internal,
            partition_count,
            partitions,
            settings: if with_settings { settings() } else { Vec::new() },
            error: 0,
        });
        if until < partition_count {
            self.next = Some(MetadataCursor { topic: topic.name.clone(), partition: until });
        }
        self.next.is_none()
    }

    fn fail(&mut self, name: &str, code: ErrorCode) -> bool {
        let error = u32::from(code as u16);
        self.topics.push(TopicInfo { name: name.to_owned(), error, ..TopicInfo::default() });
        self.topics.len() < TOPICS_MAX
    }
}
