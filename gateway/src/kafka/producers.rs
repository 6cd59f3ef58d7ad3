use esker_kafka::{code, init_producer_id};

use super::errors;
use super::session::Session;
use crate::auth::Action;

/// An id for an idempotent producer, or a higher epoch for one that has an id. Partitions learn of a higher epoch from
/// the batches that carry it, so that raising it needs no one else.
pub async fn init(session: &Session, request: init_producer_id::Request) -> init_producer_id::Response {
    let refuse = |error_code| init_producer_id::Response { error_code, producer_epoch: -1, ..Default::default() };
    if request.transactional_id.is_some() {
        // Transactions are not available: their APIs are not advertised either.
        return refuse(code::INVALID_REQUEST);
    }
    if !session.allows(Action::InitProducer) {
        return refuse(code::CLUSTER_AUTHORIZATION_FAILED);
    }
    let (producer_id, epoch) = (request.producer_id, request.producer_epoch);
    if producer_id < -1 || epoch < -1 || (producer_id == -1) != (epoch == -1) {
        return refuse(code::INVALID_REQUEST);
    }
    // The last epoch stays free, as Kafka has it: then a new id is given.
    if let Some(producer_epoch) = epoch.checked_add(1).filter(|next| producer_id >= 0 && *next < i16::MAX) {
        return init_producer_id::Response { producer_id, producer_epoch, ..Default::default() };
    }
    match session.gateway().producer_ids.next(&*session.gateway().store).await {
        Ok(id) => {
            let producer_id = i64::try_from(id).unwrap_or(-1);
            init_producer_id::Response { producer_id, producer_epoch: 0, ..Default::default() }
        }
        Err(error) => refuse(errors::general(&error)),
    }
}
