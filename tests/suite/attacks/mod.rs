//! Attacks: what somebody with few rights, or none, tries against the daemon. Each must fail.

mod floods;
mod floors;
mod listeners;
mod lost_updates;
mod mail_without_confirmation;
mod own_sign_offs;
mod stale_store;
mod state_dir;
mod templates;
mod units;
