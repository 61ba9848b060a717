//! Gives each service its handles, one file for each room or group of steps.
//!
//! [`SharedHandles`] holds the handles that more than one room needs. Each other file adds
//! functions to it that make the services of one room or group of steps.
//!
//! Nothing is decided here. Settings are checked in [`crate::config`]; what runs and when is
//! in [`crate::worker`] and [`crate::scheduler`].

mod before_sending;
mod chunk_wiring;
mod feedback_wiring;
mod journey_wiring;
mod observe_wiring;
mod operate_wiring;
mod recover_wiring;
mod report_wiring;
mod shared;

pub use shared::Parts;
pub(super) use shared::SharedHandles;
