//! Fatigue: how many messages an address may get within some days, and which of the others count.
//!
//! The instant of a message is the release of its wave; before that, when the wave is due. At the preparation all count that
//! are sent or scheduled within the days before it. At the release only those of waves that are released do, the earlier
//! ones first: so of two deliveries that are released at the same time one gives way, and not both.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::{
    delivery::{DeliveryId, DeliveryState},
    ledger::Status,
    schedule::Wave,
};

/// An entry of the index takes so many bytes: six of the address' digest, which preparation u32, which recipient of it u32.
pub const ENTRY_BYTES: usize = 14;

/// At most so many messages to an address within so many days.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FatigueRule {
    /// 1 to 1000.
    pub messages: u32,
    /// Above 0, at most 366.
    pub days: f64,
}

impl FatigueRule {
    pub fn is_sane(&self) -> bool {
        (1..=1000).contains(&self.messages) && self.days > 0.0 && self.days <= 366.0
    }

    fn window_s(&self) -> u32 {
        ((self.days * 86_400.0).round() as u32).max(1)
    }
}

/// What a delivery says of fatigue itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be false, or messages and days")]
pub enum OwnFatigue {
    /// `false`: no rule. `true` means nothing and is refused.
    Exempt(bool),
    Rule(FatigueRule),
}

/// The first 16 bytes of the SHA-256 of an address as it goes over SMTP, in lower case.
pub fn digest_of(ascii_address: &str) -> u128 {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(ascii_address.to_lowercase())[..16]);
    u128::from_be_bytes(short)
}

/// How the index knows an address: by 61 bits of its digest, 13 of which name the bucket. With a hundred million addresses in
/// the index the chance that any of a million others is taken for one of them is one in twenty thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(u64);

impl AddressKey {
    pub fn of(digest: u128) -> Self {
        Self((digest >> 64) as u64)
    }

    pub fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Below 8192: few enough that a bucket costs little beside its entries, and enough that it is searched quickly.
    pub fn bucket(self) -> u16 {
        (self.0 >> 51) as u16
    }

    pub fn rest(self) -> [u8; 6] {
        let [_, _, rest @ ..] = self.0.to_be_bytes();
        rest
    }

    pub fn entry(self, preparation: u32, recipient: u32) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[..6].copy_from_slice(&self.rest());
        entry[6..10].copy_from_slice(&preparation.to_be_bytes());
        entry[10..].copy_from_slice(&recipient.to_be_bytes());
        entry
    }
}

/// The message about which is asked.
#[derive(Debug, Clone, Copy)]
pub enum FatigueMoment<'a> {
    /// It is being prepared, and goes at `at` at the earliest.
    Preparation { at: u32, now: u32 },
    /// Its wave was released.
    Release { at: u32, delivery: &'a DeliveryId },
}

/// Which messages of another wave count against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FatigueWeight {
    None,
    /// Those that were sent, or that nothing but their relay keeps from being sent.
    Begun,
    /// Those that may yet be sent, too.
    All,
}

/// Whether messages of a delivery in this state count at all: it is scheduled or was released.
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

/// How a wave of the delivery `other` counts.
pub fn weight(
    rule: &FatigueRule,
    moment: FatigueMoment<'_>,
    other: &DeliveryId,
    wave: &Wave,
) -> FatigueWeight {
    let window = rule.window_s();
    match moment {
        FatigueMoment::Preparation { at, now } => {
            let its = if wave.state.is_released() { wave.released_at } else { wave.due.max(now) };
            if its <= at && at - its < window { FatigueWeight::All } else { FatigueWeight::None }
        }
        FatigueMoment::Release { at, delivery } => {
            let its = wave.released_at;
            if !wave.state.is_released() || its.abs_diff(at) >= window {
                FatigueWeight::None
            } else if (its, other) < (at, delivery) {
                FatigueWeight::All
            } else {
                FatigueWeight::Begun
            }
        }
    }
}

/// Whether a message counts. `certain`: nothing will take it out any more, for it has no rule or was looked at when its
/// chunk was first sent.
pub fn message_counts(
    weight: FatigueWeight,
    state: DeliveryState,
    status: Status,
    certain: bool,
) -> bool {
    // what has not been begun is cancelled
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
    fn at_the_preparation_what_is_sent_or_scheduled_in_the_days_before_counts() {
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
            "confirmed, and to be sent at once"
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
    fn at_the_release_the_earlier_one_counts_and_of_two_at_once_one() {
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
            "it is looked at when it is released"
        );
    }

    #[test]
    fn who_got_nothing_and_will_get_nothing_does_not_count() {
        let going = |weight, status, certain| {
            message_counts(weight, DeliveryState::InProgress, status, certain)
        };
        for status in Status::ALL {
            let expected = !matches!(status, Status::Failed | Status::Cancelled | Status::Excluded);
            assert_eq!(going(FatigueWeight::All, status, false), expected, "{status:?}");
            assert_eq!(going(FatigueWeight::Begun, status, true), expected, "{status:?}");
            assert!(!going(FatigueWeight::None, status, true));
        }
        assert!(!going(FatigueWeight::Begun, Status::Pending, false));
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
