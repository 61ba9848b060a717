//! Attacks: what somebody with few rights, or none, tries against the daemon. Each must fail.

mod floors;
mod lost_updates;
mod mail_without_confirmation;
mod own_sign_offs;
mod units;
