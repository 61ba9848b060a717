//! The recipient domains of a chunk, each with the limit that applies to it.

use std::collections::HashMap;

use super::domain_limits::DomainLimits;
use crate::domain::audience::Recipient;

/// One recipient domain of a chunk.
pub(super) struct ChunkDomain {
    /// In lower case.
    pub name: String,
    /// The index of the limit that applies, if there is one.
    pub limit: Option<usize>,
}

/// The recipient domains of a chunk.
pub(super) struct ChunkDomains {
    domains: Vec<ChunkDomain>,
    /// For each position, the index of its domain.
    of_position: Vec<u16>,
    /// True if a limit applies to any of the domains.
    pub has_limits: bool,
}

impl ChunkDomains {
    pub(super) fn new(limits: &DomainLimits, recipients: &[Recipient]) -> Self {
        let mut domains: Vec<ChunkDomain> = Vec::new();
        let mut known: HashMap<String, u16> = HashMap::new();
        let of_position = recipients
            .iter()
            .map(|recipient| {
                let domain = recipient.email.rsplit_once('@').map_or("", |(_, domain)| domain);
                *known.entry(domain.to_lowercase()).or_insert_with_key(|name| {
                    let limit = limits.for_domain(name);
                    domains.push(ChunkDomain { name: name.clone(), limit });
                    u16::try_from(domains.len() - 1).unwrap_or(u16::MAX)
                })
            })
            .collect();
        let has_limits = domains.iter().any(|domain| domain.limit.is_some());
        Self { domains, of_position, has_limits }
    }

    /// Returns the domain of the recipient at `position`.
    pub(super) fn of(&self, position: u16) -> Option<&ChunkDomain> {
        self.domains.get(self.index_of(position)?)
    }

    fn index_of(&self, position: u16) -> Option<usize> {
        self.of_position.get(usize::from(position)).map(|index| usize::from(*index))
    }

    /// Returns a closure that takes a position, and is true if `matches` is true for its domain.
    pub(super) fn positions_where(
        &self,
        matches: impl Fn(&ChunkDomain) -> bool,
    ) -> impl Fn(u16) -> bool + '_ {
        let matching: Vec<bool> = self.domains.iter().map(matches).collect();
        move |position| {
            self.index_of(position).is_some_and(|index| matching.get(index) == Some(&true))
        }
    }
}
