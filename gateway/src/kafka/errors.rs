//! From our errors to Kafka's (R17). Each path has codes that its clients do not know what to do with.

use esker_kafka::code;
use esker_types::ErrorCode;
use esker_types::error::ErrorInfo;

/// For answers about topics, settings and the cluster.
pub fn general(error: &ErrorInfo) -> i16 {
    error.error_code().map_or(code::UNKNOWN_SERVER_ERROR, ErrorCode::kafka)
}

/// For produce. Whatever comes of a move is retriable: the next owner tells duplicates.
pub fn produce(error: ErrorCode) -> i16 {
    match error {
        // An owner that still recovers will be ready soon, and is the right one to ask: Kafka's word for it.
        ErrorCode::Recovering | ErrorCode::FencedEpoch | ErrorCode::TopicDeleted => code::NOT_LEADER_OR_FOLLOWER,
        // Without transactions a newer epoch is met by a new producer id, not by giving up.
        ErrorCode::ProducerFenced => code::INVALID_PRODUCER_EPOCH,
        error => error.kafka(),
    }
}

/// For fetches and lookups of offsets: only codes that consumers expect. OFFSET_OUT_OF_RANGE makes them jump, so that it
/// may come from a recovered owner alone.
pub fn read(error: &ErrorInfo) -> i16 {
    match error.error_code() {
        Some(
            error @ (ErrorCode::OffsetOutOfRange
            | ErrorCode::OffsetNotAvailable
            | ErrorCode::UnknownTopic
            | ErrorCode::UnknownPartition
            | ErrorCode::NotAuthorized
            | ErrorCode::UnknownTopicId
            | ErrorCode::FencedEpoch
            | ErrorCode::UnknownEpoch),
        ) => error.kafka(),
        Some(
            ErrorCode::NotOwner
            | ErrorCode::Moved
            | ErrorCode::Recovering
            | ErrorCode::ShuttingDown
            | ErrorCode::Fenced
            | ErrorCode::TopicDeleted,
        ) => code::NOT_LEADER_OR_FOLLOWER,
        _ => code::KAFKA_STORAGE_ERROR,
    }
}
