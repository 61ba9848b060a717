//! A delivery: its definition, and all that is known of it besides its ledgers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    audit::AuditHead,
    id::DeliveryId,
    settings::{InDoubt, Overrides, Settings},
    state::DeliveryState,
};
use crate::domain::{
    audience::ExclusionCause,
    ledger::Counts,
    schedule::{Occurrence, Recurrence, Schedule, Wave},
};

/// The author of the mail: `From` and, unless `envelope_from` says otherwise, the envelope sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub email: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_from: Option<String>,
}

/// The templates. Merge fields are written `{{ field }}`; `email` is always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    pub subject: String,
    /// At least one of `html` and `text` is needed; without `text` it is made from `html`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What an upstream system says of a delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub name: String,
    pub sender: Sender,
    pub content: Content,
    #[serde(default)]
    pub schedule: Schedule,
    #[serde(default)]
    pub settings: Overrides,
}

/// A field of a definition that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    pub field: String,
    pub reason: String,
}

pub const LONGEST_NAME: usize = 200;

impl Definition {
    /// The checks that need nothing but the definition; content is checked in preparation.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn check(&self) -> Result<(), Invalid> {
        let invalid =
            |field: &str, reason: &str| Err(Invalid { field: field.into(), reason: reason.into() });
        if self.name.trim().is_empty()
            || self.name.chars().count() > LONGEST_NAME
            || self.name.contains(char::is_control)
        {
            return invalid("name", "must have 1 to 200 printable characters");
        }
        self.schedule.due_times()?;
        self.settings.check(self.schedule == Schedule::Now)
    }
}

/// A stored audience upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audience {
    /// Number of the upload; earlier ones are gone.
    pub upload: u32,
    /// Recipients counted while it was uploaded.
    pub recipients: u64,
    pub slices: u32,
    /// Of the recipients as stored, in lower-case hexadecimal.
    pub sha256: String,
}

/// A finding of the preparation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The field of the definition, `audience`, `preparation`, or a setting of the configuration.
    pub field: String,
    /// Line of the audience upload, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    pub message: String,
}

/// What the last preparation found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Checks {
    /// Red: cannot be confirmed.
    pub errors: Vec<Finding>,
    /// All of them; `errors` holds the first ones.
    pub errors_total: u64,
    /// Yellow.
    pub warnings: Vec<Finding>,
}

/// What a good preparation fixed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub generation: u32,
    /// What stands for it in the index of messages and in tokens; 0 if it was prepared before there were any.
    #[serde(default)]
    pub number: u32,
    pub chunks: u32,
    /// Of the largest chunks. Number n of the sending log is position n % `chunk_size` of chunk n / `chunk_size`: of several
    /// waves the last chunks are smaller, and their numbers have gaps.
    pub chunk_size: u32,
    pub waves: u32,
    /// When the first and the last wave are due; none if it is sent at once.
    pub first_due: Option<Timestamp>,
    pub last_due: Option<Timestamp>,
    pub to_deliver: u64,
    pub excluded: u64,
    pub exclusion_slices: u32,
    pub causes: BTreeMap<ExclusionCause, u64>,
    pub settings: Settings,
    /// What a confirmation names: see [`digest`].
    pub digest: String,
    pub prepared_by: String,
    pub prepared_at: Timestamp,
}

impl Plan {
    /// How long a recipient of `wave` stays in doubt before it is sent again; `None` under the policy `hold`, and when the
    /// validity period is over.
    pub fn resend_after_s(&self, wave: &Wave, lease_ms: u64, now: u32) -> Option<u32> {
        let lease_s = u32::try_from(lease_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        let valid = wave.valid_until(self.settings.validity_hours).is_none_or(|until| now < until);
        (self.settings.in_doubt == InDoubt::Resend && valid).then_some(lease_s + 1)
    }
}

/// Who released the delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    pub by: String,
    pub confirmed_at: Timestamp,
    /// Whether its ledgers are there.
    pub started: bool,
}

/// Who approved what was prepared, where two persons are needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub by: String,
    pub approved_at: Timestamp,
    pub digest: String,
}

/// What stays of logs that are removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemovedLogs {
    pub cleaned_at: Timestamp,
    /// A recount of the ledgers at that moment.
    pub counts: Counts,
}

/// All that is stored of a delivery besides its recipients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub definition: Definition,
    pub created_by: String,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
    /// Raised by every upload, so that uploads never mix.
    pub uploads: u32,
    pub audience: Option<Audience>,
    /// Raised by every preparation, so that preparations never mix.
    pub generation: u32,
    pub prepared_by: String,
    pub checks: Checks,
    pub plan: Option<Plan>,
    #[serde(default)]
    pub approval: Option<Approval>,
    #[serde(rename = "release")]
    pub confirmation: Option<Confirmation>,
    pub ended_at: Option<Timestamp>,
    /// Its logs are removed, or are being removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleaned: Option<RemovedLogs>,
    /// Its tracking log is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking_cleaned_at: Option<Timestamp>,
    /// It is a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrence: Option<Recurrence>,
    /// It was made of a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurrence: Option<Occurrence>,
    pub audit: AuditHead,
}

impl Document {
    pub fn new(definition: Definition, by: &str, now: Timestamp) -> Self {
        Self {
            definition,
            created_by: by.to_owned(),
            created_at: now,
            changed_at: now,
            uploads: 0,
            audience: None,
            generation: 0,
            prepared_by: String::new(),
            checks: Checks::default(),
            plan: None,
            approval: None,
            confirmation: None,
            ended_at: None,
            cleaned: None,
            tracking_cleaned_at: None,
            recurrence: None,
            occurrence: None,
            audit: AuditHead::default(),
        }
    }

    /// Whether there are ledgers: it was released, and its first chunk may be sent.
    pub fn has_started(&self) -> bool {
        self.confirmation.as_ref().is_some_and(|confirmation| confirmation.started)
    }

    /// What was approved and released is not what it will be.
    pub fn unprepare(&mut self) {
        self.plan = None;
        self.approval = None;
        self.confirmation = None;
        self.checks = Checks::default();
    }
}

/// A delivery as it was read; `revision` guards every change.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub revision: u64,
    pub state: DeliveryState,
    pub document: Document,
}

/// What is approved: SHA-256 over sender, content, schedule, settings and the prepared audience, in lower-case hexadecimal.
pub fn digest(definition: &Definition, settings: &Settings, audience_sha256: &[u8]) -> String {
    let approved = serde_json::json!([
        definition.name,
        definition.sender,
        definition.content,
        definition.schedule,
        settings
    ]);
    let digest = Sha256::new()
        .chain_update("versand delivery 1\n")
        .chain_update(approved.to_string())
        .chain_update(b"\n")
        .chain_update(audience_sha256)
        .finalize();
    data_encoding::HEXLOWER.encode(&digest)
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
