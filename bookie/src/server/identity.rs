//! May this directory speak in the name of this bookie (R11)? Decided before anything else.
//!
//! The worst that a storage node can do is to answer "I do not have it" about an entry that it once acknowledged. A
//! wiped disk, a directory mounted at the wrong place or a copy of another node's would do so. So a directory whose
//! cookie is not the one that the cluster has registered under this name is refused, and only the operator's
//! `new-instance` turns it into a new, empty copy while the old instance counts as lost.

use esker_metadata_core::{BookieRecord, BookieState};
use esker_types::{ClusterId, InstanceId};

use crate::cookie::Cookie;

/// What to do with the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The cookie is right (or its registration was cut off): register its instance. With `replaces`, in the place of
    /// that one, which is lost from then on.
    Keep { replaces: Option<InstanceId> },
    /// The directory is empty and may be: draw a new instance, then as above.
    Fresh { replaces: Option<InstanceId> },
}

/// Why the node does not start. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "the data directory belongs to cluster {found}, this is cluster {wanted}: point data-dir to this cluster's \
         data, or to an empty directory for a new bookie"
    )]
    OtherCluster { found: ClusterId, wanted: ClusterId },
    #[error(
        "the data directory has journal files and no cookie: restore the cookie, or empty the directory to start anew"
    )]
    NoCookie,
    #[error(
        "the cluster knows this bookie with data (instance {registered}), but the data directory is empty: mount the \
         right disk; if the data is gone for good, set new-instance = true and it is rebuilt from other copies"
    )]
    Wiped { registered: InstanceId },
    #[error(
        "the data directory holds instance {found}, the cluster knows this bookie as instance {registered}: mount the \
         right disk or use the right node-name; to give the registered data up, empty the directory and set \
         new-instance = true"
    )]
    OtherInstance { found: InstanceId, registered: InstanceId },
    #[error("instance {0} was declared lost and may not come back: empty the data directory to start anew")]
    Lost(InstanceId),
    #[error(
        "the cluster does not know instance {0} under this name, though it was registered once: check node-name and \
         the metadata addresses"
    )]
    Unknown(InstanceId),
}

/// Decides from the cookie, whether the directory holds journal files, and what the cluster has registered under this
/// name. `new_instance`: the operator gives the registered data up.
pub fn decide(
    cookie: Option<&Cookie>,
    holds_journal: bool,
    cluster: ClusterId,
    registered: Option<&BookieRecord>,
    new_instance: bool,
) -> Result<Decision, IdentityError> {
    let Some(cookie) = cookie else {
        return decide_without_cookie(holds_journal, registered, new_instance);
    };
    if cookie.cluster != cluster {
        return Err(IdentityError::OtherCluster { found: cookie.cluster, wanted: cluster });
    }
    // Cookie written, registration not answered: it may or may not have happened.
    let unfinished = cookie.bookie.0 == 0 && !holds_journal;
    let Some(record) = registered else {
        return if unfinished {
            Ok(Decision::Keep { replaces: None })
        } else {
            Err(IdentityError::Unknown(cookie.instance))
        };
    };
    if record.retired.contains(&cookie.instance) {
        return Err(IdentityError::Lost(cookie.instance));
    }
    if record.instance == cookie.instance {
        let lost = record.state == BookieState::Lost;
        return if lost { Err(IdentityError::Lost(cookie.instance)) } else { Ok(Decision::Keep { replaces: None }) };
    }
    if unfinished && may_replace(record, new_instance) {
        return Ok(Decision::Keep { replaces: Some(record.instance) });
    }
    Err(IdentityError::OtherInstance { found: cookie.instance, registered: record.instance })
}

