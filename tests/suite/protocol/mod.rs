//! The proof of the ledger: the protocol written down, the scripts held to it, and a model that explores it.

mod kept;
mod merge;
mod model;
mod next;
mod play;
mod property;
mod spec;
mod steps;
mod tracking;
mod world;
