//! Deterministic simulation of a whole cluster from one seed: virtual time, a network that loses, repeats and reorders,
//! disks that fail the way disks do, metadata whose answers get lost, and a nemesis that kills at any action.
//!
//! It drives the code that production runs: `Partition`, `BookieState`, the journal's blocks, scan and collection, and
//! the metadata state machine, the object tier's steps, manifest and formats. Only shells are simulated. [`run::run`] runs one seed, [`campaign::campaign`] many.
//! Package `esker-sim-mutants` breaks the rules one by one; each mutant must be noticed.

pub mod bookie;
pub mod campaign;
pub mod client;
pub mod disk;
pub mod finale;
pub mod gateway;
pub mod metadata;
pub mod nemesis;
pub mod network;
pub mod objects;
pub mod oracle;
pub mod plan;
pub mod queue;
pub mod rng;
pub mod run;
pub mod show;
pub mod shrink;
pub mod sometimes;
pub mod trace;
pub mod world;
