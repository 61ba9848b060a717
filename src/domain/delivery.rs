//! A delivery: its definition.

use serde::{Deserialize, Serialize};

/// What happens to a recipient that was in an SMTP transaction when its worker died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InDoubt {
    /// Nobody gets the mail twice: held until a person settles it.
    Hold,
    /// Nobody misses it: sent again once, with the same bytes and Message-ID.
    Resend,
}

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
