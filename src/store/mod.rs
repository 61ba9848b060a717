//! TODO head

pub mod addresses;
pub mod audience;
pub mod chunks;
pub mod connection;
pub mod deliveries;
pub mod durability;
pub mod keys;
pub mod limits;
pub mod retention;
pub mod schedule;
pub mod tracking;

pub use connection::{Store, StoreError, damaged, may_pass, unreadable};
pub use deliveries::{CommitOutcome, DeliveryChange, OnceKey};
pub use durability::Durability;
pub use retention::SweptParts;
