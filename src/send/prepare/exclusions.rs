//! Leaves recipients out: bad and doubled addresses, the denylist, and the fatigue rule.

use std::collections::{BTreeMap, HashSet};

use super::{
    chunking::{Chunker, DatedRecipient},
    preparation::Preparation,
};
use crate::{
    clock::unix_now,
    domain::{
        audience::{AddressKey, Exclusion, ExclusionCause, FatigueMoment, Recipient, digest_of},
        schedule::Undated,
    },
    mail::to_ascii,
    send::limits::KnownPreparations,
    store::{
        StoreError,
        audience::{SliceKind, ndjson},
    },
};

/// The state of the exclusion log while a preparation goes on.
#[derive(Default)]
pub(super) struct Exclusions {
    /// Truncated SHA-256 of every usable address so far: 16 bytes each.
    seen: HashSet<u128>,
    /// Other preparations that the fatigue rule has met so far.
    known: KnownPreparations,
    pub(super) causes: BTreeMap<ExclusionCause, u64>,
    /// Slices of the exclusion log that were written.
    pub(super) slices: u32,
}

impl Exclusions {
    /// Number of recipients excluded so far.
    pub(super) fn total(&self) -> u64 {
        self.causes.values().sum()
    }

    /// Checks the address of a recipient, and whether an earlier line had the same one.
    pub(super) fn check_address(
        &mut self,
        recipient: &Recipient,
    ) -> Result<AddressKey, ExclusionCause> {
        if recipient.email.is_empty() {
            return Err(ExclusionCause::EmptyAddress);
        }
        let Some(address) = to_ascii(&recipient.email).ok().filter(|email| is_usable(email)) else {
            return Err(ExclusionCause::InvalidAddress);
        };
        let digest = digest_of(&address);
        if self.seen.insert(digest) {
            Ok(AddressKey::of(digest))
        } else {
            Err(ExclusionCause::Duplicate)
        }
    }

    /// Moves recipients to `excluded` who opted out, or who have enough messages by their due
    /// instant. Returns the others. Afterwards `excluded` is in the order of the upload.
    pub(super) async fn leave_out(
        &mut self,
        preparation: &Preparation<'_>,
        candidates: Vec<DatedRecipient>,
        chunker: &mut Chunker,
        excluded: &mut Vec<Exclusion>,
    ) -> Result<Vec<DatedRecipient>, StoreError> {
        let causes = self.causes_of(preparation, &candidates).await?;
        let mut kept = Vec::with_capacity(candidates.len());
        for (candidate, cause) in candidates.into_iter().zip(causes) {
            match (cause, &candidate.due) {
                (Some(cause), Ok(due)) => {
                    chunker.take_back(*due);
                    let Recipient { line, email, .. } = candidate.recipient;
                    excluded.push(Exclusion { line, email, cause });
                }
                // a line without a due instant must stay, because it is an error
                _ => kept.push(candidate),
            }
        }
        excluded.sort_by_key(|exclusion| exclusion.line);
        Ok(kept)
    }

    async fn causes_of(
        &mut self,
        preparation: &Preparation<'_>,
        candidates: &[DatedRecipient],
    ) -> Result<Vec<Option<ExclusionCause>>, StoreError> {
        let mut causes = vec![None; candidates.len()];
        let checks = &preparation.tools.checks;
        if let Some(rule) = preparation.settings.fatigue {
            let now = unix_now();
            let moment = |due: &Result<u32, Undated>| FatigueMoment::Preparation {
                at: now.max(*due.as_ref().unwrap_or(&0)),
                now,
            };
            let asked: Vec<_> =
                candidates.iter().map(|one| (one.address, moment(&one.due))).collect();
            let tired = checks.fatigued(preparation.id(), &rule, &asked, &mut self.known).await?;
            set_cause(&mut causes, tired, ExclusionCause::Fatigue);
        }
        if preparation.settings.denylist {
            let addresses: Vec<AddressKey> = candidates.iter().map(|one| one.address).collect();
            let denied = checks.addresses.denied(&addresses).await?;
            set_cause(&mut causes, denied, ExclusionCause::Denylisted);
        }
        Ok(causes)
    }

    /// Counts exclusions and writes them as the next slice of the exclusion log. Returns the
    /// written text, which is part of the digest; `None` if there is nothing to write.
    pub(super) async fn write(
        &mut self,
        preparation: &Preparation<'_>,
        excluded: &[Exclusion],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if excluded.is_empty() {
            return Ok(None);
        }
        for exclusion in excluded {
            *self.causes.entry(exclusion.cause).or_default() += 1;
        }
        let text = ndjson(excluded)?;
        let kind = SliceKind::Exclusions(preparation.generation);
        preparation.write_slice(kind, self.slices, &text).await?;
        self.slices += 1;
        Ok(Some(text))
    }
}

/// A bare host name as the domain is valid in theory, but nobody can be reached there.
fn is_usable(address: &str) -> bool {
    address
        .rsplit_once('@')
        .is_some_and(|(_, domain)| domain.contains('.') || domain.starts_with('['))
}

fn set_cause(causes: &mut [Option<ExclusionCause>], applies: Vec<bool>, cause: ExclusionCause) {
    for (slot, _) in causes.iter_mut().zip(applies).filter(|(_, applies)| *applies) {
        *slot = Some(cause);
    }
}
