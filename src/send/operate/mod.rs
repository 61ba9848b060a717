//! TODO head

pub mod control;
pub mod in_doubt;
pub mod proofs;
pub mod removal;
pub mod retention;

pub use control::Controls;
pub use in_doubt::{Control, InDoubtRecipients, Resolution};
pub use proofs::{ProofRequest, Proofs};
pub use removal::Removal;
pub use retention::Retention;
