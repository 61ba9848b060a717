//! Fatigue: how many messages an address may get within some days, and which of the others count.
//!
//! The instant of a message is the release of its wave; before that, when the wave is due. At the preparation all count that
//! are sent or scheduled within the days before it. At the release only those of waves that are released do, the earlier
//! ones first: so of two deliveries that are released at the same time one gives way, and not both.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{id::DeliveryId, ledger::Status, state::State, waves::Wave};

/// An entry of the index takes so many bytes: six of the address' digest, which preparation u32, which recipient of it u32.
pub const ENTRY_BYTES: usize = 14;

/// At most so many messages to an address within so many days.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fatigue {
    /// 1 to 1000.
    pub messages: u32,
    /// Above 0, at most 366.
    pub days: f64,
}

impl Fatigue {
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
    Rule(Fatigue),
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
pub enum Moment<'a> {
    /// It is being prepared, and goes at `at` at the earliest.
    Preparation { at: u32, now: u32 },
    /// Its wave was released.
    Release { at: u32, delivery: &'a DeliveryId },
}

/// Which messages of another wave count against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    None,
    /// Those that were sent, or that nothing but their relay keeps from being sent.
    Begun,
    /// Those that may yet be sent, too.
    All,
}

/// Whether messages of a delivery in this state count at all: it is scheduled or was released.
pub fn counts(state: State) -> bool {
    !matches!(state, State::Editing | State::Preparing | State::PreparationFailed | State::Prepared | State::Deleted)
}

/// How a wave of the delivery `other` counts.
pub fn weight(rule: &Fatigue, moment: Moment<'_>, other: &DeliveryId, wave: &Wave) -> Weight {
    let window = rule.window_s();
    match moment {
        Moment::Preparation { at, now } => {
            let its = if wave.state.is_released() { wave.released_at } else { wave.due.max(now) };
            if its <= at && at - its < window { Weight::All } else { Weight::None }
        }
        Moment::Release { at, delivery } => {
            let its = wave.released_at;
            if !wave.state.is_released() || its.abs_diff(at) >= window {
                Weight::None
            } else if (its, other) < (at, delivery) {
                Weight::All
            } else {
                Weight::Begun
            }
        }
    }
}

/// Whether a message counts. `certain`: nothing will take it out any more, for it has no rule or was looked at when its
/// chunk was first sent.
pub fn message_counts(weight: Weight, state: State, status: Status, certain: bool) -> bool {
    // what has not been begun is cancelled
    let stopping = matches!(state, State::Stopping | State::Stopped | State::Failed);
    match (weight, status) {
        (Weight::None, _) | (_, Status::Failed | Status::Cancelled | Status::Excluded) => false,
        (_, Status::Attempting | Status::Sent | Status::InDoubt) => true,
        (_, Status::Deferred) => !stopping,
        (Weight::All, Status::Pending) => !stopping,
        (Weight::Begun, Status::Pending) => certain && !stopping,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::waves::WaveState;

    const DAY: u32 = 86_400;
    const RULE: Fatigue = Fatigue { messages: 1, days: 2.0 };

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
        assert_eq!((&entry[..6], &entry[6..]), (&key("ann@example.org").rest()[..], &[0, 0, 0, 7, 0, 0, 0, 9][..]));
    }

    #[test]
    fn at_the_preparation_what_is_sent_or_scheduled_in_the_days_before_counts() {
        let now = 100 * DAY;
        let at = |at| move |wave: Wave| weight(&RULE, Moment::Preparation { at, now }, &id(1), &wave);
        let now_at = at(now);
        assert_eq!(now_at(released(now - 2 * DAY)), Weight::None, "exactly so many days ago");
        assert_eq!(now_at(released(now - 2 * DAY + 1)), Weight::All);
        assert_eq!(now_at(released(now)), Weight::All);
        assert_eq!(now_at(Wave::waiting(0, 1)), Weight::All, "confirmed, and to be sent at once");
        assert_eq!(now_at(Wave::waiting(now + 1, 1)), Weight::None, "scheduled for later");
        assert_eq!(now_at(Wave::waiting(now - 10, 1)), Weight::All, "overdue: it goes now at the earliest");
        assert_eq!(at(now + 3 * DAY)(Wave::waiting(now + 2 * DAY, 1)), Weight::All);
        assert_eq!(at(now + 3 * DAY)(Wave::waiting(now + DAY, 1)), Weight::None);
        assert_eq!(at(now + 3 * DAY)(released(now)), Weight::None);
    }

    #[test]
    fn at_the_release_the_earlier_one_counts_and_of_two_at_once_one() {
        let at = 100 * DAY;
        let (mine, smaller, larger) = (id(5), id(4), id(6));
        let of = |other: &DeliveryId, wave: Wave| weight(&RULE, Moment::Release { at, delivery: &mine }, other, &wave);
        assert_eq!(of(&larger, released(at - 1)), Weight::All);
        assert_eq!(of(&smaller, released(at)), Weight::All);
        assert_eq!(of(&larger, released(at)), Weight::Begun);
        assert_eq!(of(&smaller, released(at + 1)), Weight::Begun);
        assert_eq!(of(&smaller, released(at + 2 * DAY)), Weight::None);
        assert_eq!(of(&smaller, released(at - 2 * DAY)), Weight::None);
        assert_eq!(of(&smaller, Wave::waiting(at - 1, 1)), Weight::None, "it is looked at when it is released");
    }

    #[test]
    fn who_got_nothing_and_will_get_nothing_does_not_count() {
        let going = |weight, status, certain| message_counts(weight, State::InProgress, status, certain);
        for status in Status::ALL {
            let expected = !matches!(status, Status::Failed | Status::Cancelled | Status::Excluded);
            assert_eq!(going(Weight::All, status, false), expected, "{status:?}");
            assert_eq!(going(Weight::Begun, status, true), expected, "{status:?}");
            assert!(!going(Weight::None, status, true));
        }
        assert!(!going(Weight::Begun, Status::Pending, false));
        assert!(!message_counts(Weight::All, State::Stopping, Status::Pending, true));
        assert!(message_counts(Weight::All, State::Stopped, Status::Sent, true));
        assert!(counts(State::Scheduled) && counts(State::Finished) && !counts(State::Prepared) && !counts(State::Deleted));
    }
}
