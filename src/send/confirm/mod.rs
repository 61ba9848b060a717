//! TODO head

pub mod approval;
pub mod confirmation;
pub mod from_queue;

pub use confirmation::{Confirmations, confirmation};
pub use from_queue::QueueConfirmations;
