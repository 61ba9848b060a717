//! A hold of the store: since when the store is behind, and why.

use std::{collections::HashMap, fmt, str::FromStr};

use serde::Serialize;

use crate::store::{StoreError, damaged};

/// Why a store is believed to be behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// It was restored from a backup.
    Restored,
    /// Its state directory is a copy, or was moved.
    Copied,
    /// The files of the embedded Redis were changed after the last heartbeat.
    Replaced,
    /// No daemon wrote a heartbeat for the grace window, and for at least five minutes.
    Silent,
    /// It contains less than a running daemon has written.
    WentBack,
    /// A person said so.
    ByHand,
}

impl HoldReason {
    const ALL: [Self; 6] =
        [Self::Restored, Self::Copied, Self::Replaced, Self::Silent, Self::WentBack, Self::ByHand];

    /// The word in the store, in the API and in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Copied => "copied",
            Self::Replaced => "replaced",
            Self::Silent => "silent",
            Self::WentBack => "went_back",
            Self::ByHand => "by_hand",
        }
    }
}

impl FromStr for HoldReason {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        let named = Self::ALL.into_iter().find(|reason| reason.word() == word);
        // a hold with a word of another version or of a person stays in force
        Ok(named.unwrap_or(Self::ByHand))
    }
}

/// A store that moves nothing until a person releases it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreHold {
    /// Everything that was sent after this time may be missing in the store (Unix seconds).
    pub since: u32,
    pub why: HoldReason,
    /// When the store was held (Unix seconds).
    pub found: u32,
}

impl StoreHold {
    /// Reads the fields of the key; `None` if there is no hold.
    pub(super) fn read(fields: &HashMap<String, String>) -> Result<Option<Self>, StoreError> {
        let Some(since) = fields.get("since") else { return Ok(None) };
        let number = |text: &str| text.parse::<u32>();
        Ok(Some(Self {
            since: number(since).map_err(|_| damaged("the time of the hold is no number"))?,
            why: fields.get("why").map_or("", String::as_str).parse()?,
            found: fields.get("found").and_then(|text| number(text).ok()).unwrap_or_default(),
        }))
    }
}

/// The reason as a sentence.
impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restored => "the state directory was restored from a backup",
            Self::Replaced => "the files of Redis were replaced after the last heartbeat",
            Self::Copied => "the state directory is a copy, or was moved",
            Self::Silent => {
                "no daemon wrote a heartbeat for the grace window, and for at least five minutes"
            }
            Self::WentBack => "Redis holds less than a running daemon has written",
            Self::ByHand => "a person held it",
        })
    }
}
