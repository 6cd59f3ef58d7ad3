//! Waiting for what a broker does by itself.

use std::time::{Duration, Instant};

/// Longest wait. Only what fails waits so long: two cores, other work beside, a slow disk.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Between two looks: long enough to leave the processor to those who are waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until there is something, and gives it. Call it where a thread may block.
///
/// # Panics
/// After [`PATIENCE`], with `what`.
pub fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(PAUSE);
    }
}

/// Looks until it is so.
///
/// # Panics
/// After [`PATIENCE`], with `what`.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    until_some(what, || is_so().then_some(()));
}
