//! The authority to send: what a stored delivery must prove before any chunk of it is sent.

use data_encoding::HEXLOWER;

use super::{
    digest::digest,
    document::{Delivery, Document},
    state::DeliveryState,
};

/// Why a delivery must not be sent, whatever its state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorised {
    #[error("it was altered in Redis")]
    Altered,
    #[error("nobody has confirmed it")]
    Unconfirmed,
    #[error("its digest is not that of its content, its settings and its audience")]
    WrongDigest,
}

/// Checks that the delivery was confirmed, and that its digest is the digest of what is stored.
///
/// The seal of the document was checked when it was read. So its confirmation is genuine.
///
/// # Errors
/// The first proof that is missing.
pub fn check_authority(document: &Document) -> Result<(), Unauthorised> {
    if document.altered.is_some() {
        return Err(Unauthorised::Altered);
    }
    let (Some(plan), Some(_)) = (&document.plan, &document.confirmation) else {
        return Err(Unauthorised::Unconfirmed);
    };
    if plan.audience_sha256.is_empty() {
        // the preparation is older than this field; the seal alone protects its digest
        return Ok(());
    }
    let audience = HEXLOWER.decode(plan.audience_sha256.as_bytes()).unwrap_or_default();
    match digest(&document.definition, &plan.settings, &audience) == plan.digest {
        true => Ok(()),
        false => Err(Unauthorised::WrongDigest),
    }
}

/// Whether a delivery may come into the state `next`. A document that was altered can never be
/// sent: its delivery can only come to rest, be stopped and be deleted.
pub fn may_follow(delivery: &Delivery, next: DeliveryState) -> bool {
    let ends = next.has_ended()
        || next == DeliveryState::Stopping
        || next == DeliveryState::Paused && delivery.state == DeliveryState::Pausing
        || next == DeliveryState::Editing && delivery.state == DeliveryState::Preparing;
    ends || !delivery.document.is_untrusted()
}
