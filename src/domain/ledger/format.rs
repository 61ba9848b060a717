//! The layout of a ledger: one string of bytes with a header and one record per recipient.
//!
//! The string has 32 bytes of header, then 16 bytes for each recipient, in the order of their
//! positions. All numbers are big-endian. This file makes new ledgers and reads them. Only the Lua
//! scripts of the store change a ledger. Both share this layout.
//!
//! # Header: 32 bytes
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0 | version | 1 |
//! | 1 | bits | 1: SMTP test mode; 2: the fatigue rule was checked; see below |
//! | 2..4 | count | number of records |
//! | 4..8 | epoch | each new lease raises it |
//! | 8..12 | beat | the holder of the lease raises it as long as it lives |
//! | 12..16 | sequence number | each batch of the holder raises it |
//! | 16..24 | owner | the daemon that holds the lease; 0: no lease |
//! | 24..32 | Redis run | see below; 0: Redis never rolls back |
//!
//! - *SMTP test mode*: if a worker dies, its attempts become deferred, because nothing can have
//!   been delivered. Without this bit they become in doubt.
//! - *Fatigue rule checked*: set before anything of the chunk is sent.
//! - *Redis run*: the run of Redis that has everything the holder wrote. After a crash, another
//!   run answers, which may have lost the last writes. If the holder is gone by then, all
//!   recipients that are pending, attempting or deferred become in doubt. In SMTP test mode none
//!   does.
//!
//! # Record: 16 bytes
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0 | status | [`Status`] |
//! | 1 | attempts | claims that were not given back, at most 255 |
//! | 2 | reason | failure reason; the cause if the status is `excluded` |
//! | 3 | flags | bits of [`flags`] |
//! | 4..8 | epoch | claim number, first part: the epoch of the lease |
//! | 8 | ordinal | claim number, second part: the claim's ordinal within the epoch |
//! | 9..13 | when | Unix seconds: when a deferred recipient is due; else the last change |
//! | 13 | tracked | bits of `tracking::tracked` |
//! | 14..16 | hits | lines of this recipient in the tracking log |
//!
//! The sender never changes the last three bytes: they belong to the tracking log.

use serde::{Deserialize, Serialize};

/// The size of the header.
pub const HEADER_BYTES: usize = 32;
/// The size of each record.
pub const RECORD_BYTES: usize = 16;
/// Bit of header byte 1: the fatigue rule was checked.
pub const FATIGUE_CHECKED: u8 = 2;
/// Bit of header byte 1: SMTP test mode.
const SMTP_TEST: u8 = 1;
const VERSION: u8 = 1;

/// Where a recipient stands. The numbers are stored: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    /// Not begun.
    Pending = 0,
    /// Claimed: a transaction may be running.
    Attempting = 1,
    /// Refused for now, or broken off before the dividing line. It is tried again.
    Deferred = 2,
    /// The relay accepted the message; in SMTP test mode, the recipient.
    Sent = 3,
    /// Refused for good, or the validity period ended.
    Failed = 4,
    /// Nobody can know whether the relay took the message.
    InDoubt = 5,
    /// The delivery was stopped while the recipient was pending or deferred.
    Cancelled = 6,
    /// Left out after the preparation.
    Excluded = 7,
}

impl Status {
    /// All statuses, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Attempting,
        Self::Deferred,
        Self::Sent,
        Self::Failed,
        Self::InDoubt,
        Self::Cancelled,
        Self::Excluded,
    ];

    /// The word used in the API, the logs and the counters.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Attempting => "attempting",
            Self::Deferred => "deferred",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::InDoubt => "in_doubt",
            Self::Cancelled => "cancelled",
            Self::Excluded => "excluded",
        }
    }

    /// The status with this number, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// Bits of a record's flags.
pub mod flags {
    /// Sent again although an earlier attempt is in doubt.
    pub const RESENT: u8 = 1;
    /// A person resolved the doubt (*settle* in the API).
    pub const SETTLED: u8 = 2;
    /// The relay accepted the message more than once, or may have.
    pub const DUPLICATE: u8 = 4;
    /// The failure is hard.
    pub const HARD: u8 = 8;
    /// It failed because the validity period ended.
    pub const EXPIRED: u8 = 16;
    /// The relay accepted the message, under this or an earlier claim.
    pub const ACCEPTED: u8 = 32;
    /// It failed by a bounce. A late report of an acceptance does not undo that.
    pub const BOUNCED: u8 = 64;
}

/// The name of a claim: epoch and ordinal. The report of what became of a claim must name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClaimNumber {
    /// The epoch of the lease under which the recipient was claimed.
    pub epoch: u32,
    /// The ordinal of the claim among the claims of this recipient in this epoch, from 1.
    pub n: u8,
}

/// The record of one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    pub status: Status,
    pub attempts: u8,
    /// A failure reason, or an exclusion cause if the status is `excluded`.
    pub reason: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// The last claim.
    pub claim: ClaimNumber,
    /// Unix seconds: when a deferred recipient is due; else the last change.
    pub when: u32,
    /// Bits of `tracking::tracked`.
    pub tracked: u8,
}

impl Record {
    /// Reads a record. `None` if the bytes are too few or the status is unknown.
    pub fn parse(b: &[u8]) -> Option<Self> {
        let b = b.get(..RECORD_BYTES)?;
        Some(Self {
            status: Status::from_code(b[0])?,
            attempts: b[1],
            reason: b[2],
            flags: b[3],
            claim: ClaimNumber { epoch: u32_at(b, 4), n: b[8] },
            when: u32_at(b, 9),
            tracked: b[13],
        })
    }

