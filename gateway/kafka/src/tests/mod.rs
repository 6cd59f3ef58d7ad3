//! Every API in every version: against an independent implementation of the protocol, and against bytes that lie.

mod cross;
mod fuzz;
mod golden;
mod hostile;
mod mutate;
mod weigh;

use bytes::Bytes;

pub use self::mutate::Random;
pub use self::weigh::Weigh;
use crate::field::{Form, Records, Uuid};

/// Values for every field, edges included.
pub trait Sample: Sized {
    fn sample(random: &mut Random, form: Form) -> Self;
}

macro_rules! sample_number {
    ($($type:ident)*) => {$(
        impl Sample for $type {
            fn sample(random: &mut Random, _: Form) -> Self {
                match random.below(8) {
                    0 => $type::MIN,
                    1 => $type::MAX,
                    2 => -1,
                    3 => 0,
                    _ => random.next() as $type,
                }
            }
        }
    )*};
}

sample_number! { i8 i16 i32 i64 }

impl Sample for bool {
    fn sample(random: &mut Random, _: Form) -> Self {
        random.below(2) == 1
    }
}

impl Sample for Uuid {
    fn sample(random: &mut Random, _: Form) -> Self {
        Self(std::array::from_fn(|_| random.next() as u8))
    }
}

impl Sample for String {
    fn sample(random: &mut Random, _: Form) -> Self {
        // Around the lengths at which a varint grows by a byte.
        let len = [0, 1, 5, 126, 127, 128, 300][random.below(7) as usize];
        (0..len).map(|_| ['a', 'Z', '_', '9', 'é', '漢'][random.below(6) as usize]).collect()
    }
}

impl Sample for Bytes {
    fn sample(random: &mut Random, _: Form) -> Self {
        let len = [0, 1, 127, 128, 1000][random.below(5) as usize];
        (0..len).map(|_| random.next() as u8).collect()
    }
}

impl Sample for Records {
    fn sample(random: &mut Random, form: Form) -> Self {
        let bytes = Bytes::sample(random, form);
        Self(vec![bytes])
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(random: &mut Random, form: Form) -> Self {
        (0..random.below(4)).map(|_| T::sample(random, form)).collect()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(random: &mut Random, form: Form) -> Self {
        (random.below(3) > 0).then(|| T::sample(random, form))
    }
}

impl<A: Sample, B: Sample> Sample for (A, B) {
    fn sample(random: &mut Random, form: Form) -> Self {
        (A::sample(random, form), B::sample(random, form))
    }
}