fn decide_without_cookie(
    holds_journal: bool,
    registered: Option<&BookieRecord>,
    new_instance: bool,
) -> Result<Decision, IdentityError> {
    match registered {
        _ if holds_journal => Err(IdentityError::NoCookie),
        None => Ok(Decision::Fresh { replaces: None }),
        Some(record) if may_replace(record, new_instance) => Ok(Decision::Fresh { replaces: Some(record.instance) }),
        Some(record) => Err(IdentityError::Wiped { registered: record.instance }),
    }
}

fn may_replace(record: &BookieRecord, new_instance: bool) -> bool {
    new_instance || record.state == BookieState::Lost
}

#[cfg(test)]
mod tests {
    use esker_types::{BookieId, BootId};

    use super::*;

    const HERE: ClusterId = ClusterId([1; 16]);

    fn cookie(seed: u8, bookie: u64) -> Cookie {
        Cookie { bookie: BookieId(bookie), ..Cookie::fresh(HERE, [seed; 32]) }
    }

    fn record(cookie: &Cookie) -> BookieRecord {
        BookieRecord {
            id: BookieId(1),
            name: "b".to_owned(),
            instance: cookie.instance,
            address: String::new(),
            zone: String::new(),
            boot_no: 4,
            boot: BootId([0; 16]),
            durable_lsn: 0,
            state: BookieState::Live,
            session: None,
            retired: Vec::new(),
            version: 1,
            disk_total: 0,
            disk_used: 0,
        }
    }

    #[test]
    fn first_start_and_restart() {
        let mine = cookie(1, 1);
        assert_eq!(decide(None, false, HERE, None, false), Ok(Decision::Fresh { replaces: None }));
        let known = record(&mine);
        assert_eq!(decide(Some(&mine), true, HERE, Some(&known), false), Ok(Decision::Keep { replaces: None }));
        // The flag left in the config changes nothing once the new instance is the registered one.
        assert_eq!(decide(Some(&mine), true, HERE, Some(&known), true), Ok(Decision::Keep { replaces: None }));
        // The answer to the first registration was lost: whether it happened or not, the same cookie goes on.
        let unfinished = cookie(1, 0);
        assert_eq!(decide(Some(&unfinished), false, HERE, None, false), Ok(Decision::Keep { replaces: None }));
        assert_eq!(decide(Some(&unfinished), false, HERE, Some(&known), false), Ok(Decision::Keep { replaces: None }));
    }

    #[test]
    fn wiped_swapped_and_foreign_are_refused() {
        let (mine, other) = (cookie(1, 1), cookie(2, 2));
        let known = record(&mine);
        let wiped = decide(None, false, HERE, Some(&known), false);
        assert_eq!(wiped, Err(IdentityError::Wiped { registered: mine.instance }));
        let swapped = decide(Some(&other), true, HERE, Some(&known), true);
        assert!(matches!(swapped, Err(IdentityError::OtherInstance { .. })));
        let foreign = decide(Some(&mine), true, ClusterId([2; 16]), Some(&known), true);
        assert!(matches!(foreign, Err(IdentityError::OtherCluster { .. })));
        assert_eq!(decide(None, true, HERE, None, true), Err(IdentityError::NoCookie));
        assert_eq!(decide(Some(&mine), true, HERE, None, false), Err(IdentityError::Unknown(mine.instance)));
    }

    #[test]
    fn the_operator_gives_up_an_instance() {
        let old = cookie(1, 1);
        let known = record(&old);
        let replaces = Some(old.instance);
        assert_eq!(decide(None, false, HERE, Some(&known), true), Ok(Decision::Fresh { replaces }));
        // The same again after a crash behind the new cookie.
        let fresh = cookie(2, 0);
        assert_eq!(decide(Some(&fresh), false, HERE, Some(&known), true), Ok(Decision::Keep { replaces }));
        // The old disk turns up again.
        let renewed = BookieRecord { retired: vec![old.instance], ..record(&fresh) };
        assert_eq!(decide(Some(&old), true, HERE, Some(&renewed), true), Err(IdentityError::Lost(old.instance)));
    }
}
