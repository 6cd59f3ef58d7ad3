//! Random bytes from the kernel, for ids that must never come twice.

use std::fs::File;
use std::io::{self, Read};

/// # Errors
/// When the system has no randomness to give; nothing that needs an id may go on then.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut out = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut out)?;
    Ok(out)
}
