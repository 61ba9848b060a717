//! Seals: they prove that a daemon of this installation wrote what stands in Redis.
//!
//! Whoever can write to Redis can change every key of it, but cannot make a seal. The key of the
//! installation is in the state directory or in a credential file, and never in Redis.
//!
//! - [`InstallationKey`]: the secret of the installation. One key per purpose derives from it.
//! - [`SealKey`]: makes and checks the seals of documents, slices and audit entries.
//!
//! Not here: what is sealed and when a seal is checked ([`crate::store`]); what happens to a
//! delivery whose seal does not fit ([`crate::deliveries`]); the hashes of the audit log
//! ([`crate::domain::delivery`]).

mod installation_key;
mod seal_key;

pub use installation_key::InstallationKey;
pub use seal_key::{SEAL_BYTES, SealKey};
