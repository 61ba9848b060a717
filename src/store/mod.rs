//! TODO head

pub mod addresses;
pub mod audience;
pub mod audit;
pub mod chunks;
pub mod connection;
pub mod deliveries;
pub mod durability;
pub mod keys;
pub mod limits;
pub mod retention;
pub mod schedule;
pub mod stores;
pub mod tracking;

pub use connection::{Redis, StoreError, damaged, may_pass, unreadable, with_prelude};
pub use deliveries::{CommitOutcome, DeliveryChange, DeliveryStore, OnceKey};
pub use durability::Durability;
pub use retention::SweptParts;
pub use stores::Stores;
