//! A simulated bucket: requests that are refused, that work unheard, late or never, bodies that are stored or read
//! damaged. What it holds it never loses.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use esker_types::Time;

use crate::plan::{Fault, Faults};
use crate::rng::Rng;

/// One object as it stands there.
#[derive(Clone, Debug)]
pub struct Stored {
    pub bytes: Bytes,
    /// Exactly what its writer sent.
    pub sound: bool,
    /// When it came, ms of the wall clock.
    pub since: i64,
}

/// What becomes of a request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// Done, and the client hears of a time-out.
    Unheard,
    /// The client hears of a time-out; done later, after so many ms.
    Late(i64),
    /// 503, or lost on the way: not done, and told so or not.
    Refused,
}

/// What a GET comes to.
#[derive(Clone, Debug)]
pub enum Got {
    Bytes(Bytes),
    NotFound,
    /// Refused, or no answer in time.
    Failed,
}

/// An effect of a request that comes when its client has given up.
#[derive(Clone, Debug)]
pub enum Late {
    Put { name: String, bytes: Bytes },
    Delete { name: String },
}

#[derive(Default)]
pub struct Bucket {
    objects: BTreeMap<String, Stored>,
    /// Every name that was ever asked to be written (I9).
    used: BTreeSet<String>,
    /// 503 until then.
    pub down_until: Time,
    /// Per mille of requests whose outcome nobody hears.
    unknown: u64,
    /// Per mille of bodies that are damaged.
    damage: u64,
    /// Longest delay of a late effect, ms.
    late_ms: i64,
}

impl Bucket {
    pub fn new(faults: Faults, late_ms: i64, rng: &mut Rng) -> Self {
        let rate = |on: bool, rates: [u64; 3], rng: &mut Rng| if on { *rng.pick(&rates) } else { 0 };
        Self {
            unknown: rate(faults.has(Fault::StoreUnknown), [30, 100, 300], rng),
            damage: rate(faults.has(Fault::StoreDamage), [20, 60, 200], rng),
            late_ms,
            ..Self::default()
        }
    }

    pub fn heal(&mut self) {
        (self.down_until, self.unknown, self.damage) = (Time::ZERO, 0, 0);
    }

    pub fn fate(&self, now: Time, rng: &mut Rng) -> Fate {
        if now < self.down_until {
            return Fate::Refused;
        }
        if !rng.chance(self.unknown) {
            return Fate::Done;
        }
        match rng.below(4) {
            0 => Fate::Refused,
            1 => Fate::Late(rng.below(self.late_ms as u64) as i64),
            _ => Fate::Unheard,
        }
    }

    /// Whether the next body is damaged on its way.
    pub fn damages(&self, rng: &mut Rng) -> bool {
        rng.chance(self.damage)
    }

    /// False: the name was given out before.
    pub fn claim_name(&mut self, name: &str) -> bool {
        self.used.insert(name.to_owned())
    }

    pub fn store(&mut self, name: String, bytes: Bytes, sound: bool, since: i64) {
        self.objects.insert(name, Stored { bytes, sound, since });
    }

    /// True if there was something to delete.
    pub fn delete(&mut self, name: &str) -> bool {
        self.objects.remove(name).is_some()
    }

    pub fn get(&self, now: Time, name: &str, rng: &mut Rng) -> Got {
        if now < self.down_until || rng.chance(self.unknown) {
            return Got::Failed;
        }
        match self.objects.get(name) {
            None => Got::NotFound,
            Some(stored) if self.damages(rng) => Got::Bytes(damaged(&stored.bytes, rng)),
            Some(stored) => Got::Bytes(stored.bytes.clone()),
        }
    }

    /// The truth, which no client can ask for.
    pub fn held(&self, name: &str) -> Option<&Stored> {
        self.objects.get(name)
    }

    pub fn is_sound(&self, name: &str) -> bool {
        self.objects.get(name).is_some_and(|stored| stored.sound)
    }

    pub fn names(&self) -> impl Iterator<Item = (&String, &Stored)> {
        self.objects.iter()
    }

    /// Its bits change after it was written.
    pub fn rot(&mut self, name: &str, rng: &mut Rng) {
        if let Some(stored) = self.objects.get_mut(name) {
            (stored.bytes, stored.sound) = (damaged(&stored.bytes, rng), false);
        }
    }

    /// One bit of these bytes changes after they were written.
    pub fn rot_part(&mut self, name: &str, part: Range<usize>, rng: &mut Rng) {
        if let Some(stored) = self.objects.get_mut(name) {
            let mut bytes = stored.bytes.to_vec();
            if let Some(part) = bytes.get_mut(part).filter(|part| !part.is_empty()) {
                let at = rng.index(part.len());
                part[at] ^= 1 << rng.below(8);
                (stored.bytes, stored.sound) = (bytes.into(), false);
            }
        }
    }
}

/// Other bytes than these: a bit flipped, or the end cut off.
pub fn damaged(bytes: &Bytes, rng: &mut Rng) -> Bytes {
    if bytes.is_empty() {
        return Bytes::from_static(b"?");
    }
    if rng.chance(300) {
        return bytes.slice(..rng.index(bytes.len()));
    }
    let mut flipped = bytes.to_vec();
    let at = rng.index(flipped.len());
    flipped[at] ^= 1 << rng.below(8);
    flipped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_in_answers_and_never_loses_what_it_holds() {
        let mut rng = Rng::new(7);
        let faults = Faults::of(&[Fault::StoreUnknown, Fault::StoreDamage]);
        let mut bucket = Bucket::new(faults, 10, &mut rng);
        assert!(bucket.claim_name("a") && !bucket.claim_name("a"));
        let body = Bytes::from_static(b"what was written");
        bucket.store("a".to_owned(), body.clone(), true, 0);
        let (mut failed, mut wrong) = (0, 0);
        for _ in 0..2_000 {
            match bucket.get(Time::ZERO, "a", &mut rng) {
                Got::Failed => failed += 1,
                Got::Bytes(got) => wrong += u32::from(got != body),
                Got::NotFound => panic!("it is there"),
            }
        }
        assert!(failed > 10 && wrong > 10, "{failed} failed, {wrong} wrong");
        bucket.heal();
        assert!((0..100).all(|_| matches!(bucket.get(Time::ZERO, "a", &mut rng), Got::Bytes(got) if got == body)));
        bucket.rot("a", &mut rng);
        assert!(!bucket.is_sound("a") && bucket.delete("a") && !bucket.delete("a"));
    }
}
