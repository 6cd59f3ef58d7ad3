//! Names in the bucket. A name is given out once and never again (I9): the epoch is held by one process for one term of
//! ownership, and that process counts its attempts, so a late or repeated request can't overwrite what another wrote.
//!
//! ```text
//! {incarnation}/{partition}/{n}/{epoch}-{attempt}     the object of one segment
//! {incarnation}/{partition}/{n}/{epoch}-{attempt}s    an object shared by several segments, named after its first
//! {incarnation}/{partition}/m/{epoch}-{seq}           a page of the partition's manifest
//! ```

use std::fmt;
use std::str::FromStr;

use crate::ids::{Epoch, PartitionId};

/// An immutable object that holds one closed segment, or several small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Of the cluster's metadata: ids of another incarnation name other things.
    pub incarnation: u8,
    pub partition: PartitionId,
    pub n: u64,
    /// Under which the object was written. Not the segment's own epoch.
    pub epoch: Epoch,
    /// Counted by the writing process, over all partitions.
    pub attempt: u64,
    /// Holds segments of several partitions: only the sweep may delete it, when no manifest reaches it.
    pub shared: bool,
}

/// An immutable page of a partition's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageKey {
    pub incarnation: u8,
    pub partition: PartitionId,
    pub epoch: Epoch,
    /// Counted by the writing process, over all partitions.
    pub seq: u64,
}

/// The text is no name that Esker gives out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an object of this cluster: {0:?}")]
pub struct BadObjectKey(pub String);

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { incarnation, partition, n, epoch, attempt, shared } = self;
        let shared = if *shared { "s" } else { "" };
        write!(f, "{incarnation}/{partition}/{n}/{epoch}-{attempt}{shared}")
    }
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { incarnation, partition, epoch, seq } = self;
        write!(f, "{incarnation}/{partition}/m/{epoch}-{seq}")
    }
}

impl FromStr for ObjectKey {
    type Err = BadObjectKey;
    fn from_str(text: &str) -> Result<Self, BadObjectKey> {
        let parse = || {
            let (incarnation, partition, n, rest) = parts(text)?;
            let (rest, shared) = rest.strip_suffix('s').map_or((rest, false), |rest| (rest, true));
            let (epoch, attempt) = rest.split_once('-')?;
            let (n, epoch, attempt) = (number(n)?, Epoch(number(epoch)?.try_into().ok()?), number(attempt)?);
            Some(Self { incarnation, partition, n, epoch, attempt, shared })
        };
        parse().filter(|key| key.to_string() == text).ok_or_else(|| bad(text))
    }
}

impl FromStr for PageKey {
    type Err = BadObjectKey;
    fn from_str(text: &str) -> Result<Self, BadObjectKey> {
        let parse = || {
            let (incarnation, partition, m, rest) = parts(text)?;
            let (epoch, seq) = rest.split_once('-')?;
            let epoch = Epoch(number(epoch)?.try_into().ok()?);
            (m == "m").then_some(Self { incarnation, partition, epoch, seq: number(seq)? })
        };
        parse().filter(|key| key.to_string() == text).ok_or_else(|| bad(text))
    }
}

fn parts(text: &str) -> Option<(u8, PartitionId, &str, &str)> {
    let mut parts = text.split('/');
    let incarnation = u8::try_from(number(parts.next()?)?).ok()?;
    let partition = PartitionId(number(parts.next()?)?);
    let (third, last) = (parts.next()?, parts.next()?);
    parts.next().is_none().then_some((incarnation, partition, third, last))
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn bad(text: &str) -> BadObjectKey {
    BadObjectKey(text.chars().take(128).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nothing_else_is_a_name() {
        let object =
            ObjectKey { incarnation: 2, partition: PartitionId(7), n: 41, epoch: Epoch(9), attempt: 3, shared: false };
        assert_eq!(object.to_string(), "2/7/41/9-3");
        assert_eq!("2/7/41/9-3".parse(), Ok(object));
        assert_eq!("2/7/41/9-3s".parse(), Ok(ObjectKey { shared: true, ..object }));
        let page = PageKey { incarnation: 2, partition: PartitionId(7), epoch: Epoch(9), seq: 5 };
        assert_eq!(page.to_string().parse(), Ok(page));
        assert!(page.to_string().parse::<ObjectKey>().is_err() && object.to_string().parse::<PageKey>().is_err());
        for text in
            ["", "2/7/41", "2/7/41/9", "2/7/41/9-3x", "02/7/41/9-3", "+2/7/41/9-3", "2/7/41/9-3/", "300/7/41/9-3"]
        {
            assert!(text.parse::<ObjectKey>().is_err(), "{text}");
        }
    }
}
