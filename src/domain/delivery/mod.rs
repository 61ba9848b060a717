//! A delivery: its definition, its states, its settings and its audit log.
//!
//! - [`Delivery`]: one delivery as it was read; [`Document`] holds everything stored about it.
//! - [`Definition`]: the part that an upstream system writes, with [`SettingOverrides`].
//! - [`DeliveryState::after`]: decides each transition. The script that releases waves follows the
//!   same rules, but writes the state itself.
//! - [`ExpectedRevisions`]: the precondition of a request.
//! - [`Plan`] and [`Checks`]: the result of a preparation. [`digest()`]: what a confirmation names.
//! - [`Settings`]: the settings in force, fixed by the preparation. [`SettingsFloor`]: what no
//!   delivery may lower.
//! - [`check_authority`]: whether a delivery may be sent, asked before each chunk.
//! - [`AuditEntry`] and [`verify`]: the hash chain of everything that was done. [`AuditCheck`]:
//!   the check of all chains together.
//!
//! Recipients are not here: uploads are in [`super::audience`], ledgers in [`super::ledger`].
//! Reading and changing a stored delivery is in [`crate::deliveries`].

mod action;
mod audit;
mod audit_check;
mod authority;
mod definition;
mod delivery_id;
mod digest;
mod document;
mod expected_revisions;
mod plan;
mod settings;
mod settings_floor;
mod state;

pub use action::Action;
pub use audit::{AuditAct, AuditEntry, AuditHead, CheckedEntry, HEADS, OPERATIONS, verify};
pub use audit_check::{AuditCheck, FIRST_SEAL, HEAD, follows};
pub use authority::{Unauthorised, check_authority, may_follow};
pub use definition::{Content, Definition, LONGEST_NAME, Sender};
pub use delivery_id::DeliveryId;
pub use digest::digest;
pub use document::{
    ALTERED_DOCUMENT, Alteration, Approval, Audience, Confirmation, Delivery, Document, RemovedLogs,
};
pub use expected_revisions::ExpectedRevisions;
pub use plan::{Checks, Finding, Plan};
pub use settings::{
    FatigueOverride, InDoubt, SettingOverrides, Settings, Tracking, TrackingOverrides,
};
pub use settings_floor::SettingsFloor;
pub use state::{DeliveryState, IllegalTransition};
