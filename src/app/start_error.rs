//! The error of a start that no restart can mend.

use std::io::ErrorKind;

use super::installation::ForeignKey;
use crate::{
    config::ConfigError,
    mail::smtp::RelayError,
    redis_server::{EmbeddedError, StateError},
    store::ConnectError,
};

/// A setting, or what it names, cannot be used. A person must change it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongSettings(pub String);

/// True if a person must change something before the daemon can start. Otherwise another try may
/// succeed: a port may be taken, a disk may be full, Redis may be away.
pub fn needs_a_person(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<WrongSettings>()
            || cause.is::<ForeignKey>()
            || cause.is::<ConfigError>()
            || cause.is::<RelayError>()
            || matches!(cause.downcast_ref(), Some(ConnectError::Settings(_)))
            || matches!(
                cause.downcast_ref(),
                Some(StateError::NotPrivate { .. } | StateError::BadSecret { .. })
            )
            || matches!(
                cause.downcast_ref(),
                Some(EmbeddedError::Missing { .. } | EmbeddedError::PathTooLong { .. })
            )
            || cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == ErrorKind::PermissionDenied)
    })
}
