//! What may go wrong on the way to a store, and when.

use std::time::Duration;

/// One way of failing. Where a request changes something, it says whether the change happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status and S3 error code; nothing happens.
    Status(u16, &'static str),
    /// The request is carried out, and then answered with this status and code.
    StatusAfter(u16, &'static str),
    /// The request is carried out, and no answer ever comes.
    SilenceAfter,
    /// Nothing happens and no answer ever comes.
    Silence,
    /// Status 200 with an XML error of this code as body; nothing happens.
    OkWithError(&'static str),
    /// Status 200 as after a success; nothing happens.
    OkButNothing,
    /// The body of the answer breaks off after this many bytes.
    CutBody(usize),
    /// Headers promise the whole, and so does the length: fewer bytes than asked for come.
    ShortBody(usize),
    /// One bit of the body is wrong.
    FlipBit(usize),
    /// The answer comes late.
    Delay(Duration),
}

/// Which requests meet a fault.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `GET`, `PUT`, …; empty for all.
    pub method: &'static str,
    /// Part of the path and query that must occur, such as a key, `uploads` or `partNumber`.
    pub contains: String,
    /// Part of them that must not occur, unless empty.
    pub lacks: String,
    /// Matching requests that pass before the first fault.
    pub skip: usize,
    /// Faults before the rule is used up.
    pub times: usize,
    pub fault: Fault,
}

impl Rule {
    /// The next `times` requests with this method whose path and query contain `contains`.
    pub fn new(method: &'static str, contains: impl Into<String>, times: usize, fault: Fault) -> Self {
        Self { method, contains: contains.into(), lacks: String::new(), skip: 0, times, fault }
    }

    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    #[must_use]
    pub fn without(mut self, lacks: impl Into<String>) -> Self {
        self.lacks = lacks.into();
        self
    }

    fn matches(&self, method: &str, target: &str) -> bool {
        let lacks = self.lacks.is_empty() || !target.contains(&self.lacks);
        (self.method.is_empty() || self.method == method) && target.contains(&self.contains) && lacks
    }
}

/// Takes the first fault that applies to a request off the rules.
pub(crate) fn pick(rules: &mut Vec<Rule>, method: &str, target: &str) -> Option<Fault> {
    let at = rules.iter().position(|rule| rule.matches(method, target))?;
    let rule = &mut rules[at];
    if rule.skip > 0 {
        rule.skip -= 1;
        return None;
    }
    let fault = rule.fault.clone();
    rule.times = rule.times.saturating_sub(1);
    if rule.times == 0 {
        rules.remove(at);
    }
    Some(fault)
}
