//! Interventions of persons in a delivery, and the removal of old deliveries.
//!
//! - [`Controls`]: pause, resume, stop, and retry a poisoned chunk.
//! - [`InDoubtRecipients`]: a person decides about recipients in doubt (*settle* in the API).
//! - [`HeldStore`]: a person releases a store that may be behind.
//! - [`Proofs`]: the messages of chosen recipients, sent to test addresses.
//! - [`Retention`]: removes logs and deliveries some days after their end.
//! - [`Removal`]: removes the stored parts of a delivery; other steps use it, too.
//!
//! Not in here: the release of held waves and the withdrawal of a schedule
//! ([`crate::send::release`]); repairs by the daemon itself ([`crate::send::recover`]);
//! the archive that the retention writes first ([`crate::report`]).

mod control;
mod held_store;
mod in_doubt_recipients;
mod proof_request;
mod proof_run;
mod proofs;
mod removal;
mod retention;

pub use control::{Control, Controls};
pub use held_store::{HeldStore, ReleasedStore, StoreView};
pub use in_doubt_recipients::{InDoubtRecipients, Resolution};
pub use proof_request::ProofRequest;
pub use proofs::Proofs;
pub use removal::Removal;
pub use retention::Retention;
