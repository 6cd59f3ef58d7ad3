//! Calls: one request, one answer. What changes metadata goes through the quorum; what asks is answered from this
//! gateway's copy, or by the partition's owner where only it knows.

mod bucket;
mod cluster;
mod folded;
mod groups;
mod metadata;
mod partitions;
mod segments;
mod topics;

use esker_metadata_client::ProposeError;
use esker_metadata_core::{Command, CommandResult, Reply};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Frame, opcode};
use std::time::Duration;
use tokio::time::Instant;

use crate::auth::Action;
use crate::door::Client;
use crate::gateway::Gateway;

pub use partitions::{ask_owner, move_here, session_of};
pub use topics::random;

/// How long a call tries to reach metadata.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(50);

/// None: the opcode is not a call.
pub async fn answer(client: &Client, frame: &Frame) -> Option<Frame> {
    macro_rules! call {
        ($handler:path) => {
            match frame.decode_control() {
                Ok(request) => $handler(client, request).await.map(|answer| frame.answer(&answer)),
                Err(error) => {
                    Err(ErrorInfo::new(ErrorCode::InvalidRequest, format!("the request does not parse: {error}")))
                }
            }
        };
    }
    let answered = match frame.opcode {
        opcode::client::CALL_METADATA => call!(metadata::get),
        opcode::client::CALL_CREATE_TOPIC => call!(topics::create),
        opcode::client::CALL_DELETE_TOPIC => call!(topics::delete),
        opcode::client::CALL_ALTER_TOPIC => call!(topics::alter),
        opcode::client::CALL_DELETE_RECORDS => call!(partitions::delete_records),
        opcode::client::CALL_INIT_PRODUCER => call!(partitions::init_producer),
        opcode::client::CALL_LIST_OFFSETS => call!(partitions::list_offsets),
        opcode::client::CALL_LIST_SEGMENTS => call!(segments::list),
        opcode::client::CALL_MOVE_PARTITION => call!(partitions::move_partition),
        opcode::client::CALL_CLUSTER_STATUS => call!(cluster::status),
        opcode::client::CALL_DRAIN_GATEWAY => call!(cluster::drain_gateway),
        opcode::client::CALL_DRAIN_BOOKIE => call!(cluster::drain_bookie),
        opcode::client::CALL_FORCE_CLOSE => call!(partitions::force_close),
        opcode::client::CALL_SWEEP_BUCKET => call!(bucket::sweep),
        opcode::client::CALL_LIST_GROUPS => call!(groups::list),
        opcode::client::CALL_DESCRIBE_GROUP => call!(groups::describe),
        opcode::client::CALL_RESET_OFFSETS => call!(groups::reset_offsets),
        _ => return None,
    };
    Some(answered.unwrap_or_else(|error| frame.error_answer(&error)))
}

fn allow(client: &Client, action: Action<'_>) -> Result<(), ErrorInfo> {
    match client.gateway.authorizer.allows(&client.principal, action) {
        true => Ok(()),
        false => Err(ErrorInfo::new(ErrorCode::NotAuthorized, format!("not allowed: {action:?}"))),
    }
}

/// Proposes commands that may safely be applied twice, until metadata says what became of them. At return our own copy
/// shows them, or a second has passed.
pub async fn propose(gateway: &Gateway, commands: Vec<Command>) -> Result<(u64, Vec<CommandResult>), ErrorInfo> {
    let until = Instant::now() + PATIENCE;
    loop {
        let error = match gateway.store.propose(commands.clone()).await {
            Ok(proposed) => {
                // Late is fine: whoever asks for the revision waits for it.
                let _ = tokio::time::timeout(Duration::from_secs(1), gateway.view.reached(proposed.revision)).await;
                return Ok((proposed.revision, proposed.results));
            }
            Err(ProposeError::NotApplied(reason)) => ErrorInfo::new(ErrorCode::MetadataUnavailable, reason),
            Err(ProposeError::Unknown(reason)) => ErrorInfo::new(ErrorCode::TimedOutUnknown, reason),
        };
        if Instant::now() >= until {
            return Err(error);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The same for one command.
pub async fn propose_one(gateway: &Gateway, command: Command) -> Result<(u64, Reply), ErrorInfo> {
    let (revision, mut results) = propose(gateway, vec![command]).await?;
    match results.pop() {
        Some(Ok(reply)) => Ok((revision, reply)),
        Some(Err(reject)) => Err(ErrorInfo::new(reject.code, reject.reason)),
        None => Err(ErrorInfo::new(ErrorCode::Internal, "metadata answered without a result")),
    }
}
