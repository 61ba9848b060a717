//! The limits of a relay: connections, and messages per second.

use super::{connection_slots::ConnectionSlot, relay::Relay};

impl Relay {
    /// Changes how many connections this daemon may use. A surplus in use ends with its user.
    pub fn allow(&self, connections: usize) {
        self.0.slots.set_limit(connections);
    }

    /// How many connections this daemon may use now.
    pub fn allowed(&self) -> usize {
        self.0.slots.limit()
    }

    /// Whether a slot for a connection is free.
    pub(super) fn has_free(&self) -> bool {
        self.0.slots.has_free()
    }

    /// The relay's name and its limit in messages per second, if it has one.
    ///
    /// The limit holds for all daemons together.
    pub fn rate(&self) -> Option<(&str, f64)> {
        (self.0.messages_per_second > 0.0)
            .then_some((self.0.name.as_str(), self.0.messages_per_second))
    }

    /// A slot for a connection, unless all are in use.
    pub(super) fn try_slot(&self) -> Option<ConnectionSlot> {
        self.0.slots.try_acquire()
    }

    /// Slots in use: connections in use, and those that are being opened.
    pub(super) fn in_use(&self) -> usize {
        self.0.slots.in_use()
    }
}
