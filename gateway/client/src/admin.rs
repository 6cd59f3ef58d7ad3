use esker_types::{Offset, opcode::client as op};
use esker_wire::native::{
    AlterTopic, ClusterStatus, CreateTopic, CreatedTopic, DeleteRecords, DeleteTopic, DeletedRecords, Done, DrainNode,
    Drained, ForceClose, ForceClosed, GetClusterStatus, GetMetadata, KeyValue, ListOffsets, ListSegments,
    ListedOffsets, ListedSegments, Metadata, MovePartition, MovedPartition, PartitionName, SegmentInfo, SweepBucket,
    SweptBucket, TopicInfo,
};

use crate::call::{self, Call};
use crate::client::Client;
use crate::error::Error;
use crate::reader::Start;

/// Calls that look at or change the cluster. Each is tried again on other gateways while that is safe.
#[derive(Clone, Debug)]
pub struct Admin {
    pub(crate) client: Client,
}

impl Client {
    pub fn admin(&self) -> Admin {
        Admin { client: self.clone() }
    }
}

fn settings(of: &[(&str, &str)]) -> Vec<KeyValue> {
    of.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect()
}

fn name(topic: &str, partition: u32) -> Option<PartitionName> {
    Some(PartitionName { topic: topic.to_owned(), topic_id: Vec::new(), partition })
}

impl Admin {
    async fn any<M: prost::Message + Default>(&self, call: Call) -> Result<M, Error> {
        call::any(&self.client.cluster, call, None).await
    }

    /// Any gateway; what is asked later sees the change.
    async fn change(&self, call: Call) -> Result<Done, Error> {
        let done: Done = self.any(call).await?;
        self.client.cluster.seen(done.revision);
        Ok(done)
    }

    async fn owner<M: prost::Message + Default>(&self, topic: &str, partition: u32, call: Call) -> Result<M, Error> {
        self.client.cluster.call_owner(topic, partition, call).await
    }

