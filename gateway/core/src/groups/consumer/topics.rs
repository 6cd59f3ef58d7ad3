use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use esker_types::{TopicId, checksum};
use regex_lite::{Regex, RegexBuilder};

use super::super::out::Cx;
use super::super::topics::Topics;
use super::Consumer;

/// How often a group compares the topics with what it knows, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Memory of a compiled pattern. Its language has no backtracking: matching takes linear time.
const REGEX_SIZE_MAX: usize = 256 << 10;

/// Different patterns of one group: each is matched with every topic when topics change.
const PATTERNS_MAX: usize = 64;

/// A pattern must fit a whole name.
fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(REGEX_SIZE_MAX)
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
        for (pattern, regex) in &self.patterns {
            let names = patterns.entry(pattern.clone()).or_default();
            topics.each(&mut |name, id, count| {
                if regex.is_match(name) {
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

    pub fn subscribes(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.topics.iter().any(|name| name == topic))
            || self.patterns.values().any(|pattern| pattern.is_match(topic))
    }

    /// Makes a pattern ready to use; an empty one is none.
    pub(super) fn learn_pattern(&mut self, pattern: &str) -> Result<(), String> {
        if pattern.is_empty() || self.patterns.contains_key(pattern) {
            return Ok(());
        }
        self.forget_patterns();
        if self.patterns.len() >= PATTERNS_MAX {
            return Err(format!("the members of a group may use {PATTERNS_MAX} patterns, not more"));
        }
        self.patterns.insert(pattern.to_owned(), compile(pattern)?);
        Ok(())
    }

    /// Drops patterns that no member has any more.
    pub(super) fn forget_patterns(&mut self) {
        let used: BTreeSet<&String> = self.members.values().map(|member| &member.regex).collect();
        self.patterns.retain(|pattern, _| used.contains(pattern));
    }
}

pub fn hash(known: &Known) -> u64 {
    known.iter().fold(0, |hash, (name, (id, count))| {
        let hash = checksum::chain(hash, name.as_bytes());
        checksum::chain(checksum::chain(hash, &id.0), &count.to_le_bytes())
    })
}
