//! What a decoded message holds on the heap, counted independently of the decoder's own account of it.

use bytes::Bytes;

use crate::field::{Records, Uuid};

/// Bytes on the heap. Record data and byte strings are left out: they share the memory of what was received.
pub trait Weigh {
    fn weigh(&self) -> usize;
}

macro_rules! weightless {
    ($($type:ty)*) => {$(
        impl Weigh for $type {
            fn weigh(&self) -> usize {
                0
            }
        }
    )*};
}

weightless! { i8 i16 i32 i64 bool Uuid Bytes }

impl Weigh for String {
    fn weigh(&self) -> usize {
        self.capacity()
    }
}

impl Weigh for Records {
    fn weigh(&self) -> usize {
        self.0.capacity() * size_of::<Bytes>()
    }
}

impl<T: Weigh> Weigh for Vec<T> {
    fn weigh(&self) -> usize {
        self.capacity() * size_of::<T>() + self.iter().map(T::weigh).sum::<usize>()
    }
}

impl<T: Weigh> Weigh for Option<T> {
    fn weigh(&self) -> usize {
        self.as_ref().map_or(0, T::weigh)
    }
}
