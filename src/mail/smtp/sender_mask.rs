//! Sender masks: the domains of envelope senders that a relay sends for.

use super::fault::RelayError;
use crate::mail::to_ascii;

/// A domain, or all domains below it.
pub struct SenderMask {
    /// In lower case, with A-labels (RFC 5890).
    domain: String,
    /// The mask is `*.domain`, which does not include the domain itself.
    subdomains: bool,
}

impl SenderMask {
    /// Reads the setting `sender_domains`.
    ///
    /// # Errors
    ///
    /// The first mask that is not a domain.
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
        let (domain, subdomains) =
            text.strip_prefix("*.").map_or((text, false), |domain| (domain, true));
        let usable = !domain.is_empty() && !domain.contains(['@', '*']);
        usable.then(|| domain_to_ascii(domain)).flatten().map(|domain| Self { domain, subdomains })
    }

    /// Whether the mask covers a domain in the form of [`domain_of`].
    pub fn admits(&self, domain: &str) -> bool {
        match self.subdomains {
            true => domain
                .strip_suffix(&self.domain)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            false => domain == self.domain,
        }
    }
}

/// The domain of an address in the form that masks have; empty for the null sender.
pub fn domain_of(address: &str) -> String {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    domain_to_ascii(domain).unwrap_or_else(|| domain.to_lowercase())
}

fn domain_to_ascii(domain: &str) -> Option<String> {
    let address = to_ascii(&format!("x@{domain}")).ok()?;
    address.strip_prefix("x@").map(str::to_owned)
}
