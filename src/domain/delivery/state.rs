//! The states of a delivery and the one function that decides every transition.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    Editing,
    Preparing,
    PreparationFailed,
    Prepared,
    Scheduled,
    StartPending,
    InProgress,
    Pausing,
    Paused,
    Held,
    Stopping,
    Stopped,
    Finished,
    /// A tombstone: the id stays spent.
    Deleted,
}

/// What happens to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Content, audience, sender, schedule or settings change.
    Change,
    Prepare,
    PreparationEnds {
        good: bool,
    },
    /// `due`: a wave is due now.
    Confirm {
        due: bool,
    },
    /// The confirmation of a scheduled delivery is withdrawn.
    Unschedule,
    /// A wave is due.
    Due,
    /// All waves that are due are overdue beyond their grace window.
    Hold,
    /// Waves that are held are released by a person.
    Release,
    /// The first chunk may be sent.
    Start,
    Pause,
    /// Nothing is being attempted any more.
    Quiet,
    /// `started`: its ledgers are there.
    Resume {
        started: bool,
    },
    Stop,
    /// Nothing is pending, attempting or deferred.
    Settled,
    /// Recipients in doubt are released again.
    Reopen,
    Delete,
}

/// A transition that is not allowed; its text is the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a delivery that is {} cannot be {}", state.phrase(), action.participle())]
pub struct IllegalTransition {
    pub state: DeliveryState,
    pub action: Action,
}

/// A word that names no state.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no state of a delivery")]
pub struct UnknownState(String);

impl FromStr for DeliveryState {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<Self, UnknownState> {
        let named = Self::ALL.into_iter().find(|state| state.word() == word);
        named.ok_or_else(|| UnknownState(word.to_owned()))
    }
}

impl DeliveryState {
    pub const ALL: [Self; 14] = [
        Self::Editing,
        Self::Preparing,
        Self::PreparationFailed,
        Self::Prepared,
        Self::Scheduled,
        Self::StartPending,
        Self::InProgress,
        Self::Pausing,
        Self::Paused,
        Self::Held,
        Self::Stopping,
        Self::Stopped,
        Self::Finished,
        Self::Deleted,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Editing => "editing",
            Self::Preparing => "preparing",
            Self::PreparationFailed => "preparation_failed",
            Self::Prepared => "prepared",
            Self::Scheduled => "scheduled",
            Self::StartPending => "start_pending",
            Self::InProgress => "in_progress",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Deleted => "deleted",
        }
    }

    fn phrase(self) -> String {
        self.word().replace('_', " ")
    }

    /// Whether the daemon moves it on by itself, so that the reconciler looks after it.
    pub fn is_moving(self) -> bool {
        matches!(
            self,
            Self::Preparing
                | Self::StartPending
                | Self::InProgress
                | Self::Pausing
                | Self::Stopping
        )
    }

    /// Whether nothing will happen any more unless somebody asks for it.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Stopped | Self::Finished | Self::Deleted)
    }

    /// Whether it has not been released and can be.
    pub fn awaits_release(self) -> bool {
        matches!(self, Self::Editing | Self::Preparing | Self::PreparationFailed | Self::Prepared)
    }

    /// Whether it has been released: there is a sending log.
    pub fn is_released(self) -> bool {
        matches!(
            self,
            Self::StartPending
                | Self::InProgress
                | Self::Pausing
                | Self::Paused
                | Self::Stopping
                | Self::Stopped
                | Self::Finished
        )
    }

    /// The state after `action`.
    ///
    /// # Errors
    /// If the action is not allowed in this state.
    pub fn after(self, action: Action) -> Result<Self, IllegalTransition> {
        use Action as A;
        let next = match (self, action) {
            (
                Self::Editing
                | Self::PreparationFailed
                | Self::Prepared
                | Self::Scheduled
                | Self::Held,
                A::Change,
            ) => Self::Editing,
            (Self::Editing | Self::PreparationFailed | Self::Prepared, A::Prepare) => {
                Self::Preparing
            }
            (Self::Preparing, A::PreparationEnds { good: true }) => Self::Prepared,
            (Self::Preparing, A::PreparationEnds { good: false }) => Self::PreparationFailed,
            (Self::Preparing, A::Stop) => Self::Editing,
            (Self::Prepared, A::Confirm { due: true }) | (Self::Scheduled | Self::Held, A::Due) => {
                Self::StartPending
            }
            (Self::Prepared, A::Confirm { due: false }) => Self::Scheduled,
            (Self::Scheduled, A::Unschedule) => Self::Prepared,
            (Self::Scheduled, A::Hold) => Self::Held,
            (Self::Held, A::Release) => Self::StartPending,
            // of a delivery that is being sent one wave may be held while others go on
            (Self::InProgress | Self::Paused, A::Release) => self,
            (Self::StartPending, A::Start) => Self::InProgress,
            (Self::InProgress, A::Pause) => Self::Pausing,
            (Self::Scheduled | Self::StartPending, A::Pause) | (Self::Pausing, A::Quiet) => {
                Self::Paused
            }
            (Self::Pausing | Self::Paused, A::Resume { started: true }) => Self::InProgress,
            (Self::Paused, A::Resume { started: false }) => Self::Scheduled,
            (
                Self::Scheduled
                | Self::Held
                | Self::StartPending
                | Self::InProgress
                | Self::Pausing
                | Self::Paused,
                A::Stop,
            ) => Self::Stopping,
            (Self::Stopping, A::Quiet) => Self::Stopped,
            (Self::InProgress, A::Settled) => Self::Finished,
            (Self::Finished | Self::InProgress, A::Reopen) => Self::InProgress,
            (
                Self::Editing
                | Self::PreparationFailed
                | Self::Prepared
                | Self::Stopped
                | Self::Finished,
                A::Delete,
            ) => Self::Deleted,
            _ => return Err(IllegalTransition { state: self, action }),
        };
        Ok(next)
    }
}

