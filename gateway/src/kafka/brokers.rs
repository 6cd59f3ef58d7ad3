//! Gateways as Kafka's brokers.

use std::sync::Arc;

use esker_metadata_core::{GatewayRecord, PartitionRecord, State};
use esker_types::GatewayId;
use esker_types::ids::ID_INCARNATION_SHIFT;

use super::config::host_and_port;
use crate::gateway::addresses;

/// Bits of a broker id that count gateways; the incarnation of the metadata stands above them, as in all ids.
const COUNT_BITS: u32 = 23;

/// Kafka's id of a gateway: from 1, below 2^31, the same as long as the gateway's name is.
pub fn broker_id(gateway: GatewayId) -> i32 {
    let incarnation = (gateway.0 >> ID_INCARNATION_SHIFT) as i32 & 0xff;
    incarnation << COUNT_BITS | (gateway.0 & ((1 << COUNT_BITS) - 1)) as i32
}

/// A gateway that takes Kafka clients now.
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

/// All that live and have a door, by id.
pub fn brokers(state: &State) -> Vec<Broker> {
    state.gateways().filter_map(|gateway| broker(state, gateway)).collect()
}

/// None: it does not live, or has no door.
pub fn broker(state: &State, gateway: &Arc<GatewayRecord>) -> Option<Broker> {
    gateway.session.filter(|session| state.session(*session).is_some())?;
    let (host, port) = host_and_port(addresses(&gateway.addresses.kafka).first()?)?;
    let rack = Some(gateway.zone.clone()).filter(|zone| !zone.is_empty());
    Some(Broker { id: broker_id(gateway.id), host, port: port.into(), rack })
}

/// The broker that clients send changes of topics to. Any would do; all gateways must name the same.
pub fn controller(brokers: &[Broker]) -> i32 {
    brokers.first().map_or(-1, |broker| broker.id)
}

/// Who serves a partition, as Kafka shows it.
pub struct Placement {
    /// -1 = nobody at the moment.
    pub leader: i32,
    pub epoch: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// The leader is the owner. Records are on bookies, which Kafka has no word for: as replicas are shown as many gateways as
/// there are copies, the owner first, and all in sync unless the segment that is written has fewer copies than it
/// should.
pub fn placement(state: &State, brokers: &[Broker], record: &PartitionRecord, copies: u8) -> Placement {
    let owner = record.owner.as_ref().filter(|_| state.has_live_owner(record)).map(|owner| broker_id(owner.gateway));
    let leader = owner.filter(|id| brokers.iter().any(|broker| broker.id == *id)).unwrap_or(-1);
    let others = brokers.iter().map(|broker| broker.id).filter(|id| *id != leader);
    let replicas: Vec<i32> =
        [leader].into_iter().filter(|id| *id >= 0).chain(others).take(usize::from(copies).max(1)).collect();
    let degraded = record.open.as_ref().is_some_and(|open| open.quorum.write < copies);
    let in_sync = match (leader, degraded) {
        (-1, _) => Vec::new(),
        (leader, true) => vec![leader],
        _ => replicas.clone(),
    };
    Placement { leader, epoch: i32::try_from(record.epoch.0).unwrap_or(i32::MAX), replicas, in_sync }
}

#[cfg(test)]
mod tests {
    use esker_types::ids::first_id;

    use super::*;

    #[test]
    fn broker_ids_start_at_one_fit_and_differ_between_incarnations() {
        assert_eq!(broker_id(GatewayId(first_id(0))), 1);
        assert_eq!(broker_id(GatewayId(first_id(1) + 4)), (1 << 23) + 5);
        assert!(broker_id(GatewayId(first_id(255))) > 0);
    }
}
