//! Gives each service its handles, one file for each room or group of steps.
//!
//! [`SharedHandles`] holds what more than one room needs. Each other file adds one or a few
//! functions to it, and each function makes the services of its room.
//!
//! Nothing is decided here. Settings are checked in [`crate::config`]; what runs and when is
//! in [`crate::worker`] and [`crate::scheduler`].

mod before_sending;
mod chunk;
mod feedback;
mod journey;
mod observe;
mod operate;
mod recover;
mod report;
mod shared;

pub use shared::Parts;
pub(super) use shared::SharedHandles;
