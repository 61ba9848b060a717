//! A link that a recipient followed: the request, its token, and the reasons for a refusal.

use std::{net::IpAddr, sync::Arc};

use super::known_deliveries::SentDelivery;
use crate::{
    domain::audience::AddressKey,
    mail::links::{LinkPurpose, TokenHolder},
    store::{StoreError, addresses::SentProof},
};

/// A request to the public listener, as far as it matters for the class of its hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    pub from: IpAddr,
    pub agent: Option<String>,
    /// Bits of `tracking::signs`.
    pub signs: u8,
}

/// Why a link is not followed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No key of this installation signed the token.
    #[error("the link is forged")]
    Forged,
    /// The delivery, its logs or the address are gone, or the link is too old.
    #[error("the link is too old")]
    Expired,
    #[error("{0}")]
    Unavailable(#[from] StoreError),
    #[error("the hit is not recorded")]
    Unrecorded,
}

/// A valid token with its delivery.
#[derive(Debug, Clone)]
pub struct FollowedLink {
    pub sent: Arc<SentDelivery>,
    pub holder: TokenHolder,
    pub purpose: LinkPurpose,
    /// The recipient and the test address, if the message is a proof.
    pub proof: Option<SentProof>,
}

/// Whom an opt-out link is about.
#[derive(Debug, Clone)]
pub enum OptOutLink {
    /// The message is known.
    Message(FollowedLink),
    /// Only the address is kept: the logs or the delivery were removed.
    Kept(AddressKey),
}

impl FollowedLink {
    /// The recipient number of the message. A proof has the number of the recipient whose message
    /// it is.
    pub fn recipient(&self) -> u32 {
        self.proof.map_or(self.holder.recipient, |proof| proof.recipient)
    }

    /// Hits of proofs and previews do not count. Neither do hits of a delivery that is not
    /// confirmed or has lost its tracking log.
    pub fn is_uncounted(&self) -> bool {
        self.holder.is_proof || !self.sent.is_counted
    }
}
