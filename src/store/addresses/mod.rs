//! TODO head

pub mod denylist;
pub mod history;
pub mod message_index;

pub use history::MessageTrace;
pub use message_index::AddressStore;
pub use message_index::{IndexedMessage, PreparationStanding, RegisteredPreparation};
