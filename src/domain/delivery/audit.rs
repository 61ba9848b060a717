//! The audit log: append-only chains of entries.
//!
//! Each delivery has a chain, and so have the operations. The chain of heads covers them all. Each
//! entry holds the hash of the entry before it, so a later change of any entry is found.

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The field `previous` of the first entry of a chain.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The name of the chain of heads.
pub const HEADS: &str = "heads";
/// The name of the chain of operations. A delivery's chain is named by its id.
pub const OPERATIONS: &str = "operations";

/// One entry: who did what to what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The number of the entry in its chain, from 1.
    pub seq: u64,
    pub at: Timestamp,
    /// The id of the delivery; in the chain of heads the name of the chain; for an operation its
    /// object, such as the name of a token.
    pub subject: String,
    pub principal: String,
    pub action: String,
    pub details: Value,
    /// The hash of the entry before.
    pub previous: String,
    /// SHA-256 over the JSON array of all other fields, in this order, in lower-case hexadecimal.
    pub hash: String,
}

/// An entry as it was read from the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckedEntry {
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// Whether its seal fits: whether a daemon of this installation wrote it. `None`: no seal.
    pub genuine: Option<bool>,
}

/// The end of a chain: number and hash of its newest entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    pub seq: u64,
    pub hash: String,
}

impl Default for AuditHead {
    fn default() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

/// An action that is about to be written as the next entry.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditAct {
    pub subject: String,
    pub principal: String,
    pub action: &'static str,
    pub details: Value,
}

impl AuditEntry {
    /// The entry that follows `head`.
    pub fn after(head: &AuditHead, at: Timestamp, act: AuditAct) -> Self {
        let mut entry = Self {
            seq: head.seq + 1,
            at,
            subject: act.subject,
            principal: act.principal,
            action: act.action.to_owned(),
            details: act.details,
            previous: head.hash.clone(),
            hash: String::new(),
        };
        entry.hash = entry.digest();
        entry
    }

    /// The head of the chain once this is its newest entry.
    pub fn head(&self) -> AuditHead {
        AuditHead { seq: self.seq, hash: self.hash.clone() }
    }

    /// Whether this is the entry after `head`, as it was written.
    pub fn follows(&self, head: &AuditHead) -> bool {
        self.seq == head.seq + 1 && self.previous == head.hash && self.hash == self.digest()
    }

    fn digest(&self) -> String {
        let fields = serde_json::json!([
            self.seq,
            self.at,
            self.subject,
            self.principal,
            self.action,
            self.details,
            self.previous
        ]);
        HEXLOWER.encode(&Sha256::digest(fields.to_string()))
    }
}

/// The first wrong entry of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq}: {fault}")]
pub struct BrokenChain {
    pub seq: u64,
    pub fault: &'static str,
}

/// Checks a chain from its first entry and returns its head.
///
/// # Errors
/// The first entry that was altered, is out of order, or comes after a missing one.
pub fn verify<'a>(
    entries: impl IntoIterator<Item = &'a AuditEntry>,
) -> Result<AuditHead, BrokenChain> {
    let mut head = AuditHead::default();
    for entry in entries {
        let broken = |fault| Err(BrokenChain { seq: entry.seq, fault });
        if entry.seq != head.seq + 1 {
            return broken("an entry before it is missing, or it is out of order");
        }
        if entry.previous != head.hash {
            return broken("it does not follow the entry before it");
        }
        if entry.hash != entry.digest() {
            return broken("its content was altered");
        }
        head = entry.head();
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: usize) -> Vec<AuditEntry> {
        let mut head = AuditHead::default();
        (0..n)
            .map(|i| {
                let act = AuditAct {
                    subject: "d".into(),
                    principal: "ann".into(),
                    action: "confirm",
                    details: serde_json::json!({ "b": i, "a": 1 }),
                };
                let entry = AuditEntry::after(&head, Timestamp::UNIX_EPOCH, act);
                head = entry.head();
                entry
            })
            .collect()
    }

    #[test]
    fn a_chain_verifies_even_after_json() {
        let text = serde_json::to_string(&chain(5)).unwrap();
        let read: Vec<AuditEntry> = serde_json::from_str(&text).unwrap();
        assert_eq!(verify(&read).map(|h| h.seq), Ok(5));
    }

    #[test]
    fn an_altered_removed_swapped_or_rehashed_entry_is_found() {
        type Tamper = fn(&mut Vec<AuditEntry>);
        let tampered: [(&str, Tamper); 5] = [
            ("altered", |c| c[2].principal = "bob".into()),
            ("removed", |c| drop(c.remove(2))),
            ("swapped", |c| c.swap(1, 2)),
            ("details", |c| c[4].details = serde_json::json!({})),
            ("rehashed", |c| {
                c[2].action = "stop".into();
                c[2].hash = c[2].digest();
            }),
        ];
        for (what, tamper) in tampered {
            let mut entries = chain(5);
            tamper(&mut entries);
            assert!(verify(&entries).is_err(), "{what}");
        }
    }
}
