//! How many connections and messages a relay may have.

use super::{connection_slots::ConnectionSlot, relay::Relay};

impl Relay {
    /// So many connections from now on, beside those that are in use.
    pub fn allow(&self, connections: usize) {
        self.0.permits.allow(connections);
    }

    /// So many there may be now.
    pub fn allowed(&self) -> usize {
        self.0.permits.allowed()
    }

    /// Whether a permit is free.
    pub(in crate::mail) fn has_free(&self) -> bool {
        self.0.permits.has_free()
    }

    /// How many messages a second it may get, if there is a limit.
    pub fn rate(&self) -> Option<(&str, f64)> {
        (self.0.messages_per_second > 0.0)
            .then_some((self.0.name.as_str(), self.0.messages_per_second))
    }

    /// A permit for a connection, unless all are in use.
    pub(in crate::mail) fn permit(&self) -> Option<ConnectionSlot> {
        self.0.permits.try_acquire()
    }

    /// Connections in use, and those about to be.
    pub(in crate::mail) fn in_use(&self) -> usize {
        self.0.permits.in_use()
    }
}
