//! The states of a delivery and the function whose rules every transition follows.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::action::Action;

/// Where a delivery is in its life. `docs/reference/states.md` lists the transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It can be changed, and has no valid preparation.
    Editing,
    /// The preparation is running.
    Preparing,
    /// The preparation found errors.
    PreparationFailed,
    /// The digest is fixed. The delivery waits for a confirmation.
    Prepared,
    /// It is confirmed, and no wave is due yet.
    Scheduled,
    /// A wave is due, and the ledgers are being made.
    StartPending,
    /// Its chunks are sent, or wait for retries or later waves.
    InProgress,
    /// Nothing new is started. Running transactions end and are recorded.
    Pausing,
    /// Nothing is sent until it is resumed.
    Paused,
    /// Every due wave is overdue. The delivery waits for a person, or for a later wave that is due.
    Held,
    /// Nothing new is started. The rest is cancelled.
    Stopping,
    /// It was stopped for good.
    Stopped,
    /// No recipient is pending, attempting or deferred. Some may be in doubt.
    Finished,
    /// Its audience and its logs are gone. Its id can never be used again.
    Deleted,
}

/// A transition that is not allowed. Its text is the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a delivery that is {} cannot be {}", state.phrase(), action.participle())]
pub struct IllegalTransition {
    pub state: DeliveryState,
    pub action: Action,
}

/// A word that is not the name of a state.
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
    /// All states, in the order of a delivery's life.
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

    /// The word used in the API, in logs and in the store.
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

    /// The word as part of a sentence.
    fn phrase(self) -> String {
        self.word().replace('_', " ")
    }

    /// Whether the daemon moves the delivery on by itself. The reconciler looks after such
    /// deliveries. A scheduled or held one is not among them: a due wave moves it on.
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

    /// Whether the delivery is finished, stopped or deleted.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Stopped | Self::Finished | Self::Deleted)
    }

    /// Whether the delivery is not confirmed yet and still can be.
    pub fn awaits_confirmation(self) -> bool {
        matches!(self, Self::Editing | Self::Preparing | Self::PreparationFailed | Self::Prepared)
    }

    /// Whether a wave may have been released, and the delivery is not deleted. A delivery that was
    /// paused or stopped before its first release counts, too. One that was resumed before its
    /// start does not count, although it may have a released wave.
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
    /// The action is not allowed in this state.
    pub fn after(self, action: Action) -> Result<Self, IllegalTransition> {
        let next = match action {
            Action::Change | Action::Prepare | Action::PreparationEnds { .. } => {
                self.after_preparing(action)
            }
            Action::Confirm { .. }
            | Action::Unschedule
            | Action::Due
            | Action::Hold
            | Action::Release
            | Action::Start => self.after_releasing(action),
            Action::Pause
            | Action::AtRest
            | Action::Resume { .. }
            | Action::Stop
            | Action::Finish
            | Action::Reopen
            | Action::Delete => self.after_operating(action),
        };
        next.ok_or(IllegalTransition { state: self, action })
    }

    /// The transitions of a change and of a preparation.
    fn after_preparing(self, action: Action) -> Option<Self> {
        match (self, action) {
            (
                Self::Editing
                | Self::PreparationFailed
                | Self::Prepared
                | Self::Scheduled
                | Self::Held,
                Action::Change,
            ) => Some(Self::Editing),
            (Self::Editing | Self::PreparationFailed | Self::Prepared, Action::Prepare) => {
                Some(Self::Preparing)
            }
            (Self::Preparing, Action::PreparationEnds { good: true }) => Some(Self::Prepared),
            (Self::Preparing, Action::PreparationEnds { good: false }) => {
                Some(Self::PreparationFailed)
            }
            _ => None,
        }
    }

    /// The transitions of the confirmation, of the waves and of the start.
    fn after_releasing(self, action: Action) -> Option<Self> {
        match (self, action) {
            (Self::Prepared, Action::Confirm { due: true })
            | (Self::Scheduled | Self::Held, Action::Due)
            | (Self::Held, Action::Release) => Some(Self::StartPending),
            (Self::Prepared, Action::Confirm { due: false }) => Some(Self::Scheduled),
            (Self::Scheduled, Action::Unschedule) => Some(Self::Prepared),
            (Self::Scheduled, Action::Hold) => Some(Self::Held),
            // A single wave may be held while the other waves are sent.
            (Self::InProgress | Self::Paused, Action::Release) => Some(self),
            (Self::StartPending, Action::Start) => Some(Self::InProgress),
            _ => None,
        }
    }

    /// The transitions that a person or the end of the work causes.
    fn after_operating(self, action: Action) -> Option<Self> {
        match (self, action) {
            (Self::InProgress, Action::Pause) => Some(Self::Pausing),
            (Self::Scheduled | Self::StartPending, Action::Pause)
            | (Self::Pausing, Action::AtRest) => Some(Self::Paused),
            (Self::Pausing | Self::Paused, Action::Resume { started: true }) => {
                Some(Self::InProgress)
            }
            (Self::Paused, Action::Resume { started: false }) => Some(Self::Scheduled),
            (Self::Preparing, Action::Stop) => Some(Self::Editing),
            (
                Self::Scheduled
                | Self::Held
                | Self::StartPending
                | Self::InProgress
                | Self::Pausing
                | Self::Paused,
                Action::Stop,
            ) => Some(Self::Stopping),
            (Self::Stopping, Action::AtRest) => Some(Self::Stopped),
            (Self::InProgress, Action::Finish) => Some(Self::Finished),
            (Self::Finished | Self::InProgress, Action::Reopen) => Some(Self::InProgress),
            (
                Self::Editing
                | Self::PreparationFailed
                | Self::Prepared
                | Self::Stopped
                | Self::Finished,
                Action::Delete,
            ) => Some(Self::Deleted),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_scheduled_delivery_can_be_sent_changed_or_stopped() {
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
            "a delivery that was held cannot become prepared without a new preparation"
        );
    }

    #[test]
    fn a_released_delivery_cannot_be_changed() {
        for state in DeliveryState::ALL.into_iter().filter(|s| s.is_released()) {
            assert!(
                state.after(Action::Change).is_err() && state.after(Action::Prepare).is_err(),
                "{state:?}"
            );
        }
    }

    #[test]
    fn a_deleted_delivery_stays_deleted() {
        assert!(Action::ALL.iter().all(|a| DeliveryState::Deleted.after(*a).is_err()));
    }

    #[test]
    fn every_moving_state_can_be_left() {
        for state in DeliveryState::ALL.into_iter().filter(|s| s.is_moving()) {
            assert!(
                Action::ALL.iter().any(|a| state.after(*a).is_ok_and(|next| next != state)),
                "{state:?}"
            );
        }
    }

    #[test]
    fn a_refusal_says_why() {
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
                Action::ALL
                    .iter()
                    .filter_map(|action| state.after(*action).ok())
                    .collect::<Vec<_>>()
            };
            let next: Vec<DeliveryState> = reached.iter().flat_map(after).collect();
            reached.extend(next);
        }
        assert!(reached.iter().eq(&DeliveryState::ALL), "{reached:?}");
    }
}
