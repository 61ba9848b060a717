//! TODO head

pub mod in_doubt;
pub mod proofs;
pub mod retention;

pub use in_doubt::{Control, Resolution, locate};
pub use proofs::ProofRequest;
