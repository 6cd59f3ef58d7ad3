//! The APIs that are served, and who answers each.

use esker_kafka::{Api, Request, Response, api_versions, code};

use super::connection::Counted;
use super::replay::Replays;
use super::session::{Call, Session};
use super::{
    cluster, configs, epochs, fetch, groups, log_dirs, metadata, near, offsets, partitions, producers, topics,
};

/// What is advertised. An API stands here when all its versions are whole, not before: clients use at once what they see.
const SERVED: &[Api] = &[
    Api::Produce,
    Api::Fetch,
    Api::ListOffsets,
    Api::Metadata,
    Api::OffsetCommit,
    Api::OffsetFetch,
    Api::OffsetDelete,
    Api::FindCoordinator,
    Api::JoinGroup,
    Api::SyncGroup,
    Api::Heartbeat,
    Api::LeaveGroup,
    Api::DescribeGroups,
    Api::ListGroups,
    Api::DeleteGroups,
    Api::ConsumerGroupHeartbeat,
    Api::ConsumerGroupDescribe,
    Api::ApiVersions,
    Api::CreateTopics,
    Api::DeleteTopics,
    Api::DeleteRecords,
    Api::InitProducerId,
    Api::OffsetForLeaderEpoch,
    Api::DescribeConfigs,
    Api::AlterConfigs,
    Api::AlterReplicaLogDirs,
    Api::DescribeLogDirs,
    Api::CreatePartitions,
    Api::ElectLeaders,
    Api::IncrementalAlterConfigs,
    Api::AlterPartitionReassignments,
    Api::ListPartitionReassignments,
    Api::DescribeCluster,
    Api::ListConfigResources,
    Api::DescribeTopicPartitions,
];

pub fn serves(api: Api) -> bool {
    SERVED.contains(&api)
}

/// Answers a request that is neither Produce nor refused by [`serves`]. The room belongs to the answer until it is sent.
pub async fn answer(
    session: &Session,
    replays: &mut Replays,
    call: &Call,
    request: Request,
) -> (Response, Option<Counted>) {
    let response = match request {
        Request::Fetch(mut r) => {
            if call.version < near::FETCH_VERSION_MIN {
                r.rack_id.clear();
            }
            let (response, room) = fetch::answer(session, replays, r).await;
            return (Response::Fetch(response), room);
        }
        Request::ApiVersions(r) => Response::ApiVersions(versions(&r, call)),
        Request::ListOffsets(r) => Response::ListOffsets(offsets::answer(session, r).await),
        Request::Metadata(r) => Response::Metadata(metadata::answer(session, call, r).await),
        Request::InitProducerId(r) => Response::InitProducerId(producers::init(session, r).await),
        Request::OffsetForLeaderEpoch(r) => Response::OffsetForLeaderEpoch(epochs::answer(session, r).await),
        Request::CreateTopics(r) => Response::CreateTopics(topics::create(session, r).await),
        Request::DeleteTopics(r) => Response::DeleteTopics(topics::delete(session, call, r).await),
        Request::CreatePartitions(r) => Response::CreatePartitions(topics::grow(session, r).await),
        Request::DeleteRecords(r) => Response::DeleteRecords(partitions::delete_records(session, r).await),
        Request::DescribeConfigs(r) => Response::DescribeConfigs(configs::describe(session, r)),
        Request::AlterConfigs(r) => Response::AlterConfigs(configs::replace(session, r).await),
        Request::IncrementalAlterConfigs(r) => Response::IncrementalAlterConfigs(configs::change(session, r).await),
        Request::ListConfigResources(r) => Response::ListConfigResources(configs::list(session, call, r)),
        Request::DescribeCluster(r) => Response::DescribeCluster(cluster::describe(session, r)),
        Request::DescribeTopicPartitions(r) => Response::DescribeTopicPartitions(metadata::partitions(session, r)),
        Request::DescribeLogDirs(r) => Response::DescribeLogDirs(log_dirs::describe(session, r)),
        Request::AlterReplicaLogDirs(r) => Response::AlterReplicaLogDirs(log_dirs::alter(session, r)),
        Request::ElectLeaders(r) => Response::ElectLeaders(cluster::elect(session, r)),
        Request::AlterPartitionReassignments(r) => {
            Response::AlterPartitionReassignments(cluster::reassign(session, r).await)
        }
        Request::ListPartitionReassignments(r) => {
            Response::ListPartitionReassignments(cluster::reassignments(session, r))
        }
        request => match groups::answer(session, call, request).await {
            Some(response) => response,
            None => unreachable!("the connection sorts out what is not served"),
        },
    };
    (response, None)
}

fn versions(request: &api_versions::Request, call: &Call) -> api_versions::Response {
    // Kafka's rule: names that monitoring could not show are refused.
    let legal = |text: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(text.chars().next())
            && edge(text.chars().next_back())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let named = legal(&request.client_software_name) && legal(&request.client_software_version);
    match call.version >= 3 && !named {
        true => api_versions::Response { error_code: code::INVALID_REQUEST, ..Default::default() },
        false => api_versions::Response { api_keys: advertised(), ..Default::default() },
    }
}

/// The answer in version 0 to a version that is not known: the client picks one of these and asks again.
pub fn unknown_version() -> api_versions::Response {
    api_versions::Response { error_code: code::UNSUPPORTED_VERSION, api_keys: advertised(), ..Default::default() }
}

fn advertised() -> Vec<api_versions::Api> {
    let mut served: Vec<Api> = SERVED.to_vec();
    served.sort_unstable();
    let range = |api: Api| api_versions::Api {
        api_key: api as i16,
        min_version: api.advertised_min(),
        max_version: api.versions().1,
    };
    served.into_iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_can_not_do_without_is_advertised() {
        // What Java clients of 4.x refuse brokers without, and produce from 0, which older librdkafka looks at.
        let needed =
            [(0, 0, 3), (1, 4, 4), (2, 1, 1), (3, 0, 1), (18, 0, 3), (19, 2, 2), (20, 1, 1), (23, 2, 2), (32, 1, 1)];
        let all = advertised();
        for (key, low, high) in needed {
            let api = all.iter().find(|api| api.api_key == key).unwrap_or_else(|| panic!("{key} is missing"));
            assert!(api.min_version <= low && api.max_version >= high, "{api:?}");
        }
        assert!(all.windows(2).all(|pair| pair[0].api_key < pair[1].api_key));
    }
}
