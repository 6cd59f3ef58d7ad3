//! Which bookies store the next segment of a partition. Pure: the same candidates and seed give the same answer.
//!
//! Order of wishes: bookies in good standing before penalised ones and those before unreachable ones, zones that hold
//! no copy yet before others, lightly loaded before busy, and then a rendezvous hash, so that partitions spread evenly
//! and a set changes little when a bookie comes or goes.

use std::collections::{BTreeMap, BTreeSet};

use esker_types::{BookieId, Member, Quorum};

/// A bookie that metadata says may take new segments (registered, not lost, not draining, not read-only).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub member: Member,
    /// Failure domain; empty = not told, and then each bookie counts as a domain of its own.
    pub zone: String,
    /// Open segments that this gateway already has there. Compared by magnitude only.
    pub load: u64,
    pub standing: Standing,
}

/// How this gateway got on with the bookie lately. Better ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Good,
    /// It was slow or broke off a short while ago, and answers now.
    Penalised,
    /// It can't be reached.
    Down,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// `quorum.write` members, no bookie twice.
    pub members: Vec<Member>,
    pub quorum: Quorum,
    /// Fewer than the wanted write quorum: the segment must stay small, so that the width comes back soon.
    pub degraded: bool,
}

/// Not even an ack quorum of bookies can take a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{live} bookies can take a segment, the ack quorum needs {ack}: start more bookies or wait for one to return")]
pub struct TooFew {
    pub live: usize,
    pub ack: u8,
}

/// Picks members for a segment that wants `quorum`. `exclude` are never picked. A bookie that is not in good standing
/// is picked only when an ack quorum can't be reached without it: a degraded set of healthy members beats a full one
/// with a member that will be abandoned at once. One that answers comes before one that is down: a segment that is
/// opened on dead members must be closed again before anything is acked.
pub fn pick(candidates: &[Candidate], quorum: Quorum, exclude: &[BookieId], seed: u64) -> Result<Placement, TooFew> {
    let mut pool: Vec<&Candidate> = candidates.iter().filter(|c| !exclude.contains(&c.member.bookie)).collect();
    pool.sort_by_key(|c| (c.standing, c.load.checked_ilog2(), rendezvous(seed, c.member.bookie), c.member));
    let mut seen = BTreeSet::new();
    pool.retain(|c| seen.insert(c.member.bookie));
    let healthy = pool.iter().filter(|c| c.standing == Standing::Good).count();
    let ack = usize::from(quorum.ack);
    if pool.len() < ack {
        return Err(TooFew { live: pool.len(), ack: quorum.ack });
    }
    let width = usize::from(quorum.write).min(healthy.max(ack));
    let members = spread_over_zones(pool, width);
    let write = u8::try_from(members.len()).expect("at most the wanted write quorum, a u8");
    Ok(Placement { members, quorum: Quorum { write, ack: quorum.ack }, degraded: write < quorum.write })
}

/// Takes `width` of `pool`, which is sorted best first, so that zones are used as evenly as they allow.
fn spread_over_zones(mut pool: Vec<&Candidate>, width: usize) -> Vec<Member> {
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    let mut members = Vec::with_capacity(width);
    while members.len() < width {
        let uses = |c: &Candidate| if c.zone.is_empty() { 0 } else { used.get(c.zone.as_str()).copied().unwrap_or(0) };
        let best = pool.iter().enumerate().min_by_key(|(i, c)| (c.standing, uses(c), *i)).map(|(i, _)| i);
        let Some(best) = best else { break };
        let chosen = pool.remove(best);
        *used.entry(chosen.zone.as_str()).or_default() += 1;
        members.push(chosen.member);
    }
    members
}

/// splitmix64 over seed and bookie: spreads well, and has no state.
fn rendezvous(seed: u64, bookie: BookieId) -> u64 {
    let mut x = seed ^ bookie.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_types::InstanceId;
    use proptest::prelude::*;

    fn candidate(id: u64, zone: &str) -> Candidate {
        let member = Member { bookie: BookieId(id), instance: InstanceId([id as u8; 16]) };
        Candidate { member, zone: zone.to_owned(), load: 0, standing: Standing::Good }
    }

    const Q32: Quorum = Quorum { write: 3, ack: 2 };

    #[test]
    fn zones_come_first() {
        let pool: Vec<_> = (1..=6).map(|i| candidate(i, ["a", "b", "c"][(i % 3) as usize])).collect();
        for seed in 0..50 {
            let picked = pick(&pool, Q32, &[], seed).expect("six bookies");
            let mut zones: Vec<_> = picked.members.iter().map(|m| m.bookie.0 % 3).collect();
            zones.sort_unstable();
            assert_eq!(zones, [0, 1, 2], "seed {seed}");
        }
    }

    #[test]
    fn a_penalised_bookie_is_left_out_until_the_ack_quorum_needs_it() {
        let mut pool: Vec<_> = (1..=3).map(|i| candidate(i, "")).collect();
        pool[0].standing = Standing::Penalised;
        let picked = pick(&pool, Q32, &[], 1).expect("two are healthy");
        assert!(picked.degraded && picked.members.len() == 2);
        assert!(picked.members.iter().all(|m| m.bookie != BookieId(1)));
        pool[1].standing = Standing::Down;
        for seed in 0..50 {
            let picked = pick(&pool, Q32, &[], seed).expect("ack quorum");
            assert_eq!(picked.members.len(), 2);
            assert!(picked.members.iter().all(|m| m.bookie != BookieId(2)), "the one that is down, seed {seed}");
        }
        assert_eq!(pick(&pool, Q32, &[BookieId(1), BookieId(2)], 1), Err(TooFew { live: 1, ack: 2 }));
    }

    #[test]
    fn partitions_spread_evenly() {
        let pool: Vec<_> = (1..=5).map(|i| candidate(i, "")).collect();
        let mut count = BTreeMap::new();
        for seed in 0..5_000 {
            for member in pick(&pool, Q32, &[], seed).expect("five bookies").members {
                *count.entry(member.bookie).or_insert(0u32) += 1;
            }
        }
        assert!(count.values().all(|n| (2_700..3_300).contains(n)), "{count:?}");
    }

    proptest! {
        #[test]
        fn never_a_bookie_twice_and_never_below_the_ack_quorum(
            pool in proptest::collection::vec((1u64..8, 0u8..3, 0u64..9, 0usize..3), 0..10),
            write in 1u8..=7, ack_of in 1u8..=7, seed: u64,
        ) {
            let pool: Vec<_> = pool.into_iter().map(|(id, zone, load, standing)| Candidate {
                load,
                standing: [Standing::Good, Standing::Penalised, Standing::Down][standing],
                ..candidate(id, ["", "a", "b"][usize::from(zone)])
            }).collect();
            let quorum = Quorum { write, ack: ack_of.min(write) };
            if let Ok(placed) = pick(&pool, quorum, &[], seed) {
                let mut ids: Vec<_> = placed.members.iter().map(|m| m.bookie).collect();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(ids.len(), placed.members.len());
                prop_assert!(placed.quorum.is_valid() && usize::from(placed.quorum.write) == ids.len());
                prop_assert_eq!(&placed, &pick(&pool, quorum, &[], seed).expect("same input"));
            }
        }
    }
}
