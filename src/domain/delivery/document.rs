//! The document of a delivery: everything that is stored about it except its recipients.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    audit::AuditHead,
    definition::Definition,
    delivery_id::DeliveryId,
    plan::{Checks, Plan},
    state::DeliveryState,
};
use crate::domain::{
    ledger::Counts,
    schedule::{Occurrence, Recurrence},
};

/// A stored audience upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audience {
    /// The number of the upload. The slices of earlier uploads are removed.
    pub upload: u32,
    /// Recipients in the upload.
    pub recipients: u64,
    pub slices: u32,
    /// SHA-256 of the recipients as stored, in lower-case hexadecimal.
    pub sha256: String,
}

/// The confirmation of a delivery, by a person or by a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    pub by: String,
    pub confirmed_at: Timestamp,
    /// Whether the ledgers exist.
    pub started: bool,
}

/// The first of two sign-offs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub by: String,
    pub approved_at: Timestamp,
    /// The digest that was approved.
    pub digest: String,
}

/// A part of a delivery that somebody without the key of the installation has changed in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alteration {
    /// [`ALTERED_DOCUMENT`], or the name of a slice or of a table.
    pub part: String,
    pub found_at: Timestamp,
}

/// The part of an [`Alteration`] that can never be trusted again: the document itself.
pub const ALTERED_DOCUMENT: &str = "document";

impl Alteration {
    /// Whether the delivery can only be stopped or deleted.
    pub fn is_lasting(&self) -> bool {
        self.part == ALTERED_DOCUMENT
    }
}

/// The figures that remain after the logs were removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemovedLogs {
    pub cleaned_at: Timestamp,
    /// A recount of the ledgers at that moment.
    pub counts: Counts,
}

/// Everything that is stored about a delivery except its recipients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub definition: Definition,
    pub created_by: String,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
    /// Who wrote the definition last. Empty in documents from before this field existed.
    #[serde(default)]
    pub definition_by: String,
    /// Who uploaded the audience last. Empty before the first upload, and in documents from before
    /// this field existed.
    #[serde(default)]
    pub audience_by: String,
    /// The number of the last upload. Each upload raises it, so two uploads never mix.
    pub uploads: u32,
    pub audience: Option<Audience>,
    /// The ordinal of the last preparation. Each preparation raises it, so two never mix.
    pub generation: u32,
    pub prepared_by: String,
    pub checks: Checks,
    pub plan: Option<Plan>,
    #[serde(default)]
    pub approval: Option<Approval>,
    #[serde(rename = "release")]
    pub confirmation: Option<Confirmation>,
    pub ended_at: Option<Timestamp>,
    /// Set once a part was found that no daemon of this installation wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altered: Option<Alteration>,
    /// Set once retention begins to remove the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleaned: Option<RemovedLogs>,
    /// Set once retention begins to remove the tracking log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking_cleaned_at: Option<Timestamp>,
    /// Set if the delivery is a template: it is not sent but creates occurrences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrence: Option<Recurrence>,
    /// Set if a template created the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurrence: Option<Occurrence>,
    /// The end of the audit chain.
    pub audit: AuditHead,
}

impl Document {
    /// The document of a new delivery, created by the principal `by`.
    pub fn new(definition: Definition, by: &str, now: Timestamp) -> Self {
        Self {
            definition,
            created_by: by.to_owned(),
            created_at: now,
            changed_at: now,
            definition_by: by.to_owned(),
            audience_by: String::new(),
            uploads: 0,
            audience: None,
            generation: 0,
            prepared_by: String::new(),
            checks: Checks::default(),
            plan: None,
            approval: None,
            confirmation: None,
            ended_at: None,
            altered: None,
            cleaned: None,
            tracking_cleaned_at: None,
            recurrence: None,
            occurrence: None,
            audit: AuditHead::default(),
        }
    }

    /// Whether the delivery was confirmed and its ledgers exist.
    pub fn has_started(&self) -> bool {
        self.confirmation.as_ref().is_some_and(|confirmation| confirmation.started)
    }

    /// Whether the principal wrote the definition or the audience last. Nobody signs off his own
    /// text.
    pub fn was_written_by(&self, name: &str) -> bool {
        let unknown = self.definition_by.is_empty();
        let definition_by = if unknown { &self.created_by } else { &self.definition_by };
        definition_by == name || self.audience_by == name
    }

    /// Whether the document itself was altered in Redis: then nothing in it may be used.
    pub fn is_untrusted(&self) -> bool {
        self.altered.as_ref().is_some_and(Alteration::is_lasting)
    }

    /// Drops the last preparation, its approval and its confirmation. The reason is a change of the
    /// definition or the audience, or a new preparation.
    pub fn unprepare(&mut self) {
        self.plan = None;
        self.approval = None;
        self.confirmation = None;
        self.checks = Checks::default();
        if !self.is_untrusted() {
            self.altered = None;
        }
    }

    /// When the task of recurring deliveries must look at this delivery; `None` if never.
    /// A template waits until it must create its next occurrence. An occurrence waits for the end
    /// of the time in which it may be confirmed.
    pub fn wakes_at(&self, state: DeliveryState) -> Option<Timestamp> {
        if state == DeliveryState::Deleted || self.is_untrusted() {
            return None;
        }
        let creates = self.recurrence.as_ref().and_then(|r| Some(r.rule.creation(r.next?)));
        let lapses = self
            .occurrence
            .as_ref()
            .filter(|o| !o.lapsed && state.awaits_confirmation())
            .map(|o| o.open_until);
        creates.into_iter().chain(lapses).min()
    }
}

/// A delivery as it was read from the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub id: DeliveryId,
    /// Raised by every change. A change is written only if the revision is still the same.
    pub revision: u64,
    pub state: DeliveryState,
    pub document: Document,
}
