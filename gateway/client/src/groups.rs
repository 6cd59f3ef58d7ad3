use esker_types::{ErrorCode, opcode::client as op};
use esker_wire::native::{
    CommittedOffset, DescribeGroup, DescribedGroup, Done, GROUP_TOPIC, GroupInfo, GroupPartition, ListGroups,
    ListedGroups, ResetOffsets, coordinating_partition,
};

use crate::admin::Admin;
use crate::call::{self, Call};
use crate::error::Error;

/// Calls about consumer groups. Each goes to the group's coordinator, wherever that is by the time it answers.
impl Admin {
    /// All groups, in the order of their names.
    pub async fn list_groups(&self) -> Result<Vec<GroupInfo>, Error> {
        let Some(coordinators) = self.coordinators().await? else { return Ok(Vec::new()) };
        let mut groups = Vec::new();
        for partition in 0..coordinators {
            let mut request = ListGroups { partition, after: String::new() };
            loop {
                let call = Call::new("list groups", op::CALL_LIST_GROUPS, &request);
                let answer: ListedGroups = self.client.cluster.call_owner(GROUP_TOPIC, partition, call).await?;
                let last = answer.groups.last().map(|group| group.name.clone());
                groups.extend(answer.groups);
                match last.filter(|_| answer.more) {
                    Some(last) => request.after = last,
                    None => break,
                }
            }
        }
        groups.sort_by(|a: &GroupInfo, b| a.name.cmp(&b.name));
        Ok(groups)
    }

    /// A group with all its members and offsets.
    pub async fn describe_group(&self, group: &str) -> Result<DescribedGroup, Error> {
        let mut request = DescribeGroup { group: group.to_owned(), ..DescribeGroup::default() };
        let mut whole: Option<DescribedGroup> = None;
        loop {
            let call = Call::new("describe group", op::CALL_DESCRIBE_GROUP, &request);
            let answer: DescribedGroup = match self.coordinators().await? {
                Some(count) => self.ask_coordinator(group, count, call).await?,
                // No group was ever seen: any gateway says so.
                None => call::any(&self.client.cluster, call, None).await?,
            };
            let more = answer.more;
            let whole = match &mut whole {
                Some(whole) => {
                    whole.members.extend(answer.members);
                    whole.offsets.extend(answer.offsets);
                    whole
                }
                None => whole.insert(answer),
            };
            whole.more = false;
            if !more {
                return Ok(std::mem::take(whole));
            }
            request.after_member = whole.members.last().map(|member| member.id.clone()).unwrap_or_default();
            let place = |at: &CommittedOffset| GroupPartition { topic: at.topic.clone(), partition: at.partition };
            request.after_offset = whole.offsets.last().map(place);
        }
    }

    /// Sets a group's offsets, all or none. Refused with [`ErrorCode::GroupNotEmpty`] while the group has members. A group
    /// that does not exist comes into being.
    pub async fn reset_offsets(&self, group: &str, offsets: Vec<CommittedOffset>) -> Result<Done, Error> {
        let request = ResetOffsets { group: group.to_owned(), offsets };
        let call = Call::new("reset offsets", op::CALL_RESET_OFFSETS, &request);
        match self.coordinators().await? {
            Some(count) => self.ask_coordinator(group, count, call).await,
            // The first gateway that is asked makes the topic; then they all know the coordinator.
            None => call::any(&self.client.cluster, call, None).await,
        }
    }

    async fn ask_coordinator<M: prost::Message + Default>(
        &self,
        group: &str,
        count: u32,
        call: Call,
    ) -> Result<M, Error> {
        self.client.cluster.call_owner(GROUP_TOPIC, coordinating_partition(group, count), call).await
    }

    /// How many coordinators share the groups. None: there are none yet.
    async fn coordinators(&self) -> Result<Option<u32>, Error> {
        match self.client.cluster.topic(GROUP_TOPIC, None).await {
            Ok(topic) => Ok(Some(topic.partition_count).filter(|count| *count > 0)),
            Err(error) if error.code() == Some(ErrorCode::UnknownTopic) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
