mod bookie;
mod chaos;
mod desk;
mod steps;
mod world;
