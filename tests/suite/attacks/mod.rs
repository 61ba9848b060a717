//! Attacks: what somebody with few rights, or none, tries against the daemon. Each must fail.

mod floods;
mod listeners;
mod mail_without_confirmation;
mod stale_store;
mod state_dir;
