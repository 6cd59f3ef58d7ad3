//! What the simulator must notice: each mutant is the whole cluster with one safety rule broken.
//!
//! A package of its own, and only as a test: every mutant is another copy of all the code that production runs, which at
//! full optimisation takes far longer to build than to run.

#[cfg(test)]
mod mutants;

/// A fifth of a run went into small allocations of the system's allocator.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