    /// Whether a bit of [`flags`] is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// When the sender may claim this recipient, in Unix seconds; `None` if it may not.
    ///
    /// `resend_after_s`: how many seconds a recipient stays in doubt before it is sent to once
    /// more. It is `None` if nothing is sent again: see `Plan::resend_after_s`.
    pub fn claimable_at(&self, resend_after_s: Option<u32>) -> Option<u32> {
        match (self.status, resend_after_s) {
            (Status::Pending, _) => Some(0),
            (Status::Deferred, _) => Some(self.when),
            (Status::InDoubt, Some(wait)) if !self.has(flags::RESENT) => {
                Some(self.when.saturating_add(wait))
            }
            _ => None,
        }
    }
}

/// The header of a ledger, without its version, its bits and the run of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerHeader {
    /// The number of records.
    pub count: u16,
    pub epoch: u32,
    pub beat: u32,
    /// The sequence number.
    pub seq: u32,
    /// 0: no lease.
    pub owner: u64,
}

/// The bytes are not a ledger of this program, or they are damaged.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the ledger is damaged: {0}")]
pub struct DamagedLedger(pub &'static str);

/// One ledger as it was read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger(Vec<u8>);

impl Ledger {
    /// A new ledger: `count` pending recipients, no lease.
    pub fn new(count: u16) -> Self {
        let mut bytes = vec![0; HEADER_BYTES + RECORD_BYTES * usize::from(count)];
        bytes[0] = VERSION;
        bytes[2..4].copy_from_slice(&count.to_be_bytes());
        Self(bytes)
    }

    /// Sets or clears the bit of SMTP test mode in a new ledger. The other bits become 0.
    #[must_use]
    pub fn in_test_mode(mut self, is_test: bool) -> Self {
        self.0[1] = if is_test { SMTP_TEST } else { 0 };
        self
    }

    /// Reads a ledger.
    ///
    /// # Errors
    /// The version, the length or a status is not one that this program writes.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, DamagedLedger> {
        if bytes.len() < HEADER_BYTES {
            return Err(DamagedLedger("shorter than its header"));
        }
        if bytes[0] != VERSION {
            return Err(DamagedLedger("unknown version"));
        }
        let ledger = Self(bytes);
        if ledger.0.len() != HEADER_BYTES + RECORD_BYTES * ledger.len() {
            return Err(DamagedLedger("its length is not that of its records"));
        }
        if (0..ledger.len())
            .any(|i| Status::from_code(ledger.0[HEADER_BYTES + RECORD_BYTES * i]).is_none())
        {
            return Err(DamagedLedger("unknown status"));
        }
        Ok(ledger)
    }

    /// Whether the fatigue rule was checked.
    pub fn is_fatigue_checked(&self) -> bool {
        self.0[1] & FATIGUE_CHECKED != 0
    }

    /// The ledger as it is stored.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        usize::from(self.header().count)
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The header.
    pub fn header(&self) -> LedgerHeader {
        header_of(&self.0)
    }

    /// The record at `position`, from 0; `None` after the last one.
    pub fn record(&self, position: usize) -> Option<Record> {
        self.0.get(HEADER_BYTES + RECORD_BYTES * position..).and_then(Record::parse)
    }

    /// All records, in the order of their positions.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        (0..self.len()).filter_map(|i| self.record(i))
    }

    /// The positions that may be claimed at `now` (Unix seconds), in ascending order. For
    /// `resend_after_s` see [`Record::claimable_at`].
    pub fn claimable(&self, now: u32, resend_after_s: Option<u32>) -> Vec<u16> {
        let due = |r: &Record| r.claimable_at(resend_after_s).is_some_and(|at| at <= now);
        (0u16..).zip(self.records()).filter(|(_, r)| due(r)).map(|(i, _)| i).collect()
    }
}

/// Reads a header from the first bytes of a ledger. Missing bytes count as zero.
pub fn header_of(bytes: &[u8]) -> LedgerHeader {
    let mut b = [0; HEADER_BYTES];
    let n = bytes.len().min(HEADER_BYTES);
    b[..n].copy_from_slice(&bytes[..n]);
    let (high, low) = (u64::from(u32_at(&b, 16)), u64::from(u32_at(&b, 20)));
    LedgerHeader {
        count: u16::from_be_bytes([b[2], b[3]]),
        epoch: u32_at(&b, 4),
        beat: u32_at(&b, 8),
        seq: u32_at(&b, 12),
        owner: high << 32 | low,
    }
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_ledger_is_all_pending_and_free() {
        let ledger = Ledger::new(500);
        assert_eq!(ledger.bytes().len(), 32 + 16 * 500);
        assert_eq!(
            ledger.header(),
            LedgerHeader { count: 500, epoch: 0, beat: 0, seq: 0, owner: 0 }
        );
        assert!(ledger.records().all(|r| r.status == Status::Pending));
        assert_eq!(Ledger::parse(ledger.bytes().to_vec()), Ok(ledger));
    }

    #[test]
    fn damage_is_noticed() {
        let good = Ledger::new(3).bytes().to_vec();
        assert!(Ledger::parse(good[..good.len() - 1].to_vec()).is_err());
        assert!(Ledger::parse(vec![]).is_err());
        let mut status = good.clone();
        status[HEADER_BYTES] = 8;
        assert!(Ledger::parse(status).is_err());
        let mut version = good;
        version[0] = 2;
        assert!(Ledger::parse(version).is_err());
    }
}
