use esker_types::ErrorCode;

use super::api::{List, Listed};
use super::group::{Group, Kind};
use super::out::Cx;

impl Group {
    /// Forgets members and offsets. The caller drops what is left.
    pub fn delete(&mut self, cx: &mut Cx<'_>) -> Result<(), ErrorCode> {
        if !self.is_empty() {
            return Err(ErrorCode::GroupNotEmpty);
        }
        self.forget_members(cx.out);
        self.kind = Kind::Classic(super::classic::Classic::new(&self.name, cx.wall));
        let all: Vec<(String, i32)> = self.offsets.each().map(|(topic, p, _)| (topic.to_owned(), p)).collect();
        for (topic, partition) in all {
            self.offsets.delete(cx.out, &self.name, &topic, partition);
        }
        Ok(())
    }

    pub fn delete_offsets(
        &mut self,
        cx: &mut Cx<'_>,
        partitions: &[(String, i32)],
    ) -> Result<Vec<Result<(), ErrorCode>>, ErrorCode> {
        // What another protocol than the consumers' own reads, nobody knows.
        if matches!(&self.kind, Kind::Classic(group) if !group.is_empty() && group.protocol_type != "consumer") {
            return Err(ErrorCode::GroupNotEmpty);
        }
        let one = |(topic, partition): &(String, i32)| {
            if self.subscribes(topic) {
                return Err(ErrorCode::GroupSubscribed);
            }
            // One that is not there is gone already.
            self.offsets.delete(cx.out, &self.name, topic, *partition);
            Ok(())
        };
        let mut one = one;
        Ok(partitions.iter().map(&mut one).collect())
    }

    pub fn list(&self, filter: &List) -> Option<Listed> {
        let (protocol_type, kind) = match &self.kind {
            Kind::Classic(classic) => (classic.protocol_type.clone(), "classic"),
            Kind::Consumer(_) => ("consumer".to_owned(), "consumer"),
        };
        let state = self.state();
        let passes =
            |filter: &[String], what: &str| filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(what));
        let shown = passes(&filter.states, state) && passes(&filter.types, kind);
        shown.then(|| Listed { group: self.name.clone(), protocol_type, state, kind })
    }
}
