//! The request for proofs, and the checks that it must pass.

use std::collections::HashSet;

use serde::Deserialize;

use crate::{
    domain::{Invalid, audience::matches},
    mail::to_ascii,
};

/// Most proofs of one request: recipients times test addresses.
const MOST: usize = 100;
/// Most characters of the subject prefix.
const LONGEST_PREFIX: usize = 100;

/// The recipients whose messages are sent, and the test addresses that get them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRequest {
    /// Recipient numbers, as in the sending log.
    pub recipients: Vec<u64>,
    /// The test addresses.
    pub to: Vec<String>,
    #[serde(default = "default_prefix")]
    pub subject_prefix: String,
}

fn default_prefix() -> String {
    "[Proof] ".to_owned()
}

impl ProofRequest {
    /// Checks the request. Returns the test addresses in the form of the SMTP envelope.
    ///
    /// `masks` are the allowed test addresses (`preparation.proof_addresses`).
    pub(super) fn check(&self, masks: &[String]) -> Result<Vec<String>, Invalid> {
        if self.recipients.is_empty() {
            return Err(invalid("recipients", "must name at least one"));
        }
        if self.to.is_empty() {
            return Err(invalid("to", "must name at least one test address"));
        }
        let proofs = self.recipients.len().saturating_mul(self.to.len());
        if proofs > MOST {
            return Err(invalid(
                "recipients",
                format!("times test addresses make {proofs} messages: {MOST} are allowed"),
            ));
        }
        if self.subject_prefix.chars().count() > LONGEST_PREFIX
            || self.subject_prefix.contains(char::is_control)
        {
            return Err(invalid(
                "subject_prefix",
                format!("must have at most {LONGEST_PREFIX} printable characters"),
            ));
        }
        let mut seen = HashSet::new();
        if let Some(i) = self.recipients.iter().position(|number| !seen.insert(number)) {
            return Err(invalid(format!("recipients[{i}]"), "is named twice"));
        }
        check_addresses(&self.to, masks)
    }
}

fn check_addresses(addresses: &[String], masks: &[String]) -> Result<Vec<String>, Invalid> {
    let mut checked: Vec<String> = Vec::new();
    for (i, address) in addresses.iter().enumerate() {
        let refuse = |reason: &str| invalid(format!("to[{i}]"), reason);
        let ascii = to_ascii(address).map_err(|error| refuse(&error.to_string()))?;
        if !masks.iter().any(|mask| matches(mask, address)) {
            return Err(refuse("is not allowed by preparation.proof_addresses"));
        }
        if checked.contains(&ascii) {
            return Err(refuse("is named twice"));
        }
        checked.push(ascii);
    }
    Ok(checked)
}

pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), reason: reason.into() }
}
