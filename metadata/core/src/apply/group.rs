use std::sync::Arc;

use esker_types::ErrorCode;

use super::Tx;
use crate::change::{Change, GroupKey};
use crate::command::AlterGroup;
use crate::records::{GroupRecord, GroupSettings};
use crate::reply::{CommandResult, Reject, Reply};

/// Groups with settings of their own: each is a row in every node's memory.
const GROUPS_MAX: usize = 10_000;
/// Bytes. Kafka takes 32,767, which as many groups would turn into a third of a gigabyte.
const GROUP_NAME_MAX: usize = 1_024;

impl Tx<'_> {
    /// A group need not exist to have settings: they are there when it comes. One that has none any more has no row.
    pub(super) fn alter_group(&mut self, c: &AlterGroup) -> CommandResult {
        if c.name.is_empty() || c.name.len() > GROUP_NAME_MAX {
            let reason = format!("a group with settings must have a name of 1 to {GROUP_NAME_MAX} bytes");
            return Err(Reject::new(ErrorCode::InvalidGroupId, reason));
        }
        let old = self.state.group(&c.name).map_or(GroupSettings::NONE, |group| group.settings.clone());
        let settings = old.with(&c.settings)?;
        if old == GroupSettings::NONE && settings != old && self.state.groups().len() >= GROUPS_MAX {
            let reason = format!("{GROUPS_MAX} groups have settings of their own, as many as may");
            return Err(Reject::new(ErrorCode::InvalidConfig, reason));
        }
        if !c.validate_only && settings != old {
            match settings == GroupSettings::NONE {
                true => self.put(Change::GroupGone(GroupKey { name: c.name.clone() })),
                false => self.put(Arc::new(GroupRecord { name: c.name.clone(), settings })),
            }
        }
        Ok(Reply::DONE)
    }
}
