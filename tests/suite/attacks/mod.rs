//! Attacks: what somebody who may do little, or nothing, tries to do harm.

mod floods;
mod listeners;
