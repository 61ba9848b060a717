//! Exclusions: targeted recipients that are not to be sent to, and why.

use serde::{Deserialize, Serialize};

/// Why a targeted recipient is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExclusionCause {
    EmptyAddress,
    InvalidAddress,
    Duplicate,
    Quarantined,
    Denylisted,
    Fatigue,
}

impl ExclusionCause {
    pub const ALL: [Self; 6] = [
        Self::EmptyAddress,
        Self::InvalidAddress,
        Self::Duplicate,
        Self::Quarantined,
        Self::Denylisted,
        Self::Fatigue,
    ];

    /// As it is stored in a ledger, in the place of the failure reason.
    pub fn code(self) -> u8 {
        self as u8 + 1
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::EmptyAddress => "empty_address",
            Self::InvalidAddress => "invalid_address",
            Self::Duplicate => "duplicate",
            Self::Quarantined => "quarantined",
            Self::Denylisted => "denylisted",
            Self::Fatigue => "fatigue",
        }
    }

    /// One sentence for people.
    pub fn description(self) -> &'static str {
        match self {
            Self::EmptyAddress => "The recipient has no address.",
            Self::InvalidAddress => "The address is not one that mail can be sent to.",
            Self::Duplicate => "An earlier line of the audience has the same address.",
            Self::Quarantined => "The address bounced before.",
            Self::Denylisted => "The profile opted out.",
            Self::Fatigue => "The profile got enough messages lately.",
        }
    }
}

/// A line of the exclusion log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// Line of the audience upload, from 1.
    pub line: u64,
    pub email: String,
    pub cause: ExclusionCause,
}