impl Action {
    fn participle(self) -> &'static str {
        match self {
            Self::Change => "changed",
            Self::Prepare => "prepared",
            Self::PreparationEnds { .. } => "marked as prepared",
            Self::Confirm { .. } => "confirmed",
            Self::Unschedule => "taken off its schedule",
            Self::Due => "released by its schedule",
            Self::Hold => "held",
            Self::Release => "released",
            Self::Start => "started",
            Self::Pause => "paused",
            Self::Quiet => "brought to rest",
            Self::Resume { .. } => "resumed",
            Self::Stop => "stopped",
            Self::Settled => "finished",
            Self::Reopen => "reopened",
            Self::Delete => "deleted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [Action; 19] = [
        Action::Change,
        Action::Prepare,
        Action::PreparationEnds { good: true },
        Action::PreparationEnds { good: false },
        Action::Confirm { due: true },
        Action::Confirm { due: false },
        Action::Unschedule,
        Action::Due,
        Action::Hold,
        Action::Release,
        Action::Start,
        Action::Pause,
        Action::Quiet,
        Action::Resume { started: true },
        Action::Resume { started: false },
        Action::Stop,
        Action::Settled,
        Action::Reopen,
        Action::Delete,
    ];

    #[test]
    fn only_a_prepared_delivery_can_be_confirmed() {
        for state in DeliveryState::ALL {
            for due in [true, false] {
                assert_eq!(
                    state.after(Action::Confirm { due }).is_ok(),
                    state == DeliveryState::Prepared,
                    "{state:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_scheduled_can_be_sent_changed_or_stopped_but_not_confirmed_again() {
        let next = |action| DeliveryState::Scheduled.after(action).ok();
        assert_eq!(next(Action::Due), Some(DeliveryState::StartPending));
        assert_eq!(next(Action::Change), Some(DeliveryState::Editing));
        assert_eq!(next(Action::Unschedule), Some(DeliveryState::Prepared));
        assert_eq!(next(Action::Hold), Some(DeliveryState::Held));
        assert_eq!(next(Action::Stop), Some(DeliveryState::Stopping));
        assert_eq!(next(Action::Pause), Some(DeliveryState::Paused));
        assert_eq!(DeliveryState::Held.after(Action::Release), Ok(DeliveryState::StartPending));
        assert!(
            DeliveryState::Held.after(Action::Unschedule).is_err(),
            "a wave was held: it must be prepared again"
        );
    }

    #[test]
    fn nothing_changes_what_was_released() {
        for state in DeliveryState::ALL.into_iter().filter(|s| s.is_released()) {
            assert!(
                state.after(Action::Change).is_err() && state.after(Action::Prepare).is_err(),
                "{state:?}"
            );
        }
    }

    #[test]
    fn a_deleted_delivery_stays_deleted() {
        assert!(ACTIONS.iter().all(|a| DeliveryState::Deleted.after(*a).is_err()));
    }

    #[test]
    fn every_moving_state_can_be_left_and_refusals_say_why() {
        for state in DeliveryState::ALL.into_iter().filter(|s| s.is_moving()) {
            assert!(
                ACTIONS.iter().any(|a| state.after(*a).is_ok_and(|next| next != state)),
                "{state:?}"
            );
        }
        let refusal =
            DeliveryState::Editing.after(Action::Confirm { due: true }).map_err(|e| e.to_string());
        assert_eq!(refusal, Err("a delivery that is editing cannot be confirmed".to_owned()));
    }

    #[test]
    fn every_state_is_read_as_it_is_written() {
        for state in DeliveryState::ALL {
            assert_eq!(state.word().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
        assert!("failed".parse::<DeliveryState>().is_err());
    }

    #[test]
    fn every_state_can_be_reached_from_the_first_one() {
        let mut reached = std::collections::BTreeSet::from([DeliveryState::Editing]);
        for _ in DeliveryState::ALL {
            let after = |state: &DeliveryState| {
                ACTIONS.iter().filter_map(|action| state.after(*action).ok()).collect::<Vec<_>>()
            };
            let next: Vec<DeliveryState> = reached.iter().flat_map(after).collect();
            reached.extend(next);
        }
        assert!(reached.iter().eq(&DeliveryState::ALL), "{reached:?}");
    }

    #[test]
    fn words_are_those_of_the_api() {
        for state in DeliveryState::ALL {
            assert_eq!(
                serde_json::to_value(state).ok(),
                Some(serde_json::Value::from(state.word()))
            );
        }
    }
}
