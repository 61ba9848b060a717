//! Writes the audit chains that belong to no single delivery.
//!
//! - [`AuditHeads`] appends the newest hash of each audit chain to the chain of heads, and the
//!   first seal.
//! - [`KeptHead`] keeps the newest of these entries outside Redis, so that a cut chain is noticed.
//! - [`OperationLog`] records operations: who read personal data, and who changed something that is
//!   no delivery.
//!
//! Not here: the chain of a delivery grows with each change in [`crate::deliveries`]. What an entry
//! is, and how all chains are checked, is in [`crate::domain::delivery`].

mod heads;
mod kept_head;
mod operation_log;

pub use heads::AuditHeads;
pub use kept_head::KeptHead;
pub use operation_log::OperationLog;
