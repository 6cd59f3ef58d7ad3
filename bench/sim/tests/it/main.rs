//! The simulator as a test: `cargo test --release -p esker-sim`. `ESKER_SIM_SEEDS`, `ESKER_SIM_FIRST` widen a run;
//! `ESKER_SIM_SEED=n ... one_seed -- --nocapture` shows one.

/// A fifth of a run went into small allocations of the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod regressions;
mod seeds;
