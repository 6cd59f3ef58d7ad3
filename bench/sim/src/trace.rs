//! What happened, as a hash that two runs of one seed must share, and as text when a person asks for it.

use std::fmt;

use esker_types::Time;

/// FNV-1a over every traced line's parts. Text is only made when `print` is set.
pub struct Trace {
    hash: u64,
    print: bool,
    events: u64,
}

impl Trace {
    pub fn new(print: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, print, events: 0 }
    }

    /// Folds `parts` into the hash and, if asked to, prints `text`.
    pub fn note(&mut self, now: Time, parts: &[u64], text: impl FnOnce() -> String) {
        self.events += 1;
        self.fold(now.0);
        for part in parts {
            self.fold(*part);
        }
        if self.print {
            eprintln!("{:>12.3} ms  {}", now.0 as f64 / 1e6, text());
        }
    }

    /// Folds the time of an event that has no line of its own.
    pub fn tick(&mut self, now: Time) {
        self.events += 1;
        self.fold(now.0);
    }

    /// A line for people only: not part of the hash.
    pub fn say(&self, now: Time, text: fmt::Arguments<'_>) {
        if self.print {
            eprintln!("{:>12.3} ms    {text}", now.0 as f64 / 1e6);
        }
    }

    pub fn prints(&self) -> bool {
        self.print
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    fn fold(&mut self, part: u64) {
        self.hash = (self.hash ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}
