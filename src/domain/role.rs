//! Roles: who may do what.

use serde::{Deserialize, Serialize};

/// What a principal may do. If a role is missing, the action is refused and the answer names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Create, change and prepare deliveries; delete them before their release; previews; proofs.
    PrepareDeliveries,
    /// All that `PrepareDeliveries` may do; approve, confirm, unschedule, release, pause, resume,
    /// stop, settle; retry chunks; set and end recurrences.
    StartDeliveries,
    /// Logs, audit log, denylist, queues, tokens, store; delete deliveries after their release.
    Administration,
    /// States, definitions, counts, KPIs and statistics of deliveries; the hold of the store.
    /// Read-only.
    Monitoring,
    /// Everything that can be read, logs and audit log included; changes nothing.
    Auditor,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [
        Self::PrepareDeliveries,
        Self::StartDeliveries,
        Self::Administration,
        Self::Monitoring,
        Self::Auditor,
    ];

    /// The role with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }

    /// The word used in tokens, settings and errors.
    pub fn word(self) -> &'static str {
        match self {
            Self::PrepareDeliveries => "prepare_deliveries",
            Self::StartDeliveries => "start_deliveries",
            Self::Administration => "administration",
            Self::Monitoring => "monitoring",
            Self::Auditor => "auditor",
        }
    }

    /// Whether this role allows an action that needs the role `needed`.
    pub fn covers(self, needed: Self) -> bool {
        use Role::{Monitoring, PrepareDeliveries, StartDeliveries};
        self == needed
            || needed == Monitoring
            || (self == StartDeliveries && needed == PrepareDeliveries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_includes_prepare_but_not_the_other_way_round() {
        assert!(Role::StartDeliveries.covers(Role::PrepareDeliveries));
        assert!(!Role::PrepareDeliveries.covers(Role::StartDeliveries));
        assert!(!Role::Administration.covers(Role::StartDeliveries));
        assert!(!Role::Monitoring.covers(Role::Administration));
        assert!(!Role::Auditor.covers(Role::Administration));
        assert!(Role::ALL.iter().all(|role| Role::from_word(role.word()) == Some(*role)));
        assert!(Role::PrepareDeliveries.covers(Role::Monitoring));
    }
}
