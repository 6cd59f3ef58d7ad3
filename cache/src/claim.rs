//! Claiming a bucket for a cluster, and seeing whose it is.

use bytes::Bytes;
use esker_cache_core::claim::{CLAIM_MAX, CLAIMS, Claim, Standing, claimed, standing};

use crate::store::{Class, Error, Kind, Store};

/// There are 256 incarnations at most.
const CLAIMS_MAX: usize = 256;
/// A claim is never deleted: the second look shows the one that the first try made or met.
const TRIES: usize = 3;
const CLASS: Class = Class::Background;

impl Store {
    /// The claim with the highest incarnation; none in a bucket that nobody uses.
    ///
    /// # Errors
    /// Those of a store; `Damaged` if the claim does not parse.
    pub async fn newest_claim(&self) -> Result<Option<Claim>, Error> {
        let listed = self.list(CLAIMS, None, CLAIMS_MAX, CLASS).await?;
        let newest = listed.iter().filter_map(|object| claimed(&object.key).map(|number| (number, &object.key))).max();
        let Some((number, key)) = newest else { return Ok(None) };
        let text = self.read_whole(key, CLAIM_MAX, CLASS).await?;
        let damaged = |why: &str| Error::new(Kind::Damaged, "read", key, why);
        let text = std::str::from_utf8(&text).map_err(|_| damaged("it is no text"))?;
        let claim: Claim = text.parse().map_err(|e: esker_cache_core::FormatError| damaged(&e.to_string()))?;
        if claim.incarnation == number { Ok(Some(claim)) } else { Err(damaged("it is another one's")) }
    }

    /// Makes sure that the bucket is `mine`, claiming it if nobody has. Another process of the same incarnation is as
    /// good as ourselves. `Ours` is the only answer with which one may write.
    ///
    /// # Errors
    /// As [`Store::newest_claim`].
    pub async fn claim(&self, mine: &Claim) -> Result<Standing, Error> {
        for _ in 0..TRIES {
            let newest = self.newest_claim().await?;
            let found = standing(mine.cluster, mine.incarnation, newest.as_ref());
            if found != Standing::Unclaimed {
                return Ok(found);
            }
            match self.create(&mine.key(), Bytes::from(mine.to_string()), CLASS).await {
                // Ours, or that of who was first: look again.
                Ok(()) => {}
                Err(error) if error.kind == Kind::Exists => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Kind::BadAnswer, "claim", mine.key(), "it was created, but is not listed"))
    }
}
