//! Attacks: what somebody who may do little, or nothing, tries to do harm.

mod admin_tls;
mod floods;
mod listeners;
