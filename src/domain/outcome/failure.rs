//! Why an attempt failed, and what that means for the address.

use serde::{Deserialize, Serialize};

/// Why a recipient did not get the mail. The numbers are stored in ledgers: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum FailureReason {
    /// Nothing failed.
    None = 0,
    UserUnknown = 1,
    InvalidDomain = 2,
    Unreachable = 3,
    MailboxFull = 4,
    AccountDisabled = 5,
    /// The sender is at fault, not the recipient: spam, policy, authentication, reputation, size.
    Refused = 6,
    /// The reply does not say why.
    NotDefined = 7,
}

impl FailureReason {
    const ALL: [Self; 8] = [
        Self::None,
        Self::UserUnknown,
        Self::InvalidDomain,
        Self::Unreachable,
        Self::MailboxFull,
        Self::AccountDisabled,
        Self::Refused,
        Self::NotDefined,
    ];

    /// The word used in logs and in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::UserUnknown => "user_unknown",
            Self::InvalidDomain => "invalid_domain",
            Self::Unreachable => "unreachable",
            Self::MailboxFull => "mailbox_full",
            Self::AccountDisabled => "account_disabled",
            Self::Refused => "refused",
            Self::NotDefined => "not_defined",
        }
    }

    /// The number in a ledger.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this number in a ledger, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// What a failure means for the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureType {
    /// The address cannot be reached, or the refusal is final.
    Hard,
    /// A later message may reach the address.
    Soft,
    /// It says nothing about the address.
    Ignored,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_keeps_its_number_and_its_word() {
        for code in 0..8 {
            let reason = FailureReason::from_code(code).expect("0..8 are reasons");
            assert_eq!(reason.code(), code);
            let json = serde_json::to_string(&reason).expect("a word");
            assert_eq!(json, format!("\"{}\"", reason.word()));
        }
        assert_eq!(FailureReason::from_code(8), None);
    }
}
