//! Locking a mutex without regard to an earlier panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks the mutex. If an earlier holder panicked, the lock is taken all the same.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
