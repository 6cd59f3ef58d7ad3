use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use esker_types::{TopicId, checksum};

use super::super::out::Cx;
use super::super::topics::Topics;
use super::Consumer;

/// How often a group compares the topics with what it knows, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Memory of a compiled pattern. Its language has no backtracking: matching takes linear time.
const REGEX_SIZE_MAX: usize = 256 << 10;

/// A pattern must fit a whole name.
pub fn compile(pattern: &str) -> Result<regex::bytes::Regex, String> {
    regex::bytes::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .unicode(false)
        .size_limit(REGEX_SIZE_MAX)
        .dfa_size_limit(REGEX_SIZE_MAX)
        .nest_limit(64)
        .build()
        .map_err(|error| format!("the pattern {pattern:?} does not work: {error}"))
}

/// Topics that members read: name, id, number of partitions.
pub type Known = BTreeMap<String, (TopicId, u32)>;

impl Consumer {
    /// All that is there of what any member subscribes to, and the names that each pattern stands for.
    pub(super) fn known(&self, topics: &dyn Topics) -> (Known, BTreeMap<String, BTreeSet<String>>) {
        let mut known = Known::new();
        for name in self.members.values().flat_map(|member| &member.topics) {
            if let Some(found) = topics.topic(name) {
                known.insert(name.clone(), found);
            }
        }
        let mut patterns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let distinct: BTreeSet<&String> =
            self.members.values().map(|member| &member.regex).filter(|regex| !regex.is_empty()).collect();
        for pattern in distinct {
            // It was compiled when the member brought it.
            let Ok(regex) = compile(pattern) else { continue };
            let names = patterns.entry(pattern.clone()).or_default();
            topics.each(&mut |name, id, count| {
                if regex.is_match(name.as_bytes()) {
                    known.insert(name.to_owned(), (id, count));
                    names.insert(name.to_owned());
                }
            });
        }
        (known, patterns)
    }

    /// A topic that came, went or grew begins a new epoch.
    pub(super) fn look_at_topics(&mut self, cx: &Cx<'_>) {
        let revision = cx.topics.revision();
        if revision == self.seen_revision || cx.now < self.look_at {
            return;
        }
        (self.seen_revision, self.look_at) = (revision, cx.now + LOOK_INTERVAL);
        let hash = hash(&self.known(cx.topics).0);
        if hash != self.topics_hash && self.epoch == self.target_epoch {
            self.bump(cx);
        }
    }

    pub fn subscribes(&self, topics: &dyn Topics, topic: &str) -> bool {
        self.members.values().any(|member| member.topics.iter().any(|name| name == topic))
            || self.known(topics).1.values().any(|names| names.contains(topic))
    }
}

pub fn hash(known: &Known) -> u64 {
    known.iter().fold(0, |hash, (name, (id, count))| {
        let hash = checksum::chain(hash, name.as_bytes());
        checksum::chain(checksum::chain(hash, &id.0), &count.to_le_bytes())
    })
}
