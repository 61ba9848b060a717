//! TODO head

use super::{connection_permits::ConnectionPermits, throttles::Throttles};
use crate::mail::{MessageMaker, smtp::Relays};

#[derive(Clone)]
pub struct MailOut {
    pub relays: Relays,
    pub permits: ConnectionPermits,
    pub throttles: Throttles,
    pub messages: MessageMaker,
}
