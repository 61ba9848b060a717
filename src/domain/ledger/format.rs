//! The ledger of a chunk: one packed string, a header and a record per recipient.
//!
//! All numbers are big-endian. The scripts of `store` are the only writers; this is the reader, and the layout they share.
//!
//! | header bytes | |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | bits: 1 in SMTP test mode, where what a dead worker was attempting is deferred and never in doubt; 2 when it was looked at for fatigue, before anything of it was sent |
//! | 2..4 | number of records |
//! | 4..8 | epoch: raised by every lease |
//! | 8..12 | beat: raised by the holder while it lives |
//! | 12..16 | sequence number: raised by every group of claims or records of the holder |
//! | 16..24 | owner, 0 when free |
//! | 24..32 | the run of Redis that knows all its holder wrote, if Redis may go back in time; else 0 |
//!
//! | record bytes | |
//! |---|---|
//! | 0 | status |
//! | 1 | attempts: transactions that were claimed and not given back, at most 255 |
//! | 2 | failure reason; of who is excluded the cause |
//! | 3 | flags |
//! | 4..9 | claim number: epoch (4) and claim within the epoch (1) |
//! | 9..13 | when, Unix seconds: due if deferred, else of the last change |
//! | 13 | what came back, see `tracking::tracked`; this and the next are never written by the sender |
//! | 14..16 | hits in the tracking log |

use serde::{Deserialize, Serialize};

pub const HEADER_BYTES: usize = 32;
pub const RECORD_BYTES: usize = 16;
/// Bits of the second byte.
const TEST: u8 = 1;
pub const CHECKED: u8 = 2;
const VERSION: u8 = 1;

/// Where a recipient stands. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    Pending = 0,
    Attempting = 1,
    Deferred = 2,
    Sent = 3,
    Failed = 4,
    InDoubt = 5,
    Cancelled = 6,
    Excluded = 7,
}

impl Status {
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

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// Bits of a record's flags.
pub mod flags {
    /// Claimed or released again although an earlier attempt is in doubt.
    pub const RESENT: u8 = 1;
    /// Settled by a person.
    pub const SETTLED: u8 = 2;
    /// Accepted more than once, or possibly so.
    pub const DUPLICATE: u8 = 4;
    /// The failure is a hard one.
    pub const HARD: u8 = 8;
    /// The validity period ended.
    pub const EXPIRED: u8 = 16;
    /// The relay accepted it, under this or an earlier claim.
    pub const ACCEPTED: u8 = 32;
    /// It failed by a bounce, which a late acceptance does not undo.
    pub const BOUNCED: u8 = 64;
}

/// The epoch of the lease under which a recipient was claimed, and the how-manieth claim of that epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClaimNumber {
    pub epoch: u32,
    pub n: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    pub status: Status,
    pub attempts: u8,
    pub reason: u8,
    pub flags: u8,
    pub claim: ClaimNumber,
    pub when: u32,
    /// Bits of `tracking::tracked`.
    pub tracked: u8,
}

impl Record {
    /// `None` if it is shorter than a record, or its status is unknown.
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

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// When the sender may claim it, in Unix seconds; `None` if it is settled, held or being attempted.
    /// `resend_after_s` is `Some` under the policy `resend`: how long a recipient stays in doubt before it is sent again, once.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerHeader {
    pub count: u16,
    pub epoch: u32,
    pub beat: u32,
    pub seq: u32,
    pub owner: u64,
}

/// A ledger that cannot be read: not written by this program, or damaged.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the ledger is damaged: {0}")]
pub struct DamagedLedger(pub &'static str);

/// One ledger as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger(Vec<u8>);

impl Ledger {
    /// `count` pending recipients, no lease.
    pub fn new(count: u16) -> Self {
        let mut bytes = vec![0; HEADER_BYTES + RECORD_BYTES * usize::from(count)];
        bytes[0] = VERSION;
        bytes[2..4].copy_from_slice(&count.to_be_bytes());
        Self(bytes)
    }

    /// The same in SMTP test mode.
    #[must_use]
    pub fn in_test_mode(mut self, is_test: bool) -> Self {
        self.0[1] = if is_test { TEST } else { 0 };
        self
    }

    /// # Errors
    /// If version, length or a status is not what this program writes.
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

    /// Whether it was looked at for fatigue.
    pub fn is_checked(&self) -> bool {
        self.0[1] & CHECKED != 0
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        usize::from(self.header().count)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn header(&self) -> LedgerHeader {
        header_of(&self.0)
    }

    /// The record at `position`, from 0; `None` beyond the end.
    pub fn record(&self, position: usize) -> Option<Record> {
        self.0.get(HEADER_BYTES + RECORD_BYTES * position..).and_then(Record::parse)
    }

    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        (0..self.len()).filter_map(|i| self.record(i))
    }

    /// The positions that may be claimed at `now` (Unix seconds), in order.
    pub fn claimable(&self, now: u32, resend_after_s: Option<u32>) -> Vec<u16> {
        let due = |r: &Record| r.claimable_at(resend_after_s).is_some_and(|at| at <= now);
        (0u16..).zip(self.records()).filter(|(_, r)| due(r)).map(|(i, _)| i).collect()
    }
}

/// Reads a header from the first bytes of a ledger; missing bytes count as zero.
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
