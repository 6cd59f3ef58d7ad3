//! Memory that starts on a page boundary, which O_DIRECT wants.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Unit of all positions and lengths in journal files, in bytes. Every disk takes writes of this size whole or in
/// sectors of which it is a multiple.
pub const PAGE: usize = 4096;

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// A fixed number of zeroed pages. Reused for group after group: nothing is allocated while writing.
#[derive(Clone)]
pub struct AlignedBuf {
    pages: Vec<Page>,
}

impl AlignedBuf {
    /// At least `bytes`, rounded up to whole pages.
    pub fn new(bytes: usize) -> Self {
        Self { pages: vec![Page([0; PAGE]); bytes.div_ceil(PAGE)] }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.pages.as_slice().as_bytes()
    }

    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut_slice().as_mut_bytes()
    }

    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_on_a_page() {
        let mut buf = AlignedBuf::new(PAGE + 1);
        assert_eq!((buf.capacity(), buf.as_bytes().as_ptr() as usize % PAGE), (2 * PAGE, 0));
        buf.as_bytes_mut()[PAGE] = 7;
        assert_eq!(buf.as_ref()[PAGE], 7);
    }
}
