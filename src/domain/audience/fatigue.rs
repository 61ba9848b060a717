//! Fatigue: how many messages an address may get within some days, and which messages count.
//!
//! The time of a message is the release of its wave. Before the release, it is the due time, or
//! the present if that is later.
//!
//! - At the preparation, every message counts that was sent, or is scheduled, within the days
//!   before the new message.
//! - At the release, only messages of released waves count. A message of an earlier release counts
//!   even if it is not sent yet. A message of a later release counts only if it was begun, or if
//!   the fatigue rule cannot exclude it any more. If two deliveries are released at the same time,
//!   the one with the smaller id is the earlier one.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::{
    delivery::{DeliveryId, DeliveryState},
    ledger::Status,
    schedule::Wave,
};

/// The size of an entry in the index of messages. The entry holds six bytes of the address's
/// digest, the number of the preparation (u32) and the recipient number (u32), both big-endian.
pub const ENTRY_BYTES: usize = 14;

/// The rule: an address gets at most `messages` messages within `days` days.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FatigueRule {
    /// 1 to 1000.
    pub messages: u32,
    /// Above 0, at most 366.
    pub days: f64,
}

impl FatigueRule {
    /// Whether both numbers are in their ranges.
    pub fn is_valid(&self) -> bool {
        (1..=1000).contains(&self.messages) && self.days > 0.0 && self.days <= 366.0
    }

    /// Whether each address that this rule lets through is let through by `other`, too.
    pub fn is_as_strict(&self, other: Self) -> bool {
        self.messages <= other.messages && self.days >= other.days
    }

    /// The sliding window in seconds, at least 1.
    fn window_s(&self) -> u32 {
        ((self.days * 86_400.0).round() as u32).max(1)
    }
}

/// The digest of an address: the first 16 bytes of the SHA-256 of its lower-case text. The text
/// is the one that SMTP transmits, in ASCII.
pub fn digest_of(ascii_address: &str) -> u128 {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(ascii_address.to_lowercase())[..16]);
    u128::from_be_bytes(short)
}

/// An address in the index of messages: 61 bits of its digest. 13 of them choose the bucket, and
/// 48 are in the entry.
///
/// Assume an index of 100 million addresses, and a million other addresses that are looked up. The
/// chance that any of these is taken for an address of the index is one in twenty thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(u64);

impl AddressKey {
    /// The key of a digest from [`digest_of`].
    pub fn of(digest: u128) -> Self {
        Self((digest >> 64) as u64)
    }

    /// The key whose [`AddressKey::bytes`] these are.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// The first 8 bytes of the digest.
    pub fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The bucket, 0..8192. Fewer buckets would make a search slow. With more buckets, their
    /// overhead would exceed their entries.
    pub fn bucket(self) -> u16 {
        (self.0 >> 51) as u16
    }

    /// The six bytes that an entry holds.
    pub fn rest(self) -> [u8; 6] {
        let [_, _, rest @ ..] = self.0.to_be_bytes();
        rest
    }

    /// The entry of a message to this address; see [`ENTRY_BYTES`].
    pub fn entry(self, preparation: u32, recipient: u32) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[..6].copy_from_slice(&self.rest());
        entry[6..10].copy_from_slice(&preparation.to_be_bytes());
        entry[10..].copy_from_slice(&recipient.to_be_bytes());
        entry
    }
}

/// The moment at which the rule is applied to a new message. Times are Unix seconds.
#[derive(Debug, Clone, Copy)]
pub enum FatigueMoment<'a> {
    /// The delivery is being prepared. The message is sent at `at` at the earliest.
    Preparation { at: u32, now: u32 },
    /// The wave of the message was released at `at`.
    Release { at: u32, delivery: &'a DeliveryId },
}

/// Which messages of another wave count against the new message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FatigueWeight {
    None,
    /// The messages that were sent, or that will certainly be handed to a relay.
    Begun,
    /// Also the messages that may still be sent.
    All,
}

/// Whether messages of a delivery in this state count at all: it was confirmed.
pub fn counts(state: DeliveryState) -> bool {
    !matches!(
        state,
        DeliveryState::Editing
            | DeliveryState::Preparing
            | DeliveryState::PreparationFailed
            | DeliveryState::Prepared
            | DeliveryState::Deleted
    )
}

/// Which messages of `wave`, a wave of the delivery `other`, count.
pub fn weight(
    rule: &FatigueRule,
    moment: FatigueMoment<'_>,
    other: &DeliveryId,
    wave: &Wave,
) -> FatigueWeight {
    let window = rule.window_s();
    match moment {
        FatigueMoment::Preparation { at, now } => {
            let time = if wave.state.is_released() { wave.released_at } else { wave.due.max(now) };
            if time <= at && at - time < window { FatigueWeight::All } else { FatigueWeight::None }
        }
        FatigueMoment::Release { at, delivery } => {
            let time = wave.released_at;
            if !wave.state.is_released() || time.abs_diff(at) >= window {
                FatigueWeight::None
            } else if (time, other) < (at, delivery) {
                FatigueWeight::All
            } else {
                FatigueWeight::Begun
            }
        }
    }
}

