mod chaos;
mod steps;
mod world;
