//! What Redis knows by address: the message index, message history, and the denylist.
//!
//! Addresses are stored as digests only. The message index says which prepared deliveries send to
//! an address. An entry names a preparation by its number, and a recipient. The registry of
//! preparations says what a number stands for.
//!
//! Entry point: [`AddressStore`]. It notes, finds and removes messages, tells the history of an
//! address ([`MessageTrace`]), keeps the denylist, and notes proofs ([`SentProof`]).
//! [`RegisteredPreparation`] and [`PreparationStanding`] describe the preparation behind a number.
//!
//! The index holds neither status nor time of a message: they are read from the ledger and from the
//! table of waves.
//!
//! Not here: the rule of fatigue is in [`crate::domain::audience`], its use in `send::prepare` and
//! `send::limits`. The report for a person is in `report`.

mod address_store;
mod kept_opt_outs;
mod message_history;
mod message_index;
mod opted_out;
mod preparation_registry;
mod sent_proof;

pub use address_store::AddressStore;
pub use message_history::MessageTrace;
pub use message_index::IndexedMessage;
pub use preparation_registry::{PreparationStanding, RegisteredPreparation};
pub use sent_proof::SentProof;
