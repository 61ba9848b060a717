//! The check of all audit chains against the chain of heads, their seals, and known heads.

use std::collections::BTreeMap;

use super::audit::{AuditEntry, AuditHead, CheckedEntry, HEADS, OPERATIONS, verify};

/// The action of the entry with which the seals begin. Its subject is [`HEADS`].
pub const FIRST_SEAL: &str = "first_seal";
/// The action of an entry that names the head of another chain.
pub const HEAD: &str = "head";

/// What the chain of heads says of the other chains.
///
/// The entries before the first seal have no seals: a version without seals wrote them. The first
/// seal covers them, because it follows the heads of all chains of that time.
#[derive(Debug)]
pub struct AuditCheck {
    /// The heads of each chain, the oldest first.
    heads: BTreeMap<String, Vec<AuditHead>>,
    /// For each chain, the number of its last entry that the first seal covers.
    unsealed: BTreeMap<String, u64>,
    /// False without the key of the installation: then only hashes are checked.
    checks_seals: bool,
}

impl AuditCheck {
    /// Checks the chain of heads and returns its faults, too. It must hold all `known` heads: those
    /// that a daemon kept outside Redis, or that were copied from its log.
    pub fn new(
        chain: &[CheckedEntry],
        known: &[AuditHead],
        checks_seals: bool,
    ) -> (Self, Vec<String>) {
        let is_first_seal = |checked: &CheckedEntry| {
            let CheckedEntry { entry, genuine } = checked;
            let is_named = entry.action == FIRST_SEAL && entry.subject == HEADS;
            is_named && (*genuine == Some(true) || !checks_seals)
        };
        let first_seal = chain.iter().position(is_first_seal);
        let mut check = Self { heads: BTreeMap::new(), unsealed: BTreeMap::new(), checks_seals };
        for (at, CheckedEntry { entry, .. }) in chain.iter().enumerate() {
            let head = serde_json::from_value::<AuditHead>(entry.details.clone());
            if let (HEAD, Ok(head)) = (entry.action.as_str(), head) {
                if first_seal.is_some_and(|seal| at < seal) {
                    check.unsealed.insert(entry.subject.clone(), head.seq);
                }
                check.heads.entry(entry.subject.clone()).or_default().push(head);
            }
        }
        let mut faults = Vec::new();
        if let Err(broken) = verify(chain.iter().map(|checked| &checked.entry)) {
            faults.push(broken.to_string());
        }
        if checks_seals {
            faults.extend(foreign(chain, first_seal.unwrap_or_default()));
            if first_seal.is_none() {
                faults.push("the first seal is missing".into());
            }
        }
        faults.extend(known.iter().filter(|head| !holds(chain, head)).map(|head| {
            format!("entry {} is missing, or is not the one that a daemon wrote", head.seq)
        }));
        (check, faults)
    }

    /// The names of all chains that the chain of heads covers.
    pub fn chains(&self) -> impl Iterator<Item = &str> {
        self.heads.keys().map(String::as_str)
    }

    /// The first fault of the chain with this name.
    pub fn fault(&self, name: &str, chain: &[CheckedEntry]) -> Option<String> {
        if let Err(broken) = verify(chain.iter().map(|checked| &checked.entry)) {
            return Some(broken.to_string());
        }
        let strange = |entry: &&AuditEntry| name != OPERATIONS && entry.subject != name;
        if let Some(entry) = chain.iter().map(|checked| &checked.entry).find(strange) {
            return Some(format!("entry {}: it is of {}", entry.seq, entry.subject));
        }
        let covered = self.unsealed.get(name).map_or(0, |seq| *seq as usize);
        if self.checks_seals
            && let Some(fault) = foreign(chain, covered)
        {
            return Some(fault);
        }
        let heads = self.heads.get(name).into_iter().flatten();
        heads.into_iter().find(|head| !holds(chain, head)).map(|head| {
            format!("entry {} is not the entry that the chain of heads names", head.seq)
        })
    }
}

/// Whether these entries begin with the entry of `head`, and each other one is genuine and follows
/// the one before it.
pub fn follows(head: &AuditHead, entries: &[CheckedEntry]) -> bool {
    let begins = entries.first().is_some_and(|first| first.entry.head() == *head);
    let is_linked = |pair: &[CheckedEntry]| {
        let [before, after] = pair else { return false };
        after.genuine == Some(true) && after.entry.follows(&before.entry.head())
    };
    begins && entries.windows(2).all(is_linked)
}

/// The first entry that no daemon of this installation wrote. The first `covered` entries need no
/// seal.
fn foreign(chain: &[CheckedEntry], covered: usize) -> Option<String> {
    let is_foreign = |(at, checked): &(usize, &CheckedEntry)| match checked.genuine {
        Some(genuine) => !genuine,
        None => *at >= covered,
    };
    let (_, found) = chain.iter().enumerate().find(is_foreign)?;
    Some(format!("entry {}: no daemon of this installation wrote it", found.entry.seq))
}

/// Whether a chain holds this entry.
fn holds(chain: &[CheckedEntry], head: &AuditHead) -> bool {
    let at = usize::try_from(head.seq).ok().and_then(|seq| seq.checked_sub(1));
    at.and_then(|at| chain.get(at)).is_some_and(|checked| checked.entry.head() == *head)
}
