//! Attacks: what somebody with few rights, or none, tries against the daemon. Each must fail.

mod auditor;
mod deletion;
mod floors;
mod lost_updates;
mod mail_without_confirmation;
mod own_sign_offs;
mod revoked_tokens;
mod units;
mod weak_identities;
