//! TODO head

pub mod audience;
pub mod delivery;
pub mod ledger;
pub mod outcome;
pub mod role;
pub mod schedule;
pub mod tracking;
pub mod unix_seconds;

pub use role::{Principal, Role};
pub use unix_seconds::instant;
