//! Pure: no async, no I/O, no clock (`now` is an argument).

pub mod delivery;
pub mod outcome;
pub mod recipient;
pub mod role;