/// Whether a message with this status counts.
///
/// `certain`: the fatigue rule cannot exclude this message any more. Its delivery has no rule, or
/// its chunk was already checked.
pub fn message_counts(
    weight: FatigueWeight,
    state: DeliveryState,
    status: Status,
    certain: bool,
) -> bool {
    // A stopping delivery cancels its pending and deferred recipients.
    let stopping = matches!(state, DeliveryState::Stopping | DeliveryState::Stopped);
    match (weight, status) {
        (FatigueWeight::None, _) | (_, Status::Failed | Status::Cancelled | Status::Excluded) => {
            false
        }
        (_, Status::Attempting | Status::Sent | Status::InDoubt) => true,
        (_, Status::Deferred) => !stopping,
        (FatigueWeight::All, Status::Pending) => !stopping,
        (FatigueWeight::Begun, Status::Pending) => certain && !stopping,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schedule::WaveState;

    const DAY: u32 = 86_400;
    const RULE: FatigueRule = FatigueRule { messages: 1, days: 2.0 };

    fn id(n: u8) -> DeliveryId {
        DeliveryId::from_random([n; 10])
    }

    fn released(at: u32) -> Wave {
        Wave { released_at: at, state: WaveState::Open, ..Wave::waiting(at, 1) }
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let key = |address: &str| AddressKey::of(digest_of(address));
        assert_eq!(key("Ann@Example.ORG"), key("ann@example.org"));
        assert_ne!(key("ann@example.org"), key("anne@example.org"));
        let entry = key("ann@example.org").entry(7, 9);
        assert_eq!(
            (&entry[..6], &entry[6..]),
            (&key("ann@example.org").rest()[..], &[0, 0, 0, 7, 0, 0, 0, 9][..])
        );
    }

    #[test]
    fn at_the_preparation_sent_and_scheduled_messages_count() {
        let now = 100 * DAY;
        let at = |at| {
            move |wave: Wave| weight(&RULE, FatigueMoment::Preparation { at, now }, &id(1), &wave)
        };
        let now_at = at(now);
        assert_eq!(
            now_at(released(now - 2 * DAY)),
            FatigueWeight::None,
            "exactly so many days ago"
        );
        assert_eq!(now_at(released(now - 2 * DAY + 1)), FatigueWeight::All);
        assert_eq!(now_at(released(now)), FatigueWeight::All);
        assert_eq!(
            now_at(Wave::waiting(0, 1)),
            FatigueWeight::All,
            "confirmed, to be sent at once"
        );
        assert_eq!(now_at(Wave::waiting(now + 1, 1)), FatigueWeight::None, "scheduled for later");
        assert_eq!(
            now_at(Wave::waiting(now - 10, 1)),
            FatigueWeight::All,
            "overdue: it goes now at the earliest"
        );
        assert_eq!(at(now + 3 * DAY)(Wave::waiting(now + 2 * DAY, 1)), FatigueWeight::All);
        assert_eq!(at(now + 3 * DAY)(Wave::waiting(now + DAY, 1)), FatigueWeight::None);
        assert_eq!(at(now + 3 * DAY)(released(now)), FatigueWeight::None);
    }

    #[test]
    fn at_the_release_the_earlier_message_counts() {
        let at = 100 * DAY;
        let (mine, smaller, larger) = (id(5), id(4), id(6));
        let of = |other: &DeliveryId, wave: Wave| {
            weight(&RULE, FatigueMoment::Release { at, delivery: &mine }, other, &wave)
        };
        assert_eq!(of(&larger, released(at - 1)), FatigueWeight::All);
        assert_eq!(of(&smaller, released(at)), FatigueWeight::All);
        assert_eq!(of(&larger, released(at)), FatigueWeight::Begun);
        assert_eq!(of(&smaller, released(at + 1)), FatigueWeight::Begun);
        assert_eq!(of(&smaller, released(at + 2 * DAY)), FatigueWeight::None);
        assert_eq!(of(&smaller, released(at - 2 * DAY)), FatigueWeight::None);
        assert_eq!(
            of(&smaller, Wave::waiting(at - 1, 1)),
            FatigueWeight::None,
            "it is checked when it is released"
        );
    }

    #[test]
    fn a_message_that_is_never_sent_does_not_count() {
        let counted = |weight, status, certain| {
            message_counts(weight, DeliveryState::InProgress, status, certain)
        };
        for status in Status::ALL {
            let expected = !matches!(status, Status::Failed | Status::Cancelled | Status::Excluded);
            assert_eq!(counted(FatigueWeight::All, status, false), expected, "{status:?}");
            assert_eq!(counted(FatigueWeight::Begun, status, true), expected, "{status:?}");
            assert!(!counted(FatigueWeight::None, status, true));
        }
        assert!(!counted(FatigueWeight::Begun, Status::Pending, false));
        assert!(!message_counts(
            FatigueWeight::All,
            DeliveryState::Stopping,
            Status::Pending,
            true
        ));
        assert!(message_counts(FatigueWeight::All, DeliveryState::Stopped, Status::Sent, true));
        assert!(
            counts(DeliveryState::Scheduled)
                && counts(DeliveryState::Finished)
                && !counts(DeliveryState::Prepared)
                && !counts(DeliveryState::Deleted)
        );
    }
}
