//! Waiting for what a broker does by itself.

use std::time::{Duration, Instant};

/// Longest wait. Only what fails waits so long: two cores, other work beside, a slow disk.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Between two looks: long enough to leave the processor to those who are waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until it is well, and gives what was found. Call it where a thread may block.
///
/// # Panics
/// After [`PATIENCE`], with `what` and with what was seen last.
pub fn until_ok<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}: {seen}"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks until it is so.
///
/// # Panics
/// After [`PATIENCE`], with `what`.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    until_ok(what, || is_so().then_some(()).ok_or_else(|| "not so".to_owned()));
}
