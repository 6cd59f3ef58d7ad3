//! Whose bucket it is: one small object for each incarnation of the cluster that uses it, created once, never changed.
//!
//! Two clusters below one prefix would overwrite each other's objects, and a cluster that was rebuilt from the bucket
//! must not find its history deleted by what is left of the one before it.

use std::fmt;
use std::str::FromStr;

use esker_types::{BootId, ClusterId};

use crate::error::FormatError;

/// Folder of all claims.
pub const CLAIMS: &str = "claims";
/// No claim is longer, bytes.
pub const CLAIM_MAX: u64 = 512;

const WHAT: &str = "claim";
const FIRST_LINE: &str = "esker claim 1";

/// Says that a bucket holds the objects of a cluster, from this incarnation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub cluster: ClusterId,
    pub incarnation: u8,
    /// The process that made it. Tells two that race for one incarnation apart.
    pub by: BootId,
}

/// What a claim found in the bucket means for a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The bucket is ours.
    Ours,
    /// Ours, but nobody has said so for this incarnation.
    Unclaimed,
    /// Another cluster writes there.
    Foreign(ClusterId),
    /// Our cluster was rebuilt under a higher incarnation: this one is a ghost, and must neither write nor delete.
    Superseded(u8),
}

impl Claim {
    /// The object's name below the store's prefix.
    pub fn key(&self) -> String {
        format!("{CLAIMS}/{}", self.incarnation)
    }
}

/// The incarnation that a listed name claims, if it is a claim's.
pub fn claimed(key: &str) -> Option<u8> {
    let number = key.strip_prefix(CLAIMS)?.strip_prefix('/')?;
    number.parse().ok().filter(|incarnation: &u8| incarnation.to_string() == number)
}

/// Where `cluster` at `incarnation` stands, if `newest` is the claim with the highest incarnation in the bucket.
pub fn standing(cluster: ClusterId, incarnation: u8, newest: Option<&Claim>) -> Standing {
    match newest {
        Some(claim) if claim.cluster != cluster => Standing::Foreign(claim.cluster),
        Some(claim) if claim.incarnation > incarnation => Standing::Superseded(claim.incarnation),
        Some(claim) if claim.incarnation == incarnation => Standing::Ours,
        _ => Standing::Unclaimed,
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        writeln!(f, "cluster {}", self.cluster)?;
        writeln!(f, "incarnation {}", self.incarnation)?;
        writeln!(f, "by {}", self.by)
    }
}

impl FromStr for Claim {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return FormatError::damaged(WHAT, "it does not begin as one, or is of a newer version");
        }
        let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let (cluster, incarnation, by) = (field("cluster"), field("incarnation"), field("by"));
        let parsed = || {
            let (cluster, by) = (cluster?.parse().ok()?, by?.parse().ok()?);
            Some(Self { cluster, incarnation: incarnation?.parse().ok()?, by })
        };
        parsed().map_or_else(|| FormatError::damaged(WHAT, "a line is missing or malformed"), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ClusterId = ClusterId([7; 16]);

    fn claim(incarnation: u8) -> Claim {
        Claim { cluster: OURS, incarnation, by: BootId([9; 16]) }
    }

    #[test]
    fn a_claim_is_what_was_written() {
        let text = claim(3).to_string();
        assert!(text.len() as u64 <= CLAIM_MAX);
        assert_eq!(text.parse(), Ok(claim(3)));
        for cut in 0..text.len() - 1 {
            // A shorter hex number is none; a cut digit is another incarnation only where the line ends.
            assert!(text[..cut].parse::<Claim>().is_err(), "{cut}");
        }
        assert!(text.replace("claim 1", "claim 2").parse::<Claim>().is_err());
        assert_eq!((claimed(&claim(3).key()), claimed("claims/03"), claimed("claims/300")), (Some(3), None, None));
    }

    #[test]
    fn only_the_newest_incarnation_of_the_same_cluster_may_write() {
        assert_eq!(standing(OURS, 1, None), Standing::Unclaimed);
        assert_eq!(standing(OURS, 1, Some(&claim(0))), Standing::Unclaimed);
        assert_eq!(standing(OURS, 1, Some(&claim(1))), Standing::Ours);
        assert_eq!(standing(OURS, 1, Some(&claim(2))), Standing::Superseded(2));
        let other = ClusterId([8; 16]);
        assert_eq!(standing(other, 5, Some(&claim(1))), Standing::Foreign(OURS));
    }
}
