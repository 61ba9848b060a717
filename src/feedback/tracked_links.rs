//! What comes back from recipients: opens, clicks, mirror pages and opt-outs are recorded before they are answered.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    domain::tracking::TrackedLink,
    mail::links::{LinkPurpose, TokenHolder},
    store::{StoreError, tracking::PreparationRef},
};

/// What is known of a delivery is asked again after so long.
pub(super) const FRESH: Duration = Duration::from_secs(60);
/// Deliveries that are remembered at the most.
pub(super) const KEPT: usize = 1000;
/// A request to the public listener, as far as it matters.
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
    /// Nobody signed it.
    #[error("the link is forged")]
    Forged,
    /// Its delivery is gone, or was released too long ago.
    #[error("the link is too old")]
    Expired,
    #[error("{0}")]
    Unavailable(#[from] StoreError),
    #[error("it is not recorded")]
    Unrecorded,
}

/// What a good token stands for.
#[derive(Debug, Clone)]
pub struct FollowedLink {
    pub sent: Arc<SentDelivery>,
    pub holder: TokenHolder,
    pub purpose: LinkPurpose,
}

impl FollowedLink {
    /// What comes back of proofs and previews counts for nothing.
    pub fn is_uncounted(&self) -> bool {
        self.holder.is_proof || !self.sent.is_counted
    }
}

/// A delivery as its links need it.
#[derive(Debug)]
pub struct SentDelivery {
    pub mailing: PreparationRef,
    pub links: Vec<TrackedLink>,
    /// None if it is a preview. With waves it is the last one's time: links age from then on.
    pub released_at: Option<Timestamp>,
    /// Whether its hits are recorded: it was released, and its tracking log is not closed.
    pub(super) is_counted: bool,
    pub(super) known_at: Instant,
}

/// Deliveries that links led to lately, by the number of their preparation.
#[derive(Clone, Default)]
pub struct KnownDeliveries(Arc<Mutex<HashMap<u32, Arc<SentDelivery>>>>);

impl KnownDeliveries {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<SentDelivery>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
