//! The object tier of a whole cluster, measured from outside: history that comes back from the bucket alone, and live
//! traffic beside it. Processes are real, and so is the store.

mod history;
pub mod live;
pub mod replay;
mod world;

pub use world::Setup;

/// Of an odd number of them the one in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
