//! Who changes a delivery, and whether the delivery is the one that he means.

use super::refusal::Refusal;
use crate::domain::{Principal, delivery::Delivery};

/// Who changes a delivery.
#[derive(Debug, Clone, Copy)]
pub enum Actor<'a> {
    /// A principal, by a request. Its unit and its precondition hold.
    Principal(&'a Principal),
    /// The daemon itself, with its name in the audit log.
    Daemon(&'a str),
}

impl<'a> From<&'a Principal> for Actor<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self::Principal(principal)
    }
}

impl<'a> From<&'a str> for Actor<'a> {
    fn from(name: &'a str) -> Self {
        Self::Daemon(name)
    }
}

impl<'a> Actor<'a> {
    /// The name in the audit log.
    pub fn name(self) -> &'a str {
        match self {
            Self::Principal(principal) => &principal.name,
            Self::Daemon(name) => name,
        }
    }

    /// Checks that the delivery exists for the actor, and that its revision is the expected one.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] outside of the unit; [`Refusal::StaleRevision`].
    pub fn check(self, delivery: &Delivery) -> Result<(), Refusal> {
        match self {
            Self::Principal(principal) if !principal.sees(delivery) => Err(Refusal::NotFound),
            Self::Principal(principal) if !principal.expects(delivery.revision) => {
                Err(Refusal::StaleRevision(delivery.revision))
            }
            _ => Ok(()),
        }
    }
}
