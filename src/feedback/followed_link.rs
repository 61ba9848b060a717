//! A link that a recipient followed: the request, its token, and the reasons for a refusal.

use std::{net::IpAddr, sync::Arc};

use super::known_deliveries::SentDelivery;
use crate::{
    mail::links::{LinkPurpose, TokenHolder},
    store::StoreError,
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
    /// The delivery is gone, or was released too long ago.
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
}

impl FollowedLink {
    /// Hits of proofs and previews do not count.
    pub fn is_uncounted(&self) -> bool {
        self.holder.is_proof || !self.sent.is_counted
    }
}
