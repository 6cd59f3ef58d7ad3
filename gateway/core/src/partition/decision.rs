//! A metadata command that is repeated until what it would change is known to be decided (2.2, unknown outcomes).
//!
//! Whatever the answer says, only a committed record decides, and the owner of the decision looks at each of those.
//! This only makes sure that the question keeps being asked.

use std::time::Duration;

use esker_metadata_core::Command;
use esker_types::{ErrorCode, Time};

use super::common::Common;
use super::event::{Effect, ProposeOutcome, Tag};

#[derive(Debug)]
pub(super) struct Decision {
    command: Command,
    step: Step,
    /// Of the last try.
    pub rejected: Option<ErrorCode>,
    retry: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Proposed(Tag),
    Reading(Tag),
    Waiting(Time),
}

impl Decision {
    pub fn propose(common: &mut Common, command: Command) -> Self {
        let tag = common.tag();
        common.emit(Effect::Propose { tag, command: command.clone() });
        let retry = common.config.metadata_retry;
        Self { command, step: Step::Proposed(tag), rejected: None, retry }
    }

    /// The next try may differ in what the rules let it (`next`, the target of a handover).
    pub fn replace(&mut self, command: Command) {
        self.command = command;
        self.rejected = None;
    }

    pub fn on_proposed(&mut self, common: &mut Common, tag: Tag, outcome: &ProposeOutcome) {
        if self.step != Step::Proposed(tag) {
            return;
        }
        match outcome {
            ProposeOutcome::Rejected { code, .. } => self.rejected = Some(*code),
            // Applied or not, known or not: only the record tells.
            ProposeOutcome::Applied { .. } | ProposeOutcome::NotApplied | ProposeOutcome::Unknown => {}
        }
        let tag = common.tag();
        self.step = Step::Reading(tag);
        common.emit(Effect::ReadRecord { tag });
    }

    /// The answer to our read was looked at and decided nothing, or there was none. True if it was ours.
    pub fn on_read(&mut self, now: Time, tag: Tag) -> bool {
        let ours = self.step == Step::Reading(tag);
        if ours {
            self.step = Step::Waiting(now + self.retry);
        }
        ours
    }

    pub fn deadline(&self) -> Option<Time> {
        match self.step {
            Step::Waiting(until) => Some(until),
            _ => None,
        }
    }

    /// True when the command is due again: `again` proposes it.
    pub fn is_due(&self, now: Time) -> bool {
        matches!(self.step, Step::Waiting(until) if now >= until)
    }

    pub fn again(&mut self, common: &mut Common) {
        let tag = common.tag();
        self.step = Step::Proposed(tag);
        self.rejected = None;
        common.emit(Effect::Propose { tag, command: self.command.clone() });
    }
}
