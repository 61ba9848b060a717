//! Attacks: what somebody who may do little, or nothing, tries to do harm.

mod admin_tls;
mod exports;
mod floods;
mod listeners;
mod parsing;
