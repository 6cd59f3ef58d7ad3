//! The simulator as a test: `cargo test --release -p esker-sim`. `ESKER_SIM_SEEDS`, `ESKER_SIM_FIRST` widen a run;
//! `ESKER_SIM_SEED=n ... one_seed -- --nocapture` shows one.

mod mutants;
mod regressions;
mod seeds;
