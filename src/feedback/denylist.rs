//! The denylist: the addresses that opted out, by a link or by a person.

use super::{
    followed_link::{FollowedLink, LinkError, OptOutLink},
    link_targets::LinkTargets,
};
use crate::{
    deliveries::Refusal,
    domain::{Invalid, audience::AddressKey},
    mail::address_key,
    store::{Redis, addresses::AddressStore},
};

/// Reads and changes the denylist.
#[derive(Clone)]
pub struct Denylist {
    pub addresses: AddressStore,
    pub redis: Redis,
    pub links: LinkTargets,
}

impl Denylist {
    /// Puts the address that got a message on the denylist. `text` is the token of the link.
    ///
    /// A proof went to a test address: that address is meant, not the recipient. Any other link
    /// changes nothing if it is that of a preview, or if the delivery is not confirmed.
    ///
    /// # Errors
    /// [`LinkError::Expired`] if the address can no longer be found; [`LinkError::Unavailable`] if
    /// Redis does not answer.
    pub async fn opt_out(&self, found: &OptOutLink, text: &str) -> Result<(), LinkError> {
        let (address, is_recorded) = match found {
            OptOutLink::Kept(address) => (*address, false),
            OptOutLink::Message(found) => {
                let Some(address) = self.address_of(found, text).await? else { return Ok(()) };
                (address, !found.is_uncounted())
            }
        };
        self.addresses.deny(address).await?;
        if !is_recorded {
            // the record of a hit awaits durability by itself
            self.redis.await_durability().await?;
        }
        Ok(())
    }

    /// The address that got a message. A proof always has one. For any other link the answer is
    /// `None` if it is that of a preview, or if the delivery is not confirmed.
    async fn address_of(
        &self,
        found: &FollowedLink,
        text: &str,
    ) -> Result<Option<AddressKey>, LinkError> {
        if let Some(proof) = found.proof {
            return Ok(Some(proof.address));
        }
        if found.holder.is_proof || found.sent.released_at.is_none() {
            return Ok(None);
        }
        match self.links.message_of(found).await {
            Ok((_, message)) => {
                let address = address_key(&message.recipient.email);
                Ok(Some(address.map_err(|_| LinkError::Expired)?))
            }
            // the logs were removed since the delivery was read
            Err(LinkError::Expired) => self.links.kept_opt_out(text).await.map(Some),
            Err(other) => Err(other),
        }
    }

    /// True if an address is on the denylist.
    ///
    /// # Errors
    /// If `email` is not an address, or Redis does not answer.
    pub async fn is_denied(&self, email: &str) -> Result<bool, Refusal> {
        Ok(self.addresses.denied(&[key_of(email)?]).await?.first().copied().unwrap_or_default())
    }

    /// Puts an address on the denylist. Returns false if the address was there already.
    ///
    /// # Errors
    /// As [`Denylist::is_denied`].
    pub async fn deny(&self, email: &str) -> Result<bool, Refusal> {
        let is_new = self.addresses.deny(key_of(email)?).await?;
        self.redis.await_durability().await?;
        Ok(is_new)
    }

    /// Takes an address off the denylist. Returns false if the address was not there.
    ///
    /// # Errors
    /// As [`Denylist::is_denied`].
    pub async fn allow(&self, email: &str) -> Result<bool, Refusal> {
        let was_there = self.addresses.allow(key_of(email)?).await?;
        self.redis.await_durability().await?;
        Ok(was_there)
    }
}

fn key_of(email: &str) -> Result<AddressKey, Invalid> {
    address_key(email).map_err(|e| Invalid { field: "email".into(), reason: e.to_string() })
}
