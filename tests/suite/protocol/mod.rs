//! The proof of the ledger protocol: a specification, the scripts compared with it, and a model.

mod kept;
mod merge;
mod model;
mod mutation;
mod next;
mod play;
mod property;
mod spec;
mod steps;
mod tracking;
mod worker;
mod world;
