//! The leak sweep, by whoever runs it: list, then read metadata, then judge, then delete.

use esker_cache_core::object::{Directory, Identity};
use esker_cache_core::steps::{Candidate, Verdict, candidate, doomed, parse, verdict};
use esker_types::{ObjectKey, Rules};

use super::bucket::Got;
use super::pages::Miss;
use super::{ObjectsPlan, format};
use crate::sometimes::Case;
use crate::world::{What, World};

/// What a sweep found so far.
#[derive(Default)]
pub struct Sweep {
    /// Listed, and old enough.
    listed: Vec<(String, Candidate)>,
    /// Judged, to be deleted.
    doomed: Vec<String>,
}

impl<R: Rules> World<R> {
    /// One stage of the sweep after the other, each some time after the last: all may change in between.
    pub fn on_sweep(&mut self) {
        let Some(plan) = self.plan.objects else { return };
        if !self.objects.sweep.doomed.is_empty() {
            for name in std::mem::take(&mut self.objects.sweep.doomed) {
                // The sweeper may die in the middle; the next one finds the rest.
                if !self.healed && self.objects.rng.chance(50) {
                    break;
                }
                self.sweep_away(&name);
            }
        } else if !self.objects.sweep.listed.is_empty() {
            self.judge();
        } else {
            self.list(&plan);
        }
        let pause = self.objects.rng.latency_ns(plan.unit_ms as u64 * 4_000);
        self.queue.after_ns(pause, What::Sweep);
    }

    /// A listing may be old, and may leave out what came last.
    pub(super) fn list(&mut self, plan: &ObjectsPlan) {
        let (age_min, grace) = (plan.sweep_age_ms(), plan.grace_ms());
        let (wall, incarnation) = (self.wall_ms(), self.incarnation());
        let objects = &mut self.objects;
        for (name, stored) in objects.bucket.names() {
            let age = u64::try_from(wall - stored.since).unwrap_or(0);
            if !self.healed && objects.rng.chance(100) {
                continue;
            }
            let old = candidate(name, incarnation, age, age_min as u64);
            let found = old.or_else(|| parse(name).filter(|found| doomed(found, &self.metadata.state, grace)));
            if let Some(found) = found {
                objects.sweep.listed.push((name.clone(), found));
            }
        }
    }

    pub(super) fn judge(&mut self) {
        for (name, found) in std::mem::take(&mut self.objects.sweep.listed) {
            // A linearizable read: the state of this moment.
            let state = self.metadata.state.clone();
            let mut judged = self.ask_pages(|pages| verdict::<R>(&found, &state, None, pages));
            if let (Ok(Verdict::NeedsDirectory), Candidate::Object(key)) = (&judged, found)
                && let Some(directory) = self.fetch_directory(key)
            {
                judged = self.ask_pages(|pages| verdict::<R>(&found, &state, Some(&directory), pages));
            }
            match judged {
                Ok(Verdict::Delete) => self.objects.sweep.doomed.push(name),
                // What can't be proved to be a leak stays.
                Ok(Verdict::Keep | Verdict::NeedsDirectory) | Err(Miss::Failed | Miss::NotFound(_)) => {}
            }
        }
    }

    pub fn incarnation(&self) -> u8 {
        self.metadata.state.cluster().map_or(0, |cluster| cluster.incarnation)
    }

    /// Sweeps from start to end, without a pause.
    pub(super) fn sweep_now(&mut self) {
        let Some(plan) = self.plan.objects else { return };
        self.objects.sweep = Sweep::default();
        self.list(&plan);
        self.judge();
        for name in std::mem::take(&mut self.objects.sweep.doomed) {
            self.sweep_away(&name);
        }
    }

    fn sweep_away(&mut self, name: &str) {
        self.cases.hit(Case::Swept);
        if matches!(parse(name), Some(Candidate::Object(key)) if key.shared) {
            self.cases.hit(Case::SharedObjectSwept);
        }
        self.delete(name);
    }

    /// None: it can't be read now, or is damaged.
    fn fetch_directory(&mut self, key: ObjectKey) -> Option<Directory> {
        let (now, identity) = (self.queue.now(), Identity { cluster: self.cluster_id(), key });
        let objects = &mut self.objects;
        match objects.bucket.get(now, &key.to_string(), &mut objects.rng) {
            Got::Bytes(object) => format::directory(identity, &object).map(|(_, directory)| directory),
            Got::NotFound | Got::Failed => None,
        }
    }
}
