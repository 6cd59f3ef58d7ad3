mod bookie;
mod chaos;
mod steps;
mod world;
