//! The store: all that Versand keeps in Redis, apart from the queue.
//!
//! The store owns every key, every Redis command and every Lua script outside the queue. Each
//! script is next to the file that calls it. One script call is one atomic step.
//!
//! Entry points: [`Redis`] is the connection. [`Stores`] makes one handle per subject from it:
//! - [`DeliveryStore`]: deliveries and the lists of deliveries
//! - [`AuditStore`]: audit chains
//! - [`audience`]: uploads, recipients, exclusion logs, tracked links
//! - [`schedule`]: waves, and when deliveries are due
//! - [`chunks`]: ledgers, leases, claims, and which chunks need a job
//! - [`addresses`]: message index, message history, denylist
//! - [`tracking`]: hits, tracking logs, statistics
//! - [`hold`]: whether the store is held, its heartbeat, the version of its form
//! - [`limits`]: token buckets, circuit breakers, the number of daemons
//!
//! [`Durability`] says whether Redis can lose acknowledged writes. [`keys`] lists all keys.
//!
//! Not here: decisions and byte layouts are in [`crate::domain`]. The jobs are in [`crate::queue`].
//! The embedded redis-server is in [`crate::redis_server`].

pub mod addresses;
pub mod audience;
pub mod chunks;
pub mod hold;
pub mod keys;
pub mod limits;
pub mod schedule;
pub mod tracking;

mod audit;
mod await_durability;
mod connect_error;
mod connection;
mod delivery_store;
mod delivery_units;
mod durability;
mod first_seal;
mod json_text;
mod removed_parts;
mod rewrites;
mod scripts;
mod shared_secrets;
mod stores;
mod tls_certificates;
mod token_store;

pub use audit::AuditStore;
pub use connect_error::ConnectError;
pub use connection::{Redis, StoreError, may_pass};
pub use delivery_store::{CommitOutcome, DeliveryChange, DeliveryStore, OnceKey};
pub use durability::{Durability, DurabilityLag};
pub use first_seal::FirstSeal;
pub use removed_parts::RemovedParts;
pub use shared_secrets::{SealedSecret, StoredSecret};
pub use stores::Stores;
pub use token_store::{Revocation, TokenStore};

use connection::{damaged, unreadable};
use scripts::with_prelude;
