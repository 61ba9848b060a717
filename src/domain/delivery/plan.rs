//! The result of a preparation: its findings, and the plan if it was good.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::settings::{InDoubt, Settings};
use crate::domain::{audience::ExclusionCause, schedule::Wave};

/// A finding of the preparation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A field of the definition, `audience`, `preparation`, or a setting of the configuration.
    pub field: String,
    /// The line of the audience upload, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// For people.
    pub message: String,
}

/// The findings of the last preparation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Checks {
    /// The first errors. With any error the delivery cannot be confirmed.
    pub errors: Vec<Finding>,
    /// The number of all errors, including those that `errors` leaves out.
    pub errors_total: u64,
    /// Warnings do not prevent a confirmation.
    pub warnings: Vec<Finding>,
}

/// Everything that a good preparation fixed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The ordinal of the preparation within the delivery.
    pub generation: u32,
    /// The preparation number. It names the preparation in tokens and in the message index.
    /// It is 0 for preparations from before these numbers existed.
    #[serde(default)]
    pub number: u32,
    pub chunks: u32,
    /// Recipients in a full chunk. The last chunk of each wave may be smaller.
    pub chunk_size: u32,
    pub waves: u32,
    /// When the first wave is due; `None` if the delivery is sent at once.
    pub first_due: Option<Timestamp>,
    /// When the last wave is due; `None` if the delivery is sent at once.
    pub last_due: Option<Timestamp>,
    /// Recipients in the chunks.
    pub to_deliver: u64,
    /// Recipients that the preparation left out.
    pub excluded: u64,
    pub exclusion_slices: u32,
    pub causes: BTreeMap<ExclusionCause, u64>,
    pub settings: Settings,
    /// The digest that a confirmation must name: see [`super::digest()`].
    pub digest: String,
    /// SHA-256 over the prepared slices, in lower-case hexadecimal: the part of the digest that the
    /// document alone does not give. Empty for preparations from before this field existed.
    #[serde(default)]
    pub audience_sha256: String,
    /// Set when a store that was behind was released: the policy is `hold`, whatever the settings
    /// say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holds_in_doubt: bool,
    pub prepared_by: String,
    pub prepared_at: Timestamp,
}

impl Plan {
    /// How long a recipient of `wave` stays in doubt before it is sent to again, in seconds.
    /// `now` is in Unix seconds. `None` if nothing is sent again: under the policy `hold`, and
    /// after the validity period.
    pub fn resend_after_s(&self, wave: &Wave, lease_ms: u64, now: u32) -> Option<u32> {
        let lease_s = u32::try_from(lease_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        let valid = wave.valid_until(self.settings.validity_hours).is_none_or(|until| now < until);
        let resends = self.settings.in_doubt == InDoubt::Resend && !self.holds_in_doubt;
        (resends && valid).then_some(lease_s + 1)
    }
}
