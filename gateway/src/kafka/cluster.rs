//! The cluster as Kafka's tools see it: brokers, and moves of partitions.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use esker_kafka::{
    alter_partition_reassignments as reassign_api, code, describe_cluster, elect_leaders, list_partition_reassignments,
};
use esker_types::ErrorCode;
use esker_types::error::ErrorInfo;

use super::brokers::{broker_id, brokers, controller};
use super::connection::deadline;
use super::errors;
use super::partitions;
use super::session::{Session, message};
use crate::auth::Action;
use crate::call::{ask_owner, move_here, session_of};

/// Longest time that the moves of one request are waited for.
const MOVES_WAIT: Duration = Duration::from_secs(60);

pub fn describe(session: &Session, request: describe_cluster::Request) -> describe_cluster::Response {
    if request.endpoint_type != 1 {
        return describe_cluster::Response {
            error_code: code::UNSUPPORTED_ENDPOINT_TYPE,
            error_message: Some("only brokers can be asked for: there are no controllers to connect to".to_owned()),
            ..Default::default()
        };
    }
    let cluster_authorized_operations = match request.include_cluster_authorized_operations {
        true => session.cluster_operations(),
        false => i32::MIN,
    };
    session.gateway().view.read(|state| {
        let brokers = brokers(state);
        describe_cluster::Response {
            cluster_id: state.cluster().map(|cluster| cluster.id.to_string()).unwrap_or_default(),
            controller_id: controller(&brokers),
            brokers: brokers
                .into_iter()
                .map(|b| describe_cluster::Broker { broker_id: b.id, host: b.host, port: b.port, rack: b.rack })
                .collect(),
            cluster_authorized_operations,
            ..Default::default()
        }
    })
}

/// Every partition with an owner has the one that it should have: nothing is elected here.
pub fn elect(session: &Session, request: elect_leaders::Request) -> elect_leaders::Response {
    if !session.allows(Action::AdministerCluster) {
        let error_code = code::CLUSTER_AUTHORIZATION_FAILED;
        return elect_leaders::Response { error_code, ..Default::default() };
    }
    let topics = request.topic_partitions.unwrap_or_default().into_iter().map(|topic| {
        let results = topic.partitions.iter().map(|index| {
            let (error_code, error_message) = match partitions::record(session, &topic.topic, *index) {
                Ok(_) => (code::ELECTION_NOT_NEEDED, Some("leaders are chosen by the cluster itself".to_owned())),
                Err(error) => (errors::general(&error), message(&error)),
            };
            elect_leaders::Partition { partition_id: *index, error_code, error_message }
        });
        elect_leaders::Topic { partition_result: results.collect(), topic: topic.topic.clone() }
    });
    elect_leaders::Response { replica_election_results: topics.collect(), ..Default::default() }
}

/// The first replica asked for becomes the owner; where copies lie is the bookies' business. Moves are done at return.
pub async fn reassign(session: &Session, request: reassign_api::Request) -> reassign_api::Response {
    if !session.allows(Action::AdministerCluster) {
        let error_code = code::CLUSTER_AUTHORIZATION_FAILED;
        return reassign_api::Response { error_code, ..Default::default() };
    }
    let until = deadline(Instant::now(), request.timeout_ms, MOVES_WAIT);
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let moving = move_to(session, &topic.name, asked.partition_index, asked.replicas.as_deref());
            let (error_code, error_message) = match tokio::time::timeout_at(until, moving).await {
                Ok(Ok(())) => (code::NONE, None),
                Ok(Err((error_code, error))) => (error_code, message(&error)),
                Err(_) => (code::REQUEST_TIMED_OUT, Some("the move may go on by itself".to_owned())),
            };
            let partition_index = asked.partition_index;
            partitions.push(reassign_api::Partition { partition_index, error_code, error_message });
        }
        responses.push(reassign_api::Topic { name: topic.name, partitions });
    }
    reassign_api::Response { responses, ..Default::default() }
}

async fn move_to(session: &Session, topic: &str, index: i32, replicas: Option<&[i32]>) -> Result<(), (i16, ErrorInfo)> {
    let general = |error: ErrorInfo| (errors::general(&error), error);
    let refuse = |error_code: i16, why: &str| (error_code, ErrorInfo::new(ErrorCode::InvalidRequest, why));
    let gateway = session.gateway();
    let record = partitions::record(session, topic, index).map_err(general)?;
    let Some(replicas) = replicas else {
        return Err(refuse(code::NO_REASSIGNMENT_IN_PROGRESS, "moves are done when they are answered"));
    };
    let distinct: BTreeSet<i32> = replicas.iter().copied().collect();
    let all: BTreeSet<i32> = gateway.view.read(|state| brokers(state).iter().map(|broker| broker.id).collect());
    let Some(first) = replicas.first().filter(|_| distinct.len() == replicas.len() && distinct.is_subset(&all)) else {
        return Err(refuse(code::INVALID_REPLICA_ASSIGNMENT, "replicas must be live brokers, each once"));
    };
    let target = gateway.view.read(|state| state.gateways().find(|gateway| broker_id(gateway.id) == *first).cloned());
    let target = target.ok_or_else(|| refuse(code::INVALID_REPLICA_ASSIGNMENT, "the broker is gone"))?;
    let to = session_of(gateway, &target).map_err(general)?;
    let nobody = || general(gateway.not_owner(record.id, ErrorCode::NotOwner));
    let owner = record.owner.as_ref().ok_or_else(nobody)?;
    if owner.session == to {
        return Ok(());
    }
    let moved = match gateway.is_ours(record.id) {
        true => move_here(gateway, record.id, None, to).await,
        false => ask_owner(gateway, record.id, record.epoch, owner.session, to).await,
    };
    moved.map(drop).map_err(general)
}

/// A move lasts some tens of milliseconds: there is never one to show.
pub fn reassignments(
    session: &Session,
    _: list_partition_reassignments::Request,
) -> list_partition_reassignments::Response {
    let error_code = match session.allows(Action::DescribeCluster) {
        true => code::NONE,
        false => code::CLUSTER_AUTHORIZATION_FAILED,
    };
    list_partition_reassignments::Response { error_code, ..Default::default() }
}
