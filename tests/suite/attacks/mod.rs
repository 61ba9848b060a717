//! Attacks on the daemon by somebody with few rights or none: each must fail.

mod admin_tls;
mod audit_chains;
mod auditor;
mod deletion;
mod exports;
mod floods;
mod floors;
mod installation_key;
mod listeners;
mod lost_updates;
mod mail_without_confirmation;
mod operation_log;
mod own_sign_offs;
mod parsing;
mod redis_acl;
mod redis_writer;
mod revoked_tokens;
mod stale_steps;
mod stale_store;
mod state_dir;
mod templates;
mod units;
mod weak_identities;
