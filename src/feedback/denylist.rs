//! TODO head

use super::{
    link_targets::LinkTargets,
    tracked_links::{FollowedLink, LinkError},
};
use crate::{
    deliveries::Refusal,
    send::prepare::{address, key_of},
    store::{Redis, addresses::AddressStore},
};

#[derive(Clone)]
pub struct Denylist {
    pub addresses: AddressStore,
    pub redis: Redis,
    pub links: LinkTargets,
}

impl Denylist {
    /// Puts the recipient of a message on the denylist.
    ///
    /// # Errors
    /// [`LinkError::Expired`] if nobody knows any more who it was.
    pub async fn opt_out(&self, found: &FollowedLink) -> Result<(), LinkError> {
        // of proofs and previews nobody opts out
        if found.holder.is_proof || found.sent.released_at.is_none() {
            return Ok(());
        }
        let (_, letter) = self.links.message_of(found).await?;
        let address = key_of(&letter.recipient.email).ok_or(LinkError::Expired)?;
        self.addresses.deny(address).await?;
        if found.is_uncounted() {
            // no hit is recorded whose durability would be waited for
            self.redis.await_durability().await?;
        }
        Ok(())
    }

    /// Whether an address is on the denylist.
    pub async fn is_denied(&self, email: &str) -> Result<bool, Refusal> {
        Ok(self.addresses.denied(&[address(email)?]).await?.first().copied().unwrap_or_default())
    }

    /// Puts an address on the denylist; false if it was there.
    pub async fn deny(&self, email: &str) -> Result<bool, Refusal> {
        let is_new = self.addresses.deny(address(email)?).await?;
        self.redis.await_durability().await?;
        Ok(is_new)
    }

    /// Takes an address off the denylist; false if it was not there.
    pub async fn allow(&self, email: &str) -> Result<bool, Refusal> {
        let was_there = self.addresses.allow(address(email)?).await?;
        self.redis.await_durability().await?;
        Ok(was_there)
    }
}
