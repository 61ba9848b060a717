//! TODO head

pub mod audience;
pub mod delivery;
pub mod ledger;
pub mod outcome;
pub mod role;
pub mod schedule;
pub mod tracking;

pub use role::{Principal, Role};
