//! Group APIs: between Kafka's encodings and the coordinators' plain requests. Whatever a coordinator decides is decided
//! there; here stand only names, versions and who may ask.

mod admin;
mod consumer;
mod members;
mod offsets;

use std::time::Duration;

use esker_kafka::{Request, Response, code};
use esker_types::ErrorCode;

use super::session::{Call, Session};
use crate::auth::Action;
use crate::call::random;

/// Answers a request of a group API. None: it is of another.
pub async fn answer(session: &Session, call: &Call, request: Request) -> Option<Response> {
    Some(match request {
        Request::FindCoordinator(r) => Response::FindCoordinator(members::coordinators(session, call, r).await),
        Request::JoinGroup(r) => Response::JoinGroup(members::join(session, call, r).await),
        Request::SyncGroup(r) => Response::SyncGroup(members::sync(session, r).await),
        Request::Heartbeat(r) => Response::Heartbeat(members::heartbeat(session, r).await),
        Request::LeaveGroup(r) => Response::LeaveGroup(members::leave(session, call, r).await),
        Request::OffsetCommit(r) => Response::OffsetCommit(offsets::commit(session, call, r).await),
        Request::OffsetFetch(r) => Response::OffsetFetch(offsets::fetch(session, call, r).await),
        Request::OffsetDelete(r) => Response::OffsetDelete(offsets::delete(session, r).await),
        Request::DescribeGroups(r) => Response::DescribeGroups(admin::describe(session, r).await),
        Request::ListGroups(r) => Response::ListGroups(admin::list(session, r).await),
        Request::DeleteGroups(r) => Response::DeleteGroups(admin::delete(session, r).await),
        Request::ConsumerGroupHeartbeat(r) => {
            Response::ConsumerGroupHeartbeat(consumer::heartbeat(session, call, r).await)
        }
        Request::ConsumerGroupDescribe(r) => Response::ConsumerGroupDescribe(consumer::describe(session, r).await),
        _ => return None,
    })
}

fn may_read(session: &Session, group: &str) -> bool {
    session.allows(Action::ReadGroup { group })
}

fn may_see(session: &Session, group: &str) -> bool {
    session.allows(Action::DescribeGroup { group })
}

/// Of an outcome that says nothing else.
fn error_code<T>(outcome: &Result<T, ErrorCode>) -> i16 {
    outcome.as_ref().err().map_or(code::NONE, |code| code.kafka())
}

/// Milliseconds of a client; negative ones are none at all.
fn duration(milliseconds: i32) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

/// What makes a member id unique. None: the system gives no random numbers.
fn fresh() -> Option<[u8; 16]> {
    random().ok()
}
