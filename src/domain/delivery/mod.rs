//! TODO head

pub mod audit;
pub mod document;
pub mod id;
pub mod settings;
pub mod state;

pub use audit::{AuditAct, AuditEntry, AuditHead, verify};
pub use document::{
    Approval, Audience, Checks, Confirmation, Content, Definition, Delivery, Document, Finding,
    Invalid, LONGEST_NAME, Plan, RemovedLogs, Sender, digest,
};
pub use id::DeliveryId;
pub use settings::{InDoubt, Settings, Tracking};
pub use state::{Action, DeliveryState, IllegalTransition};
