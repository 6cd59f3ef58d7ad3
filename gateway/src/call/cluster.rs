use std::collections::BTreeMap;

use esker_metadata_client::admin::Member;
use esker_metadata_core::{BookieState, Command, DrainBookie, DrainGateway, State};
use esker_types::error::ErrorInfo;
use esker_types::{BookieId, ErrorCode, GatewayId};
use esker_wire::native::{
    BookieStatus, ClusterStatus, DrainNode, Drained, GatewayStatus, GetClusterStatus, MetadataNodeStatus,
};

use super::{allow, propose_one};
use crate::auth::Action;
use crate::door::Client;
use crate::gateway::addresses;

/// A member further behind than this is not shown as live.
const ENTRIES_BEHIND_MAX: u64 = 100;

pub async fn status(client: &Client, _: GetClusterStatus) -> Result<ClusterStatus, ErrorInfo> {
    allow(client, Action::DescribeCluster)?;
    let mut status = client.gateway.view.read(describe);
    // The quorum's own members are not rows of its state machine: it is asked.
    let members = client.gateway.store.members().await;
    status.metadata = members.into_iter().map(metadata_node).collect();
    Ok(status)
}

fn metadata_node(member: Member) -> MetadataNodeStatus {
    // A follower that lags by so much does not hear the leader: the leader keeps fewer entries than that for it.
    let live = member.leader || member.behind.is_some_and(|entries| entries < ENTRIES_BEHIND_MAX);
    MetadataNodeStatus {
        id: member.node,
        name: member.name,
        address: member.address,
        leader: member.leader,
        voter: member.voter,
        live,
    }
}

fn describe(state: &State) -> ClusterStatus {
    let summary = state.summary();
    let mut held: BTreeMap<BookieId, u64> = BTreeMap::new();
    let (mut bytes, mut degraded) = (0, 0);
    for segment in state.segments() {
        bytes += segment.bytes;
        degraded += u64::from(segment.holders.len() < usize::from(segment.quorum.write));
        segment.holders.iter().for_each(|member| *held.entry(member.bookie).or_default() += 1);
    }
    let mut owned: BTreeMap<GatewayId, u64> = BTreeMap::new();
    for record in state.partitions() {
        record.open.iter().flat_map(|open| &open.members).for_each(|m| *held.entry(m.bookie).or_default() += 1);
        if let Some(owner) = record.owner.as_ref().filter(|_| state.has_live_owner(record)) {
            *owned.entry(owner.gateway).or_default() += 1;
        }
    }
    let mut warnings = Vec::new();
    let bookies = state.bookies().map(|bookie| {
        let live = bookie.session.is_some_and(|session| state.session(session).is_some());
        let shown = match bookie.state {
            BookieState::Live if live => "live",
            BookieState::Live => "gone",
            BookieState::Draining => "draining",
            BookieState::ReadOnly => "read-only",
            BookieState::Lost => "lost",
        };
        BookieStatus {
            id: bookie.id.0,
            name: bookie.name.clone(),
            address: bookie.address.clone(),
            zone: bookie.zone.clone(),
            state: shown.to_owned(),
            segments: held.get(&bookie.id).copied().unwrap_or(0),
        }
    });
    let bookies: Vec<BookieStatus> = bookies.collect();
    warnings.extend(bookies.iter().filter(|b| b.state == "gone").map(|b| format!("bookie {} does not answer", b.name)));
    if summary.ownerless > 0 {
        warnings.push(format!("{} partitions have no owner", summary.ownerless));
    }
    let gateways = state.gateways().map(|gateway| GatewayStatus {
        id: gateway.id.0,
        name: gateway.name.clone(),
        addresses: addresses(&gateway.addresses.quic),
        zone: gateway.zone.clone(),
        live: gateway.session.is_some_and(|session| state.session(session).is_some()),
        draining: gateway.draining,
        kafka: gateway.addresses.kafka.clone(),
        partitions: owned.get(&gateway.id).copied().unwrap_or(0),
    });
    ClusterStatus {
        cluster_id: summary.cluster.map(|id| id.0.to_vec()).unwrap_or_default(),
        version: state.cluster().map_or(0, |cluster| cluster.version),
        revision: state.revision(),
        metadata: Vec::new(),
        gateways: gateways.collect(),
        bookies,
        topics: summary.topics,
        partitions: summary.partitions,
        ownerless: summary.ownerless,
        bookie_bytes: bytes,
        object_bytes: 0,
        degraded_segments: degraded,
        warnings,
    }
}

/// Metadata stops giving it partitions; the controller moves those that it has.
pub async fn drain_gateway(client: &Client, request: DrainNode) -> Result<Drained, ErrorInfo> {
    allow(client, Action::AdministerCluster)?;
    let view = &client.gateway.view;
    let gateway = view.read(|state| state.gateway_by_name(&request.name).map(|gateway| gateway.id));
    let gateway = gateway.ok_or_else(|| unknown("gateway", &request.name))?;
    let command = Command::DrainGateway(DrainGateway { gateway, draining: !request.cancel });
    let (revision, _) = propose_one(&client.gateway, command).await?;
    let remaining = view.read(|state| {
        let owned = state.partitions().filter(|p| p.owner.as_ref().is_some_and(|owner| owner.gateway == gateway));
        owned.count() as u64
    });
    Ok(Drained { revision, remaining })
}

/// New segments avoid it.
pub async fn drain_bookie(client: &Client, request: DrainNode) -> Result<Drained, ErrorInfo> {
    allow(client, Action::AdministerCluster)?;
    let view = &client.gateway.view;
    let bookie = view.read(|state| state.bookie_by_name(&request.name).map(|bookie| bookie.id));
    let bookie = bookie.ok_or_else(|| unknown("bookie", &request.name))?;
    let command = Command::DrainBookie(DrainBookie { bookie, draining: !request.cancel });
    let (revision, _) = propose_one(&client.gateway, command).await?;
    let remaining = view.read(|state| {
        let closed = state.segments().filter(|s| s.holders.iter().any(|m| m.bookie == bookie)).count();
        let open = state.partitions().filter_map(|p| p.open.as_ref());
        closed as u64 + open.filter(|open| open.members.iter().any(|m| m.bookie == bookie)).count() as u64
    });
    Ok(Drained { revision, remaining })
}

fn unknown(what: &str, name: &str) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::UnknownNode, format!("there is no {what} named {name:?}"))
}
