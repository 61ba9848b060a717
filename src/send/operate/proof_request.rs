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
/// The beginning of the subject of each proof, whatever prefix the request names.
const MARK: &str = "[Proof] ";

/// The recipients whose messages are sent, and the test addresses that get them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRequest {
    /// Recipient numbers, as in the sending log.
    pub recipients: Vec<u64>,
    /// The test addresses.
    pub to: Vec<String>,
    /// Text before the subject, after the mark that each proof has. It may repeat the mark.
    #[serde(default = "default_prefix")]
    pub subject_prefix: String,
}

fn default_prefix() -> String {
    MARK.to_owned()
}

/// Whether a character has no width of its own or turns the direction of the text. It could hide
/// or change what stands around it.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

impl ProofRequest {
    /// Checks the request. Returns the test addresses in the form of the SMTP envelope.
    ///
    /// `masks` are the allowed test addresses (`preparation.proof_addresses`); `None` allows all.
    pub(super) fn check(&self, masks: Option<&[String]>) -> Result<Vec<String>, Invalid> {
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
        if self.subject_prefix.trim().is_empty()
            || self.subject_prefix.chars().count() > LONGEST_PREFIX
            || self.subject_prefix.contains(is_invisible)
        {
            return Err(invalid(
                "subject_prefix",
                format!("must have 1 to {LONGEST_PREFIX} visible characters"),
            ));
        }
        let mut seen = HashSet::new();
        if let Some(i) = self.recipients.iter().position(|number| !seen.insert(number)) {
            return Err(invalid(format!("recipients[{i}]"), "is named twice"));
        }
        check_addresses(&self.to, masks)
    }

    /// The text before the subject of each proof. It begins with the mark.
    pub(super) fn prefix(&self) -> String {
        let more = self.subject_prefix.strip_prefix(MARK).unwrap_or(&self.subject_prefix);
        format!("{MARK}{more}")
    }
}

fn check_addresses(addresses: &[String], masks: Option<&[String]>) -> Result<Vec<String>, Invalid> {
    let mut checked: Vec<String> = Vec::new();
    for (i, address) in addresses.iter().enumerate() {
        let refuse = |reason: &str| invalid(format!("to[{i}]"), reason);
        let ascii = to_ascii(address).map_err(|error| refuse(&error.to_string()))?;
        if masks.is_some_and(|masks| !masks.iter().any(|mask| matches(mask, address))) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(prefix: &str) -> ProofRequest {
        ProofRequest {
            recipients: vec![0],
            to: vec!["a@test.example".into()],
            subject_prefix: prefix.into(),
        }
    }

    #[test]
    fn every_proof_begins_with_the_mark() {
        for (prefix, expected) in [
            ("[Proof] ", "[Proof] "),
            ("QA 2: ", "[Proof] QA 2: "),
            ("[Proof] QA: ", "[Proof] QA: "),
            ("[proof] ", "[Proof] [proof] "),
        ] {
            assert_eq!(request(prefix).prefix(), expected);
        }
    }

    #[test]
    fn a_prefix_is_visible() {
        for prefix in ["", "  ", "\u{200b}", "a\u{202e}b", "\u{feff}", "a\rb", &"x".repeat(101)] {
            let refused = request(prefix).check(None).unwrap_err();
            assert_eq!(refused.field, "subject_prefix", "{prefix:?}");
        }
        assert!(request("Prüfung: ").check(None).is_ok());
    }

    #[test]
    fn with_an_empty_list_of_masks_nobody_gets_a_proof() {
        assert_eq!(request("x").check(Some(&[])).unwrap_err().field, "to[0]");
        assert!(request("x").check(Some(&["*@test.example".into()])).is_ok());
    }
}
