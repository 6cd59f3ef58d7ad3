//! What the controller should do next. Pure: the same state gives the same plan.
