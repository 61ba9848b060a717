//! Domains of envelope senders, and the masks that a relay has for them.

use super::fault::RelayError;
use crate::mail::address;

/// A domain, or all below it, in the form of the envelope: lower case, A-labels.
pub struct SenderMask {
    domain: String,
    below: bool,
}

impl SenderMask {
    pub fn all(settings: &[String]) -> Result<Vec<Self>, RelayError> {
        let mask = |(i, text): (usize, &String)| {
            Self::new(text).ok_or_else(|| RelayError {
                setting: format!("relay.sender_domains[{i}]"),
                reason: "must be a domain such as example.com, or *.example.com for all below it"
                    .into(),
            })
        };
        settings.iter().enumerate().map(mask).collect()
    }

    fn new(text: &str) -> Option<Self> {
        let (domain, below) =
            text.strip_prefix("*.").map_or((text, false), |domain| (domain, true));
        let usable = !domain.is_empty() && !domain.contains(['@', '*']);
        usable.then(|| to_ascii(domain)).flatten().map(|domain| Self { domain, below })
    }

    pub fn admits(&self, domain: &str) -> bool {
        match self.below {
            true => domain
                .strip_suffix(&self.domain)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            false => domain == self.domain,
        }
    }
}

/// The domain of an address as masks are compared with it; empty for the null sender.
pub fn domain_of(address: &str) -> String {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    to_ascii(domain).unwrap_or_else(|| domain.to_lowercase())
}

fn to_ascii(domain: &str) -> Option<String> {
    let address = address::to_ascii(&format!("x@{domain}")).ok()?;
    address.strip_prefix("x@").map(str::to_owned)
}