    /// Creates a topic. `partitions` 0 = the cluster's default. A call that is repeated after a lost answer finds its
    /// own topic and succeeds.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        config: &[(&str, &str)],
    ) -> Result<CreatedTopic, Error> {
        let topic_id = self.client.random_id().to_vec();
        let request = CreateTopic { name: name.to_owned(), partitions, settings: settings(config), topic_id };
        let answer: CreatedTopic = self.any(Call::new("create topic", op::CALL_CREATE_TOPIC, &request)).await?;
        self.client.cluster.seen(answer.revision);
        Ok(answer)
    }

    /// All topics, without their settings, in the order of their names; `internal` ones too if asked for.
    pub async fn list_topics(&self, internal: bool) -> Result<Vec<TopicInfo>, Error> {
        Ok(self.metadata(&[], internal).await?.topics)
    }

    /// One topic with settings, partitions and owners.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicInfo, Error> {
        self.client.cluster.topic(name, None).await
    }

    /// Gateways and topics as a gateway sees them; no names = all topics. A name that does not exist comes back
    /// with [`TopicInfo::error`] set.
    pub async fn metadata(&self, topics: &[&str], internal: bool) -> Result<Metadata, Error> {
        let topics = topics.iter().map(|name| (*name).to_owned()).collect();
        self.client.cluster.metadata(GetMetadata { topics, internal, ..GetMetadata::default() }, None).await
    }

    /// Changes settings, and the number of partitions if it is not 0. All of it happens, or nothing.
    pub async fn alter_topic(
        &self,
        name: &str,
        partitions: u32,
        set: &[(&str, &str)],
        reset: &[&str],
    ) -> Result<Done, Error> {
        let reset = reset.iter().map(|key| (*key).to_owned()).collect();
        let request = AlterTopic { name: name.to_owned(), partitions, set: settings(set), reset };
        self.change(Call::new("alter topic", op::CALL_ALTER_TOPIC, &request)).await
    }

    pub async fn delete_topic(&self, name: &str) -> Result<Done, Error> {
        // By id, so that a repeated call can't hit a topic made anew under the name.
        let topic_id = self.describe_topic(name).await?.id;
        let request = DeleteTopic { name: name.to_owned(), topic_id };
        self.change(Call::new("delete topic", op::CALL_DELETE_TOPIC, &request)).await
    }

    /// Raises the log start to `before`, or to the high watermark with `None`. Returns the new log start.
    pub async fn delete_records(&self, topic: &str, partition: u32, before: Option<Offset>) -> Result<Offset, Error> {
        let request = DeleteRecords { partition: name(topic, partition), before_offset: before.unwrap_or(-1) };
        let call = Call::new("delete records", op::CALL_DELETE_RECORDS, &request);
        let answer: DeletedRecords = self.owner(topic, partition, call).await?;
        Ok(answer.log_start)
    }

    /// The offset that a start stands for, and the ends of the log.
    pub async fn list_offsets(&self, topic: &str, partition: u32, at: Start) -> Result<ListedOffsets, Error> {
        let request = ListOffsets { partition: name(topic, partition), at: Some(at.position()) };
        self.owner(topic, partition, Call::new("list offsets", op::CALL_LIST_OFFSETS, &request)).await
    }

    /// The segments of one partition or of all, in the order of partitions and offsets.
    pub async fn list_segments(&self, topic: &str, partition: Option<u32>) -> Result<Vec<SegmentInfo>, Error> {
        let mut request = ListSegments { topic: topic.to_owned(), partition, from: None };
        let mut segments = Vec::new();
        loop {
            let answer: ListedSegments = self.any(Call::new("list segments", op::CALL_LIST_SEGMENTS, &request)).await?;
            segments.extend(answer.segments);
            match answer.next {
                Some(next) => request.from = Some(next),
                None => return Ok(segments),
            }
        }
    }

    /// Hands a partition over to the gateway with that configured name; comes back when it serves there.
    pub async fn move_partition(&self, topic: &str, partition: u32, to: &str) -> Result<MovedPartition, Error> {
        let request = MovePartition { partition: name(topic, partition), to: to.to_owned() };
        self.any(Call::new("move partition", op::CALL_MOVE_PARTITION, &request).once()).await
    }

    pub async fn cluster_status(&self) -> Result<ClusterStatus, Error> {
        self.any(Call::new("cluster status", op::CALL_CLUSTER_STATUS, &GetClusterStatus {})).await
    }

    /// Takes a gateway out of, or with `cancel` back into, the placement of partitions.
    pub async fn drain_gateway(&self, name: &str, cancel: bool) -> Result<Drained, Error> {
        let request = DrainNode { name: name.to_owned(), cancel };
        self.any(Call::new("drain gateway", op::CALL_DRAIN_GATEWAY, &request)).await
    }

    pub async fn drain_bookie(&self, name: &str, cancel: bool) -> Result<Drained, Error> {
        let request = DrainNode { name: name.to_owned(), cancel };
        self.any(Call::new("drain bookie", op::CALL_DRAIN_BOOKIE, &request)).await
    }

    /// Gives up what can't be read of a partition whose bookies are gone for good. Loses data: ask the operator
    /// first, twice.
    pub async fn force_close(&self, topic: &str, partition: u32) -> Result<ForceClosed, Error> {
        let request = ForceClose { partition: name(topic, partition), accept_data_loss: true };
        self.any(Call::new("force close", op::CALL_FORCE_CLOSE, &request).once()).await
    }

    /// One page of names of the bucket: finds, and unless `dry_run` deletes, what nothing reaches. Go on with `after` =
    /// the answer's `next` until that is empty.
    pub async fn sweep_bucket(&self, after: &str, dry_run: bool) -> Result<SweptBucket, Error> {
        let request = SweepBucket { after: after.to_owned(), dry_run };
        self.any(Call::new("sweep the bucket", op::CALL_SWEEP_BUCKET, &request)).await
    }
}
