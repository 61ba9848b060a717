//! The handles that every sender of mail needs.

use super::{connection_permits::ConnectionPermits, throttles::Throttles};
use crate::mail::{MessageMaker, smtp::Relays};

/// Relays, limits and the maker of messages. Cheap to clone.
#[derive(Clone)]
pub struct MailOut {
    pub relays: Relays,
    pub permits: ConnectionPermits,
    pub throttles: Throttles,
    pub messages: MessageMaker,
}
