mod classic;
mod classic_model;
mod consumer;
mod consumer_model;
mod hostile;
mod offsets;
mod world;
