//! The actions that move a delivery from state to state.

/// An event in the life of a delivery: somebody asks for something, or a step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The definition or the audience changes.
    Change,
    Prepare,
    /// The preparation ends. `good`: it found no error.
    PreparationEnds {
        good: bool,
    },
    /// A person or a job confirms. `due`: a wave is due now.
    Confirm {
        due: bool,
    },
    /// The confirmation of a scheduled delivery is withdrawn.
    Unschedule,
    /// A wave is due.
    Due,
    /// Every due wave is overdue.
    Hold,
    /// A person releases held waves.
    Release,
    /// The ledgers exist, and the first chunks may be sent.
    Start,
    Pause,
    /// Nothing is being attempted any more.
    AtRest,
    /// `started`: the ledgers exist.
    Resume {
        started: bool,
    },
    Stop,
    /// A full recount found no recipient that is pending, attempting or deferred.
    Finish,
    /// Recipients in doubt are sent to again.
    Reopen,
    Delete,
}

impl Action {
    pub const ALL: [Self; 19] = [
        Self::Change,
        Self::Prepare,
        Self::PreparationEnds { good: true },
        Self::PreparationEnds { good: false },
        Self::Confirm { due: true },
        Self::Confirm { due: false },
        Self::Unschedule,
        Self::Due,
        Self::Hold,
        Self::Release,
        Self::Start,
        Self::Pause,
        Self::AtRest,
        Self::Resume { started: true },
        Self::Resume { started: false },
        Self::Stop,
        Self::Finish,
        Self::Reopen,
        Self::Delete,
    ];

    /// Completes the sentence "a delivery that is ... cannot be ...".
    pub(super) fn participle(self) -> &'static str {
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
            Self::AtRest => "brought to rest",
            Self::Resume { .. } => "resumed",
            Self::Stop => "stopped",
            Self::Finish => "finished",
            Self::Reopen => "reopened",
            Self::Delete => "deleted",
        }
    }
}
