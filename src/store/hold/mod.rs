//! The hold of the store: a store that is behind in time moves nothing until a person releases it.
//!
//! - [`HoldStore`] is the handle. It asks whether the store is held, holds and releases it, and
//!   writes the heartbeat that shows how far the store has come.
//! - [`StoreHold`] says since when the store is behind, and why that is believed.
//! - [`HoldStore::check_format`] and [`HoldStore::open`] check a store at the start of a daemon:
//!   its form, its place, its age.
//!
//! Not here: what a release does to the deliveries is in [`crate::send::operate`]. The backup of a
//! state directory is in [`crate::backup`].

mod hold_store;
mod open_store;
mod store_hold;

pub use hold_store::HoldStore;
pub use open_store::{FORMAT, OpenError, OpenedStore, UnknownFormat};
pub use store_hold::{HoldReason, StoreHold};
